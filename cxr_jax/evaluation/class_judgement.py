"""What is known of predictions of K exclusive classes: the record that `judge_classes` makes, and reports read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_jax.evaluation.class_points import ClassPoints
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.judgement import OF_CLASSES, Calibration, Confusion
from cxr_jax.evaluation.measures import Measured
from cxr_jax.runs.files import write_json
from cxr_jax.runs.records import fields_to_json, read_record

SCHEMA_VERSION = 1
"""Version of evaluation.json of K classes."""


@dataclass(frozen=True)
class JudgedClass:
    """One class against the rest.

    Attributes:
        images: how many there are of it.
        metrics: roc_auc and average_precision of its probability.
        called: sensitivity, specificity, precision and f1 where an image is called the class of highest probability.
        at_threshold: the same but f1 where it is called so from the class's own threshold on.
        calibration: whether its probabilities are what they say.
    """

    images: int
    metrics: dict[str, Measured]
    called: dict[str, Measured]
    at_threshold: dict[str, Measured]
    calibration: Calibration


@dataclass(frozen=True)
class WrongClass:
    """An image that was called wrongly, and the probability of the class that it was called."""

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
        confusion: counts, rows are the true class, columns the called class, in the order of the classes.
        metrics: those of all classes together, by name.
        calibrated: those that the temperature changes, after it; None without a temperature.
        classes: each class against the rest, by name, in the order of the classes.
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
class ClassJudgement:
    """The judgement of predictions on test, beside those on validation if there are any.

    Attributes:
        confidence: how intervals were computed.
        points: the thresholds and the temperature, fixed before test was seen.
        test: the split that is judged.
        validation: the split that the thresholds come from; None without it.
        warnings: sentences that belong beside the numbers.
    """

    confidence: Confidence
    points: ClassPoints
    test: JudgedClassSplit
    validation: JudgedClassSplit | None
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Returns the content of evaluation.json."""
        return {"schema_version": SCHEMA_VERSION, "kind": OF_CLASSES, **fields_to_json(self)}

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        return tuple(self.test.classes)

    @property
    def splits(self) -> dict[str, JudgedClassSplit]:
        """Test, and validation if there is one, by name."""
        return {"test": self.test} | ({} if self.validation is None else {"validation": self.validation})


def write_class_judgement(path: str | Path, judgement: ClassJudgement) -> None:
    """Writes evaluation.json atomically; UserError as in `write_json`."""
    write_json(path, judgement.as_json())


def read_class_judgement(path: str | Path) -> ClassJudgement:
    """Reads evaluation.json of K classes.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    advice = "evaluate the run again"
    return read_record(path, ClassJudgement, version=SCHEMA_VERSION, where="evaluation", advice=advice)
