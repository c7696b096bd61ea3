"""What is fixed on validation for K classes: a threshold for each class against the rest, and the temperatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import brentq
from scipy.special import softmax

from cxr_jax.config.schema import OperatingPointConfig
from cxr_jax.errors import UserError
from cxr_jax.evaluation.operating_point import OperatingPoint, choose_operating_point, read_operating_point
from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.runs.files import write_json
from cxr_jax.runs.finding_predictions import FindingPredictions
from cxr_jax.runs.predictions import Predictions
from cxr_jax.runs.records import fields_to_json, read_record
from cxr_jax.vocabulary import CLASS_NAMES

SCHEMA_VERSION = 1

# outside this range the fit ran away, as in `fit_temperature`
_COLDEST, _HOTTEST = 1e-2, 1e2


@dataclass(frozen=True)
class ClassPoints:
    """The thresholds of the classes, each against the rest, and the temperature of all.

    An image is called the class of its highest probability. The thresholds are for somebody who asks for one class. Of
    findings that occur together an image is called each that reaches its threshold, and each has a temperature of its
    own in its operating point.

    Attributes:
        classes: the operating point of each class by name.
        temperature: divides all logits to calibrate them; None if none could be fitted, without validation, and of
            findings.
    """

    classes: dict[str, OperatingPoint]
    temperature: float | None

    def as_json(self) -> dict[str, Any]:
        """Returns the content of operating_point.json."""
        return {"schema_version": SCHEMA_VERSION, **fields_to_json(self)}


def against_the_rest(predictions: ClassProbabilities, name: str) -> Predictions:
    """Returns the predictions on one class in the place of PNEUMONIA, the others together in that of NORMAL.

    Of a finding these are its presence and its absence, on the images of which it is known; there must be one.
    """
    rows, label = predictions.asked(name)
    if not rows.all():
        predictions = predictions.select(rows)
    return Predictions(
        file=predictions.file,
        split=predictions.split,
        group=predictions.group,
        subtype=tuple("unknown" if positive else "normal" for positive in label),
        label=label.astype(np.int64),
        logits=None,
        # rounding may lead a softmax a bit beyond 1
        probability=np.minimum(predictions.probabilities[:, predictions.classes.index(name)], 1.0),
    )


def choose_class_points(validation: ClassProbabilities, *, rule: str, **told: float) -> ClassPoints:
    """Returns the operating point that a rule chooses for every class on validation, and the fitted temperature.

    `told` is what `choose_threshold` takes. A finding that validation does not show, or shows always, has the fixed
    threshold.

    Raises:
        UserError: validation lacks a class that the rule needs.
    """
    if isinstance(validation, FindingPredictions):
        return ClassPoints({name: _point_of(validation, name, rule, told) for name in validation.classes}, None)
    points = {}
    for index, name in enumerate(validation.classes):
        if rule != "fixed" and not (validation.label == index).any():
            raise UserError(
                f"the rule {rule} cannot choose a threshold for {name}: no validation image is {name}; use the rule "
                "fixed, or validation images of every class"
            )
        points[name] = choose_operating_point(against_the_rest(validation, name), rule=rule, **told)
    return ClassPoints(points, fit_class_temperature(logits_of(validation), validation.label))


def _point_of(validation: FindingPredictions, name: str, rule: str, told: Mapping[str, float]) -> OperatingPoint:
    """Returns the operating point of a finding, by the rule where validation has what the rule needs."""
    rows, label = validation.asked(name)
    if not rows.any():
        return fixed_class_points((name,), told.get("threshold", OperatingPointConfig.threshold)).classes[name]
    chosen = rule if len(np.unique(label)) > 1 else "fixed"
    return choose_operating_point(against_the_rest(validation, name), rule=chosen, **told)


def fixed_class_points(classes: tuple[str, ...], threshold: float) -> ClassPoints:
    """Returns one threshold for every class, fixed without any images."""
    point = OperatingPoint(threshold=threshold, parameters={"threshold": threshold})
    return ClassPoints(dict.fromkeys(classes, point), None)


def logits_of(predictions: ClassProbabilities) -> np.ndarray:
    """Returns logits [N, K], the logarithms of the probabilities where there are none."""
    if predictions.logits is not None:
        return predictions.logits
    return np.log(np.clip(predictions.probabilities, np.finfo(np.float64).eps, 1))


def fit_class_temperature(logits: np.ndarray, label: np.ndarray) -> float | None:
    """Returns the temperature T that minimises the log-loss of the softmax of logits [N, K] / T.

    Guo et al., ICML 2017. The loss is convex in 1/T, so the temperature is the root of its slope.

    Returns:
        T from 0.01 to 100, or None where the loss has no minimum there: the images are of one class, are separated
        without error, or the scores rank them no better than chance.
    """
    of_truth = logits[np.arange(len(label)), label]

    def slope(inverse: float) -> float:
        return float(np.mean(np.sum(softmax(inverse * logits, axis=1) * logits, axis=1) - of_truth))

    coldest, hottest = 1 / _COLDEST, 1 / _HOTTEST
    if len(np.unique(label)) < 2 or slope(hottest) >= 0 or slope(coldest) <= 0:
        return None
    return 1 / float(brentq(slope, hottest, coldest, xtol=1e-12))


def write_class_points(path: str | Path, points: ClassPoints) -> None:
    """Writes operating_point.json atomically; UserError as in `write_json`."""
    write_json(path, points.as_json())


def read_thresholds(path: str | Path, classes: Sequence[str]) -> float | dict[str, float]:
    """Reads what operating_point.json calls images at: from which probability PNEUMONIA, or each of other classes."""
    if tuple(classes) == CLASS_NAMES:
        return read_operating_point(path).threshold
    return {name: point.threshold for name, point in read_class_points(path).classes.items()}


def read_class_points(path: str | Path) -> ClassPoints:
    """Reads operating_point.json of a run of K classes.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    advice = "choose the operating points anew"
    return read_record(path, ClassPoints, version=SCHEMA_VERSION, where="it", advice=advice)
