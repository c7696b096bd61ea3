"""How the images of a run were taken, what goes with errors, and what needs no network: quality.json as a record."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_jax.errors import UserError
from cxr_jax.evaluation.baselines import Baseline
from cxr_jax.evaluation.quality_audit import ERROR_KINDS, ErrorAudit, Quantiles
from cxr_jax.runs.files import write_json
from cxr_jax.runs.records import fields_to_json, read_record

SCHEMA_VERSION = 1
"""Version of quality.json."""


@dataclass(frozen=True)
class MeasureDefinition:
    """What a measure is called, its unit, and what it is."""

    title: str
    unit: str
    definition: str


@dataclass(frozen=True)
class SplitQuality:
    """The images of one split: how many there are, how many lie outside the training images' range, and quantiles."""

    images: int
    outside: int
    measures: dict[str, Quantiles]


@dataclass(frozen=True)
class Range:
    """The lowest and highest value of a measure that is usual among the training images; None on an open side."""

    low: float | None
    high: float | None


@dataclass(frozen=True)
class ImageQuality:
    """What is known of the images of a run without its network.

    Attributes:
        measures: what was measured.
        splits: train, val and test.
        ranges: what is usual among the training images, by measure.
        audit: `false_positives` and `false_negatives` beside right calls on test.
        baselines: scores that need no network; None where a measure is the same for all training images.
    """

    measures: dict[str, MeasureDefinition]
    splits: dict[str, SplitQuality]
    ranges: dict[str, Range]
    audit: dict[str, ErrorAudit]
    baselines: dict[str, Baseline | None]

    def as_json(self) -> dict[str, Any]:
        """Returns the content of quality.json."""
        return {"schema_version": SCHEMA_VERSION, **fields_to_json(self)}


def write_quality(path: str | Path, quality: ImageQuality) -> None:
    """Writes quality.json atomically; UserError as in `write_json`."""
    write_json(path, quality.as_json())


def read_quality(path: str | Path) -> ImageQuality:
    """Reads quality.json.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    advice = "evaluate the run again"
    quality = read_record(path, ImageQuality, version=SCHEMA_VERSION, where="quality", advice=advice)
    if missing := [kind for kind in ERROR_KINDS if kind not in quality.audit]:
        raise UserError(f"{path} is damaged (quality.audit has no {missing[0]}): {advice}")
    return quality
