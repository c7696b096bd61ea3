import csv
import dataclasses
import re
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from cxr_jax.errors import UserError
from cxr_jax.runs.predictions import (
    Predictions,
    predictions_sha256,
    probability_of,
    read_predictions,
    rows_of,
    write_predictions,
)
from cxr_jax.runs.table import is_missing
from cxr_jax.vocabulary import CLASS_NAMES, PREDICTION_COLUMNS


def some_predictions(count=6, seed=0):
    random = np.random.default_rng(seed)
    label = np.arange(count) % 2
    return Predictions.from_logits(
        random.normal(size=(count, 2)).astype(np.float32),
        file=[f"test/{CLASS_NAMES[label[i]]}/{i}.jpeg" for i in range(count)],
        split=["test"] * count,
        group=[f"g{i // 2}" for i in range(count)],
        subtype=["virus" if label[i] else "normal" for i in range(count)],
        label=label,
    )


def assert_equal(one, other):
    for name in ("file", "split", "group", "subtype"):
        assert getattr(one, name) == getattr(other, name)
    for name in ("label", "logits", "probability"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


finite = st.floats(-1e6, 1e6)
group_names = st.text(string.ascii_letters).filter(lambda name: not name or not is_missing(name))
names = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=12).map(str.strip).filter(bool)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.tuples(names, st.sampled_from(["", "train", "val", "test"]), group_names, finite, finite),
        min_size=1,
        max_size=20,
        unique_by=lambda row: row[0],
    ),
    with_logits=st.booleans(),
)
def test_a_table_reads_back_bit_by_bit(tmp_path_factory, rows, with_logits):
    file, split, group, normal, pneumonia = zip(*rows, strict=True)
    logits = np.array([normal, pneumonia]).T
    label = np.arange(len(rows)) % 2
    subtype = tuple("bacteria" if positive else "normal" for positive in label)
    probability = probability_of(logits)
    predictions = Predictions(file, split, group, subtype, label, logits if with_logits else None, probability)
    path = tmp_path_factory.mktemp("table") / "test.csv"
    write_predictions(path, predictions)
    assert_equal(read_predictions(path), predictions)


def test_the_file_has_the_columns_of_the_vocabulary_and_class_names(tmp_path):
    path = tmp_path / "predictions" / "test.csv"
    write_predictions(path, some_predictions())
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == PREDICTION_COLUMNS
    assert [row["label"] for row in rows] == ["NORMAL", "PNEUMONIA"] * 3
    assert {row["schema_version"] for row in rows} == {"1"}


@given(st.lists(st.tuples(finite, finite), min_size=1))
def test_probability_is_the_softmax(pairs):
    logits = np.array(pairs)
    expected = softmax(logits, axis=1)[:, 1]
    np.testing.assert_allclose(probability_of(logits), expected, rtol=1e-9, atol=1e-300)


def test_probability_of_huge_logits_does_not_overflow():
    with np.errstate(over="raise"):
        assert probability_of(np.array([[0.0, 1e300], [1e300, 0.0]])).tolist() == [1, 0]


def test_clusters_join_groups_and_leave_the_rest_alone():
    predictions = Predictions(
        file=("a", "b", "c", "g"),
        split=("",) * 4,
        group=("g", "", "g", ""),
        subtype=("normal",) * 4,
        label=[0] * 4,
        logits=None,
        probability=[0.1] * 4,
    )
    assert predictions.clusters().tolist() == [2, 0, 2, 1]
    assert predictions.select(np.array([3, 2, 1, 0])).clusters().tolist() == [1, 2, 0, 2]
    assert not predictions.has_groups
    assert some_predictions().has_groups


@pytest.mark.parametrize("rows", [np.array([4, 0]), np.array([True, False, False, False, True, False])])
def test_select_takes_the_rows_in_order(rows):
    predictions = some_predictions()
    chosen = predictions.select(rows)
    order = np.arange(6)[rows]
    assert chosen.file == tuple(predictions.file[i] for i in order)
    np.testing.assert_array_equal(chosen.logits, predictions.logits[order])
    assert predictions.select(np.arange(6)).file == predictions.file


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"file": ("a", "a")}, "twice"),
        ({"file": ()}, "no image"),
        ({"group": ("g",)}, "group has 1 entries"),
        ({"label": [0, 2]}, "none of the classes"),
        ({"probability": [0.5, 1.5]}, "from 0 to 1"),
        ({"probability": [0.5, float("nan")]}, "from 0 to 1"),
        ({"subtype": ("normal", "fungus")}, "subtype"),
        ({"logits": [[0.0, 1.0]]}, "finite pairs"),
        ({"logits": [[0.0, 1.0], [0.0, float("inf")]]}, "finite pairs"),
    ],
)
def test_columns_that_cannot_be_predictions_are_refused(change, sentence):
    columns = {
        "file": ("a", "b"),
        "split": ("", ""),
        "group": ("", ""),
        "subtype": ("normal", "virus"),
        "label": [0, 1],
        "logits": None,
        "probability": [0.1, 0.9],
    }
    Predictions(**columns)
    with pytest.raises(ValueError, match=sentence):
        Predictions(**{**columns, **change})


