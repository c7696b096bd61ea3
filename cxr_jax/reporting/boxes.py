"""What the report says of heat maps that were held against boxes of readers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cxr_jax.evaluation.localisation import Kind, Localisation, Part, Score, read_localisation
from cxr_jax.runs.folder import RunFolder

TOLD: dict[Kind, tuple[float, ...]] = {"IoBB": (0.1, 0.25, 0.5), "IoU": (0.1, 0.3, 0.5)}
"""Thresholds that are told; the record has all of the paper's."""


@dataclass(frozen=True)
class ToldBoxes:
    """One record, and the page of some maps beside it; None without one."""

    localisation: Localisation
    picture: Path | None


def boxes_of(run: RunFolder) -> tuple[ToldBoxes, ...]:
    """Returns what `explain RUN --boxes` left, of the run's own images and of those of other data, by name.

    Raises:
        UserError: a record is damaged or of another version.
    """
    own = sorted(run.path.glob("localisation*.json"))
    found = []
    for path in [*own, *sorted(run.external.glob("*/localisation*.json"))]:
        localisation = read_localisation(path)
        picture = picture_beside(run, path, localisation)
        found.append(ToldBoxes(localisation, picture if picture.is_file() else None))
    return tuple(found)


def picture_beside(run: RunFolder, record: Path, localisation: Localisation) -> Path:
    """Returns where the page of some maps lies that belongs to a record."""
    folder = run.explanations if record.parent == run.path else record.parent
    return folder / ("boxes-val.png" if localisation.images_of == "val" else "boxes.png")


def told_scores(part: Part) -> list[tuple[str, Score]]:
    """Returns the rules that are told of one finding, each with what it gave."""
    limits = [(kind, limit) for kind, values in TOLD.items() for limit in values]
    told = [(f"{kind} > {limit:g}", part.score(kind, limit)) for kind, limit in limits]
    return [*told, ("pointing", part.score("pointing"))]
