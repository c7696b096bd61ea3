import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_jax.models.kernels.platform import every_platform
from cxr_jax.models.kernels.pointwise import pointwise_convolution, two_products


def reference(x, kernel):
    return jnp.einsum("bhwi,io->bhwo", x, kernel)


@jax.jit
def found_and_expected(x, kernel, weights):
    """Pairs of outputs and of gradients, by one program."""
    found, pull = jax.vjp(pointwise_convolution, x, kernel)
    expected, pull_expected = jax.vjp(reference, x, kernel)
    return [(found, expected), *zip(pull(weights), pull_expected(weights), strict=True)]


@given(
    st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 7), st.integers(1, 9)),
    st.integers(1, 9),
    st.integers(0, 2**32 - 1),
)
# every shape is a program of its own
@settings(max_examples=25)
def test_output_and_gradients_are_those_of_the_plain_product(shape, outputs, seed):
    random = np.random.default_rng(seed)
    x, kernel = random.normal(size=shape), random.normal(size=(shape[-1], outputs))
    weights = random.normal(size=(*shape[:3], outputs))
    with jax.enable_x64(True):
        pairs = found_and_expected(x, kernel, weights)
    for value, other in pairs:
        assert value.shape == other.shape
        np.testing.assert_allclose(value, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_gradients_have_the_dtypes_of_what_they_belong_to(dtype):
    x, kernel = jnp.ones((2, 3, 3, 4), dtype), jnp.ones((4, 5), dtype)
    y, pull = jax.vjp(pointwise_convolution, x, kernel)
    assert y.dtype == dtype
    assert [gradient.dtype for gradient in pull(y)] == [x.dtype, kernel.dtype]


def test_what_both_products_of_the_gradient_need_is_computed_once():
    # the program that is compiled counts: a cosine for each output, and a hyperbolic tangent for each input
    x, kernel = jnp.ones((4, 16, 16, 24)), jnp.ones((24, 48))

    def work(convolution):
        loss = jax.grad(lambda x, kernel: jnp.sum(jnp.sin(convolution(jnp.tanh(x), kernel))), (0, 1))
        return jax.jit(loss).lower(x, kernel).compile().cost_analysis()["transcendentals"]

    once = x.size + x.size // 24 * 48
    assert work(pointwise_convolution) == once < work(reference)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 2e-2)])
def test_products_for_other_devices_are_those_of_a_cpu(dtype, tolerance):
    random = np.random.default_rng(1)
    x, kernel = (jnp.asarray(random.normal(size=shape), dtype) for shape in ((2, 5, 5, 16), (16, 24)))
    weights = jnp.asarray(random.normal(size=(2, 5, 5, 24)), dtype)

    def results(on_cpu):
        y, pull = jax.vjp(lambda x, kernel: two_products(x, kernel, on_cpu=on_cpu), x, kernel)
        return y, *pull(weights)

    for found, expected in zip(results(False), results(True), strict=True):
        assert found.dtype == expected.dtype == dtype
        expected = np.asarray(expected, np.float32)
        np.testing.assert_allclose(np.asarray(found, np.float32), expected, atol=tolerance * np.abs(expected).max())


def test_a_gpu_is_given_products_of_operands_of_one_dtype():
    x, kernel = jnp.ones((2, 4, 4, 8), jnp.bfloat16), jnp.ones((8, 8), jnp.bfloat16)
    step = jax.grad(lambda x, kernel: pointwise_convolution(x, kernel).astype(jnp.float32).sum(), (0, 1))
    with every_platform(True):
        traced = jax.jit(step).trace(x, kernel)
    lowered = traced.lower(lowering_platforms=("cuda",)).as_text()
    products = [line.split(":")[-1] for line in lowered.splitlines() if "dot_general" in line]
    assert products and all("f32" not in line.split("->")[0] for line in products)
