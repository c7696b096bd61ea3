"""What is known of a network's predictions: the record that `judge` makes, evaluation.json keeps, and reports read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from cxr_jax.errors import UserError
from cxr_jax.evaluation.calibration import Bin, Binning
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.intervals import Interval
from cxr_jax.evaluation.measures import Measured
from cxr_jax.evaluation.operating_point import OperatingPoint
from cxr_jax.evaluation.shift import Shift
from cxr_jax.runs.files import write_json
from cxr_jax.runs.folder import read_json
from cxr_jax.runs.records import fields_to_json, read_record

SCHEMA_VERSION = 2
"""Version of evaluation.json."""

OLDEST_VERSION = 1
"""The oldest version that is read; what later ones added is None there."""

OF_CLASSES = "classes"
"""What evaluation.json says of its kind where the classes are not NORMAL and PNEUMONIA."""

Confusion = tuple[tuple[int, ...], ...]
"""Counts of images: rows are the true class, columns the called class."""


@dataclass(frozen=True)
class JudgedCalls:
    """Calls at another threshold: their counts, and the metrics that depend on calls."""

    confusion: Confusion
    metrics: dict[str, Measured]


@dataclass(frozen=True)
class ForRule:
    """What a rule for the threshold gives on test when validation and test are drawn anew together.

    The values are those at the threshold that the rule chose. The intervals are wider than at that threshold alone,
    for the rule chooses another one in every draw of validation.

    Attributes:
        threshold: where the rule puts the threshold; None where the draws tell no interval.
        metrics: the metrics that depend on calls, by name.
    """

    threshold: Interval | None
    metrics: dict[str, Measured]


@dataclass(frozen=True)
class TransferredThreshold:
    """A threshold that reaches a sensitivity on validation, and the rates that it gives here.

    `for_rule` is None for the images that the threshold comes from.
    """

    threshold: float
    sensitivity: Measured
    specificity: Measured
    for_rule: ForRule | None = None


@dataclass(frozen=True)
class AtSensitivity:
    """The specificity at a sensitivity of `target`.

    Attributes:
        target: share of PNEUMONIA images to be called so.
        threshold: the highest that reaches it on these images; None without PNEUMONIA.
        read_off: the specificity there.
        transferred: validation's threshold; None without validation.
    """

    target: float
    threshold: float | None
    read_off: Measured
    transferred: TransferredThreshold | None


@dataclass(frozen=True)
class CalibrationError(Measured):
    """A calibration error with the bins that it is computed in."""

    binning: Binning
    bins: int


@dataclass(frozen=True)
class Recalibration:
    """What would have to be done to the logits of these images: 1, 0 and 0 are best.

    Attributes:
        slope: what they would be multiplied with.
        intercept: what would then be added.
        in_the_large: what would be added if nothing were multiplied; above 0, probabilities are too low.
    """

    slope: Measured
    intercept: Measured
    in_the_large: Measured


@dataclass(frozen=True)
class CalibrationMoment:
    """Calibration before or after the temperature."""

    log_loss: Measured
    brier: Measured
    errors: tuple[CalibrationError, ...]
    curve: tuple[Bin, ...]
    recalibration: Recalibration | None = None

    def error(self, binning: Binning, bins: int) -> CalibrationError:
        """Returns the calibration error in these bins."""
        return next(error for error in self.errors if (error.binning, error.bins) == (binning, bins))


@dataclass(frozen=True)
class Calibration:
    """Calibration with the temperature of validation; `after` is None where none could be fitted."""

    temperature: float | None
    after: CalibrationMoment | None
    before: CalibrationMoment


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit at `thresholds`: of the network before and after the temperature, and of calling all PNEUMONIA."""

    thresholds: tuple[float, ...]
    after: tuple[float, ...] | None
    before: tuple[float, ...]
    all: tuple[float, ...]


@dataclass(frozen=True)
class WrongCall:
    """An image that was called wrongly, and its probability of PNEUMONIA."""

    file: str
    subtype: str
    label: str
    called: str
    probability: float