def read_text(tmp_path, text):
    path = tmp_path / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_predictions(path)


def test_a_foreign_table_needs_only_file_label_and_probability(tmp_path):
    predictions = read_text(
        tmp_path, b"\xef\xbb\xbfextra,probability, label ,file\r\nx,0.25,normal,a\r\n\r\ny,1,1.0,b\r\n"
    )
    assert predictions.file == ("a", "b")
    assert predictions.label.tolist() == [0, 1]
    assert predictions.probability.tolist() == [0.25, 1]
    assert predictions.subtype == ("normal", "unknown")
    assert predictions.split == predictions.group == ("", "")
    assert predictions.logits is None


@pytest.mark.parametrize(
    "text",
    [
        "file,label,logit_NORMAL,logit_PNEUMONIA\na,0,1.0,3.0\n",
        "file,label,logit_NORMAL,logit_PNEUMONIA,probability\na,0,1.0,3.0,\n",
        "file,label,logit_NORMAL,logit_PNEUMONIA,probability\na,0,1.0,3.0,0.88079\n",
    ],
)
def test_probabilities_come_from_logits(tmp_path, text):
    predictions = read_text(tmp_path, text)
    np.testing.assert_allclose(predictions.probability, 0.880797, atol=1e-5)
    assert predictions.logits.tolist() == [[1.0, 3.0]]


GOOD = "file,label,probability,subtype,split,logit_NORMAL,logit_PNEUMONIA\n"


