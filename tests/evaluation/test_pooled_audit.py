"""Audits of several seeds pooled over the seeds of their recipe."""

import dataclasses

import numpy as np
import pytest

from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.paired import holm
from cxr_jax.evaluation.pooled_audit import pool_audits
from cxr_jax.evaluation.quality_audit import compare_errors

QUICK = Confidence(resamples=200)


def audits(*, brighter, seeds=3, images=240, wrong=60, random=None, agree=1.0):
    """Audits of seeds that err on images brighter by so many of their deviations; two images a group."""
    random = random or np.random.default_rng(0)
    light, noise = np.repeat(random.normal(size=images // 2), 2) * 10 + 120, random.normal(size=images)
    difficulty = brighter * (light - light.mean()) / light.std() + random.normal(size=images)
    found = []
    for _ in range(seeds):
        called = np.zeros(images, bool)
        called[np.argsort(-(difficulty + (1 - agree) * 5 * random.normal(size=images)))[:wrong]] = True
        columns = {"mean": light, "noise": noise, "constant": np.ones(images)}
        found.append(compare_errors(columns, called, np.arange(images) // 2, QUICK))
    return found


def test_one_seed_or_equal_seeds_are_told_as_the_run_alone():
    (alone,) = audits(brighter=0.8, seeds=1)
    for pooled in (pool_audits([alone]), pool_audits([alone] * 4)):
        entry, own = pooled.measures["mean"], alone.measures["mean"]
        assert entry.difference == pytest.approx(own.difference)
        assert (entry.interval.low, entry.interval.high) == pytest.approx((own.interval.low, own.interval.high))
        assert entry.higher.value == pytest.approx(own.higher.value)
        assert entry.p_value == pytest.approx(own.p_value, rel=1e-3)
        assert entry.verdict == own.verdict == "higher"
    assert pooled.measures["constant"] is None
    assert (pooled.errors, pooled.right, pooled.tested) == ((60,) * 4, (180,) * 4, 2)


def test_seeds_that_disagree_make_it_less_sure():
    runs = audits(brighter=0.5, agree=0.8)
    pooled = pool_audits(runs)
    entry = pooled.measures["mean"]
    own = [run.measures["mean"] for run in runs]
    assert entry.differences == tuple(one.difference for one in own)
    assert entry.difference == pytest.approx(np.mean(entry.differences))
    assert entry.interval.low < np.mean([one.interval.low for one in own])
    assert entry.interval.high > np.mean([one.interval.high for one in own])
    assert entry.higher_in == sum(difference > 0 for difference in entry.differences)
    tested = [measure for measure in pooled.measures.values() if measure is not None]
    assert [one.adjusted_p_value for one in tested] == pytest.approx(holm([one.p_value for one in tested]))


def test_the_p_value_is_that_of_the_interval():
    for seed in range(40):
        random = np.random.default_rng(seed)
        runs = audits(brighter=random.uniform(-0.6, 0.6), random=random, agree=0.9)
        entry = pool_audits(runs).measures["mean"]
        assert (entry.p_value < 0.05) == (not entry.higher.interval.low <= 0.5 <= entry.higher.interval.high)
        if entry.verdict != "not shown":
            assert entry.verdict == ("higher" if entry.higher.value > 0.5 else "lower")
            assert entry.p_value <= entry.adjusted_p_value < 0.05


def test_a_seed_with_few_errors_leaves_the_recipe_untested_and_one_without_any_leaves_nothing():
    many, few, none = (audits(brighter=0.8, seeds=1, wrong=count)[0] for count in (60, 8, 0))
    pooled = pool_audits([many, few])
    entry = pooled.measures["mean"]
    assert (entry.p_value, entry.adjusted_p_value, entry.verdict, pooled.tested) == (None, None, "not tested", 0)
    assert pool_audits([many, none]).measures["mean"] is None
    # a measure that one version of the program did not have is left out
    lacking = dataclasses.replace(many, measures={"mean": many.measures["mean"]})
    assert list(pool_audits([many, lacking]).measures) == ["mean"]


@pytest.mark.slow
def test_without_a_relation_something_is_shown_as_rarely_as_promised():
    random = np.random.default_rng(3)
    shown = []
    for _ in range(300):
        pooled = pool_audits(audits(brighter=0.0, random=random, agree=random.uniform(0.7, 1)))
        shown.append(any(entry is not None and entry.verdict != "not shown" for entry in pooled.measures.values()))
    assert np.mean(shown) <= 0.07
