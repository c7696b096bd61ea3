"""The operating point: the threshold that turns a probability into a call, chosen on validation and then kept.

It is stored before any prediction on test exists, together with what it promised on validation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cxr_jax.config.schema import OperatingPointConfig
from cxr_jax.errors import UserError
from cxr_jax.evaluation.calibration import fit_temperature, margins_of
from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.metrics import metric_value, thresholds_at_sensitivity
from cxr_jax.runs.files import write_json
from cxr_jax.runs.predictions import Predictions
from cxr_jax.runs.records import read_record

SCHEMA_VERSION = 1

RULES = ("fixed", "youden", "sensitivity", "cost_ratio")


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, the rule that chose it, and what it gave on the validation images.

    Attributes:
        threshold: an image is called PNEUMONIA if its probability is at least this.
        rule: one of `RULES`.
        parameters: what the rule was told: `threshold`, `target_sensitivity` or `cost_ratio`; empty for `youden`.
        sensitivity: share of validation's PNEUMONIA images called so; None if there are none.
        specificity: share of validation's NORMAL images called so; None if there are none.
        images: how many validation images there were; 0 if the threshold was chosen without any.
        temperature: divides the difference of the logits to calibrate it; None if none could be fitted.
    """

    threshold: float
    rule: str = "fixed"
    parameters: dict[str, float] | None = None
    sensitivity: float | None = None
    specificity: float | None = None
    images: int = 0
    temperature: float | None = None

    @property
    def told(self) -> dict[str, float]:
        """What the rule needs to set the threshold anew, for `choose_thresholds`."""
        return {"threshold": self.threshold, **(self.parameters or {})}

    def as_json(self) -> dict[str, Any]:
        """Returns the content of operating_point.json."""
        return {
            "schema_version": SCHEMA_VERSION,
            "rule": self.rule,
            "parameters": self.parameters or {},
            "threshold": self.threshold,
            "validation": {
                "images": self.images,
                "sensitivity": self.sensitivity,
                "specificity": self.specificity,
            },
            "temperature": self.temperature,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> OperatingPoint:
        """Returns the point that `as_json` gave `value` for; KeyError, TypeError or ValueError where it did not."""
        validation = value["validation"]
        return cls(
            threshold=_number(value["threshold"]),
            rule=str(value["rule"]),
            parameters=dict(value["parameters"]),
            sensitivity=_optional(_number, validation["sensitivity"]),
            specificity=_optional(_number, validation["specificity"]),
            images=int(validation["images"]),
            temperature=_optional(_number, value["temperature"]),
        )


def choose_threshold(
    probability: np.ndarray,
    label: np.ndarray,
    *,
    rule: str,
    threshold: float = OperatingPointConfig.threshold,
    target_sensitivity: float = OperatingPointConfig.target_sensitivity,
    cost_ratio: float = OperatingPointConfig.cost_ratio,
) -> float:
    """Returns the threshold that a rule chooses on these images; an image is called PNEUMONIA at or above it.

    - `fixed`: `threshold` itself; the images play no part.
    - `sensitivity`: the highest threshold whose sensitivity is at least `target_sensitivity`.
    - `youden`: the one with the largest sensitivity + specificity (Youden, Cancer 1950).
    - `cost_ratio`: the one with the smallest cost, a missed pneumonia costing `cost_ratio` false alarms.

    The last three choose among the probabilities that occur, and the lower of two that are equally good, because a
    missed pneumonia is the worse mistake.

    Args:
        probability: float [N], of PNEUMONIA.
        label: int [N], 0 NORMAL, 1 PNEUMONIA.
        rule: one of `RULES`.
        threshold: for `fixed`.
        target_sensitivity: for `sensitivity`, above 0 and at most 1.
        cost_ratio: for `cost_ratio`, above 0.

    Raises:
        UserError: the images lack a class that the rule needs.
        ValueError: there is no such rule.
    """
    cases = Cases.unweighted(label, probability)
    told = {"threshold": threshold, "target_sensitivity": target_sensitivity, "cost_ratio": cost_ratio}
    chosen = float(choose_thresholds(cases, rule, told)[0])
    if np.isnan(chosen):
        missing = "NORMAL" if cases.positive.any() else "PNEUMONIA"
        raise UserError(
            f"the rule {rule} cannot choose a threshold: no validation image is {missing}; "
            "use the rule fixed, or validation images of both classes"
        )
    return chosen


def choose_thresholds(cases: Cases, rule: str, parameters: Mapping[str, float] | None = None) -> np.ndarray:
    """Returns float64 [R]: what a rule of `choose_threshold` chooses under each weighting of the images.

    An image of weight 0 plays no part, as if it were not there. NaN where a class that the rule needs has no weight.

    Args:
        cases: the images; their own threshold plays no part.
        rule: one of `RULES`.
        parameters: what the rule is told, as in `OperatingPoint.parameters`.

    Raises:
        ValueError: there is no such rule.
    """
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}; a rule is one of {RULES}")
    told = parameters or {}
    if rule == "fixed":
        return np.full(len(cases.weights), float(told["threshold"]))
    if rule == "sensitivity":
        return thresholds_at_sensitivity(cases, told["target_sensitivity"])
    curve = cases.curve
    positives, negatives = curve.called_positives[:, -1:], curve.called_negatives[:, -1:]
    missed, alarms = positives - curve.called_positives, curve.called_negatives
    # Whole numbers in both rules, so that ties are found exactly and not by luck of rounding.
    cost = missed * negatives + alarms * positives if rule == "youden" else told["cost_ratio"] * missed + alarms
    cost = np.where(curve.positives + curve.negatives > 0, cost, np.inf)
    # Thresholds fall along the axis, so the last of equal costs is the lowest threshold.
    last = cost.shape[1] - 1 - np.argmin(cost[:, ::-1], axis=1)
    return np.where((positives > 0) & (negatives > 0), curve.thresholds[last][:, None], np.nan)[:, 0]


