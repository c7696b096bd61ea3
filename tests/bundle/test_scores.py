import numpy as np
import pytest

from cxr_jax.bundle.scores import MIN_IMAGES, Scores
from cxr_jax.runs.records import from_json, to_json


def drawn(images, seed=0, shift=0.0):
    return 1 / (1 + np.exp(-np.random.default_rng(seed).normal(shift, 3, images)))


def test_every_step_holds_as_many_images_and_no_single_one_is_told():
    probability = drawn(522)
    scores = Scores.of(probability)
    assert scores.images == 522 and len(scores.edges) == 19
    np.testing.assert_allclose(scores.shares, 1 / 20, atol=1 / 522)
    assert scores.edges[0] > probability.min() and scores.edges[-1] < probability.max()


@pytest.mark.parametrize(("images", "steps"), [(19, None), (20, 2), (57, 5), (10_000, 20)])
def test_a_step_is_never_of_fewer_than_ten_images(images, steps):
    scores = Scores.of(drawn(images))
    assert (scores and len(scores.shares)) == steps
    if scores:
        assert min(scores.shares) * images >= MIN_IMAGES - 1e-9


def test_equal_probabilities_share_an_edge():
    scores = Scores.of(np.array([0.0] * 45 + [1.0] * 55))
    assert scores.edges == (0.0, 1.0)
    np.testing.assert_allclose(scores.shares, [0, 0.45, 0.55])
    assert scores.stability_index(np.array([0.0] * 45 + [1.0] * 55)) == pytest.approx(0, abs=1e-12)


def test_the_index_of_the_same_images_is_nothing_and_that_of_others_is_as_by_hand():
    scores = Scores(100, (0.5,), (0.5, 0.5))
    assert scores.stability_index(np.array([0.2] * 50 + [0.5] * 50)) == 0
    expected, actual = 0.5, 90.5 / 101
    by_hand = (actual - expected) * np.log(actual / expected)
    by_hand += (1 - actual - expected) * np.log((1 - actual) / expected)
    assert scores.stability_index(np.array([0.2] * 10 + [0.5] * 90)) == pytest.approx(by_hand)


def test_an_empty_step_is_no_infinity():
    assert np.isfinite(Scores.of(drawn(200)).stability_index(np.zeros(10)))


def test_chance_exceeds_its_bound_in_one_case_of_twenty_and_drift_almost_always():
    exceeded = {
        shift: np.mean(
            [
                (scores := Scores.of(drawn(500, seed))).stability_index(drawn(1000, seed + 10_000, shift))
                > scores.stability_index_by_chance(1000)
                for seed in range(400)
            ]
        )
        for shift in (0.0, 1.5)
    }
    assert 0.02 < exceeded[0.0] < 0.08
    assert exceeded[1.5] > 0.99


def test_it_is_written_and_read_and_what_is_none_is_refused():
    scores = Scores.of(drawn(300))
    assert from_json(Scores, to_json(scores)) == scores
    for edges in ((0.5, 0.2), (0.1, 0.2, 0.3)):
        with pytest.raises(ValueError, match="edges of scores"):
            from_json(Scores, {"images": 3, "edges": list(edges), "shares": [0.2, 0.3, 0.5]})
