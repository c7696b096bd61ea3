"""Labels of findings, in one cell of a table and as numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_jax.data.examples import Example, read_examples, write_examples
from cxr_jax.data.findings import finding_cell, finding_labels, present_in, unknown_in
from cxr_jax.data.splits import cut_by_group

NAMES = ("Effusion", "Mass", "Pleural_Thickening")


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, float("nan")])] * 3), min_size=1, max_size=6))
def test_a_cell_gives_back_the_labels_that_it_was_made_of(rows):
    found = finding_labels([finding_cell(row, NAMES) for row in rows], NAMES)
    assert (found.dtype, found.shape) == (np.float32, (len(rows), 3))
    assert np.array_equal(found, np.array(rows, np.float32), equal_nan=True)


@pytest.mark.parametrize(
    ("labels", "cell", "present", "unknown"),
    [
        ((1, 0, 1), "Effusion|Pleural_Thickening", ("Effusion", "Pleural_Thickening"), ()),
        ((0, 0, 0), "No Finding", ("No Finding",), ()),
        ((0, np.nan, 0), "Mass?", (), ("Mass",)),
        ((1, np.nan, 0), "Effusion|Mass?", ("Effusion",), ("Mass",)),
    ],
)
def test_a_cell_can_be_read_by_a_person(labels, cell, present, unknown):
    assert finding_cell(labels, NAMES) == cell
    assert (present_in(cell), unknown_in(cell)) == (present, unknown)


def example(number, label, group="", known=()):
    return Example(f"{number}.png", "train", "unknown", label, group or str(number), 10, 10, f"sha{number}", known)


def test_what_else_is_known_is_kept_beside_an_example(tmp_path):
    examples = tuple(example(i, "Mass", known=(("age", str(i)), ("sex", ""))) for i in range(3))
    write_examples(tmp_path / "t.csv", examples)
    assert read_examples(tmp_path / "t.csv") == examples


def test_a_cut_takes_its_share_of_every_finding_by_the_rarest_of_an_image():
    common = [example(i, "Effusion") for i in range(100)]
    both = [example(100 + i, "Effusion|Mass") for i in range(20)]
    three = [example(200 + i, "Effusion|Mass|Hernia") for i in range(10)]
    examples = [*common, *both, *three]
    taken = np.array(cut_by_group(examples, 0.1, seed=0))
    assert [int(taken[part].sum()) for part in (slice(0, 100), slice(100, 120), slice(120, 130))] == [10, 2, 1]
    # combinations that occur once are no strata of their own, of which one in two would be taken
    odd = [example(300 + i, f"Effusion|Mass{'|Edema?' * (i % 2)}") for i in range(40)]
    assert sum(cut_by_group([*common, *odd], 0.1, seed=0)) == 14
