import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_jax.preprocessing.rounding import product


@settings(max_examples=20)
@given(st.integers(0, 9999))
def test_a_product_is_rounded_before_it_is_added_to(seed):
    one, other, third = np.random.default_rng(seed).normal(size=(3, 4096)).astype(np.float32)
    result = jax.jit(lambda a, b, c: product(a, b) + c)(*map(jnp.asarray, (one, other, third)))
    np.testing.assert_array_equal(result, one * other + third)
