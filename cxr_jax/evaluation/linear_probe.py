"""A linear classifier on features of a frozen network, its L2 penalty chosen by cross-validation over groups."""

from __future__ import annotations

import dataclasses
import importlib.util
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cxr_jax.errors import UserError
from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.metrics import metric_value
from cxr_jax.runs.files import write_json
from cxr_jax.runs.records import read_record, to_json
from cxr_jax.vocabulary import CLASS_NAMES

SCHEMA_VERSION = 1

Kind = Literal["logistic", "svm"]

Balancing = Literal["none", "oversampling", "smote"]

NEIGHBOURS = 5
"""Among how many of the nearest of its class SMOTE takes one to draw a row between, as in its paper."""

_ITERATIONS = 5000


@dataclass(frozen=True)
class StrengthScore:
    """How well a strength of the penalty did in cross-validation."""

    strength: float
    roc_auc: tuple[float, ...]  # on what each fold holds out

    @property
    def mean(self) -> float:
        """The mean over the folds."""
        return statistics.fmean(self.roc_auc)

    @property
    def deviation(self) -> float:
        """The standard deviation over the folds."""
        return statistics.stdev(self.roc_auc)


@dataclass(frozen=True)
class ProbeRecord:
    """What probe.json holds: how the classifier was fitted.

    Attributes:
        classifier: what it is.
        features: the stage that they are the pooled output of.
        channels: how many features an image has.
        images: that it was fitted on.
        groups: that these make up, and that folds were cut by.
        strength: of the L2 penalty, 1/C in scikit-learn, that was chosen.
        scores: of every strength that was tried, from the weakest.
        converged: whether scikit-learn found every fit to have come to its end.
        balancing: how rare classes got more rows.
    """

    classifier: Kind
    features: str
    channels: int
    images: int
    groups: int
    strength: float
    scores: tuple[StrengthScore, ...]
    converged: bool = True
    balancing: Balancing = "none"


@dataclass(frozen=True)
class LinearClassifier:
    """A score of features, above 0 for PNEUMONIA: log-odds, or the decision function of a support vector machine."""

    weights: np.ndarray  # float64 [C]
    intercept: float

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Returns the scores [N] float64 of `features` [N, C]."""
        return features.astype(np.float64) @ self.weights + self.intercept


@dataclass(frozen=True)
class ProbeFit:
    """A classifier, and how its penalty was chosen."""

    classifier: LinearClassifier
    strength: float
    scores: tuple[StrengthScore, ...]
    converged: bool


def write_probe(path: Path, record: ProbeRecord) -> None:
    """Writes probe.json atomically; UserError as in `write_json`."""
    write_json(path, {"schema_version": SCHEMA_VERSION, **to_json(record)})


def read_probe(path: Path) -> ProbeRecord:
    """Returns what probe.json holds; UserError if it is missing, damaged, or of another version."""
    return read_record(path, ProbeRecord, version=SCHEMA_VERSION, where="the probe", advice="probe again")


def fits_of(strengths: Sequence[float], folds: int) -> int:
    """Returns how many classifiers `fit_probe` fits."""
    return len(strengths) * folds + 1


def fit_probe(
    features: np.ndarray,
    label: np.ndarray,
    group: Sequence[str],
    *,
    kind: Kind,
    strengths: Sequence[float],
    folds: int,
    seed: int,
    balanced: bool = False,
    balancing: Balancing = "none",
    advance: Callable[[int], None] = lambda _: None,
) -> ProbeFit:
    """Returns the classifier that is fitted on all of `features`, with the strength that does best in cross-validation.

    A strength is judged by the mean ROC-AUC over folds, each of whole groups, alike in classes as far as groups allow;
    of equal ones the stronger is chosen. Features are standardised by what a classifier is fitted on, and the one that
    is returned takes them as they are. The same arguments give the same classifier.

    Args:
        features: float [N, C].
        label: int [N], 0 NORMAL, 1 PNEUMONIA.
        group: of every image.
        kind: logistic regression, or a support vector machine with the squared hinge loss.
        strengths: of the L2 penalty, 1/C in scikit-learn.
        folds: how many.
        seed: of the folds.
        balanced: classes weigh the same, however many images they have.
        balancing: how rare classes get more rows in what a classifier is fitted on; what is held out stays as it is.
        advance: told how many more of the `fits_of` classifiers are fitted.

    Raises:
        UserError: there are too few groups of a class for the folds, or too few images of one for SMOTE; or
            imbalanced-learn is missing.
    """
    parts = _folds(label, group, folds, seed)
    matrix = features.astype(np.float64)
    converged = True

    def fitted(rows: np.ndarray, strengths: Sequence[float]) -> Iterator[LinearClassifier]:
        nonlocal converged
        standardised = Standardised.of(matrix[rows])
        resampled, labels = resample(standardised.features, label[rows], balancing, seed)
        standardised = dataclasses.replace(standardised, features=resampled)
        for strength in strengths:
            found, came_to_its_end = _fit(standardised, labels, kind, strength, balanced=balanced)
            converged &= came_to_its_end
            advance(1)
            yield found

    tried = sorted(set(strengths))
    areas = [
        [_roc_auc(classifier.scores(matrix[held]), label[held]) for classifier in fitted(train, tried)]
        for train, held in parts
    ]
    scores = [
        StrengthScore(strength, of_folds) for strength, of_folds in zip(tried, zip(*areas, strict=True), strict=True)
    ]
    best = max(scores, key=lambda score: (score.mean, score.strength))
    (classifier,) = fitted(np.arange(len(label)), [best.strength])
    return ProbeFit(classifier, best.strength, tuple(scores), converged)


def resample(features: np.ndarray, label: np.ndarray, balancing: Balancing, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns `features` [N, C] and `label` [N], followed by rows that give every class as many as the largest.

    Rows of oversampling are those of images, drawn with replacement. Those of SMOTE lie between an image and one of
    its nearest neighbours of the same class, as the crow flies; features should have one scale. The same seed gives the
    same rows.

    Raises:
        UserError: imbalanced-learn is missing, or a class has too few images to have neighbours.
    """
    if balancing == "none":
        return features, label
    require_balancing(balancing)
    from imblearn.over_sampling import SMOTE, RandomOverSampler

    if balancing == "oversampling":
        return RandomOverSampler(random_state=seed).fit_resample(features, label)
    fewest = int(np.bincount(label).min())
    if fewest <= NEIGHBOURS:
        raise UserError(
            f'probe.balancing is "smote", but a class has {fewest} images to fit on, and each needs {NEIGHBOURS} '
            'neighbours: set it to "oversampling", or take more data'
        )
    return SMOTE(k_neighbors=NEIGHBOURS, random_state=seed).fit_resample(features, label)


