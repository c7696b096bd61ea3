"""The classifier of a probe: scikit-learn's, with a penalty chosen over groups and standardisation folded in."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from cxr_jax.errors import UserError
from cxr_jax.evaluation.linear_probe import (
    fit_finding_probes,
    fit_probe,
    fits_of,
    require_balancing,
    resample,
    scores_of,
)
from cxr_jax.evaluation.probe_record import ProbeRecord, StrengthScore, read_probe, write_probe

HOW = {"strengths": (1.0, 100.0), "folds": 3, "seed": 0}


def drawn(groups=60, each=2, channels=6):
    """Features of which the first tells the class, at scales far apart, and the last is the same for all."""
    random = np.random.default_rng(1)
    label = np.repeat(np.arange(groups) % 3 > 0, each).astype(int)
    features = random.normal(size=(groups * each, channels)) * 10.0 ** np.arange(-2, channels - 2)
    features[:, 0] += 0.02 * label
    features[:, -1] = 7.0
    return features.astype(np.float32), label, tuple(np.repeat([f"g{number}" for number in range(groups)], each))


@pytest.mark.parametrize(("kind", "balanced"), [("logistic", True), ("svm", False)])
def test_it_is_scikit_learns_on_standardised_features_for_features_as_they_are(kind, balanced):
    features, label, group = drawn()
    fit = fit_probe(features, label, group, kind=kind, balanced=balanced, **HOW)
    used = features[:, :-1].astype(np.float64)
    standardised = (used - used.mean(0)) / used.std(0)
    weights = "balanced" if balanced else None
    how = {"C": 1 / fit.strength, "class_weight": weights, "max_iter": 5000}
    theirs = LogisticRegression(**how) if kind == "logistic" else LinearSVC(dual=False, **how)
    expected = theirs.fit(standardised, label).decision_function(standardised)
    np.testing.assert_allclose(fit.classifier.scores(features), expected, rtol=1e-3, atol=1e-3)
    assert fit.classifier.weights[-1] == 0
    assert fit.converged


def rare(each=4):
    """The drawn features with those of the first eight NORMAL groups alone, and of all PNEUMONIA groups."""
    features, label, group = drawn(each=each)
    kept = (label == 1) | (np.cumsum(label == 0) <= 8 * each)
    return features[kept], label[kept], tuple(np.asarray(group)[kept])


@pytest.mark.parametrize("balancing", ["oversampling", "smote"])
def test_classes_come_to_one_size_by_rows_of_the_rare_one(balancing):
    features, label, _ = rare()
    found, labels = resample(features, label, balancing, seed=3)
    np.testing.assert_array_equal(found[: len(label)], features)
    counts = np.bincount(labels)
    assert counts[0] == counts[1] == (label == 1).sum()
    added, normals = found[len(label) :], features[label == 0]
    assert (labels[len(label) :] == 0).all()
    repeated = [(row == normals).all(axis=1).any() for row in added]
    assert all(repeated) if balancing == "oversampling" else sum(repeated) < 0.1 * len(repeated)
    low, high = normals.min(axis=0), normals.max(axis=0)
    assert ((added >= low - 1e-4 * abs(low)) & (added <= high + 1e-4 * abs(high))).all()
    np.testing.assert_array_equal(resample(features, label, balancing, seed=3)[0], found)
    assert (resample(features, label, balancing, seed=4)[0] != found).any()


def test_what_is_held_out_has_no_part_in_what_is_drawn(monkeypatch):
    """The classifiers of cross-validation are those that are fitted by hand on the rows of their folds alone."""
    features, label, group = rare()
    taken = []

    def record(rows, labels, balancing, seed):
        taken.append(len(rows))
        return resample(rows, labels, balancing, seed)

    monkeypatch.setattr("cxr_jax.evaluation.linear_probe.resample", record)
    fit = fit_probe(features, label, group, kind="logistic", balancing="smote", **HOW)
    assert taken == [*taken[:3], len(label)] and sum(taken[:3]) == 2 * len(label)
    used = features[:, :-1].astype(np.float64)
    mean, deviation = used.mean(0), used.std(0)
    rows, labels = resample((used - mean) / deviation, label, "smote", HOW["seed"])
    theirs = LogisticRegression(C=1 / fit.strength, max_iter=5000).fit(rows, labels)
    expected = theirs.decision_function((used - mean) / deviation)
    # a feature that is the same for all images is in the distances of neighbours, as 0
    np.testing.assert_allclose(fit.classifier.scores(features), expected, rtol=1e-3, atol=1e-3)
    plain = fit_probe(features, label, group, kind="logistic", **HOW)
    assert plain.scores != fit.scores
    assert plain.classifier.scores(features).mean() > fit.classifier.scores(features).mean() + 0.1


def test_too_few_images_for_neighbours_are_one_sentence():
    features, label, _ = rare(each=1)
    label = np.where(np.cumsum(label == 0) <= 5, label, 1)
    with pytest.raises(UserError, match=r'probe\.balancing is "smote", but a class has 5 images to fit on'):
        resample(features, label, "smote", seed=0)


def test_a_missing_imbalanced_learn_is_one_sentence(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs imbalanced-learn: pip install 'cxr-jax\[smote\]'"):
        require_balancing("oversampling")
    require_balancing("none")


def test_the_same_seed_gives_the_same_and_every_fit_is_told():
    features, label, group = drawn()
    told = []
    first = fit_probe(features, label, group, kind="logistic", advance=told.append, **HOW)
    again = fit_probe(features, label, group, kind="logistic", **HOW)
    np.testing.assert_array_equal(first.classifier.weights, again.classifier.weights)
    assert first.scores == again.scores
    assert sum(told) == fits_of(HOW["strengths"], HOW["folds"]) == 7
    other = fit_probe(features, label, group, kind="logistic", **{**HOW, "seed": 1})
    assert other.scores != first.scores


def test_the_strength_with_the_highest_mean_is_chosen_and_of_equal_ones_the_stronger():
    features, label, group = drawn()
    fit = fit_probe(features, label, group, kind="logistic", **{**HOW, "strengths": (1e6, 1e-3, 30.0)})
    assert [score.strength for score in fit.scores] == [1e-3, 30.0, 1e6]
    assert fit.strength == max(fit.scores, key=lambda score: score.mean).strength
    alone = np.where(label == 1, 1.0, -1.0)[:, None]
    assert fit_probe(alone, label, group, kind="logistic", **HOW).strength == 100.0


def test_a_group_is_never_on_both_sides_of_a_fold():
    """Features that name the group and nothing else would be learnt by heart, if the group could be seen."""
    groups = 30
    label = np.repeat(np.arange(groups) % 2, 4)
    features = np.repeat(np.eye(groups), 4, axis=0)
    fit = fit_probe(features, label, tuple(np.repeat(np.arange(groups).astype(str), 4)), kind="logistic", **HOW)
    assert all(score.mean < 0.6 for score in fit.scores)
    apart = fit_probe(features, label, tuple(map(str, range(len(label)))), kind="logistic", **HOW)
    assert all(score.mean > 0.95 for score in apart.scores)


@pytest.mark.parametrize(("groups", "sentence"), [(4, "train has 2 of NORMAL"), (1, "or take more data")])
def test_too_few_groups_for_the_folds_are_one_sentence(groups, sentence):
    features, label, group = drawn(groups)
    with pytest.raises(UserError, match=f"3 folds need 3 groups of each class, and .*{sentence}"):
        fit_probe(features, label, group, kind="logistic", **HOW)


def test_the_record_comes_back_as_it_was(tmp_path):
    scores = (StrengthScore(1.0, (0.5, 0.75)), StrengthScore(10.0, (0.75, 0.75)))
    record = ProbeRecord("svm", "logits", 1000, 40, 20, 10.0, scores, converged=False)
    write_probe(tmp_path / "probe.json", record)
    assert read_probe(tmp_path / "probe.json") == record
    assert (scores[0].mean, scores[0].deviation) == (0.625, pytest.approx(0.25 / 2**0.5))
    (tmp_path / "probe.json").write_text('{"schema_version": 1, "classifier": "tree"}')
    with pytest.raises(UserError, match=r"probe\.json is damaged .*probe again"):
        read_probe(tmp_path / "probe.json")


def test_of_three_classes_it_is_scikit_learns_too_with_the_mean_area_over_them():
    features, _, group = drawn()
    label = np.repeat(np.arange(60) % 3, 2)
    features[:, 1] += 0.2 * (label == 2)
    fit = fit_probe(features, label, group, kind="logistic", classes=("a", "b", "c"), **HOW)
    used = features[:, :-1].astype(np.float64)
    standardised = (used - used.mean(0)) / used.std(0)
    theirs = LogisticRegression(C=1 / fit.strength, max_iter=5000).fit(standardised, label)
    found = scores_of(fit.classifiers, features)
    np.testing.assert_allclose(found, theirs.decision_function(standardised), rtol=1e-3, atol=1e-3)
    assert all(0.3 < area < 1 for score in fit.scores for area in score.roc_auc)
    with pytest.raises(UserError, match="3 folds need 3 groups of each class, and train has 0 of d"):
        fit_probe(features, label, group, kind="logistic", classes=("a", "b", "c", "d"), **HOW)


def test_each_finding_is_fitted_on_the_images_of_which_it_is_known():
    features, label, group = drawn()
    known = np.arange(len(label)) % 5 > 0
    labels = np.stack([label, np.where(known, 1 - label, np.nan)], axis=1).astype(np.float32)
    classifiers, told = fit_finding_probes(features, labels, group, ("Mass", "Nodule"), kind="logistic", **HOW)
    assert [(entry.name, entry.images) for entry in told] == [("Mass", len(label)), ("Nodule", int(known.sum()))]
    alone = fit_probe(features[known], 1 - label[known], np.asarray(group)[known], kind="logistic", **HOW)
    np.testing.assert_array_equal(classifiers[1].weights, alone.classifier.weights)
    assert (told[1].strength, told[1].scores, told[1].shown) == (
        alone.strength,
        alone.scores,
        int((label[known] == 0).sum()),
    )
    labels[labels[:, 1] == 1, 1] = np.nan
    with pytest.raises(UserError, match="train has 0 of images with Nodule"):
        fit_finding_probes(features, labels, group, ("Mass", "Nodule"), kind="svm", **HOW)