@pytest.mark.parametrize(
    "text",
    [
        "file,label,probability_NORMAL,probability_PNEUMONIA\na,NORMAL,0.75,0.25\nb,PNEUMONIA,0.4995,0.5\n",
        "file,label,Probability_Pneumonia,probability_normal\na,0,0.25,0.75\nb,1,0.5,0.5\n",
        "file,label,probability_PNEUMONIA\na,0,0.25\nb,1,0.5\n",
        "file,label,probability,probability_low,probability_high\na,0,0.25,0.1,0.4\nb,1,0.5,0.3,0.6\n",
    ],
)
def test_a_column_for_each_class_and_columns_of_other_things_are_understood(tmp_path, text):
    table = read_text(tmp_path, text)
    assert table.probability.tolist() == [0.25, 0.5]
    assert table.label.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("file,label,probability\n", "has a header but no row"),
        ("label,probability\n0,0.5\n", "no column file; it has label, probability"),
        ("file,probability\na,0.5\n", "no column label; it has file, probability"),
        ("name,score\na,0\n", "no column file, no column label, no column probability .*; it has name, score"),
        ("file,label\na,0\n", "no column probability .* no logit_NORMAL or logit_PNEUMONIA"),
        ("file,label,logit_NORMAL\na,0,1\n", "no logit_PNEUMONIA to compute"),
        ("file,label,label,probability\na,0,0,0.5\n", "the column label 2 times"),
        ("file label probability\na 0 0.5\n", "no column file, .*; it has file label probability"),
        ("file,Label,label,probability\na,0,0,0.5\n", "the column label 2 times"),
        ("file,label,probability\na,NA,0.5\n", "row 2, column label: unknown label 'NA'"),
        ("file,label,probability\na,0,0.5\nb,0,NA\n", "row 3, column probability: the number is missing"),
        ("file,label,probability\na,0,0,5\n", "row 2 has 4 cells, but the header has 3"),
        ("file,label,probability\na,0\n", "row 2 has 2 cells, but the header has 3"),
        ("file,label,probability\na,0,0.5\n\nb,0,0.5\na,1,0.5\n", "row 5, column file: a stands in row 2 already"),
        ("file,label,probability\n,0,0.5\n", "row 2, column file: the name of the image is missing"),
        ("file,label,probability\na,2,0.5\n", "row 2, column label: unknown label '2'; a label is NORMAL or PNEUMONIA"),
        ("file,label,probability\na,,0.5\n", "row 2, column label: unknown label ''"),
        ("file,label,probability\na,0,nan\n", "row 2, column probability: nan is not a finite number"),
        ("file,label,probability\na,0,inf\n", "row 2, column probability: inf is not a finite"),
        ("file,label,probability\na,0,0.5\nb,0,\n", "row 3, column probability: the number is missing"),
        ("file,label,probability\na,0,high\n", "row 2, column probability: 'high' is not a number"),
        ("file,label,probability\na,0,1.01\n", "row 2, column probability: 1.01 is not a probability from 0 to 1"),
        ("file,label,probability\na,0,-0.01\n", "row 2, column probability: -0.01 is not a probability"),
        (GOOD + "a,0,0.5,fungus,test,,\n", "row 2, column subtype: unknown subtype 'fungus'"),
        (GOOD + "a,0,0.5,virus,test,,\n", "row 2, column subtype: virus does not fit the label NORMAL"),
        (GOOD + "a,1,0.5,normal,test,,\n", "row 2, column subtype: normal does not fit the label PNEUMONIA"),
        (GOOD + "a,1,0.5,virus,exam,,\n", "row 2, column split: unknown split 'exam'"),
        (GOOD + "a,1,0.5,virus,test,0,nan\n", "row 2, column logit_PNEUMONIA: nan is not a finite"),
        (GOOD + "a,1,0.5,virus,test,0,1\n", "row 2, column probability: 0.5 is not the softmax of the logits .0.7310"),
        (GOOD + "a,1,,virus,test,,\n", "neither probabilities nor logits"),
        ("file,label,probability,schema_version\na,0,0.5,2\n", "row 2, column schema_version: this cxr_jax reads"),
        (
            "file,label,probability_NORMAL,probability_PNEUMONIA\na,0,0.5,0.5\nb,0,0.7,0.5\n",
            "row 3, column probability_NORMAL: it and that of PNEUMONIA add up to 1.2, not to 1",
        ),
        ("file,label,probability_PNEUMONIA\na,0,2\n", "row 2, column probability_PNEUMONIA: 2 is not a probability"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
        ('file,label,probability\n"a' + "x" * 140_000 + '",0,0.5\n', "not a CSV table: line 2"),
    ],
)
def test_a_wrong_table_is_one_sentence_that_names_the_place(tmp_path, text, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        read_text(tmp_path, text)
    assert str(tmp_path / "table.csv") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_table_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_predictions(tmp_path / "none.csv")
    with pytest.raises(UserError, match="is a folder: name the table in it"):
        read_predictions(tmp_path)


PLAIN = "file,label,probability,group\na,0,0.25,p\nb,1,0.75,q\n"


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace("\n", "\r\n"),
        PLAIN.replace("\n", "\r"),
        "\ufeff" + PLAIN,
        PLAIN.encode("utf-16"),
        PLAIN.replace(",", ";"),
        PLAIN.replace(",", "\t"),
        PLAIN.replace(",", "|"),
        PLAIN.replace(",", " , "),
        PLAIN.replace(",", ";").replace("0.", "0,"),
        PLAIN.replace("0.25", '"0,25"'),
        "sep=;\n" + PLAIN.replace(",", ";"),
        PLAIN.replace("file", "File").replace("label", " LABEL"),
        PLAIN.replace("\n", ",\n"),
        PLAIN.replace("0.25,p", "0.25,p,,").replace("0.75,q", "0.75,q,"),
        'file,label,probability,group\n"1",a,0,0.25,p\n"2",b,1,0.75,q\n',
        '"file" "label" "probability" "group"\n"1" "a" 0 0.25 "p"\n"2" "b" 1 0.75 "q"\n',
        PLAIN.replace("a,0", "a,0.0").replace("b,1", "b,1.0"),
        PLAIN.replace("a,0", "a,FALSE").replace("b,1", "b,TRUE"),
        PLAIN.replace("a,0", "a,normal").replace("b,1", "b,Pneumonia"),
    ],
)
def test_a_table_is_read_however_a_program_writes_it(tmp_path, text):
    predictions = read_text(tmp_path, text)
    assert predictions.file == ("a", "b")
    assert predictions.label.tolist() == [0, 1]
    assert predictions.probability.tolist() == [0.25, 0.75]
    assert predictions.group == ("p", "q")


