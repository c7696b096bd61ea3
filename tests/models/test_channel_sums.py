import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_jax.models.kernels.channel_sums import STRETCH_BYTES, channel_sums, stretch_of


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 30), st.integers(1, 40)),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
)
# every shape is a program of its own
@settings(max_examples=25)
def test_every_sum_is_that_of_numpy(shape, count, seed):
    random = np.random.default_rng(seed)
    operands = [random.normal(size=shape) for _ in range(count)]
    with jax.enable_x64(True):
        sums = channel_sums(*map(jnp.asarray, operands))
    assert len(sums) == count
    for found, operand in zip(sums, operands, strict=True):
        np.testing.assert_allclose(found, operand.sum((0, 1, 2)), rtol=1e-10, atol=1e-12)


@given(st.integers(1, 600), st.integers(1, 40_000))
def test_a_stretch_divides_the_row_and_fits_or_is_one_pixel(width, pixel_bytes):
    stretch = stretch_of(width, pixel_bytes)
    assert width % stretch == 0
    assert stretch == 1 or stretch * pixel_bytes <= STRETCH_BYTES


def test_the_stretch_is_as_long_as_it_may_be():
    assert stretch_of(112, 96 * 4) == 16
    assert stretch_of(7, 64) == 7
    assert stretch_of(13, 4096) == 1


@pytest.mark.parametrize("devices", [2, 8])
def test_a_batch_spread_over_devices_is_summed_whole(devices):
    mesh = jax.make_mesh(
        (devices,), ("batch",), devices=jax.devices()[:devices], axis_types=(jax.sharding.AxisType.Auto,)
    )
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("batch"))
    x = np.random.default_rng(0).normal(size=(8, 6, 10, 5)).astype(np.float32)
    (found,) = jax.jit(channel_sums, in_shardings=spread)(jax.device_put(x, spread))
    np.testing.assert_allclose(found, x.sum((0, 1, 2)), rtol=1e-4, atol=1e-4)
