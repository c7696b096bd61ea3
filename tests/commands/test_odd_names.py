"""Names that a person may choose, through every command: all that a file system allows."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from cxr_jax.cli import main as command_line
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.metrics_log import is_finished
from cxr_jax.terminal import accept_any_text

ODD = "-x [red]a[b] \\ {b}* é漢 $HOME 'q\"" + os.fsdecode(b"\xe9")
"""A leading dash, markup, brackets, a backslash, wildcards, other scripts, quotes, spaces and a byte in Latin-1."""


@pytest.fixture
def run_command(capsys):
    """Runs a command, expects that it succeeds, and returns what it printed on standard output."""

    def run(*arguments):
        accept_any_text()
        code = command_line([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        return printed.out

    return run


@pytest.mark.slow
def test_any_name_works_through_every_command(phantom_source, config_file, tmp_path, monkeypatch, run_command):
    # a closing tag of markup
    place = tmp_path / "x[/y]" / ODD
    place.mkdir(parents=True)
    monkeypatch.chdir(place)
    source = shutil.copytree(phantom_source, place / ODD)
    config, run = Path(shutil.copy(config_file, f"{ODD}.toml")).absolute(), RunFolder(place / "runs" / ODD)
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path / "x[/y]" / ODD[:-1]))
    run_command("prepare", source, "--name", "phantoms")
    run.path.parent.mkdir()
    monkeypatch.chdir(run.path.parent)
    printed = run_command("train", config, f"--out={ODD}")
    assert is_finished(run.metrics)
    assert json.loads(run.environment.read_text())["schema_version"] == 1
    steps = sorted(int(path.name) for path in (run.checkpoints / "last").iterdir())
    assert len(steps) == 2
    shutil.rmtree(run.checkpoints / "last" / str(steps[-1]))
    run_command("train", config, f"--out={ODD}", "--resume")
    assert sorted(int(path.name) for path in (run.checkpoints / "last").iterdir()) == steps
    (following,) = [line for line in printed.splitlines() if line.startswith("Next: ")]
    assert following.isprintable()
    run_command("evaluate", run.path)
    film = next((source / "test" / "NORMAL").iterdir())
    odd_film = Path(shutil.copy(film, place / f"{ODD}.jpeg"))
    assert f"{ODD[:-1]}\\udce9.jpeg" in run_command("predict", run.path, odd_film)
    run_command("explain", run.path, odd_film)
    assert any(path.name.startswith(ODD) for path in run.explanations.iterdir())
    run_command("judge", run.predictions_of("test"), f"--out={place / 'judged' / ODD}", "--resamples", "100")
    run_command("compare", run.path, f"--out={place / 'compared' / ODD}", "--resamples", "100")
    run_command("publish", run.path, f"--out={place / 'published' / ODD}")
    assert (place / "published" / ODD / ODD / "evaluation.json").is_file()


def test_a_command_in_a_sentence_can_be_typed(trained, prepared_phantoms, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(trained, tmp_path / "-a b")
    accept_any_text()
    assert command_line(["compare", "./-a b"]) == 1
    assert "run cxr-jax evaluate './-a b' first" in capsys.readouterr().err


def test_prepared_data_in_a_place_that_records_cannot_be_written_in_are_refused(
    phantom_source, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path / ODD))
    assert command_line(["prepare", str(phantom_source)]) == 1
    errors = capsys.readouterr().err
    assert errors.startswith("cxr-jax: no prepared data can be kept in ")
    assert errors.endswith("whose path holds bytes that are no UTF-8 text: set CXR_PREPARED_DIR to another folder\n")
    assert not (tmp_path / ODD).exists()