@pytest.mark.parametrize(
    "word", ["", "NA", "na", "N/A", "#N/A", "NaN", "nan", "<NA>", "null", "NULL", "None", ".", "-", " "]
)
def test_what_programs_write_for_nothing_is_no_group_of_its_own(tmp_path, word):
    header = "file,label,probability,group,subtype,split,schema_version\n"
    rows = "".join(f"{name},{index % 2},0.5,{word},{word},{word},{word}\n" for index, name in enumerate("abcd"))
    predictions = read_text(tmp_path, header + rows + "e,0,0.5,p,normal,,1\n")
    assert predictions.group == ("", "", "", "", "p")
    assert not predictions.has_groups
    assert len(set(predictions.clusters())) == 5
    assert predictions.subtype == ("normal", "unknown", "normal", "unknown", "normal")
    assert set(predictions.split) == {""}


def test_group_numbers_that_became_fractions_are_the_same_groups(tmp_path):
    predictions = read_text(tmp_path, "file,label,probability,group\na,0,0.5,12.0\nb,1,0.5,12\nc,1,0.5,NA\n")
    assert predictions.group == ("12", "12", "")


def test_names_of_images_are_needed_unless_said_otherwise(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("label,probability\n0,0.25\n1,0.75\n")
    with pytest.raises(UserError, match="no column file"):
        read_predictions(path)
    predictions = read_predictions(path, require_file=False)
    assert predictions.file == (f"{path}, row 2", f"{path}, row 3")
    path.write_text("label,probability\n0,0.25\n")
    with pytest.raises(UserError, match="has no column label, no column probability"):
        path.write_text("x\n1\n")
        read_predictions(path, require_file=False)


SPLITS = "file,label,probability,split\na,0,0.5,train\nb,1,0.5,Validation\nc,0,0.5,TEST\nd,1,0.5,test\n"


def test_the_rows_of_one_split_are_taken_and_the_others_are_told(tmp_path):
    table = read_text(tmp_path, SPLITS)
    test = rows_of("test", table, "t.csv")
    assert test.predictions.file == ("c", "d")
    assert test.left_out == {"train": 1, "val": 1}
    assert test.sentence == "Of 4 rows, the 2 of split test are taken; 1 of train and 1 of val are left out."
    assert rows_of("val", table, "t.csv").predictions.file == ("b",)


def test_a_table_of_one_split_or_of_none_is_taken_whole(tmp_path):
    for text in (SPLITS.replace("train", "test").replace("Validation", "test"), PLAIN):
        table = read_text(tmp_path, text)
        rows = rows_of("test", table, "t.csv")
        assert rows.predictions == table
        assert rows.sentence is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            SPLITS.replace("TEST", "train").replace("test", "train"),
            "t.csv has no row of split test, only of train and val",
        ),
        (SPLITS.replace("train", "NA"), "t.csv has 1 rows without a split beside rows with one"),
    ],
)
def test_a_split_that_is_not_there_or_half_known_is_one_sentence(tmp_path, text, sentence):
    with pytest.raises(UserError, match=sentence):
        rows_of("test", read_text(tmp_path, text), "t.csv")


def test_the_hash_is_of_what_was_predicted(tmp_path):
    logits = np.array([[0.5, -1.25], [1.0, 3.0]])
    one = Predictions.from_logits(
        logits,
        file=["a", "b"],
        split=["test"] * 2,
        group=["g", "h"],
        subtype=["normal", "virus"],
        label=np.array([0, 1]),
    )
    write_predictions(tmp_path / "table.csv", one)
    told = predictions_sha256(one)
    assert re.fullmatch("[0-9a-f]{64}", told)
    assert predictions_sha256(read_predictions(tmp_path / "table.csv")) == told
    assert predictions_sha256(dataclasses.replace(one, group=("g", "g"), subtype=("normal", "bacteria"))) == told
    others = [
        dataclasses.replace(one, file=("a", "c")),
        dataclasses.replace(one, label=np.array([1, 1]), subtype=("virus", "virus")),
        dataclasses.replace(one, logits=logits + 1e-12),
        dataclasses.replace(one, logits=None),
        dataclasses.replace(one, probability=one.probability + 1e-12),
        one.select(np.array([1, 0])),
    ]
    assert len({told, *map(predictions_sha256, others)}) == len(others) + 1
