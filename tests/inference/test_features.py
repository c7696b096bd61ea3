"""The training images in the features of a restored network, and films that are unlike them."""

import functools
from dataclasses import replace

import cv2
import jax
import numpy as np
import pytest

from cxr_jax.images.image_set import ImageSet
from cxr_jax.inference.features import make_feature_reference, measured_stage
from cxr_jax.serving.predict import Threshold, predict_files


@pytest.fixture(scope="module")
def trained(tiny_trained):
    return tiny_trained(loud=True, step=7, threshold=0.5, threshold_rule="fixed")


def films(count, seed):
    """Smooth images with a bright middle; labels alternate."""
    noise = np.random.default_rng(seed).normal(size=(count, 32, 32))
    soft = np.stack([cv2.GaussianBlur(image, (0, 0), 3) for image in noise])
    middle = np.hypot(*np.meshgrid(np.linspace(-1, 1, 32), np.linspace(-1, 1, 32)))
    return np.clip(150 - 70 * middle + 120 * soft, 0, 255).astype(np.uint8)


def split_of(images):
    count = len(images)
    names = tuple(f"{number}.png" for number in range(count))
    labels, ids = np.arange(count, dtype=np.int32) % 2, np.arange(count, dtype=np.int32)
    return ImageSet(images, labels, ids, names, names, ("unknown",) * count)


@pytest.fixture(scope="module")
def compared(trained):
    """The network with the reference of 60 images, and a limit by 120 others."""
    reference = make_feature_reference(trained, split_of(films(60, 0)), split_of(films(120, 1)), batch_size=16)
    return replace(trained, reference=reference)


def test_the_stage_is_the_first_whose_map_is_as_small_as_the_last(trained):
    network, stage = trained.model(), measured_stage(trained.model(), 32)
    inputs = np.zeros((1, 32, 32, 3), np.float32)
    maps = jax.jit(lambda x: {name: network.activations(x, name) for name in network.stage_names})(inputs)
    sides = {name: found.shape[1] for name, found in maps.items()}
    smallest = [name for name in network.stage_names if sides[name] == sides[network.stage_names[-1]]]
    assert stage == smallest[0] and len(smallest) < len(sides)


def test_logits_are_those_without_distances_and_distances_those_of_the_statistics(trained, compared):
    images = films(5, 2)
    logits, distances = compared.logits_and_distances(images)
    np.testing.assert_allclose(logits, trained.logits(images, batch_size=5), atol=1e-5)
    reference = compared.reference
    run = jax.jit(functools.partial(trained.model().activations, stage=reference.stage))
    maps = np.asarray(run(np.float32(normalised(images, trained))), np.float64)
    statistics = np.concatenate([maps.mean(axis=(1, 2)), maps.std(axis=(1, 2))], axis=1)
    np.testing.assert_allclose(distances, reference.distance(statistics.astype(np.float32)), rtol=1e-3)
    assert reference.limit.share == 0.01 and reference.limit.images == 120 and reference.images == 60
    # another size of a batch, and another place in it, changes nothing
    again = compared.logits_and_distances(images[::-1][:3])[1]
    np.testing.assert_allclose(again, distances[::-1][:3], rtol=1e-4)


def normalised(images, trained):
    return (images[..., None] / 255 - np.array(trained.mean)) / np.array(trained.std)


def test_a_mirror_image_shares_the_logits_and_the_distance_is_of_the_image_as_it_is(compared):
    flipping = replace(compared, description=replace(compared.description, flip_average=True))
    images = films(4, 3)
    logits, distances = flipping.logits_and_distances(images)
    np.testing.assert_allclose(logits, flipping.logits(images, batch_size=4), atol=1e-5)
    np.testing.assert_allclose(distances, compared.logits_and_distances(images)[1], rtol=1e-5)


def test_predict_tells_films_unlike_those_of_training_and_leaves_others_alone(compared, tmp_path):
    alike, other = films(20, 4), np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    names = [str(tmp_path / f"{number}.png") for number in range(23)]
    for name, image in zip(names, [*alike, *other], strict=True):
        cv2.imwrite(name, image)
    told = [
        any("learned from" in warning for warning in found.warnings)
        for found in predict_files(compared, names, Threshold.of(compared), batch_size=8)
    ]
    assert told[20:] == [True] * 3
    assert sum(told[:20]) <= 2


def test_without_a_reference_there_is_no_distance(trained):
    assert trained.feature_limit is None
    with pytest.raises(ValueError, match="no reference"):
        trained.logits_and_distances(films(1, 0))
