"""What the judgement of samples compares with what, with features that are grey levels."""

import dataclasses

import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.synthesis.judge import judge_samples
from tests.synthesis.conftest import draw_images


class GreyLevels:
    """In place of a network: 16 mean grey levels of an image are its features."""

    def of(self, images, advance=lambda _: None):
        advance(len(images))
        return np.asarray(images, np.float64).reshape(len(images), 4, 4, 4, 4).mean((2, 4)).reshape(-1, 16) / 255


def judged(config, samples, training, held_out):
    return judge_samples(config, samples, training, held_out, GreyLevels())


@pytest.fixture(scope="module")
def training():
    return draw_images(120, seed=1)


@pytest.fixture(scope="module")
def held_out():
    return draw_images(40, seed=2)


def test_samples_are_held_to_training_images_and_not_to_those_held_out(config, training, held_out):
    copies, neighbours = judged(config, training.images, training, held_out)
    assert copies.in_pixels.copies and copies.in_features.copies
    assert copies.in_pixels.median == copies.in_features.median == 0 < copies.in_pixels.median_held_out
    np.testing.assert_array_equal(neighbours.by_pixels, np.arange(120))
    new, _ = judged(config, draw_images(120, seed=3).images, training, held_out)
    assert not new.in_pixels.copies and not new.in_features.copies
    # what is held out may be copied: a generator cannot have learned it
    of_held_out, _ = judged(config, held_out.images, training, held_out)
    assert not of_held_out.in_pixels.copies and not of_held_out.in_features.copies


def test_samples_unlike_training_images_are_told_apart_whatever_is_held_out(config, training, held_out):
    dark = dataclasses.replace(held_out, images=held_out.images // 8)
    unlike, _ = judged(config, draw_images(120, seed=3).images // 8, training, dark)
    assert unlike.distance.value - unlike.distance_of_halves.value > 4 * unlike.distance.standard_error
    assert unlike.verdict[0].startswith("Unlike real images")


def test_training_images_of_one_group_are_never_taken_for_different_ones(config, held_out):
    # of every group the same picture three times: pairs within a group would be equal, and halves alike
    single = draw_images(24, seed=4)
    repeated = single.select(np.repeat(np.arange(24), 3))
    samples = draw_images(60, seed=5).images
    found, _ = judged(config, samples, repeated, held_out)
    alone, _ = judged(config, samples, single, held_out)
    assert found.real_alike.pairs == alone.real_alike.pairs == 12
    assert found.real_alike.mean == pytest.approx(alone.real_alike.mean, abs=4 * alone.real_alike.standard_error)
    assert found.real_alike.mean < 0.9
    assert set(found.distance_of_halves.images) == {36}


def test_with_few_images_nothing_is_said_of_diversity(config, training, held_out):
    few, _ = judged(config, draw_images(8, seed=6).images, training, held_out)
    assert few.samples_alike.pairs == 4
    assert few.verdict[1].startswith("There are too few images to tell how diverse samples are")


def test_one_group_of_training_images_is_refused(config, training, held_out):
    one = dataclasses.replace(training, groups=("g",) * len(training.groups))
    with pytest.raises(UserError, match="not two groups of images"):
        judged(config, training.images, one, held_out)
