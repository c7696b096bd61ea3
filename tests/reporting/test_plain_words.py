import dataclasses

import numpy as np
import pytest

from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.judge import judge
from cxr_jax.reporting.plain_words import told_calibration, told_rule
from cxr_jax.runs.predictions import Predictions

FEW = Confidence(resamples=20)


def shifted(predictions, logits):
    """The same predictions with their margins moved."""
    moved = predictions.logits + np.array([0, logits])
    names = ("file", "split", "group", "subtype", "label")
    return Predictions.from_logits(moved, **{name: getattr(predictions, name) for name in names})


def judged(example, validation=0.0, test=0.0):
    return judge(shifted(example.validation, validation), shifted(example.test, test), 0.5, confidence=FEW)


def test_the_rule_is_told_with_what_it_may_lead_to(example):
    told = told_rule(example.judged)
    assert told.startswith("The threshold was set on 140 validation images, and others would have put it elsewhere")
    for name in ("accuracy", "specificity"):
        interval = example.judged.for_rule.metrics[name].interval
        assert f"{name} anywhere from {interval.low:.0%} to {interval.high:.0%}" in told


def test_nothing_is_told_of_a_rule_where_the_threshold_was_fixed_or_the_evaluation_is_older(example):
    assert told_rule(judged(example)) is None
    assert told_rule(dataclasses.replace(example.judged, for_rule=None)) is None


@pytest.mark.parametrize(("moved", "direction"), [(-3.0, "too low"), (3.0, "too high")])
def test_probabilities_that_are_all_off_are_told_in_plain_words(example, moved, direction):
    judgement = judged(example, moved, moved)
    (told,) = told_calibration(judgement, weighted=False)
    large = judgement.validation.calibration.before.recalibration.in_the_large
    right = 1 / (1 + np.exp(-large.value))
    assert told.startswith(
        f"On validation the probabilities of PNEUMONIA are {direction}, by {abs(large.value):.1f} logits"
    )
    assert f"where the network says 50%, it should say about {right:.0%}." in told
    assert "On test the probabilities" in told
    assert told.index("On validation") < told.index("On test") < told.index("No temperature mends that")
    assert "counted more" not in told


def test_class_weights_are_named_as_the_cause_only_where_they_can_be(example):
    # NORMAL is the rarer class of these images: weights make the probabilities of PNEUMONIA too low, not too high
    (low,) = told_calibration(judged(example, -3.0), weighted=True)
    assert "The rarer class, NORMAL, counted more in training" in low
    (high,) = told_calibration(judged(example, 3.0), weighted=True)
    assert "counted more" not in high


def test_nothing_is_told_where_the_interval_holds_nought_or_the_evaluation_is_older(example):
    whole = judged(example)
    in_the_large = [judged.calibration.before.recalibration.in_the_large for judged in whole.splits.values()]
    right = judged(example, in_the_large[1].value, in_the_large[0].value)
    assert told_calibration(right, weighted=True) == ()
    older = {
        name: dataclasses.replace(
            split,
            calibration=dataclasses.replace(
                split.calibration, before=dataclasses.replace(split.calibration.before, recalibration=None)
            ),
        )
        for name, split in judged(example, -3.0, -3.0).splits.items()
    }
    assert told_calibration(dataclasses.replace(whole, **older), weighted=True) == ()
