import numpy as np
import pytest

from cxr_jax.explain.agreement import judge_agreement, pairwise_agreement
from cxr_jax.explain.similarity import rank_correlation

CLASSES, CLUSTERS = np.zeros(10, int), np.arange(10)


@pytest.fixture
def maps():
    return np.random.default_rng(0).random((3, 10, 7, 7))


def test_all_pairs_of_runs_count_alike(maps):
    first, second, third = maps
    pairs = [rank_correlation(*pair) for pair in ((first, second), (first, third), (second, third))]
    np.testing.assert_allclose(pairwise_agreement(maps), np.mean(pairs, axis=0))


def test_runs_that_mark_the_same_pass_and_others_fail(maps):
    first, second, _ = maps
    alike = judge_agreement([first, 0.9 * first + 0.1 * second], CLASSES, CLUSTERS)
    assert alike.passes and alike.means["NORMAL"].low > 0.9
    assert alike.told.startswith("2 runs; maps of different images correlate between runs by")
    strangers = judge_agreement([first, second], CLASSES, CLUSTERS)
    assert strangers.passes is False and abs(strangers.means["NORMAL"].value) < 0.2


def test_a_place_that_is_always_marked_is_told(maps):
    always = np.broadcast_to(maps[0][:1], maps[0].shape)
    found = judge_agreement([always, always, always], CLASSES, CLUSTERS)
    assert found.passes
    assert "correlate between runs by 1.00" in found.told
