import jax
import numpy as np
import pytest

from cxr_jax.bench import steps
from cxr_jax.bench.cases import Case
from cxr_jax.bench.workload import DISTINCT_BATCHES, noise_images
from cxr_jax.errors import UserError


def prepared(work="train", batch_size=2, devices=1, **changes):
    return steps.prepare(Case("mobilenetv2_tiny", 32, batch_size, work, threads=1, devices=devices, **changes))


@pytest.fixture(scope="module")
def trained():
    return prepared()


def test_the_real_program_trains_and_tells_its_costs(trained):
    trained.step()
    trained.step()
    # of the order of twice the multiply-adds of forward and both gradients: between 1 and 100 million an image
    assert 1e6 < trained.facts["flops"] / 2 < 1e8
    assert trained.facts["bytes_accessed"] > 1e5
    assert trained.facts["compile_seconds"] > 0.01
    assert trained.device_peak_bytes() is None
    assert (trained.facts["platform"], trained.facts["devices"]) == ("cpu", 1)
    assert trained.facts["versions"]["jax"] == jax.__version__


@pytest.mark.parametrize("backend", ["jit", pytest.param("pmap", marks=pytest.mark.slow)])
def test_costs_are_those_of_all_devices_and_the_state_is_given_away(trained, backend):
    facts = prepared(batch_size=4, devices=2, backend=backend).facts
    assert facts["devices"] == 2
    # twice the images on two devices; the update of the parameters is done on both
    assert 1.8 * trained.facts["flops"] < facts["flops"] < 2.5 * trained.facts["flops"]
    # parameters, momentum and statistics are there once
    assert trained.facts["donated_bytes"] <= facts["donated_bytes"] < 1.1 * trained.facts["donated_bytes"]


def test_inference_costs_less_than_training_and_less_in_bfloat16(trained):
    facts = {precision: prepared("inference", precision=precision).facts for precision in ("float32", "bfloat16")}
    assert 0 < facts["float32"]["flops"] < 0.5 * trained.facts["flops"]
    assert facts["float32"]["donated_bytes"] == 0
    # bfloat16 is emulated by XLA on a CPU, with conversions that count as operations
    assert facts["bfloat16"]["flops"] != facts["float32"]["flops"]


def test_plain_means_stock_convolutions(trained):
    plain = prepared(implementation="plain")
    plain.step()
    assert plain.facts["native_kernels"] is False
    assert plain.facts["bytes_accessed"] != trained.facts["bytes_accessed"]


def test_every_parameter_decays_as_in_pytorch():
    assert steps.OPTIMIZER.decayed == "all"


def test_mistakes_are_sentences():
    with pytest.raises(UserError, match="did you mean mobilenetv2_tiny"):
        steps.prepare(Case("mobilenetv2_tini", 32, 2, "train", threads=1, devices=1))
    with pytest.raises(UserError, match="cannot be shared evenly among 2 devices"):
        prepared(batch_size=3, devices=2)


def test_noise_differs_between_batches_and_is_the_same_twice():
    noise = noise_images(3 * DISTINCT_BATCHES, 16)
    assert (noise.images.shape, noise.images.dtype) == ((3 * DISTINCT_BATCHES, 16, 16), np.uint8)
    assert len({batch.tobytes() for batch in np.split(noise.images, DISTINCT_BATCHES)}) == DISTINCT_BATCHES > 1
    assert set(noise.labels.tolist()) == {0, 1}
    np.testing.assert_array_equal(noise_images(3 * DISTINCT_BATCHES, 16).images, noise.images)
