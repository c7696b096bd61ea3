"""What the checks of a run's heat maps found, as the run keeps it: checks.json as a record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_jax.explain.overlap import FieldOverlap
from cxr_jax.explain.verdict import Line, Verdict
from cxr_jax.runs.files import write_json
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.records import fields_to_json, read_record
from cxr_jax.terminal import as_typed

SCHEMA_VERSION = 1
"""Version of checks.json; raised when an older reader would misread it."""

Scores = dict[str, dict[str, tuple[float, ...]]]
"""Mean probabilities at every share of pixels, by kind of curve and by what put the pixels in order."""


@dataclass(frozen=True)
class CascadeRecord:
    """How maps change while the network is drawn anew, level by level from the classifier down.

    Attributes:
        levels: the stage that is drawn anew at each level, together with all before it.
        rank_correlation: with the map of the trained network, a number a level.
        similarity: structural, the same.
        blank: share of maps that are blank, by level.
        other_images: mean rank correlation of trained maps of different images.
    """

    levels: tuple[str, ...]
    rank_correlation: Line
    similarity: Line
    blank: tuple[float, ...]
    other_images: float


@dataclass(frozen=True)
class CurvesRecord:
    """Insertion and deletion curves: the shares of pixels that they are taken at, and the means of each class."""

    shares: tuple[float, ...]
    by_class: dict[str, Scores]


@dataclass(frozen=True)
class MapChecks:
    """What the checks of one run's maps found.

    Attributes:
        step: iteration of the checkpoint whose maps were checked.
        stage: where in the network the maps are taken.
        explained: images by the class whose evidence was explained.
        images: how many maps were checked.
        groups: of how many groups they are.
        blank: maps that mark nothing, which are left out.
        checks: every check with its verdict.
        cascade: None where too few maps were left.
        curves: None where too few maps were left.
        date: when the checks were made, in ISO's form.
        architecture: of the network.
        files: the images.
        field_overlap: how the coarse lung field lies on the lung masks; None where there are no masks.
    """

    step: int
    stage: str
    explained: dict[str, int]
    images: int
    groups: int
    blank: int
    checks: tuple[Verdict, ...]
    cascade: CascadeRecord | None
    curves: CurvesRecord | None
    date: str = ""
    architecture: str = ""
    files: tuple[str, ...] = ()
    field_overlap: FieldOverlap | None = None

    def as_json(self) -> dict[str, Any]:
        """Returns the content of checks.json; without masks it is that of earlier versions."""
        content = {"schema_version": SCHEMA_VERSION, **fields_to_json(self)}
        if self.field_overlap is None:
            del content["field_overlap"]
        return content


def write_checks(run: RunFolder, checks: MapChecks) -> Path:
    """Stores findings in place of older ones, and returns where; UserError if they cannot be written."""
    write_json(run.explanation_checks, checks.as_json())
    return run.explanation_checks


def read_checks(run: RunFolder) -> MapChecks | None:
    """Returns the findings of a run, or None if its maps were not checked.

    Raises:
        UserError: they are damaged, or another version wrote them.
    """
    if not run.explanation_checks.is_file():
        return None
    advice = f"run {as_typed('cxr-jax', 'explain', run.path, '--check')}"
    return read_record(run.explanation_checks, MapChecks, version=SCHEMA_VERSION, where="checks", advice=advice)