def require_balancing(balancing: Balancing) -> None:
    """Raises UserError if `balancing` needs imbalanced-learn and it is not installed."""
    if balancing != "none" and importlib.util.find_spec("imblearn") is None:
        raise UserError(f"probe.balancing \"{balancing}\" needs imbalanced-learn: pip install 'cxr-jax[smote]'")


def _folds(label: np.ndarray, group: Sequence[str], folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the rows to fit on and the rows held out, for every fold."""
    from sklearn.model_selection import StratifiedGroupKFold

    groups = np.asarray(group)
    for index, name in enumerate(CLASS_NAMES):
        count = len(np.unique(groups[label == index]))
        if count < folds:
            raise UserError(
                f"{folds} folds need {folds} groups of each class, and train has {count} of {name}: set probe.folds to "
                f"fewer{', or take more data' if count < 2 else ''}"
            )
    cut = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    parts = list(cut.split(np.zeros((len(label), 1)), label, groups))
    if any(len(np.unique(label[rows])) < len(CLASS_NAMES) for part in parts for rows in part):
        raise UserError(f"{folds} folds of whole groups leave one of them without a class: set probe.folds to fewer")
    return parts


@dataclass(frozen=True)
class Standardised:
    """Features that have mean 0 and deviation 1, and what they had before."""

    features: np.ndarray  # [N, C]
    mean: np.ndarray  # [C]
    deviation: np.ndarray  # [C]; infinite where a feature is the same for all images

    @classmethod
    def of(cls, features: np.ndarray) -> Standardised:
        """Returns `features` [N, C] standardised."""
        mean, deviation = features.mean(axis=0), features.std(axis=0)
        # a feature that is the same for all images says nothing, whatever its value
        deviation[deviation == 0] = np.inf
        return cls((features - mean) / deviation, mean, deviation)


def _fit(
    standardised: Standardised, label: np.ndarray, kind: Kind, strength: float, *, balanced: bool
) -> tuple[LinearClassifier, bool]:
    """Returns the classifier of features as they were before, and whether its fit came to its end."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    how = {"C": 1 / strength, "class_weight": "balanced" if balanced else None, "max_iter": _ITERATIONS}
    # the primal form draws nothing at random
    model = LogisticRegression(**how) if kind == "logistic" else LinearSVC(dual=False, **how)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(standardised.features, label)
    weights = model.coef_[0] / standardised.deviation
    converged = not any(issubclass(entry.category, ConvergenceWarning) for entry in caught)
    return LinearClassifier(weights, float(model.intercept_[0] - standardised.mean @ weights)), converged


def _roc_auc(score: np.ndarray, label: np.ndarray) -> float:
    # ROC-AUC asks for the order alone, which ranks keep
    ranks = np.unique(score, return_inverse=True)[1]
    return metric_value("roc_auc", Cases.unweighted(label, ranks / max(ranks.max(), 1), 0.5))