@dataclass(frozen=True)
class JudgedSplit:
    """Everything that is said of one split.

    Attributes:
        images: how many there are.
        groups: how many, None if unknown.
        classes: images of each class.
        subtypes: images of each subtype that occurs.
        all_pneumonia_accuracy: what calling everything PNEUMONIA would score.
        confusion: counts at the threshold.
        metrics: every metric by name.
        by_group: sensitivity and specificity with every group counting once; None without groups.
        by_subtype: sensitivity and roc_auc of each kind of pneumonia against all NORMAL images.
        at_one_half: the calls at a threshold of 0.5; None if that is the threshold.
        specificity_at_sensitivity: one for each target.
        calibration: whether probabilities are what they say.
        decision_curve: whether acting on the calls is better than treating everybody.
        worst_errors: the errors made with most confidence, the worst first.
    """

    images: int
    groups: int | None
    classes: dict[str, int]
    subtypes: dict[str, int]
    all_pneumonia_accuracy: float
    confusion: Confusion
    metrics: dict[str, Measured]
    by_subtype: dict[str, dict[str, Measured]]
    # evaluation.json of earlier versions has no such entry
    at_one_half: JudgedCalls | None = field(default=None, kw_only=True)
    by_group: dict[str, Measured] | None = field(default=None, kw_only=True)
    specificity_at_sensitivity: tuple[AtSensitivity, ...]
    calibration: Calibration
    decision_curve: DecisionCurve
    worst_errors: tuple[WrongCall, ...]


class JudgedTest:
    """What the records of two classes, of K and of findings have in common."""

    VERSION: ClassVar[int]
    KIND: ClassVar[str] = ""
    """What evaluation.json says of its kind; nothing of NORMAL and PNEUMONIA."""

    test: Any
    validation: Any

    def as_json(self) -> dict[str, Any]:
        """Returns the content of evaluation.json."""
        return {"schema_version": self.VERSION, **({"kind": self.KIND} if self.KIND else {}), **fields_to_json(self)}

    @property
    def splits(self) -> dict[str, Any]:
        """Test, and validation if there is one, by name."""
        return {"test": self.test} | ({} if self.validation is None else {"validation": self.validation})


@dataclass(frozen=True)
class Judgement(JudgedTest):
    """The judgement of predictions on test, beside those on validation if there are any.

    Attributes:
        confidence: how intervals were computed.
        operating_point: the threshold, and how it was chosen.
        test: the split that is judged.
        validation: the split that the threshold comes from; None without it.
        shift: what separates the two; None without validation, or where either lacks a class.
        warnings: sentences that belong beside the numbers.
        for_rule: what can be said of the rule that chose the threshold, on test; None without validation, or where the
            threshold was fixed beforehand.
    """

    VERSION: ClassVar[int] = SCHEMA_VERSION

    confidence: Confidence
    operating_point: OperatingPoint
    test: JudgedSplit
    validation: JudgedSplit | None
    shift: Shift | None
    warnings: tuple[str, ...]
    for_rule: ForRule | None = None


def write_judgement(path: str | Path, judgement: JudgedTest) -> None:
    """Writes evaluation.json atomically; UserError as in `write_json`."""
    write_json(path, judgement.as_json())


def judges_other_classes(path: str | Path) -> bool:
    """Returns whether evaluation.json is a `ClassJudgement`; UserError if it is missing or damaged."""
    return read_json(path).get("kind") == OF_CLASSES


def read_judgement(path: str | Path) -> Judgement:
    """Reads evaluation.json.

    Raises:
        UserError: the file is missing, damaged, of another version, or judges other classes.
    """
    if judges_other_classes(path):
        raise UserError(
            f"{path} judges other classes than NORMAL and PNEUMONIA, which alone are taken here: cxr-jax judge --merge "
            "makes a table of these two of its predictions"
        )
    return read_record(
        path,
        Judgement,
        version=SCHEMA_VERSION,
        oldest=OLDEST_VERSION,
        where="evaluation",
        advice="evaluate the run again",
    )
