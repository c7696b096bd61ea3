import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr_jax.cli import main as cli
from cxr_jax.commands import predict
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.predictions import read_predictions
from cxr_jax.vocabulary import CLASS_NAMES, DISCLAIMER


@pytest.fixture
def files(phantom_source):
    return [str(path) for path in sorted((phantom_source / "test").glob("*/*.jpeg"))]


def json_of(capsys):
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


def test_predictions_equal_those_of_evaluate(evaluated_run, phantom_source, files, capsys):
    table = read_predictions(RunFolder(evaluated_run).predictions_of("test"))
    capsys.readouterr()
    predict.main([str(evaluated_run), *files, "--json"])
    entries, _ = json_of(capsys)
    threshold = json.loads(RunFolder(evaluated_run).operating_point.read_text())["threshold"]
    known = dict(zip(table.file, table.probability, strict=True))
    assert len(entries) == len(files) == len(known)
    for entry in entries:
        name = str(Path(entry["file"]).relative_to(phantom_source).as_posix())
        assert entry["probability"] == pytest.approx(known[name], abs=1e-6)
        assert entry["label"] == CLASS_NAMES[entry["probability"] >= threshold]
        assert entry["threshold"] == threshold
        assert entry["threshold_rule"] == "fixed"
        assert entry["disclaimer"] == DISCLAIMER
        assert entry["compared_with_training"] is True
        assert "mobilenetv2_tiny" in entry["model"]
    assert np.ptp(table.probability) > 0.01


def test_a_table_names_files_calls_threshold_and_disclaimer(run_path, files, capsys):
    predict.main([str(run_path), *files[:3], "--threshold", "0"])
    text = capsys.readouterr().out
    assert all(file in text for file in files[:3])  # long names are not cut where nobody reads them on a screen
    assert text.count("PNEUMONIA") >= 4
    assert "0.0000" in text and "given by the user" in text
    assert DISCLAIMER in text


def test_bad_files_do_not_stop_the_others(run_path, files, tmp_path, capsys):
    text_file = tmp_path / "text [bold].jpeg"
    text_file.write_text("no image")
    small = tmp_path / "small.png"
    cv2.imwrite(str(small), np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8))
    given = [str(text_file), files[0], str(tmp_path), str(small), str(tmp_path / "missing.png")]
    code = cli(["predict", str(run_path), *given, "--json"])
    entries, errors = json_of(capsys)
    assert code == 1
    assert [entry["file"] for entry in entries] == given
    assert ["error" in entry for entry in entries] == [True, False, True, False, True]
    lines = errors.splitlines()
    assert len(lines) == 4
    for line, entry in zip(lines, [entry for entry in entries if "error" in entry], strict=False):
        assert line == f"cxr-jax: {entry['error']}"
    assert lines[-1] == "cxr-jax: 3 of 5 files could not be predicted"
    assert "enlarged" in entries[3]["warnings"][0]

    assert cli(["predict", str(run_path), *given]) == 1
    table = capsys.readouterr().out
    assert "text [bold].jpeg" in table  # a bracket in a name is no markup
    assert table.count("not predicted") == 3
    assert DISCLAIMER in table


def test_what_is_no_chest_is_predicted_with_a_warning_in_both_outputs(evaluated_run, tmp_path, capsys):
    page = np.full((400, 300, 3), 255, np.uint8)
    for line in range(12):
        cv2.putText(page, "no radiograph", (20, 30 + 30 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (0, 0, 200), 2)
    path = str(tmp_path / "page.png")
    cv2.imwrite(path, page)
    predict.main([str(evaluated_run), path, "--json"])
    (entry,), _ = json_of(capsys)
    assert entry["label"] in CLASS_NAMES
    assert any("a colour image" in warning for warning in entry["warnings"])
    assert any("does not look like a frontal chest radiograph" in warning for warning in entry["warnings"])
    predict.main([str(evaluated_run), path])
    table = capsys.readouterr().out
    assert all(warning in table for warning in entry["warnings"])
    assert "Inputs were compared with the" in table


def test_a_run_that_was_not_evaluated_says_that_it_compares_nothing(run_path, files, capsys):
    predict.main([str(run_path), files[0]])
    assert "Inputs were not compared with the training images" in capsys.readouterr().out
    predict.main([str(run_path), files[0], "--json"])
    assert json_of(capsys)[0][0]["compared_with_training"] is False


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["RUN"], "name at least one file"),
        ([], "RUN"),
        (["RUN", "a.png", "--treshold", "1"], "--threshold"),
    ],
)
def test_a_command_line_that_cannot_be_understood_is_a_usage_error(run_path, arguments, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        predict.main([str(run_path) if argument == "RUN" else argument for argument in arguments])
    assert caught.value.code == EXIT_USAGE


def test_mistakes_in_run_or_threshold_are_told(run_path, files, tmp_path):
    with pytest.raises(UserError, match="from 0 to 1"):
        predict.main([str(run_path), files[0], "--threshold", "2"])
    with pytest.raises(UserError, match="no run"):
        predict.main([str(tmp_path / "nowhere"), files[0]])
