"""Paired differences of two programs on the same findings."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from cxr_jax.errors import UserError
from cxr_jax.evaluation.compare_findings import compare_findings
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.paired import compare_auc, holm
from cxr_jax.runs.finding_predictions import FindingPredictions

NAMES = ("Effusion", "Mass", "Hernia")
QUICK = Confidence(resamples=300)


def pair(count=200, *, seed=0, skills=(2.0, 0.5), groups=True, unknown=0.15):
    """Predictions of two programs of different skill on the same images."""
    random = np.random.default_rng(seed)
    label = (random.random((count, 3)) < (0.4, 0.3, 0.2)).astype(float)
    truth = label.copy()
    label[random.random(label.shape) < unknown] = np.nan
    known = {
        "file": [f"{i}.png" for i in range(count)],
        "split": ["test"] * count,
        "group": [f"g{i // 2}" if groups else "" for i in range(count)],
        "classes": NAMES,
        "label": label,
    }
    return {
        name: FindingPredictions.from_logits(random.normal(size=label.shape) + skill * truth - 1, **known)
        for name, skill in zip(("good", "poor"), skills, strict=True)
    }


def test_differences_are_those_of_scikit_learn_and_the_areas_are_tested_by_groups():
    tables = pair()
    told = []
    comparison = compare_findings(tables, QUICK, told.append)
    assert sum(told) == QUICK.resamples
    assert (comparison.images, comparison.groups) == (200, 100)
    areas, precisions = [], []
    for index, name in enumerate(NAMES):
        rows = ~np.isnan(tables["good"].label[:, index])
        label = tables["good"].label[rows, index]
        scores = [table.probabilities[rows, index] for table in tables.values()]
        areas.append([sk.roc_auc_score(label, score) for score in scores])
        precisions.append([sk.average_precision_score(label, score) for score in scores])
        metrics = comparison.findings[name]
        assert (metrics["roc_auc"].first, metrics["roc_auc"].second) == pytest.approx(areas[-1])
        assert metrics["average_precision"].difference == pytest.approx(np.subtract(*precisions[-1]))
        clusters = tables["good"].clusters()[rows]
        tested = compare_auc(label.astype(int), scores[0][None], scores[1][None], clusters)
        assert (metrics["roc_auc"].interval, metrics["roc_auc"].p_value) == (tested.interval, tested.p_value)
    expected = holm([comparison.findings[name]["roc_auc"].p_value for name in NAMES])
    assert [comparison.findings[name]["roc_auc"].adjusted for name in NAMES] == expected
    macro = comparison.together["macro_roc_auc"]
    assert (macro.first, macro.second) == pytest.approx(np.mean(areas, axis=0))
    assert macro.interval.low < macro.difference < macro.interval.high
    assert macro.interval.low > 0
    assert macro.p_value < 0.01
    assert macro.interval.method == "group bootstrap"


@given(st.integers(0, 100))
@settings(max_examples=8, deadline=None)
def test_the_second_against_the_first_is_the_other_way_round(seed):
    tables = pair(80, seed=seed)
    forth = compare_findings(tables, Confidence(resamples=50))
    back = compare_findings(dict(reversed(tables.items())), Confidence(resamples=50))
    for name, metric in forth.together.items():
        assert back.together[name].difference == pytest.approx(-metric.difference)
    assert set(forth.findings) == set(back.findings)
    for name, metrics in forth.findings.items():
        assert back.findings[name]["roc_auc"].p_value == pytest.approx(metrics["roc_auc"].p_value)


def test_a_program_does_not_differ_from_itself_whatever_the_order_of_rows_and_findings():
    table = pair()["good"]
    rows, columns = np.random.default_rng(1).permutation(200), [2, 0, 1]
    moved = table.select(rows)
    moved = dataclasses.replace(
        moved,
        classes=tuple(NAMES[column] for column in columns),
        label=moved.label[:, columns],
        logits=moved.logits[:, columns],
        probabilities=moved.probabilities[:, columns],
    )
    comparison = compare_findings({"a": table, "b": moved}, QUICK)
    for metric in (*comparison.together.values(), *(one["roc_auc"] for one in comparison.findings.values())):
        assert metric.difference == 0
        assert metric.interval is None


def test_findings_that_cannot_be_ranked_are_left_out():
    tables = pair()
    label = tables["good"].label.copy()
    label[:, 1] = np.nan
    lacking = {name: dataclasses.replace(table, label=label) for name, table in tables.items()}
    assert tuple(compare_findings(lacking, QUICK).findings) == ("Effusion", "Hernia")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda table: table.select(np.arange(150)), "of different images: 150.png and 49 more are in one alone"),
        (lambda table: dataclasses.replace(table, classes=("Effusion", "Mass", "Edema")), "Edema, Hernia is in one"),
        (
            lambda table: dataclasses.replace(table, label=np.nan_to_num(table.label)),
            "good and poor have different labels of .* for .*: compare on the same labels",
        ),
    ],
)
def test_tables_that_are_not_of_the_same_are_refused(change, sentence):
    tables = pair()
    with pytest.raises(UserError, match=sentence):
        compare_findings({**tables, "poor": change(tables["poor"])}, QUICK)
