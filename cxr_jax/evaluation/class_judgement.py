"""What is known of predictions of K classes or findings: the record that `judge_classes` makes, and reports read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cxr_jax.evaluation.class_points import ClassPoints
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.judgement import OF_CLASSES, Calibration, Confusion, JudgedTest
from cxr_jax.evaluation.measures import Measured
from cxr_jax.runs.records import read_record
from cxr_jax.vocabulary import EXCLUSIVE, FINDINGS, Kind

SCHEMA_VERSION = 1
"""Version of evaluation.json of K classes."""


@dataclass(frozen=True)
class JudgedClass:
    """One class against the rest; or one finding, its presence against its absence.

    Attributes:
        images: how many there are of it.
        metrics: roc_auc and average_precision of its probability.
        called: sensitivity, specificity, precision and f1 where an image is called the class of highest probability;
            empty of findings.
        at_threshold: the same but f1 where it is called so from the class's own threshold on; of findings f1 too.
        calibration: whether its probabilities are what they say; of findings also after their own temperature.
        unknown: images of which nobody knows whether they show the finding; they are left out.
    """

    images: int
    metrics: dict[str, Measured]
    called: dict[str, Measured]
    at_threshold: dict[str, Measured]
    calibration: Calibration
    unknown: int = 0


@dataclass(frozen=True)
class WrongClass:
    """An image that was called wrongly, and the probability of the class that it was called.

    Of findings these are `Mass` or `no Mass`, and the probability is that of the finding.
    """

    file: str
    label: str
    called: str
    probability: float


@dataclass(frozen=True)
class JudgedClassSplit:
    """Everything that is said of one split.

    Attributes:
        images: how many there are.
        groups: how many, None if unknown.
        confusion: counts, rows are the true class, columns the called class, in the order of the classes; empty of
            findings.
        metrics: those of all classes together, by name.
        calibrated: those that the temperature changes, after it; None without a temperature.
        classes: each class against the rest, by name, in the order of the classes; of findings those that are known
            in one image at least.
        worst_errors: the errors made with most confidence, the worst first.
    """

    images: int
    groups: int | None
    confusion: Confusion
    metrics: dict[str, Measured]
    calibrated: dict[str, Measured] | None
    classes: dict[str, JudgedClass]
    worst_errors: tuple[WrongClass, ...]


@dataclass(frozen=True)
class ClassJudgement(JudgedTest):
    """The judgement of predictions on test, beside those on validation if there are any.

    Attributes:
        confidence: how intervals were computed.
        points: the thresholds and the temperature, fixed before test was seen.
        test: the split that is judged.
        validation: the split that the thresholds come from; None without it.
        warnings: sentences that belong beside the numbers.
        kind_of_classes: whether they exclude each other, or are findings.
    """

    VERSION: ClassVar[int] = SCHEMA_VERSION
    KIND: ClassVar[str] = OF_CLASSES

    confidence: Confidence
    points: ClassPoints
    test: JudgedClassSplit
    validation: JudgedClassSplit | None
    warnings: tuple[str, ...]
    kind_of_classes: Kind = EXCLUSIVE

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        return tuple(self.points.classes)

    @property
    def of_findings(self) -> bool:
        """True where several classes may occur together."""
        return self.kind_of_classes == FINDINGS


def read_class_judgement(path: str | Path) -> ClassJudgement:
    """Reads evaluation.json of K classes.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    advice = "evaluate the run again"
    return read_record(path, ClassJudgement, version=SCHEMA_VERSION, where="evaluation", advice=advice)