def choose_operating_point(
    validation: Predictions,
    *,
    rule: str,
    threshold: float = OperatingPointConfig.threshold,
    target_sensitivity: float = OperatingPointConfig.target_sensitivity,
    cost_ratio: float = OperatingPointConfig.cost_ratio,
) -> OperatingPoint:
    """Returns the operating point that a rule chooses on validation, with its promise and the fitted temperature.

    Arguments and errors as in `choose_threshold`.
    """
    chosen = choose_threshold(
        validation.probability,
        validation.label,
        rule=rule,
        threshold=threshold,
        target_sensitivity=target_sensitivity,
        cost_ratio=cost_ratio,
    )
    told = {"threshold": threshold, "target_sensitivity": target_sensitivity, "cost_ratio": cost_ratio}
    needed = {"fixed": "threshold", "sensitivity": "target_sensitivity", "cost_ratio": "cost_ratio"}
    cases = Cases.unweighted(validation.label, validation.probability, chosen)
    return OperatingPoint(
        threshold=chosen,
        rule=rule,
        parameters={needed[rule]: told[needed[rule]]} if rule in needed else {},
        sensitivity=metric_value("sensitivity", cases),
        specificity=metric_value("specificity", cases),
        images=len(validation),
        temperature=fit_temperature(margins_of(validation), validation.label),
    )


def write_operating_point(path: str | Path, point: OperatingPoint) -> None:
    """Writes operating_point.json atomically; UserError as in `write_json`."""
    write_json(path, point.as_json())


def read_operating_point(path: str | Path) -> OperatingPoint:
    """Reads operating_point.json.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    advice = "choose the operating point anew"
    return read_record(path, OperatingPoint, version=SCHEMA_VERSION, where="it", advice=advice)


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)


def _optional(parse: Callable[[Any], float], value: Any) -> float | None:
    return None if value is None else parse(value)
