import csv
import io
import json
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr_jax.cli import main as cli
from cxr_jax.commands import evaluate, predict
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
    assert "3 files: 3 PNEUMONIA" in text
    assert DISCLAIMER in text


def test_bad_files_do_not_stop_the_others(run_path, files, tmp_path, capsys):
    text_file = tmp_path / "text [bold].jpeg"
    text_file.write_text("no image")
    small = tmp_path / "small.png"
    empty = tmp_path / "empty"
    empty.mkdir()
    cv2.imwrite(str(small), np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8))
    given = [str(text_file), files[0], str(empty), str(small), str(tmp_path / "missing.png")]
    code = cli(["predict", str(run_path), *given, "--json"])
    entries, errors = json_of(capsys)
    assert code == 1
    assert [entry["file"] for entry in entries] == given
    assert ["error" in entry for entry in entries] == [True, False, True, False, True]
    lines = [line for line in errors.splitlines() if line.startswith("cxr-jax: ")]
    # each once; those about files that are not there come before the network is loaded
    assert len(lines) == 4
    told = [f"cxr-jax: {entry['error']}" for entry in entries if "error" in entry]
    assert sorted(lines[:3]) == sorted(told)
    assert lines[:2] == told[1:]
    before, _ = errors.split("Loading the network")
    assert [line in before for line in lines] == [True, True, False, False]
    assert lines[-1] == "cxr-jax: 3 of 5 files could not be predicted"
    assert "enlarged" in entries[3]["warnings"][0]

    assert cli(["predict", str(run_path), *given]) == 1
    table = capsys.readouterr().out
    assert "text [bold].jpeg" in table  # a bracket in a name is no markup
    assert table.count("not predicted, see the error") == 3
    assert "5 files: " in table and "3 not predicted" in table
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
    assert any("unlike the training images as a whole" in warning for warning in entry["warnings"])
    predict.main([str(evaluated_run), path])
    table = capsys.readouterr().out
    assert all(warning in table for warning in entry["warnings"])
    assert "Inputs were compared with the" in table


def test_films_are_uncertain_at_the_error_rate_that_is_asked_for(evaluated_run, files, tmp_path, capsys):
    """This network knows next to nothing, and at a small error rate says so of nearly every film."""
    shares = {}
    for rate in ("0.01", "0.2"):
        table = tmp_path / f"{rate}.csv"
        predict.main([str(evaluated_run), *files, "--error-rate", rate, "--csv", str(table)])
        text = capsys.readouterr().out
        rows = list(csv.DictReader(table.open()))
        uncertain = [row for row in rows if row["uncertain"] == "True"]
        shares[rate] = len(uncertain)
        assert text.count("  uncertain  ") == len(uncertain)
        assert not uncertain or f"{len(uncertain)} uncertain" in text
        assert f"at an error rate of {float(rate):.0%} for each class" in text
        for row in rows:
            assert (row["uncertain"] == "False") == (row["possible"] == row["label"])
    # so few groups of validation cannot leave a class out at such an error rate
    assert shares["0.01"] == len(files) >= shares["0.2"]
    with pytest.raises(UserError, match=r"error rate is 0\.5, but bounds were fixed .* 0\.01, 0\.02"):
        predict.main([str(evaluated_run), files[0], "--error-rate", "0.5"])


def test_a_run_of_an_earlier_version_has_no_bounds_until_its_stored_predictions_are_judged(
    evaluated_run, prepared_phantoms, files, tmp_path, capsys, undrawn_figures
):
    run = RunFolder(shutil.copytree(evaluated_run, tmp_path / "older"))
    run.conformal.unlink()
    run.uncertainty.unlink()
    predict.main([str(run.path), files[0]])
    assert "ncertain" not in capsys.readouterr().out
    with pytest.raises(UserError, match=r"no bounds for an error rate .* \(--stored will do"):
        predict.main([str(run.path), files[0], "--error-rate", "0.1"])
    looks = run.ledger.read_bytes()
    evaluate.main([str(run.path), "--stored"])
    assert run.ledger.read_bytes() == looks
    for path in (run.conformal, run.uncertainty):
        assert path.read_bytes() == (evaluated_run / path.name).read_bytes()


def test_a_run_that_was_not_evaluated_says_that_it_compares_nothing(run_path, files, capsys):
    predict.main([str(run_path), files[0]])
    assert "Inputs were not compared with the training images" in capsys.readouterr().out
    predict.main([str(run_path), files[0], "--json"])
    assert json_of(capsys)[0][0]["compared_with_training"] is False


