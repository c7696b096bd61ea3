"""Predictions tables of classes other than NORMAL and PNEUMONIA."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_jax.errors import UserError
from cxr_jax.runs.class_predictions import (
    ClassPredictions,
    classes_of_table,
    read_class_predictions,
    write_class_predictions,
)
from cxr_jax.runs.predictions import Predictions, rows_of, write_predictions

NAMES = ("normal", "bacteria", "virus")


def predictions(count=12, classes=NAMES, seed=0):
    random = np.random.default_rng(seed)
    return ClassPredictions.from_logits(
        random.normal(0, 3, (count, len(classes))),
        file=[f"{i}.png" for i in range(count)],
        split=["test"] * count,
        group=[f"g{i // 2}" for i in range(count)],
        classes=classes,
        label=np.arange(count) % len(classes),
    )


def same(one, other):
    columns = ("label", "probabilities", *(["logits"] if one.logits is not None else []))
    return (one.file, one.split, one.group, one.classes) == (
        other.file,
        other.split,
        other.group,
        other.classes,
    ) and all(np.array_equal(getattr(one, name), getattr(other, name)) for name in columns)


@given(st.integers(0, 10_000), st.integers(2, 6), st.booleans())
@settings(max_examples=25)
def test_a_table_reads_back_bit_by_bit(tmp_path_factory, seed, classes, with_logits):
    table = predictions(9, tuple("abcdef"[:classes]), seed)
    if not with_logits:
        table = ClassPredictions(
            table.file, table.split, table.group, table.classes, table.label, None, table.probabilities
        )
    path = tmp_path_factory.mktemp("table") / "test.csv"
    write_class_predictions(path, table)
    read = read_class_predictions(path)
    assert same(table, read)
    assert read.sha256() == table.sha256()
    assert classes_of_table(path) == table.classes


def test_the_hash_knows_labels_numbers_and_names():
    table = predictions()
    others = (
        table.with_logits(table.logits + 1e-9),
        table.select(np.arange(1, 12)),
        ClassPredictions.from_logits(
            table.logits,
            file=table.file,
            split=table.split,
            group=table.group,
            classes=table.classes,
            label=(table.label + 1) % 3,
        ),
    )
    assert len({table.sha256(), *(other.sha256() for other in others)}) == 4


def test_a_table_of_two_usual_classes_is_none_of_these(tmp_path):
    path = tmp_path / "usual.csv"
    usual = Predictions.from_logits(
        np.eye(2), file=["a", "b"], split=["test"] * 2, group=["", ""], subtype=["normal", "virus"], label=[0, 1]
    )
    write_predictions(path, usual)
    assert classes_of_table(path) == ()
    for header in (
        "label,probability",
        "label,Probability,probability_low,probability_high",
        "label,probability_PNEUMONIA,probability_NORMAL",
        "label,probability_normal,probability_pneumonia",
    ):
        path.write_text(f"{header}\n{','.join('0' for _ in header.split(','))}\n")
        assert classes_of_table(path) == ()
    with pytest.raises(UserError, match="no columns probability_NAME or logit_NAME"):
        read_class_predictions(path)


def test_a_foreign_table_with_few_digits_and_numbers_as_labels(tmp_path):
    path = tmp_path / "keras.csv"
    path.write_text(
        "Label;probability_normal;probability_bacteria;probability_virus\n2;0,1;0,2;0,7\nBACTERIA;0,333;0,333;0,333\n"
    )
    table = read_class_predictions(path, require_file=False)
    assert table.label.tolist() == [2, 1]
    assert table.logits is None
    assert table.probabilities.sum(axis=1) == pytest.approx(1, abs=1e-15)
    assert table.probabilities[1] == pytest.approx(1 / 3)
    assert table.called.tolist() == [2, 0]


def test_logits_alone_are_enough(tmp_path):
    path = tmp_path / "logits.csv"
    path.write_text("file,label,logit_a,logit_b,logit_c\nx.png,a,1000,0,0\n")
    assert read_class_predictions(path).probabilities[0] == pytest.approx((1, 0, 0))


HEADER = "file,split,label,probability_a,probability_b,probability_c\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x,test,d,0.2,0.3,0.5\n", r"row 2, column label: 'd' is none of the classes a, b, c, nor a number from 0"),
        ("x,test,3,0.2,0.3,0.5\n", "'3' is none of the classes"),
        ("x,test,a,0.2,0.3,0.5\nx,test,a,0.2,0.3,0.5\n", "x stands in row 2 already"),
        (
            "x,test,a,0.2,0.3,0.9\n",
            r"row 2.*of the 3 classes add up to 1.4, not to 1: for findings that occur together",
        ),
        ("x,test,a,0.2,0.3,1.5\n", "1.5 is not a probability from 0 to 1"),
        ("x,test,a,0.2,0.3,\n", "the number is missing"),
        ("x,other,a,0.2,0.3,0.5\n", "unknown split"),
        ("x,test,a,,,\n", "neither probabilities nor logits of all of a, b, c"),
    ],
)
def test_a_wrong_cell_is_told_with_its_place(tmp_path, text, sentence):
    path = tmp_path / "table.csv"
    path.write_text(HEADER + text)
    with pytest.raises(UserError, match=sentence):
        read_class_predictions(path)


def test_a_wrong_header_is_told(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("probability_a,probability_b\n0.5,0.5\n")
    with pytest.raises(UserError, match="has no column file and no column label"):
        read_class_predictions(path)
    path.write_text("file,label,logit_a,logit_b,probability_a,probability_b\nx,a,5,0,0.5,0.5\n")
    with pytest.raises(UserError, match="not the softmax of the logits"):
        read_class_predictions(path)


def test_rows_of_a_split_are_taken():
    table = predictions()
    mixed = ClassPredictions.from_logits(
        table.logits,
        file=table.file,
        split=["val"] * 5 + ["test"] * 7,
        group=table.group,
        classes=NAMES,
        label=table.label,
    )
    rows = rows_of("test", mixed, "t.csv")
    assert len(rows.predictions) == 7
    assert rows.predictions.file == table.file[5:]
    assert np.array_equal(rows.predictions.logits, table.logits[5:])
    assert rows.sentence == "Of 12 rows, the 7 of split test are taken; 5 of val are left out."


def test_impossible_predictions_are_refused():
    table = predictions()
    for change, sentence in (
        ({"label": table.label + 1}, "none of the classes"),
        ({"probabilities": table.probabilities[:, :2]}, "probabilities are not 12 rows of 3"),
        ({"probabilities": table.probabilities * 2}, "do not add up to 1"),
        ({"logits": table.logits * np.nan}, "logits are not"),
        ({"file": ("a",) * 12}, "a file occurs twice"),
        ({"group": ("a",)}, "group has 1 entries"),
        ({"classes": ("a", "a", "b")}, "two have one name"),
    ):
        with pytest.raises(ValueError, match=sentence):
            dataclasses.replace(table, **change)
