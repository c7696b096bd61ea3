"""What the training images look like, as ranges and a mean picture, and what about a new image is unlike them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from cxr_jax.data.quality.measures import MEASURES, VERSION, QualityMeasure, measure_quality
from cxr_jax.data.quality.table import THUMBNAIL_SIDE, QualityTable, thumbnail
from cxr_jax.runs.files import write_json
from cxr_jax.runs.records import read_record

TAIL = 0.002
"""Share of the training images beyond an end of a range, so that a few freaks among them do not widen it."""

LIKENESS = "likeness"
"""Name among the ranges of the correlation with the mean picture."""

_LIKENESS = QualityMeasure(
    "Likeness", "", "correlation, at 32 pixels, with the mean of the training images, -1 to 1", ("low",)
)

Range = tuple[float | None, float | None]


def told_measure(name: str) -> QualityMeasure:
    """Returns what a reader must know of a measure that has a range."""
    return _LIKENESS if name == LIKENESS else MEASURES[name]


@dataclass(frozen=True)
class QualityReference:
    """The usual range of every measure on the training images, and their mean picture.

    The mean picture is made of radiographs: it stays in the run folder and is never published.
    """

    ranges: dict[str, Range]  # lowest and highest usual value, None where an end does not matter; both are usual
    mean_picture: Float64[np.ndarray, "32 32"]  # mean of the standardised thumbnails, of mean 0 and length 1
    images: int  # of training

    def as_json(self) -> dict[str, Any]:
        """Returns the content of quality_reference.json."""
        return {
            "schema_version": VERSION,
            "images": self.images,
            "tail": TAIL,
            "ranges": {name: {"low": low, "high": high} for name, (low, high) in self.ranges.items()},
            "mean_picture": np.round(self.mean_picture, 5).tolist(),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> QualityReference:
        """Returns the reference that `as_json` gave `value` for; KeyError, TypeError or ValueError where it did not."""
        ranges = {name: (_end(ends["low"]), _end(ends["high"])) for name, ends in dict(value["ranges"]).items()}
        if unknown := set(ranges) - {*MEASURES, LIKENESS}:
            raise ValueError(f"no measure is called {sorted(unknown)[0]}")
        mean_picture = np.array(value["mean_picture"], np.float64)
        if mean_picture.shape != (THUMBNAIL_SIDE, THUMBNAIL_SIDE) or not np.isfinite(mean_picture).all():
            raise ValueError("the mean picture is not 32 x 32 numbers")
        return cls(ranges, mean_picture, int(value["images"]))

    @classmethod
    def of(cls, training: QualityTable) -> QualityReference:
        """Returns the reference of the training images.

        Ranges leave out `TAIL` of them at an end, and none where they are fewer than its inverse.
        """
        mean_picture = _standardised(_standardised(training.thumbnails).mean(axis=0)[None])[0]
        # First among the remarks: what is no chest at all makes the others beside the point.
        columns = {LIKENESS: _likeness(training.thumbnails, mean_picture), **training.columns}
        ranges = {
            name: _range(values, told_measure(name).suspicious)
            for name, values in columns.items()
            if told_measure(name).suspicious
        }
        return cls(ranges, mean_picture, len(training.thumbnails))

    @classmethod
    def of_ranges(cls, ranges: dict[str, Range], images: int) -> QualityReference:
        """Returns a reference of ranges alone, as a bundle has them: likeness, which needs the picture, is left out."""
        known = {name: ends for name, ends in ranges.items() if name in MEASURES}
        return cls(known, np.zeros((THUMBNAIL_SIDE, THUMBNAIL_SIDE)), images)

    def outside(self, table: QualityTable) -> dict[str, Bool[np.ndarray, " N"]]:
        """Returns, for every range by name, which images of the table lie outside it."""
        columns = {**table.columns, LIKENESS: _likeness(table.thumbnails, self.mean_picture)}
        return {
            name: (columns[name] < (-np.inf if low is None else low))
            | (columns[name] > (np.inf if high is None else high))
            for name, (low, high) in self.ranges.items()
        }

    def remarks(self, grey: UInt8[np.ndarray, "H W"]) -> dict[str, str]:
        """Returns what about a decoded image is unlike the training images: a phrase by measure; none if nothing is.

        An image can resemble their mean picture less than almost all of them and be a chest radiograph all the same,
        of an adult or of another machine. An upside-down chest can pass: it has lungs on both sides too.
        """
        values = {name: np.array([value]) for name, value in measure_quality(grey).items()}
        table = QualityTable(values, thumbnail(grey)[None])
        values[LIKENESS] = _likeness(table.thumbnails, self.mean_picture)
        return {name: self._remark(name, float(values[name][0])) for name, out in self.outside(table).items() if out[0]}

    def _remark(self, name: str, value: float) -> str:
        low, high = self.ranges[name]
        if name == LIKENESS:
            return (
                f"unlike the training images as a whole: its correlation with their mean is {value:.2f}, theirs at "
                f"least {low:.2f}"
            )
        measure = told_measure(name)
        unit = f" {measure.unit}" if measure.unit not in ("", "share") else ""
        usual = " to ".join(_number(end) for end in (low, high) if end is not None)
        bound = {(True, False): "at most ", (False, True): "at least "}.get((low is None, high is None), "")
        return f"{measure.title.lower()} {_number(value)}{unit} is unlike the training images ({bound}{usual})"


def write_reference(path: str | Path, reference: QualityReference) -> None:
    """Writes quality_reference.json atomically; UserError as in `write_json`."""
    write_json(path, reference.as_json())


def read_reference(path: str | Path) -> QualityReference:
    """Reads quality_reference.json.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    return read_record(path, QualityReference, version=VERSION, where="it", advice="evaluate the run again")


def _range(values: np.ndarray, ends: tuple[str, ...]) -> Range:
    """Returns the usual range of values [N], open at an end that is not asked for."""
    low = float(np.quantile(values, TAIL, method="lower")) if "low" in ends else None
    high = float(np.quantile(values, 1 - TAIL, method="higher")) if "high" in ends else None
    return low, high


def _end(value: Any) -> float | None:
    return None if value is None else float(value)


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 10 else f"{value:.2g}"


def _likeness(thumbnails: np.ndarray, mean_picture: np.ndarray) -> np.ndarray:
    """Returns float64 [N]: the correlation of every thumbnail [N, 32, 32] with the mean picture; 0 without contrast."""
    return np.sum(_standardised(thumbnails) * mean_picture, axis=(1, 2))


def _standardised(pictures: np.ndarray) -> np.ndarray:
    """Returns float64 [N, S, S]: every picture with mean 0 and length 1; all 0 where it has no contrast."""
    centred = pictures - pictures.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    length = np.sqrt(np.sum(centred**2, axis=(1, 2), keepdims=True))
    return np.divide(centred, length, out=np.zeros_like(centred), where=length > 1e-9)
