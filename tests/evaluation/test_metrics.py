import numpy as np
import pytest
import sklearn.metrics as reference
from hypothesis import assume, given
from hypothesis import strategies as st

from cxr_jax.evaluation import metrics
from cxr_jax.evaluation.cases import Cases, calls_of

# Few distinct values, so that ties between and within classes are common.
probabilities = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.75, 0.9, 1.0]) | st.floats(0, 1)
labelled = st.lists(st.tuples(st.integers(0, 1), probabilities), min_size=1, max_size=40)
thresholds = st.floats(0, 1)


def unpack(images):
    label, probability = zip(*images, strict=True)
    return np.array(label), np.array(probability)


REFERENCES = {
    "accuracy": lambda y, p, c: reference.accuracy_score(y, c),
    "balanced_accuracy": lambda y, p, c: reference.balanced_accuracy_score(y, c),
    "sensitivity": lambda y, p, c: reference.recall_score(y, c),
    "specificity": lambda y, p, c: reference.recall_score(y, c, pos_label=0),
    "precision": lambda y, p, c: reference.precision_score(y, c),
    "negative_predictive_value": lambda y, p, c: reference.precision_score(y, c, pos_label=0),
    "f1": lambda y, p, c: reference.f1_score(y, c),
    "matthews_correlation": lambda y, p, c: reference.matthews_corrcoef(y, c),
    "roc_auc": lambda y, p, c: reference.roc_auc_score(y, p),
    "average_precision": lambda y, p, c: reference.average_precision_score(y, p),
    "brier": lambda y, p, c: reference.brier_score_loss(y, p),
    "log_loss": lambda y, p, c: reference.log_loss(y, p, labels=[0, 1]),
}


def test_every_metric_has_a_reference():
    assert set(REFERENCES) == set(metrics.METRICS)


@given(images=labelled, threshold=thresholds)
def test_metrics_agree_with_scikit_learn_wherever_they_are_defined(metric_values, images, threshold):
    label, probability = unpack(images)
    calls = (probability >= threshold).astype(int)
    for name, value in metric_values(label, probability, threshold).items():
        if value is not None:
            np.testing.assert_allclose(value, REFERENCES[name](label, probability, calls), atol=1e-12, err_msg=name)


@given(images=labelled, threshold=thresholds)
def test_a_metric_is_undefined_exactly_when_its_denominator_is_zero(metric_values, images, threshold):
    label, probability = unpack(images)
    calls = calls_of(probability, threshold)
    one_class = len(set(label.tolist())) < 2
    one_call = calls.all() or not calls.any()
    undefined = {
        "accuracy": False,
        "balanced_accuracy": one_class,
        "sensitivity": not label.any(),
        "specificity": label.all(),
        "precision": not calls.any(),
        "negative_predictive_value": calls.all(),
        "f1": not label.any() and not calls.any(),
        "matthews_correlation": one_class or one_call,
        "roc_auc": one_class,
        "average_precision": not label.any(),
        "brier": False,
        "log_loss": False,
    }
    values = metric_values(label, probability, threshold)
    assert {name: value is None for name, value in values.items()} == undefined


@given(images=labelled, threshold=thresholds, seed=st.integers(0, 1000))
def test_the_order_of_images_does_not_matter(metric_values, images, threshold, seed):
    label, probability = unpack(images)
    order = np.random.default_rng(seed).permutation(len(label))
    before = metric_values(label, probability, threshold)
    after = metric_values(label[order], probability[order], threshold)
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert (value is None) == (after[name] is None)
        assert value is None or value == pytest.approx(after[name], abs=1e-12)


@given(images=labelled)
def test_ranking_metrics_ignore_monotone_transforms(images):
    label, probability = unpack(images)
    # Maps the probabilities to their ranks, which keeps order and ties, and nothing else.
    ranks = np.unique(probability, return_inverse=True)[1] / (len(probability) + 1)
    for name in ("roc_auc", "average_precision"):
        one, other = (metrics.metric_value(name, Cases.unweighted(label, p)) for p in (probability, ranks))
        assert one == other


@given(images=labelled)
def test_reversing_scores_and_labels_keeps_the_auc_and_reversing_scores_mirrors_it(images):
    label, probability = unpack(images)
    assume(0 < label.sum() < len(label))
    # Ranks instead of 1 - p, because the subtraction can make two different probabilities equal.
    ranks = np.unique(probability, return_inverse=True)[1].astype(float)
    auc = metrics.roc_auc(Cases.unweighted(label, ranks))[0]
    assert metrics.roc_auc(Cases.unweighted(1 - label, -ranks))[0] == pytest.approx(auc)
    assert metrics.roc_auc(Cases.unweighted(label, -ranks))[0] == pytest.approx(1 - auc)


