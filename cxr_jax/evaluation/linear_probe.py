"""A linear classifier on features of a frozen network, its L2 penalty chosen by cross-validation over groups.

Of more than two classes it has a score for each class. Findings that occur together have a classifier each.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cxr_jax.errors import UserError
from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.metrics import metric_value
from cxr_jax.evaluation.probe_record import Balancing, Kind, ProbedFinding, StrengthScore
from cxr_jax.vocabulary import CLASS_NAMES

NEIGHBOURS = 5
"""Among how many of the nearest of its class SMOTE takes one to draw a row between, as in its paper."""

_ITERATIONS = 5000


@dataclass(frozen=True)
class LinearClassifier:
    """A score of features, above 0 for PNEUMONIA: log-odds, or the decision function of a support vector machine.

    Of a finding it is above 0 for its presence. Of one of several classes the highest score is called.
    """

    weights: np.ndarray  # float64 [C]
    intercept: float

    def scores(self, features: np.ndarray) -> np.ndarray:
        """Returns the scores [N] float64 of `features` [N, C]."""
        return features.astype(np.float64) @ self.weights + self.intercept


@dataclass(frozen=True)
class ProbeFit:
    """Classifiers, one for two classes or one for each of several, and how their penalty was chosen."""

    classifiers: tuple[LinearClassifier, ...]
    strength: float
    scores: tuple[StrengthScore, ...]
    converged: bool

    @property
    def classifier(self) -> LinearClassifier:
        """The one of two classes."""
        (one,) = self.classifiers
        return one


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
    classes: tuple[str, ...] = CLASS_NAMES,
) -> ProbeFit:
    """Returns the classifier that is fitted on all of `features`, with the strength that does best in cross-validation.

    A strength is judged by the mean ROC-AUC over folds, of more than two classes that of each against the rest. Folds
    are of whole groups, alike in classes as far as groups allow;
    of equal ones the stronger is chosen. Features are standardised by what a classifier is fitted on, and the one that
    is returned takes them as they are. The same arguments give the same classifier.

    Args:
        features: float [N, C].
        label: int [N], an index into `classes`.
        group: of every image.
        kind: logistic regression, or a support vector machine with the squared hinge loss.
        strengths: of the L2 penalty, 1/C in scikit-learn.
        folds: how many.
        seed: of the folds.
        balanced: classes weigh the same, however many images they have.
        balancing: how rare classes get more rows in what a classifier is fitted on; what is held out stays as it is.
        advance: told how many more of the `fits_of` classifiers are fitted.
        classes: names of the classes.

    Raises:
        UserError: there are too few groups of a class for the folds, or too few images of one for SMOTE; or
            imbalanced-learn is missing.
    """
    parts = _folds(label, group, folds, seed, classes)
    matrix = features.astype(np.float64)
    converged = True

    def fitted(rows: np.ndarray, strengths: Sequence[float]) -> Iterator[tuple[LinearClassifier, ...]]:
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
        [_roc_auc(scores_of(classifiers, matrix[held]), label[held]) for classifiers in fitted(train, tried)]
        for train, held in parts
    ]
    scores = [
        StrengthScore(strength, of_folds) for strength, of_folds in zip(tried, zip(*areas, strict=True), strict=True)
    ]
    best = max(scores, key=lambda score: (score.mean, score.strength))
    (classifiers,) = fitted(np.arange(len(label)), [best.strength])
    return ProbeFit(classifiers, best.strength, tuple(scores), converged)


def fit_finding_probes(
    features: np.ndarray, label: np.ndarray, group: Sequence[str], findings: tuple[str, ...], **how: Any
) -> tuple[tuple[LinearClassifier, ...], tuple[ProbedFinding, ...]]:
    """Returns the classifier of each finding, fitted on the images of which it is known, and how each was fitted.

    Args:
        features: float [N, C].
        label: float [N, K]: 1 present, 0 absent, NaN unknown.
        group: of every image.
        findings: names of the K findings.
        how: further arguments of `fit_probe`.

    Raises:
        UserError: as `fit_probe`, about one finding.
    """
    groups, found = np.asarray(group), []
    for index, name in enumerate(findings):
        known = ~np.isnan(label[:, index])
        shown = (label[known, index] == 1).astype(int)
        names = (f"images without {name}", f"images with {name}")
        fit = fit_probe(features[known], shown, groups[known], classes=names, **how)
        probed = ProbedFinding(name, len(shown), int(shown.sum()), fit.strength, fit.scores, fit.converged)
        found.append((fit.classifier, probed))
    classifiers, told = zip(*found, strict=True)
    return classifiers, told


def scores_of(classifiers: Sequence[LinearClassifier], features: np.ndarray) -> np.ndarray:
    """Returns the scores [N, S] float64 of `features` [N, C], one for each classifier."""
    return np.stack([classifier.scores(features) for classifier in classifiers], axis=1)


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


def _folds(
    label: np.ndarray, group: Sequence[str], folds: int, seed: int, classes: tuple[str, ...]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the rows to fit on and the rows held out, for every fold."""
    from sklearn.model_selection import StratifiedGroupKFold

    groups = np.asarray(group)
    for index, name in enumerate(classes):
        count = len(np.unique(groups[label == index]))
        if count < folds:
            raise UserError(
                f"{folds} folds need {folds} groups of each class, and train has {count} of {name}: set probe.folds to "
                f"fewer{', or take more data' if count < 2 else ''}"
            )
    cut = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    parts = list(cut.split(np.zeros((len(label), 1)), label, groups))
    if any(len(np.unique(label[rows])) < len(classes) for part in parts for rows in part):
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
) -> tuple[tuple[LinearClassifier, ...], bool]:
    """Returns the classifiers of features as they were before, and whether their fit came to its end.

    There is one of two classes, and one for each of more.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.svm import LinearSVC

    how = {"C": 1 / strength, "class_weight": "balanced" if balanced else None, "max_iter": _ITERATIONS}
    # the primal form draws nothing at random
    model = LogisticRegression(**how) if kind == "logistic" else LinearSVC(dual=False, **how)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(standardised.features, label)
    found = []
    for row, intercept in zip(model.coef_, model.intercept_, strict=True):
        weights = row / standardised.deviation
        found.append(LinearClassifier(weights, float(intercept - standardised.mean @ weights)))
    converged = not any(issubclass(entry.category, ConvergenceWarning) for entry in caught)
    return tuple(found), converged


def _roc_auc(scores: np.ndarray, label: np.ndarray) -> float:
    """Returns the ROC-AUC of scores [N, 1] of two classes, or the mean of those [N, K] of each against the rest."""
    if scores.shape[1] == 1:
        return _area(scores[:, 0], label)
    return statistics.fmean(_area(scores[:, k], (label == k).astype(int)) for k in range(scores.shape[1]))


def _area(score: np.ndarray, label: np.ndarray) -> float:
    # ROC-AUC asks for the order alone, which ranks keep
    ranks = np.unique(score, return_inverse=True)[1]
    return metric_value("roc_auc", Cases.unweighted(label, ranks / max(ranks.max(), 1), 0.5))
