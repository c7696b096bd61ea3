"""The mean over an image, its mirror image and its shifted ones: what is averaged, and that a run remembers it."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.models.state import merge_model
from cxr_jax.preprocessing.normalise import normalise
from cxr_jax.runs.description import read_description, write_description
from cxr_jax.runs.folder import RunFolder, read_json


@pytest.fixture(scope="module")
def model(tiny_trained) -> TrainedModel:
    return tiny_trained(loud=True, step=7, threshold=0.5, threshold_rule="fixed")


@pytest.fixture(scope="module")
def averaging(model) -> TrainedModel:
    return dataclasses.replace(model, description=dataclasses.replace(model.description, flip_average=True))


@pytest.fixture(scope="module")
def shifting(model) -> TrainedModel:
    return dataclasses.replace(model, description=dataclasses.replace(model.description, shift_average=0.06))


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 32, 32)).astype(np.uint8)


def test_the_mirror_image_has_the_same_logits_to_the_bit(model, averaging, images):
    mirrored = images[:, :, ::-1]
    found = averaging.logits(images, batch_size=4)
    assert (found.dtype, found.shape) == (np.float32, (7, 2))
    np.testing.assert_array_equal(averaging.logits(mirrored, batch_size=4), found)
    one, other = (model.logits(pixels, batch_size=4) for pixels in (images, mirrored))
    assert np.abs(one - other).max() > 0.01
    np.testing.assert_array_equal(found, (one + other) / 2)
    # left to right, and not top to bottom
    assert np.abs(averaging.logits(images[:, ::-1], batch_size=4) - found).max() > 0.01
    assert averaging.logits(images[:0]).shape == (0, 2)


@pytest.mark.parametrize(("flip", "count"), [(False, 5), (True, 10)])
def test_shifts_are_by_a_share_of_the_side_with_the_edge_repeated(model, images, flip, count):
    shifting = dataclasses.replace(model.description, shift_average=0.06, flip_average=flip)
    assert (shifting.image_size, shifting.shift) == (32, 2)
    moved = [images]
    for axis, ways in ((2, ((2, 0), (0, 2))), (1, ((2, 0), (0, 2)))):
        for before, after in ways:
            widths = [(0, 0)] * 3
            widths[axis] = (before, after)
            padded = np.pad(images, widths, mode="edge")
            moved.append(padded.take(range(after, after + 32), axis))
    moved += [view[:, :, ::-1] for view in moved] if flip else []
    assert len({view.tobytes() for view in moved}) == count
    expected = np.mean([model.logits(view, batch_size=7).astype(np.float64) for view in moved], axis=0)
    found = dataclasses.replace(model, description=shifting).logits(images, batch_size=7)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert np.abs(found - model.logits(images, batch_size=7)).max() > 0.01


def test_without_it_logits_are_the_networks_to_the_bit(model, images):
    assert not model.description.flip_average

    def forward(params, batch_stats, pixels):
        return merge_model(model.graphdef, params, batch_stats)(normalise(pixels, model.mean, model.std))

    expected = jax.jit(forward)(model.params, model.batch_stats, images)
    np.testing.assert_array_equal(model.logits(images, batch_size=7), expected)


def test_a_description_remembers_it_and_an_old_one_has_none(tmp_path, model, averaging, shifting):
    run = RunFolder.create(tmp_path / "run")
    for trained in (model, shifting, averaging):
        write_description(run, trained.description)
        assert read_description(run) == trained.description
    stored = read_json(run.network)
    assert stored.pop("flip_average") is True
    assert stored.pop("shift_average") == 0
    run.network.write_text(json.dumps(stored))
    assert read_description(run) == model.description
    run.network.write_text(json.dumps({name: value for name, value in stored.items() if name != "parameters"}))
    with pytest.raises(UserError, match="is damaged"):
        read_description(run)
