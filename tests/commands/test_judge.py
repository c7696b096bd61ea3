import json

import numpy as np
import pytest

from cxr_jax.commands import judge as command
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.runs.predictions import Predictions, read_predictions, write_predictions


def table(path, *, seed, split):
    random = np.random.default_rng(seed)
    label = np.arange(120) % 2
    margin = 2 * random.normal(size=120) + 2 * (2 * label - 1)
    predictions = Predictions.from_logits(
        np.stack([-margin / 2, margin / 2], axis=1),
        file=[f"{split}/{i}.jpeg" for i in range(120)],
        split=[split] * 120,
        group=[f"{split}-{i // 2}-{i % 2}" for i in range(120)],
        subtype=["virus" if positive else "normal" for positive in label],
        label=label,
    )
    write_predictions(path, predictions)
    return predictions


@pytest.fixture
def tables(tmp_path):
    return table(tmp_path / "val.csv", seed=1, split="val"), table(tmp_path / "test.csv", seed=2, split="test")


QUICK = ["--resamples", "100"]


def test_a_table_is_judged_at_one_half(tables, tmp_path, capsys, metric_values):
    command.main([str(tmp_path / "test.csv"), *QUICK])
    printed = capsys.readouterr().out
    values = metric_values(tables[1].label, tables[1].probability, 0.5)
    assert f"{values['accuracy']:.3f} (" in printed
    assert f"{values['roc_auc']:.3f} (" in printed
    assert "Not a medical device" in printed
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.csv", "val.csv"]


def test_a_foreign_table_with_three_columns_is_enough(tmp_path, capsys):
    path = tmp_path / "keras.csv"
    path.write_text("file,label,probability\n" + "".join(f"{i}.png,{i % 2},{(i * 7 % 20) / 20}\n" for i in range(40)))
    command.main([str(path), *QUICK])
    assert "40 test images" in capsys.readouterr().out


def test_a_table_that_names_no_image_is_enough(tmp_path, capsys):
    rows = "label,probability\n" + "".join(f"{i % 2},{(i * 7 % 20) / 20}\n" for i in range(40))
    for folder in ("val", "test"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "scores.csv").write_text(rows)
    command.main([str(tmp_path / "test" / "scores.csv"), "--validation", str(tmp_path / "val" / "scores.csv"), *QUICK])
    printed = capsys.readouterr().out
    assert "40 test images" in printed
    assert "in validation and in test" not in printed


@pytest.fixture
def mixed(tables, tmp_path):
    """A table with the rows of all splits: of train, where nothing is wrong, of val, and of test."""
    validation, test = tables
    train = (i for i in range(200))
    lines = [f"train/{i}.jpeg,train,,,{i % 2},{0.01 + 0.98 * (i % 2)}" for i in train]
    for part in (validation, test):
        lines += [
            f"{part.file[i]},{part.split[i]},{part.group[i]},{part.subtype[i]},{part.label[i]},{float(part.probability[i])!r}"
            for i in range(len(part))
        ]
    path = tmp_path / "all.csv"
    path.write_text("\n".join(["file,split,group,subtype,label,probability", *lines]) + "\n")
    return path


def test_rows_of_other_splits_are_not_judged_as_test(mixed, tables, tmp_path, capsys):
    out = tmp_path / "out"
    command.main([str(mixed), "--validation", str(mixed), "--rule", "youden", "--out", str(out), *QUICK])
    judgement = json.loads((out / "evaluation.json").read_text())
    alone = tmp_path / "alone"
    command.main(
        [
            str(tmp_path / "test.csv"),
            "--validation",
            str(tmp_path / "val.csv"),
            "--rule",
            "youden",
            "--out",
            str(alone),
            *QUICK,
        ]
    )
    expected = json.loads((alone / "evaluation.json").read_text())
    assert judgement["test"]["metrics"] == expected["test"]["metrics"]
    assert judgement["operating_point"]["threshold"] == expected["operating_point"]["threshold"]
    assert judgement["warnings"] == expected["warnings"]
    assert read_predictions(out / "predictions" / "test.csv").file == tables[1].file
    printed = capsys.readouterr().out
    assert "Of 440 rows, the 120 of split test are taken; 200 of train and 120 of val are left out." in printed
    assert "Of 440 rows, the 120 of split val are taken; 200 of train and 120 of test are left out." in printed


