"""A batch cut into parts, and put together again."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_jax.preprocessing.parts import fewest_parts, from_parts, in_parts


@given(count=st.integers(1, 6), each=st.integers(1, 6))
def test_parts_hold_every_count_th_row_and_are_put_together_in_order(count, each):
    rows = jnp.arange(count * each * 2).reshape(count * each, 2)
    parts = in_parts(rows, count)
    for number in range(count):
        np.testing.assert_array_equal(parts[number], rows[number::count])
    np.testing.assert_array_equal(from_parts(parts), rows)


def test_a_batch_that_cannot_be_cut_evenly_is_refused():
    with pytest.raises(TypeError):
        in_parts(jnp.arange(5), 2)


@given(rows=st.integers(2, 300))
def test_the_fewest_parts_are_the_smallest_divisor_above_one(rows):
    count = fewest_parts(rows)
    assert count > 1 and rows % count == 0
    assert all(rows % fewer for fewer in range(2, count))


def test_a_single_row_is_one_part():
    assert fewest_parts(1) == 1
