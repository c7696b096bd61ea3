from types import SimpleNamespace

import pytest

from cxr_jax.evaluation.baselines import ALL_MEASURES
from cxr_jax.evaluation.intervals import Interval
from cxr_jax.evaluation.measures import Measured
from cxr_jax.reporting.quality import ToldBaseline
from cxr_jax.reporting.summary import EXAMPLE_PREVALENCE, PREVALENCES, outlook, outlook_sentence, summarise


def measured(value, low=None, high=None):
    return Measured("Title", value, None, () if low is None else (Interval(low, high, "Wilson"),))


def judged(confusion, roc_auc=(0.962, 0.95, 0.97), sensitivity=(0.9, 0.85, 0.95), specificity=(0.8, 0.7, 0.9)):
    rates = {"roc_auc": roc_auc, "sensitivity": sensitivity, "specificity": specificity}
    positives = sum(confusion[1])
    return SimpleNamespace(
        confusion=confusion,
        metrics={name: measured(*numbers) for name, numbers in rates.items()},
        all_pneumonia_accuracy=positives / (positives + sum(confusion[0])),
    )


def baseline(*roc_auc):
    return [ToldBaseline(ALL_MEASURES, "All measures together", {"roc_auc": measured(*roc_auc)}, None)]


CONFUSION = [[147, 87], [7, 383]]


def test_the_verdict_is_in_counts_with_the_baseline_beside_it():
    told = summarise(judged(CONFUSION), baseline(0.867, 0.84, 0.9))
    assert told.sentences == (
        "Of 390 radiographs with pneumonia it missed 7.",
        "Of 234 without pneumonia it called 87 ill.",
        "In all it was right 530 times; who calls every radiograph ill is right 390 times.",
    )
    assert "96 of 100 such pairs (AUC 0.962)" in told.ranking
    assert "without any network, do so in 87 of 100 such pairs (AUC 0.867)" in told.ranking
    assert [(bar.right, bar.wrong, bar.images) for bar in told.bars] == [(383, 7, 390), (147, 87, 234)]


@pytest.mark.parametrize(
    ("interval", "told"),
    [
        ((0.84, 0.94), "the network knows more than how the pictures were taken"),
        ((0.84, 0.955), "It is not shown that the network knows more"),
        ((0.98, 0.99), "the network does worse than what needs no network"),
    ],
)
def test_the_baseline_is_beaten_only_where_the_intervals_do_not_overlap(interval, told):
    assert told in summarise(judged(CONFUSION), baseline(sum(interval) / 2, *interval)).against_baseline


def test_what_is_not_known_is_not_told():
    one_class = summarise(judged([[0, 0], [0, 9]], roc_auc=(None,)), ())
    assert one_class.sentences == ("Of 9 radiographs with pneumonia it missed none.",)
    assert (one_class.ranking, one_class.against_baseline) == (None, None)
    assert summarise(judged(CONFUSION), ()).against_baseline is None
    assert summarise(judged(CONFUSION), baseline(0.8)).against_baseline is None
    assert outlook(judged([[0, 0], [0, 9]], specificity=(None,)), None) is None


def test_the_worth_of_calls_is_told_for_usual_prevalences_and_for_the_one_declared():
    told = outlook(judged(CONFUSION), None)
    assert told.prevalence == EXAMPLE_PREVALENCE
    assert [row.prevalence for row in told.rows] == sorted({*PREVALENCES, 390 / 624})
    declared = outlook(judged(CONFUSION), 0.03)
    assert (declared.declared, declared.prevalence) == (0.03, 0.03)
    assert 0.03 in [row.prevalence for row in declared.rows]


def test_a_thousand_radiographs():
    assert outlook_sentence(0.9, 0.8, 0.05) == (
        "Of 1,000 radiographs, 50 show pneumonia: 45 of them are found and 5 missed. Of the 950 others, 190 are called "
        "ill. So 45 of 235 calls of PNEUMONIA are right, and 760 of 765 calls of NORMAL."
    )
