import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cxr_jax.bench import depthwise
from cxr_jax.bench.cases import DepthwiseCase
from cxr_jax.bench.depthwise import Layer, depthwise_layers, measure_depthwise, repeated
from cxr_jax.errors import UserError
from cxr_jax.models.kernels.depthwise import grouped_depthwise

CASE = DepthwiseCase("mobilenetv2_tiny", 32, 2, threads=1)
SAME = ((1, 1), (1, 1))


def test_layers_are_those_of_the_network():
    layers = depthwise_layers("mobilenetv2_100", 224)
    assert sum(layers.values()) == 17
    assert len(layers) == 10
    assert layers[Layer(112, 112, 32, 3, 1, SAME)] == 1
    assert layers[Layer(14, 14, 384, 3, 1, SAME)] == 4
    # TensorFlow's padding is uneven
    assert Layer(38, 38, 256, 3, 2, ((0, 1), (0, 1))) in depthwise_layers("tf_efficientnetv2_s", 300)
    with pytest.raises(UserError, match="did you mean mobilenetv2_tiny"):
        depthwise_layers("mobilenetv2_tini", 32)


def test_the_floor_is_both_arrays_once():
    layer = Layer(8, 6, 5, 3, 2, SAME)
    assert layer.output_size == (4, 3)
    assert layer.floor_bytes(batch_size=2, itemsize=4) == 2 * 5 * 4 * (8 * 6 + 4 * 3)


@pytest.mark.parametrize("times", [1, 2, 5])
def test_every_repetition_needs_the_one_before(times):
    x, kernel = (
        jax.random.normal(jax.random.key(seed), shape) for seed, shape in ((0, (2, 6, 6, 3)), (1, (3, 3, 1, 3)))
    )

    def convolve(kernel, x):
        return grouped_depthwise(x, kernel, stride=1, padding=SAME)

    expected, changed = None, kernel
    for _ in range(times):
        expected = convolve(changed, x)
        changed = changed.at[0, 0, 0, 0].set(expected[0, 0, 0, 0])
    np.testing.assert_allclose(jax.jit(repeated(convolve, times))(kernel, x), expected, rtol=2e-5, atol=1e-5)


def test_the_directions_are_the_convolution_and_its_gradients(monkeypatch):
    programs = []
    monkeypatch.setattr(
        depthwise, "fastest", lambda program, *operands, queued: programs.append((program, operands)) or 1.0
    )
    layer = Layer(6, 6, 3, 3, 2, SAME)
    for convolution in depthwise.LOWERINGS.values():
        programs.clear()
        seconds = depthwise._seconds(layer, convolution, 2, jnp.dtype(jnp.float32))
        assert list(seconds) == list(depthwise.DIRECTIONS)
        (forward, (kernel, x)), (input_gradient, (again, gradient)), (weight_gradient, operands) = programs
        assert kernel is again
        assert operands == (gradient, x)
        y, pull = jax.vjp(functools.partial(grouped_depthwise, stride=2, padding=SAME), x, kernel)
        dx, dk = pull(gradient)
        for program, inputs, expected in (
            (forward, (kernel, x), y),
            (input_gradient, (kernel, gradient), dx),
            (weight_gradient, (gradient, x), dk),
        ):
            np.testing.assert_allclose(program(*inputs), expected, rtol=1e-4, atol=1e-5)


def test_rows_have_both_lowerings_and_a_failure_leaves_the_others(monkeypatch):
    def fail(*arguments, **options):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED:\nout of memory")

    monkeypatch.setattr(depthwise, "fastest", lambda program, *operands, queued: 0.5)
    rows = list(measure_depthwise(CASE, copy_bytes=1e9))
    layers = depthwise_layers(CASE.model, CASE.image_size)
    assert len(rows) == 2 * len(layers)
    assert [row["lowering"] for row in rows[:2]] == ["grouped", "shifted"]
    first = next(iter(layers))
    assert rows[0]["floor_seconds"] == pytest.approx(first.floor_bytes(2, 4) / 1e9)
    assert rows[0]["seconds"] == dict.fromkeys(depthwise.DIRECTIONS, 0.5)
    half = next(measure_depthwise(DepthwiseCase("mobilenetv2_tiny", 32, 2, 1, "bfloat16"), copy_bytes=1e9))
    assert half["floor_seconds"] == pytest.approx(rows[0]["floor_seconds"] / 2)
    monkeypatch.setattr(depthwise, "fastest", fail)
    assert next(measure_depthwise(CASE, 1e9))["error"] == "RESOURCE_EXHAUSTED: out of memory"


def test_a_real_layer_takes_time():
    row = next(measure_depthwise(CASE, copy_bytes=1e9))
    assert all(0 < seconds < 10 for seconds in row["seconds"].values())