@given(images=labelled, threshold=thresholds, data=st.data())
def test_a_weight_is_the_same_as_a_repeated_image(images, threshold, data):
    label, probability = unpack(images)
    times = np.array(data.draw(st.lists(st.integers(0, 3), min_size=len(label), max_size=len(label))))
    assume(times.sum() > 0)
    weighted = Cases(label, probability, threshold, times[None].astype(float))
    repeated = Cases.unweighted(np.repeat(label, times), np.repeat(probability, times), threshold)
    measures = {name: metric.function for name, metric in metrics.METRICS.items()}
    measures["specificity_at_sensitivity"] = lambda cases: metrics.specificity_at_sensitivity(cases, 0.95)
    for name, measure in measures.items():
        np.testing.assert_allclose(measure(weighted), measure(repeated), rtol=1e-10, atol=1e-12, err_msg=name)


@given(images=labelled, target=st.sampled_from([0.5, 0.9, 0.95, 0.975, 1.0]))
def test_specificity_at_sensitivity_is_the_best_of_all_thresholds_that_reach_it(images, target):
    label, probability = unpack(images)
    assume(0 < label.sum() < len(label))
    best = max(
        np.mean(probability[label == 0] < t)
        for t in probability
        if np.mean(probability[label == 1] >= t) >= target - 1e-9
    )
    cases = Cases.unweighted(label, probability)
    assert metrics.specificity_at_sensitivity(cases, target)[0] == pytest.approx(best)
    threshold = metrics.threshold_at_sensitivity(cases, target)
    assert np.mean(probability[label == 1] >= threshold) >= target - 1e-9
    higher = probability[probability > threshold]
    assert all(np.mean(probability[label == 1] >= t) < target for t in higher)
    assert np.mean(probability[label == 0] < threshold) == pytest.approx(best)


def test_specificity_at_sensitivity_needs_both_classes():
    assert np.isnan(metrics.specificity_at_sensitivity(Cases.unweighted([1, 1], [0.1, 0.9]), 0.95)[0])
    assert np.isnan(metrics.specificity_at_sensitivity(Cases.unweighted([0, 0], [0.1, 0.9]), 0.95)[0])
    with pytest.raises(ValueError, match="no image is PNEUMONIA"):
        metrics.threshold_at_sensitivity(Cases.unweighted([0, 0], [0.1, 0.9]), 0.95)


def test_a_probability_equal_to_the_threshold_is_pneumonia():
    assert calls_of(np.array([0.49, 0.5, 0.51]), 0.5).tolist() == [False, True, True]
    matrix = metrics.confusion_matrix(np.array([0, 0, 1, 1, 1]), np.array([0.5, 0.4, 0.5, 0.4, 0.9]), 0.5)
    assert matrix.tolist() == [[1, 1], [1, 2]]


def test_the_published_confusion_matrix_gives_the_published_figures(metric_values):
    """Lee et al. 2024: TN 184, FP 50, FN 39, TP 351: accuracy 85.74 %, precision 88 %, recall 90 %, F1 89 %."""
    label = np.repeat([0, 0, 1, 1], [184, 50, 39, 351])
    probability = np.repeat([0.0, 1.0, 0.0, 1.0], [184, 50, 39, 351])
    values = metric_values(label, probability)
    assert round(values["accuracy"], 4) == 0.8574
    assert round(values["precision"], 2) == 0.88
    assert round(values["sensitivity"], 2) == 0.90
    assert round(values["f1"], 2) == 0.89
    assert round(values["specificity"], 3) == 0.786


@given(images=labelled)
def test_curves_are_those_of_scikit_learn(images):
    label, probability = unpack(images)
    assume(0 < label.sum() < len(label))
    ours = metrics.roc_curve(label, probability)
    theirs = reference.roc_curve(label, probability, drop_intermediate=False)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other)
    precision, recall, threshold = metrics.precision_recall_curve(label, probability)
    their_precision, their_recall, their_threshold = reference.precision_recall_curve(label, probability)
    # They end with a made-up point (precision 1 at recall 0) and rise with the threshold.
    np.testing.assert_allclose(precision, their_precision[-2::-1])
    np.testing.assert_allclose(recall, their_recall[-2::-1])
    np.testing.assert_allclose(threshold, their_threshold[::-1])


def test_wilson_counts_of_a_proportion_are_its_numerator_and_denominator():
    cases = Cases.unweighted([0, 0, 0, 1, 1], [0.1, 0.7, 0.2, 0.8, 0.3], 0.5)
    masks = {name: m.proportion(cases) for name, m in metrics.METRICS.items() if m.proportion}
    assert {name: (int(a.sum()), int(b.sum())) for name, (a, b) in masks.items()} == {
        "accuracy": (3, 5),
        "sensitivity": (1, 2),
        "specificity": (2, 3),
        "precision": (1, 2),
        "negative_predictive_value": (2, 3),
    }
    for name, (numerator, denominator) in masks.items():
        assert not (numerator & ~denominator).any()
        assert metrics.metric_value(name, cases) == numerator.sum() / denominator.sum()
