"""Scores that need no network: what the exposure, the blur or the size of an image alone tell of its class.

A network that does not beat them may know no more than how the images were taken. They are no pure confounders: disease
changes brightness and sharpness too. They are judged by the code that judges networks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.special import expit

from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.measures import Measure, Measured, measure
from cxr_jax.evaluation.metrics import METRICS, metric_value
from cxr_jax.evaluation.operating_point import choose_threshold
from cxr_jax.runs.predictions import Predictions
from cxr_jax.vocabulary import CLASS_NAMES

ALL_PNEUMONIA = "all_pneumonia"
"""The baseline that calls every image PNEUMONIA."""

ALL_MEASURES = "all_measures"
"""The baseline that weighs all measures together."""

RULE = "youden"
"""How the threshold of a baseline is chosen on validation: its probabilities rarely reach 0.5 from both sides."""

RESAMPLES = 500
"""Bootstrap resamples, fewer than for a network: there are many baselines, and ROC-AUC's interval needs none."""

JUDGED = ("accuracy", "balanced_accuracy", "sensitivity", "specificity", "roc_auc")

Columns = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A score that needs no network, as it was judged.

    Attributes:
        threshold: an image is called PNEUMONIA if its score is at least this.
        validation_roc_auc: None where it is undefined.
        test: the metrics of `JUDGED`.
        weights: of each measure, of standardised values.
    """

    threshold: float
    validation_roc_auc: float | None
    test: dict[str, Measured]
    weights: dict[str, float]


def judge_baselines(
    train: Columns,
    train_label: np.ndarray,
    validation: tuple[Columns, Predictions],
    test: tuple[Columns, Predictions],
    confidence: Confidence | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Baseline | None]:
    """Returns every baseline by name: one for each measure, `ALL_MEASURES` and `ALL_PNEUMONIA`.

    A measure becomes a probability by logistic regression on training images, which fixes whether high or low values
    speak for PNEUMONIA; the threshold is chosen on validation by `RULE`, or is 0.5 if a class is missing there. Test
    images are judged and choose nothing.

    Args:
        train: measures of the training images, float [N] each, the same names for every split.
        train_label: int [N], 0 NORMAL, 1 PNEUMONIA; both occur.
        validation: measures of the validation images, and a table of the same images for label, group and file.
        test: the same of the test images.
        confidence: level, resamples and seed of the intervals.
        advance: told how many more of the `len(train) + 2` baselines are done.

    Returns:
        None for a measure that is the same for all training images; a weight is what one standard deviation of the
        training images adds to the log-odds.
    """
    confidence = confidence or Confidence(resamples=RESAMPLES)
    varying = [name for name in train if np.ptp(train[name]) > 0]
    baselines: dict[str, Baseline | None] = dict.fromkeys(train)
    advance(len(train) - len(varying))
    for name, used in {**{name: [name] for name in varying}, ALL_MEASURES: varying}.items():
        if not used:
            continue
        logistic = _fit(train, train_label, used)
        tables = [_with_probability(table, logistic, columns) for columns, table in (validation, test)]
        # Without a class on validation no rule can choose; 0.5 is then what the regression itself would call.
        rule = RULE if len(np.unique(tables[0].label)) == len(CLASS_NAMES) else "fixed"
        threshold = choose_threshold(tables[0].probability, tables[0].label, rule=rule)
        baselines[name] = _judged(*tables, threshold, logistic.weights(), confidence)
        advance(1)
    certain = [
        dataclasses.replace(table, probability=np.ones(len(table)), logits=None) for _, table in (validation, test)
    ]
    baselines[ALL_PNEUMONIA] = _judged(*certain, 0.5, {}, confidence)
    advance(1 if varying else 2)
    return baselines


@dataclasses.dataclass(frozen=True)
class _Logistic:
    """Log-odds of PNEUMONIA as a weighted sum of standardised measures."""

    names: Sequence[str]
    mean: np.ndarray  # float64 [M], of the training images
    deviation: np.ndarray  # float64 [M]
    slopes: np.ndarray  # float64 [M], a standard deviation
    intercept: float

    def probability(self, columns: Columns) -> np.ndarray:
        """Returns the probability of PNEUMONIA, float64 [N]."""
        return expit(self.intercept + (_matrix(columns, self.names) - self.mean) / self.deviation @ self.slopes)

    def weights(self) -> dict[str, float]:
        """Returns the slope of every measure."""
        return dict(zip(self.names, self.slopes.tolist(), strict=True))


def _fit(columns: Columns, label: np.ndarray, names: Sequence[str]) -> _Logistic:
    """Fits by logistic regression with scikit-learn's light L2 penalty, which keeps separable classes finite."""
    from sklearn.linear_model import LogisticRegression

    matrix = _matrix(columns, names)
    mean, deviation = matrix.mean(axis=0), matrix.std(axis=0)
    fitted = LogisticRegression().fit((matrix - mean) / deviation, label)
    return _Logistic(names, mean, deviation, fitted.coef_[0], float(fitted.intercept_[0]))


def _matrix(columns: Columns, names: Sequence[str]) -> np.ndarray:
    return np.stack([np.asarray(columns[name], np.float64) for name in names], axis=1)


def _with_probability(table: Predictions, logistic: _Logistic, columns: Columns) -> Predictions:
    return dataclasses.replace(table, probability=logistic.probability(columns), logits=None)


def _judged(
    validation: Predictions, test: Predictions, threshold: float, weights: dict[str, float], confidence: Confidence
) -> Baseline:
    cases = Cases.unweighted(validation.label, validation.probability, threshold)
    return Baseline(
        threshold=threshold,
        validation_roc_auc=metric_value("roc_auc", cases),
        test=measure(test, threshold, {name: Measure(METRICS[name]) for name in JUDGED}, confidence),
        weights=weights,
    )
