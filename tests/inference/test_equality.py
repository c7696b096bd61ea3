"""What must not change a probability: batch size, padding, order, devices, workers; and one preprocessing for all."""

from __future__ import annotations

import dataclasses

import cv2
import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_jax.config.schema import DataConfig
from cxr_jax.data import cache, decode, pool
from cxr_jax.data.phantoms.folder import write_phantoms
from cxr_jax.data.preparation import prepare
from cxr_jax.inference import forward
from cxr_jax.inference.forward import compile_on_images, logits_of
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.preprocessing import normalise
from cxr_jax.runs.predictions import probability_of
from cxr_jax.serving import radiograph
from cxr_jax.serving.predict import Threshold, predict_files
from cxr_jax.training import step

SIZE = 32
TOLERANCE = 1e-5
"""Between probabilities of one image in batches of different shapes."""
PLACE_TOLERANCE = 1e-6
"""Between probabilities of one image in different places of batches of one shape: some processors round them apart."""
BATCHES = (1, 2, 3, 5, 8, 16)
"""Few, since each is compiled."""


@pytest.fixture(scope="module")
def model(tiny_trained) -> TrainedModel:
    return tiny_trained(loud=True, step=7, threshold=0.5, threshold_rule="fixed")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    levels = np.linspace(20, 220, 16)[:, None, None]
    noise = np.random.default_rng(0).normal(0, 40, (16, SIZE, SIZE))
    return np.clip(levels + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def probabilities(model, images) -> np.ndarray:
    """By batches of 8, which the others are compared with."""
    found = probability_of(model.logits(images, batch_size=8))
    assert np.ptp(found) > 0.05
    return found


@given(batch_size=st.sampled_from(BATCHES), order=st.permutations(range(16)), count=st.integers(1, 16))
@settings(max_examples=40)
def test_neither_batch_size_nor_order_nor_padding_moves_a_probability(
    model, images, probabilities, batch_size, order, count
):
    rows = np.array(order[:count])
    found = probability_of(model.logits(images[rows], batch_size=batch_size))
    np.testing.assert_allclose(found, probabilities[rows], rtol=0, atol=TOLERANCE)


@given(order=st.permutations(range(16)), count=st.integers(8, 16), padding=st.integers(0, 255))
@settings(max_examples=40)
def test_in_batches_of_one_shape_neither_place_nor_neighbours_nor_padding_move_a_probability(
    model, images, probabilities, order, count, padding
):
    rows = np.array(order[:count])
    found = probability_of(model.logits(images[rows], batch_size=8))
    np.testing.assert_allclose(found, probabilities[rows], rtol=0, atol=PLACE_TOLERANCE)
    filled = np.full((8, SIZE, SIZE), padding, np.uint8)
    filled[: count - 8] = images[rows[8:]]
    found = probability_of(model.logits(filled, batch_size=8))[: count - 8]
    np.testing.assert_allclose(found, probabilities[rows[8:]], rtol=0, atol=PLACE_TOLERANCE)


@given(order=st.permutations(range(16)))
@settings(max_examples=10)
def test_the_same_batch_has_the_same_bits_again(model, images, order):
    rows = np.array(order[:8])
    first, again = (model.logits(images[rows], batch_size=8) for _ in range(2))
    np.testing.assert_array_equal(first, again)


def test_a_network_that_was_restored_and_compiled_anew_has_the_same_bits(model, images):
    before = model.logits(images, batch_size=8)
    jax.clear_caches()
    anew = dataclasses.replace(model, params=dict(model.params), batch_stats=dict(model.batch_stats))
    np.testing.assert_array_equal(anew.logits(images, batch_size=8), before)


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_the_number_of_devices_moves_no_probability(model, images, probabilities, devices):
    found = {}
    # the whole batch alike, and the part of each device alike
    for batch_size in (16, 8 * devices):
        program = compile_on_images(
            logits_of,
            model.graphdef,
            model.params,
            model.batch_stats,
            mean=model.mean,
            std=model.std,
            image_size=SIZE,
            batch_size=batch_size,
            devices=jax.devices()[:devices],
        )
        found[batch_size] = probability_of(program.over(model.params, model.batch_stats, images))
    np.testing.assert_allclose(found[16], probabilities, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(found[8 * devices], probabilities, rtol=0, atol=PLACE_TOLERANCE)


def test_training_and_serving_share_every_function_between_a_file_and_the_network():
    assert cache.decode_square is radiograph.decode_square is decode.decode_square
    assert step.normalise is forward.normalise is normalise.normalise


@pytest.fixture
def phantoms(tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path / "prepared"))
    write_phantoms(tmp_path / "phantoms", train=12, val=3, test=5, image_size_range=(48, 80))
    return tmp_path / "phantoms"


def decoded(source, monkeypatch, workers):
    with monkeypatch.context() as patch:
        patch.setattr(pool.os, "cpu_count", lambda: workers)
        prepared = prepare(source, name=f"workers{workers}").prepared
        return prepared, np.array(cache.decoded_images(prepared, DataConfig(image_size=SIZE)))


def test_neither_workers_nor_the_order_of_the_files_change_what_is_prepared(phantoms, tmp_path, monkeypatch):
    prepared, images = decoded(phantoms, monkeypatch, 1)
    backwards = tmp_path / "again" / "phantoms"
    for path in sorted(phantoms.rglob("*"), reverse=True):
        if path.is_file():
            copy = backwards / path.relative_to(phantoms)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    for source, workers in ((phantoms, 5), (backwards, 2)):
        other, others = decoded(source, monkeypatch, workers)
        assert other.fingerprint == prepared.fingerprint
        assert other.examples == prepared.examples
        np.testing.assert_array_equal(others, images)


def test_a_file_is_predicted_as_the_same_image_of_the_prepared_data(phantoms, monkeypatch, model):
    prepared, images = decoded(phantoms, monkeypatch, 2)
    names = [str(phantoms / example.file) for example in prepared.examples]
    results = predict_files(model, names, Threshold.of(model), batch_size=4)
    expected = probability_of(model.logits(images, batch_size=4))
    # 20 images: every batch of either has four
    np.testing.assert_array_equal([result.probability for result in results], expected)
    assert cv2.imread(names[0], cv2.IMREAD_GRAYSCALE).shape != (SIZE, SIZE)
