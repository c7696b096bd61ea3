"""Predictions tables of findings that occur together."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from cxr_jax.errors import UserError
from cxr_jax.runs.class_predictions import classes_of_table, read_class_predictions, write_class_predictions
from cxr_jax.runs.finding_predictions import FindingPredictions
from cxr_jax.runs.predictions import rows_of

NAMES = ("Effusion", "Mass", "Pleural_Thickening")


def predictions(count=12, findings=NAMES, seed=0, unknown=0.3):
    random = np.random.default_rng(seed)
    label = random.integers(0, 2, (count, len(findings))).astype(float)
    label[random.random(label.shape) < unknown] = np.nan
    return FindingPredictions.from_logits(
        random.normal(0, 3, label.shape),
        file=[f"{i}.png" for i in range(count)],
        split=["test"] * count,
        group=[f"g{i // 2}" for i in range(count)],
        classes=findings,
        label=label,
    )


@given(st.integers(0, 10_000), st.integers(1, 5), st.booleans())
@settings(max_examples=25)
def test_a_table_reads_back_bit_by_bit(tmp_path_factory, seed, findings, with_logits):
    table = predictions(9, tuple("abcdef"[:findings]), seed)
    table = table if with_logits else dataclasses.replace(table, logits=None)
    path = tmp_path_factory.mktemp("table") / "test.csv"
    write_class_predictions(path, table)
    read = read_class_predictions(path)
    assert isinstance(read, FindingPredictions)
    assert (read.file, read.split, read.group, read.classes) == (table.file, table.split, table.group, table.classes)
    for name in ("label", "probabilities", *(["logits"] if with_logits else [])):
        assert np.array_equal(getattr(read, name), getattr(table, name), equal_nan=True), name
    assert read.sha256() == table.sha256()
    assert classes_of_table(path) == table.classes


def test_a_probability_is_the_sigmoid_of_its_logit():
    table = predictions()
    assert table.probabilities == pytest.approx(expit(table.logits), abs=1e-15)
    extreme = table.with_logits(np.full((12, 3), 1e4) * np.where(table.logits > 0, 1, -1))
    assert set(np.unique(extreme.probabilities)) == {0.0, 1.0}


def test_the_hash_knows_what_is_unknown():
    table = predictions()
    label = table.label.copy()
    label[np.isnan(label)] = 0
    assert dataclasses.replace(table, label=label).sha256() != table.sha256()


def test_a_table_of_another_program_with_empty_cells(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text(
        "patient,label_A,label_B,probability_B,probability_A\n1,1,,0.2,0.9\n1,0,NA,0.3,0.4\n2,,1.0,0.9,0.1\n"
    )
    table = read_class_predictions(path, require_file=False)
    assert table.classes == ("A", "B")
    assert np.array_equal(table.label, [[1, np.nan], [0, np.nan], [np.nan, 1]], equal_nan=True)
    assert table.probabilities.tolist() == [[0.9, 0.2], [0.4, 0.3], [0.1, 0.9]]
    rows, shown = table.asked("A")
    assert (rows.tolist(), shown.tolist()) == ([True, True, False], [True, False])


HEADER = "file,split,label_a,label_b,probability_a,probability_b\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"{HEADER}x,test,2,0,0.2,0.3\n", "row 2, column label_a: '2' is none of 1 .present., 0 .absent. and empty"),
        (f"{HEADER}x,test,1,0,0.2,0.3\nx,test,1,0,0.2,0.3\n", "x stands in row 2 already"),
        (f"{HEADER}x,test,1,0,0.2,1.3\n", "1.3 is not a probability from 0 to 1"),
        (f"{HEADER}x,test,1,0,0.2,\n", "row 2, column probability_b: the number is missing"),
        (f"{HEADER}x,other,1,0,0.2,0.3\n", "unknown split"),
        ("file,label_a,label_b,probability_a\nx,1,0,0.1\n", "has a column label_b, and no numbers in probability_b or"),
        ("label_a,probability_a\n1,0.1\n", "has no column file"),
        ("file,label_a,logit_a,probability_a\nx,1,5,0.5\n", "0.5 is not the sigmoid of the logit .0.993307."),
    ],
)
def test_a_wrong_cell_or_header_is_told_with_its_place(tmp_path, text, sentence):
    path = tmp_path / "table.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=sentence):
        read_class_predictions(path)


def test_rows_of_a_split_are_taken():
    mixed = dataclasses.replace(predictions(), split=("val",) * 5 + ("test",) * 7)
    rows = rows_of("test", mixed, "t.csv")
    assert rows.predictions.file == mixed.file[5:]
    assert np.array_equal(rows.predictions.label, mixed.label[5:], equal_nan=True)


def test_impossible_predictions_are_refused():
    table = predictions()
    for change, sentence in (
        ({"label": table.label + 1}, "none of 1, 0 and NaN"),
        ({"label": table.label[:, :2]}, "labels are"),
        ({"probabilities": table.probabilities[:, :2]}, "probabilities are not 12 rows of 3"),
        ({"probabilities": table.probabilities * 2}, "not a number from 0 to 1"),
        ({"classes": ("a", "a", "b")}, "two have one name"),
        ({"group": ("a",)}, "group has 1 entries"),
    ):
        with pytest.raises(ValueError, match=sentence):
            dataclasses.replace(table, **change)
