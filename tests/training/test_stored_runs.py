"""Runs of earlier versions go on being restored and resumed; so do those of a later one that only adds to them."""

from __future__ import annotations

import json

import pytest
from stored_run import STOPPED_AT, STORED, assert_close, open_stored, outcome, stored_file, trainer_of
from training_runs import Watcher, lines_of

from cxr_jax.errors import UserError
from cxr_jax.runs.folder import SCHEMA_VERSION, RunFolder, read_json


@pytest.fixture(params=sorted(STORED.glob("*.zip")), ids=lambda path: path.stem)
def stored(request, tmp_path):
    return open_stored(request.param, tmp_path / "run")


def test_todays_format_is_stored():
    assert stored_file().is_file(), "run scripts/make_stored_run.py and keep the older archives"


def test_a_stored_run_is_restored_and_goes_on_to_the_same_end(stored):
    run, expected = stored
    assert_close(outcome(run), expected["stopped"])
    watcher = Watcher()
    trainer = trainer_of(run, watcher)
    assert trainer.train(resume=True) == "finished"
    assert (watcher.started_at, watcher.notes) == (STOPPED_AT, [])
    assert [line["step"] for line in lines_of(trainer, "train")] == list(range(1, 11))
    assert_close(outcome(run), expected["finished"])


def test_what_a_later_version_adds_to_a_run_is_passed_over(stored):
    run, expected = stored
    for path in (run.network, run.environment):
        path.write_text(json.dumps(read_json(path) | {"colour": "grey"}))
    assert_close(outcome(run), expected["stopped"])


def test_a_run_of_a_later_layout_is_one_sentence(stored):
    run, _ = stored
    run.environment.write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(UserError, match="was written by a newer cxr_jax"):
        RunFolder.open(run.path)
