"""Depthwise convolutions with windows of 5 x 5, or with channels that fill no whole vectors, are those of XLA."""

import jax
import numpy as np
import pytest

from cxr_jax.models.activations import relu6
from cxr_jax.models.kernels.native import operations as kernels
from cxr_jax.models.layers import DepthwiseConvolution, LayerRules, Mode

from .test_operations import assert_same_convolution, exact, plain, values

pytestmark = pytest.mark.usefixtures("native_kernels")


@pytest.mark.parametrize(("side", "channels"), [(5, 48), (3, 40), (5, 24)])
@pytest.mark.parametrize("stride", [1, 2])
# more rows than one band holds, and fewer pixels than are computed at once
@pytest.mark.parametrize("size", [(90, 70), (7, 7), (2, 1)])
def test_the_convolution_and_its_gradients(side, channels, stride, size):
    x, kernel = values((2, *size, channels), 1), exact(values((side, side, 1, channels), 2))
    padding = ((side // 2, side // 2),) * 2
    assert_same_convolution(
        lambda x, kernel: kernels.depthwise_convolution(x, kernel, stride, padding),
        lambda x, kernel: plain(x, kernel, stride, padding, groups=channels),
        x,
        kernel,
    )


@pytest.mark.parametrize(("side", "channels", "stride"), [(5, 48, 2), (3, 40, 1), (3, 8, 2)])
def test_a_layer_takes_the_kernels(side, channels, stride):
    rules = LayerRules("same", relu6, epsilon=1e-3)
    layer = DepthwiseConvolution(channels, side, stride, rules, np.random.default_rng(0))
    x = values((2, 9, 12, channels), 1)
    program = jax.jit(lambda x: layer.convolved(x, Mode(native=True))).lower(x).as_text()
    assert "cxr_jax_any_depthwise" in program
    found, expected = layer.convolved(x, Mode(native=True)), layer(exact(x))
    np.testing.assert_allclose(np.asarray(found, np.float32), expected, rtol=0, atol=0.05)