def test_a_folder_gives_its_images_with_those_of_its_folders_and_counts_what_is_left_out(
    evaluated_run, phantom_source, files, tmp_path, capsys
):
    folder = tmp_path / "films"
    for number, name in ((10, "film10.jpeg"), (2, "film2.jpeg"), (3, "deeper/film.JPG")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(Path(files[number]).read_bytes())
    (folder / "notes.txt").write_text("none")
    (folder / ".hidden.png").write_text("none")
    # a film that is named and lies in a named folder is predicted once
    predict.main([str(evaluated_run), str(folder), str(folder / "film2.jpeg"), files[5], "--json"])
    entries, errors = json_of(capsys)
    assert [entry["file"] for entry in entries] == [
        *(str(folder / name) for name in ("deeper/film.JPG", "film2.jpeg", "film10.jpeg")),
        files[5],
    ]
    assert f"{folder}: 1 file left out (no JPEG, PNG or DICOM file)" in errors


def test_a_row_is_printed_and_stored_as_soon_as_it_is_known(evaluated_run, files, tmp_path, monkeypatch, capsys):
    from cxr_jax.serving import predict as serving

    table, seen = tmp_path / "new" / "table.csv", []
    answer = serving.predict_files

    def watched(model, names, *arguments, **options):
        for prediction in answer(model, names, *arguments, **options):
            seen.append((capsys.readouterr().out, table.read_text()))
            yield prediction

    monkeypatch.setattr(serving, "predict_files", watched)
    predict.main([str(evaluated_run), *files[:3], "--csv", str(table)])
    for number in (1, 2):
        printed, stored = seen[number]
        assert files[number - 1] in printed and files[number] not in printed
        assert stored.count("\n") == number + 1
        assert files[number - 1] in stored


def test_the_table_and_the_heat_maps_hold_what_json_says(evaluated_run, files, tmp_path, capsys):
    (tmp_path / "a").mkdir()
    twin = tmp_path / "a" / Path(files[1]).name
    twin.write_bytes(Path(files[2]).read_bytes())
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(b"no image")
    table, maps = tmp_path / "table.csv", tmp_path / "maps"
    given = [str(evaluated_run), files[1], str(twin), str(damaged), "--json", "--csv", str(table), "--maps", str(maps)]
    assert cli(["predict", *given]) == 1
    entries, errors = json_of(capsys)
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    assert len(rows) == len(entries) == 3
    for row, entry in zip(rows, entries, strict=True):
        assert row["warnings"] == "; ".join(entry["warnings"])
        assert row["possible"] == "; ".join(entry["possible"] or ())
        lists = ("warnings", "possible")
        plain = {name: "" if value is None else str(value) for name, value in entry.items() if name not in lists}
        assert {name: row[name] for name in plain} == plain
        assert row["disclaimer"] == DISCLAIMER
    assert rows[2]["error"] and not rows[2]["map"]
    stem = Path(files[1]).stem
    assert [entry.get("map") for entry in entries] == [str(maps / f"{stem}.png"), str(maps / f"{stem}-2.png"), None]
    assert sorted(path.name for path in maps.iterdir()) == [f"{stem}-2.png", f"{stem}.png"]
    for entry, source in zip(entries, (files[1], files[2]), strict=False):
        height, width = cv2.imread(source).shape[:2]
        picture = cv2.imread(entry["map"])
        # the caption lies below
        assert picture.shape[1] == width and picture.shape[0] > height
        assert np.ptp(picture[:height], axis=-1).max() > 50
    assert f"Table: {table}" in errors and str(maps) in errors


def test_results_are_not_written_over_what_is_read(evaluated_run, files, tmp_path, capsys):
    film = tmp_path / "films" / "a.png"
    film.parent.mkdir()
    cv2.imwrite(str(film), cv2.imread(files[0]))
    before = film.read_bytes()
    for option in (["--maps", str(film.parent)], ["--csv", str(film)]):
        assert cli(["predict", str(evaluated_run), str(film.parent), *option, "--replace"]) == 1
        assert f"{option[0]} would write over {film}, which is read" in capsys.readouterr().err
    assert film.read_bytes() == before and len(list(film.parent.iterdir())) == 1


def test_json_is_json_in_every_encoding(evaluated_run, files, tmp_path, monkeypatch):
    film = shutil.copy(files[0], tmp_path / "film \U0001f600 – ü.jpeg")
    stream = io.TextIOWrapper(io.BytesIO(), encoding="latin-1", errors="replace")
    monkeypatch.setattr(sys, "stdout", stream)
    predict.main([str(evaluated_run), str(film), "--json"])
    stream.seek(0)
    assert json.load(stream)[0]["file"] == str(film)


def test_results_replace_nothing_unasked(evaluated_run, files, tmp_path, capsys):
    table, maps = tmp_path / "table.csv", tmp_path / "maps"
    maps.mkdir()
    for path in (table, maps / "mine.png"):
        path.write_text("mine")
    for option, sentence in (
        (["--csv", str(table)], f"{table} exists already"),
        (["--csv", str(maps)], "is a folder: name a file"),
        (["--maps", str(maps)], f"{maps} is not empty"),
        (["--maps", str(table)], "is a file: name a folder"),
    ):
        assert cli(["predict", str(evaluated_run), files[0], *option]) == 1
        printed = capsys.readouterr()
        assert sentence in printed.err
        assert "Loading" not in printed.out
    assert table.read_text() == (maps / "mine.png").read_text() == "mine"
    wanted = ["--csv", str(table), "--maps", str(maps), "--replace"]
    assert cli(["predict", str(evaluated_run), files[0], *wanted]) == 0
    assert files[0] in table.read_text()
    assert (maps / "mine.png").read_text() == "mine"
    assert (maps / f"{Path(files[0]).stem}.png").is_file()


@pytest.mark.parametrize("name", ["missing.png", "empty", "config.toml/film.png"])
def test_nothing_is_loaded_where_no_file_can_be_read(run_path, name, tmp_path, monkeypatch, capsys):
    from cxr_jax.inference import restore

    def load(run):
        raise AssertionError("the network was loaded")

    monkeypatch.setattr(restore, "restore_run", load)
    (tmp_path / "empty").mkdir()
    assert cli(["predict", str(run_path), str(run_path / name if "/" in name else tmp_path / name)]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert cli(["predict", str(run_path), str(tmp_path / name), str(tmp_path / "other.png")]) == 1
    assert "none of 2 files can be read" in capsys.readouterr().err
    # run and film in the wrong order
    (tmp_path / "film.png").touch()
    assert cli(["predict", str(tmp_path / "film.png"), str(run_path)]) == 1
    assert "film.png is a file, not the folder of a run" in capsys.readouterr().err


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
