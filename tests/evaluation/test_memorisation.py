import numpy as np
import pytest

from cxr_jax.evaluation.memorisation import memorisation, nearest


def drawn(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8)).astype(np.uint8)


def test_the_nearest_is_that_of_all_pairs():
    queries, references = drawn(30, 0), drawn(40, 1)
    apart = queries[:, None].astype(float) - references[None]
    distances = np.sqrt(np.mean(apart**2, axis=(2, 3)))
    found, rows = nearest(queries, references)
    np.testing.assert_array_equal(rows, distances.argmin(axis=1))
    np.testing.assert_allclose(found, distances.min(axis=1), rtol=1e-12)
    assert nearest(references[7:8], references)[0][0] == 0


def test_copies_are_found_out():
    train, held_out = drawn(200, 0), drawn(60, 1)
    real = nearest(held_out, train)[0]
    noise = np.random.default_rng(2).integers(-2, 3, train.shape)
    copies = np.clip(train.astype(int) + noise, 0, 255).astype(np.uint8)
    found = memorisation(nearest(copies, train)[0], real)
    assert found.copies
    assert found.share == 1
    assert found.median < 2 < found.limit < found.median_held_out


def test_a_few_copies_among_many_are_found_out_too():
    train, held_out = drawn(200, 0), drawn(60, 1)
    real = nearest(held_out, train)[0]
    samples = np.concatenate([train[:60], drawn(240, 3)])
    found = memorisation(nearest(samples, train)[0], real)
    assert found.copies
    assert found.share == pytest.approx(0.2, abs=0.1)


def test_images_of_the_same_kind_are_no_copies():
    train, held_out = drawn(200, 0), drawn(60, 1)
    real = nearest(held_out, train)[0]
    found = memorisation(nearest(drawn(200, 4), train)[0], real)
    assert not found.copies
    assert found.low <= found.share <= found.high


@pytest.mark.parametrize("held_out", [8, 20, 60])
def test_samples_that_copy_nothing_are_seldom_called_copies(held_out):
    draw = np.random.default_rng(held_out)
    told = [memorisation(draw.random(300), draw.random(held_out)).copies for _ in range(400)]
    assert np.mean(told) < 0.05


def test_many_copies_are_found_out_with_few_images_held_out():
    draw = np.random.default_rng(0)
    samples = np.concatenate([np.zeros(200), draw.random(100)])
    assert memorisation(samples, draw.random(8)).copies