def test_a_table_without_a_test_row_is_not_judged_as_test(tables, tmp_path):
    with pytest.raises(UserError, match="has no row of split test, only of val"):
        command.main([str(tmp_path / "val.csv"), *QUICK])
    with pytest.raises(UserError, match="has no row of split val, only of test"):
        command.main([str(tmp_path / "test.csv"), "--validation", str(tmp_path / "test.csv"), *QUICK])


def test_missing_groups_as_r_writes_them_are_no_patient(tmp_path, capsys):
    path = tmp_path / "r.csv"
    path.write_text("label,probability,group\n" + "".join(f"{i % 2},{(i * 7 % 20) / 20},NA\n" for i in range(40)))
    command.main([str(path), *QUICK])
    assert "Not every image has a group" in " ".join(capsys.readouterr().out.split())


def test_all_missing_columns_are_named_at_once(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text("y_true,y_score\n0,0.5\n")
    with pytest.raises(UserError, match=r"no column label, no column probability .*; it has y_true, y_score$"):
        command.main([str(path)])


def test_a_folder_is_no_table(tmp_path):
    with pytest.raises(UserError, match="is a folder: name the table in it"):
        command.main([str(tmp_path)])


def test_what_is_written_is_there_before_anything_is_printed_of_it(tables, tmp_path, monkeypatch):
    from cxr_jax.reporting import tables as printing

    def fail(judgement):
        raise OSError("the terminal is gone")

    monkeypatch.setattr(printing, "judgement_table", fail)
    out = tmp_path / "out"
    with pytest.raises(OSError, match="terminal is gone"):
        command.main([str(tmp_path / "test.csv"), "--out", str(out), *QUICK])
    assert (out / "report.html").is_file() and (out / "evaluation.json").is_file()


def test_a_rule_chooses_on_validation_and_everything_is_written(tables, tmp_path, capsys, metric_values):
    out = tmp_path / "out"
    options = ["--validation", str(tmp_path / "val.csv"), "--rule", "sensitivity", "--target-sensitivity", "0.9"]
    command.main([str(tmp_path / "test.csv"), *options, "--out", str(out), *QUICK])
    judgement = json.loads((out / "evaluation.json").read_text())
    point = judgement["operating_point"]
    validation, test = tables
    on_validation = np.mean(validation.probability[validation.label == 1] >= point["threshold"])
    assert 0.9 <= on_validation < 0.92
    assert point["rule"] == "sensitivity"
    expected = metric_values(test.label, test.probability, point["threshold"])
    assert judgement["test"]["metrics"]["specificity"]["value"] == expected["specificity"]
    assert judgement["confidence"]["resamples"] == 100
    np.testing.assert_array_equal(read_predictions(out / "predictions" / "test.csv").logits, test.logits)
    assert read_predictions(out / "predictions" / "val.csv").file == validation.file
    assert (out / "figures" / "roc.png").is_file()
    assert 'id="operating-point"' in (out / "report.html").read_text()
    assert str(out / "report.html") in capsys.readouterr().out


def test_the_threshold_can_be_given(tables, tmp_path):
    out = tmp_path / "out"
    command.main([str(tmp_path / "test.csv"), "--threshold", "0.3", "--out", str(out), *QUICK])
    judgement = json.loads((out / "evaluation.json").read_text())
    assert judgement["operating_point"]["threshold"] == 0.3
    assert judgement["validation"] is None
    assert not (out / "predictions" / "val.csv").exists()


def test_calls_on_aligned_probabilities_stand_in_a_table_of_their_own(tables, tmp_path, capsys):
    judged = [str(tmp_path / "test.csv"), "--validation", str(tmp_path / "val.csv"), "--rule", "youden", *QUICK]
    command.main(judged)
    plain = capsys.readouterr().out
    command.main([*judged, "--align-to", "0.5", "--out", str(tmp_path / "out")])
    printed = " ".join(capsys.readouterr().out.split())
    assert "Transductive: aligned to a declared share of PNEUMONIA of 50.0%" in printed
    assert "Transductive" not in plain and "It assumes that the declared share is right" in printed
    assert printed.count("Not a medical device") == 1
    told = json.loads((tmp_path / "out" / "alignment.json").read_text())
    assert told["transductive"] is True and told["prevalence"] == 0.5
    assert abs(told["called"] - 0.5) < 0.1
    assert f"{told['metrics']['accuracy']['value']:.3f} (" in printed


def test_a_folder_with_something_in_it_is_left_alone(tables, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        command.main([str(tmp_path / "test.csv"), "--out", str(out), *QUICK])
    assert [path.name for path in out.iterdir()] == ["precious.txt"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "is empty"),
        ("file,label,probability\n", "no row"),
        ("file,probability\na,0.5\n", "no column label"),
        ("file,label,probability\na,0,0.5\na,1,0.5\n", "row 3, column file: a stands in row 2 already"),
        ("file,label,probability\na,0,nan\nb,1,0.5\n", "row 2, column probability: nan is not a finite"),
        ("file,label,probability\na,0,0.5\nb,1,1.5\n", "row 3, column probability: 1.5 is not a probability"),
        ("file,label,probability\na,0,0.5\nb,sick,0.5\n", "row 3, column label: unknown label 'sick'"),
        ("file,label,probability\na,0,0.5\nb,0,0.5\n", "has images of NORMAL only"),
        ("file,label,probability\na,1,0.5\nb,1,0.5\n", "has images of PNEUMONIA only"),
    ],
)
@pytest.mark.parametrize("which", ["test", "validation"])
def test_a_wrong_table_is_one_sentence_and_nothing_is_written(tables, tmp_path, text, sentence, which):
    wrong = tmp_path / "wrong.csv"
    wrong.write_text(text)
    options = {"test": [str(wrong)], "validation": [str(tmp_path / "test.csv"), "--validation", str(wrong)]}[which]
    out = tmp_path / "out"
    with pytest.raises(UserError, match=sentence) as caught:
        command.main([*options, "--out", str(out), *QUICK])
    assert str(wrong) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_a_missing_table_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        command.main([str(tmp_path / "none.csv")])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--threshold", "1.5"], "--threshold is 1.5, but must be from 0 to 1"),
        (["--threshold", "nan"], "--threshold is nan"),
        (["--target-sensitivity", "0"], "--target-sensitivity is 0.0"),
        (["--cost-ratio", "-1"], "--cost-ratio is -1.0"),
        (["--resamples", "3"], "--resamples is 3"),
        (["--rule", "youden"], "name its table with --validation"),
        (["--rule", "youden", "--validation", "val.csv", "--threshold", "0.3"], "exclude each other"),
        (["--align-to", "0.5"], "--align-to brings probabilities to where validation's lie: name its table with"),
        (["--align-to", "1"], r"--align-to is 1\.0, but must be 0 \(not declared\), or above 0 and below 1"),
        (["--rule", "luck"], "luck"),
        (["--no-such-option"], "no-such-option"),
        ([], None),
    ],
)
def test_wrong_options_are_one_sentence(options, sentence):
    arguments = [] if sentence is None else ["test.csv", *options]
    with pytest.raises(UserError, match=sentence or "TABLE") as caught:
        command.main(arguments)
    assert caught.value.code == EXIT_USAGE
