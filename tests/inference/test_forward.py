"""The compiled forward pass: what its batches may not change, and the precision that it is in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cxr_jax.devices import choose_devices
from cxr_jax.errors import UserError
from cxr_jax.inference.forward import compile_classifier, compile_on_images, logits_of, pooled_features_of
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.models.state import merge_model

SIZE = 32


@pytest.fixture(scope="module")
def model(tiny_trained) -> TrainedModel:
    return tiny_trained(loud=True, step=7, threshold=0.5, threshold_rule="fixed")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (11, SIZE, SIZE), np.uint8)


def options(model, **changes):
    own = {"mean": model.mean, "std": model.std, "image_size": SIZE, "batch_size": 8, "devices": choose_devices(2)}
    return own | changes


def parts(model):
    return model.graphdef, model.params, model.batch_stats


def test_logits_are_those_of_the_module_by_running_statistics(model, images):
    program = compile_on_images(logits_of, *parts(model), **options(model))
    batch = images[:8]
    logits = np.asarray(program(model.params, model.batch_stats, batch))
    inputs = ((batch.astype(np.float32) / 255)[..., None] - np.float32(model.mean)) / np.float32(model.std)
    expected = jax.jit(lambda inputs: merge_model(*parts(model))(inputs))(jnp.asarray(inputs, jnp.float32))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)
    # whatever else is in the batch
    black = np.concatenate([batch[:4], np.zeros_like(batch[:4])])
    np.testing.assert_allclose(program(model.params, model.batch_stats, black)[:4], logits[:4], atol=1e-6)


def test_all_batches_are_answered_in_order_and_the_padding_is_dropped(model, images):
    program, begun = compile_on_images(logits_of, *parts(model), **options(model)), []
    logits = program.over(model.params, model.batch_stats, images, before_each=lambda: begun.append(None))
    assert (len(begun), logits.shape) == (2, (11, 2))
    np.testing.assert_allclose(logits[8:], program(model.params, model.batch_stats, images[3:])[5:], atol=1e-5)


def test_work_can_be_left_before_any_batch(model, images):
    program = compile_on_images(logits_of, *parts(model), **options(model))

    def leave():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        program.over(model.params, model.batch_stats, images, before_each=leave)


def test_classified_pooled_features_are_the_logits(model, images):
    pool = compile_on_images(pooled_features_of, *parts(model), **options(model))
    features = pool.over(model.params, model.batch_stats, images)
    classify = compile_classifier(*parts(model), channels=features.shape[1], batch_size=8, devices=choose_devices(1))
    expected = compile_on_images(logits_of, *parts(model), **options(model)).over(
        model.params, model.batch_stats, images
    )
    found = classify.over(model.params, model.batch_stats, features)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_a_batch_that_the_devices_cannot_share_is_refused(model):
    with pytest.raises(UserError, match="evaluation_batch_size is 6, which cannot be shared"):
        compile_on_images(logits_of, *parts(model), **options(model, batch_size=6, devices=jax.devices()[:4]))


@pytest.mark.usefixtures("native_kernels")
def test_the_native_kernels_compute_in_bfloat16_alone(model, images):
    logits = {}
    for precision, native in (("float32", False), ("float32", True), ("bf16", True)):
        how = {"precision": precision, "native_kernels": native, "devices": choose_devices(1)}
        program = compile_on_images(logits_of, *parts(model), **options(model, **how))
        logits[precision, native] = np.asarray(program(model.params, model.batch_stats, images[:8]))
    np.testing.assert_array_equal(logits["float32", True], logits["float32", False])
    assert not np.array_equal(logits["bf16", True], logits["float32", False])
    np.testing.assert_allclose(logits["bf16", True], logits["float32", False], atol=0.5)
