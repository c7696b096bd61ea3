"""Fewer classes out of several."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.runs.class_predictions import ClassPredictions
from cxr_jax.runs.merged_classes import merge_classes, merge_to_two, parse_merged

NAMES = ("normal", "bacteria", "virus", "other")


def predictions(seed: int, *, with_logits: bool, count: int = 12) -> ClassPredictions:
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (count, len(NAMES)))
    return ClassPredictions(
        file=tuple(f"{i}.png" for i in range(count)),
        split=("test",) * count,
        group=tuple(f"group{i // 2}" for i in range(count)),
        classes=NAMES,
        label=np.arange(count) % len(NAMES),
        logits=logits if with_logits else None,
        probabilities=softmax(logits, axis=1),
    )


@given(st.integers(0, 1000), st.booleans())
def test_probabilities_of_classes_together_are_sums_among_those_that_are_kept(seed, with_logits):
    table = predictions(seed, with_logits=with_logits)
    merged = merge_classes(table, {"lungs": ("bacteria", "VIRUS"), "clear": ("normal",)})
    rows = table.label != 3
    kept = table.probabilities[rows][:, :3]
    expected = np.stack([kept[:, 1:].sum(axis=1), kept[:, 0]], axis=1) / kept.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(merged.probabilities, expected, rtol=1e-12)
    assert merged.classes == ("lungs", "clear")
    assert merged.label.tolist() == [1 if label == 0 else 0 for label in table.label[rows]]
    assert merged.file == tuple(np.array(table.file)[rows])
    assert (merged.logits is not None) == with_logits
    if with_logits:
        np.testing.assert_allclose(softmax(merged.logits, axis=1), expected, rtol=1e-12)


def test_probabilities_that_are_all_zero_among_the_kept_classes_say_nothing():
    table = predictions(0, with_logits=False, count=4)
    certain = ClassPredictions(
        table.file, table.split, table.group, NAMES, table.label, None, np.tile([0.0, 0.0, 0.0, 1.0], (4, 1))
    )
    merged = merge_classes(certain, {"a": ("normal",), "b": ("virus",)})
    np.testing.assert_array_equal(merged.probabilities, np.full((2, 2), 0.5))


def test_two_classes_keep_the_cause_of_each_image():
    table = predictions(1, with_logits=True, count=4)
    two = merge_to_two(table, {"pneumonia": ("virus", "bacteria", "other"), "normal": ("normal",)})
    assert two.label.tolist() == [0, 1, 1, 1]
    assert two.subtype == ("normal", "bacteria", "virus", "unknown")
    np.testing.assert_allclose(two.probability, 1 - table.probabilities[:, 0], rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["NORMAL"], "takes NAME=CLASS or NAME=CLASS"),
        (["NORMAL=a", "=b"], "takes NAME=CLASS"),
        (["NORMAL=a", "OTHER=b+"], "takes NAME=CLASS"),
        (["NORMAL=a", "NORMAL=b"], "names NORMAL twice"),
        (["NORMAL=a", "OTHER=b+A"], "puts a into more than one place"),
        (["NORMAL=a+b"], "needs two new classes or more"),
    ],
)
def test_a_wrong_merge_is_one_sentence(options, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        parse_merged(options)
    assert caught.value.code == EXIT_USAGE


def test_names_and_classes_are_read_in_their_order():
    assert parse_merged(["PNEUMONIA=bacteria + virus", "NORMAL=normal"]) == {
        "PNEUMONIA": ("bacteria", "virus"),
        "NORMAL": ("normal",),
    }
