"""A run on a processor that multiplies bfloat16 itself keeps its bits: products are added in the order that the
instruction VDPBF16PS is documented with.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cxr_jax.models.kernels.native import operations as kernels
from cxr_jax.models.kernels.native.building import kernel_instructions

from .kernel_program import bfloat16

pytestmark = pytest.mark.usefixtures("native_kernels")


def product_by_pairs(a, b):
    """The product of `a` [M, K] and `b` [K, N] in float32: of two neighbours the second is added first, each sum is
    rounded, the product before it is not.
    """
    if a.shape[1] % 2:
        a, b = np.pad(a, ((0, 0), (0, 1))), np.pad(b, ((0, 1), (0, 0)))
    sums = np.zeros((a.shape[0], b.shape[1]), np.float32)
    for first in range(0, a.shape[1], 2):
        for index in (first + 1, first):
            sums = (sums.astype(np.float64) + a[:, index : index + 1] * b[index]).astype(np.float32)
    return sums


# few pixels: more would be shared among threads, whose number the sums depend on
@pytest.mark.parametrize(
    ("pixels", "inputs", "outputs"), [((2, 5, 9), 37, 150), ((2, 8, 8), 300, 24), ((1, 3, 3), 16, 96)]
)
def test_products_have_the_bits_of_the_instruction(pixels, inputs, outputs):
    if kernel_instructions() != "avx512_bf16":
        pytest.skip("the kernels are not built for a processor that multiplies bfloat16 values itself")
    generator = np.random.default_rng(0)
    x, kernel, g = (
        bfloat16(generator.standard_normal(shape))
        for shape in ((*pixels, inputs), (1, 1, inputs, outputs), (*pixels, outputs))
    )
    y, gradients_of = jax.vjp(
        lambda x, kernel: kernels.convolution(x, kernel, 1, ((0, 0), (0, 0))),
        jnp.asarray(x),
        jnp.asarray(kernel.astype(np.float32)),
    )
    of_x, of_kernel = gradients_of(jnp.asarray(g))
    rows, matrix, of_rows = (array.astype(np.float64).reshape(-1, array.shape[-1]) for array in (x, kernel, g))
    for found, expected in (
        (y, bfloat16(product_by_pairs(rows, matrix))),
        (of_x, bfloat16(product_by_pairs(of_rows, matrix.T))),
        (of_kernel, product_by_pairs(rows.T, of_rows)),
    ):
        np.testing.assert_array_equal(np.asarray(found, np.float32), expected.reshape(found.shape).astype(np.float32))
