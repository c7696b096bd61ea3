"""Two processes at one run or one results folder: one does the work, the other is told; nothing is mixed."""

import subprocess
import sys
from pathlib import Path

import pytest

from cxr_jax.commands import evaluate, publish, train
from cxr_jax.errors import UserError
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.ledger import read_looks
from cxr_jax.runs.locks import evaluating, held, held_for_training
from cxr_jax.runs.predictions import read_predictions


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def at_once(*arguments: str) -> list[tuple[int, str]]:
    """Exit code and standard error of two processes that run the same command."""
    command = [sys.executable, "-m", "cxr_jax", *arguments]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    return [(process.returncode, errors) for process in processes for errors in [process.communicate()[1]]]


def assert_one_clear_outcome(outcomes, sentence):
    """At least one did it all; the other did, too, after it, or was told in one sentence."""
    assert 0 in [code for code, _ in outcomes]
    for code, errors in outcomes:
        assert code == 0 or (code == 1 and errors.count("\n") == 1 and sentence in errors), errors


def test_nothing_is_written_while_another_process_evaluates(evaluated_run, run_path, tmp_path):
    run = RunFolder(run_path)
    with evaluating(run):
        before = contents(run_path)
        with pytest.raises(UserError, match=r"another process is evaluating or publishing .* wait until it has ended"):
            evaluate.main([str(run_path)])
        assert contents(run_path) == before
    with evaluating(RunFolder(evaluated_run)), pytest.raises(UserError, match="another process is evaluating"):
        publish.main([str(evaluated_run), "--out", str(tmp_path / "results")])
    (tmp_path / "busy").mkdir()
    with held(tmp_path / "busy", ""), pytest.raises(UserError, match="another process is publishing in"):
        publish.main([str(evaluated_run), "--out", str(tmp_path / "busy")])
    assert not contents(tmp_path / "results") and not contents(tmp_path / "busy")


def test_a_run_that_another_process_trains_is_not_touched(run_path, config_file):
    again = [str(config_file), "--out", str(run_path), "--resume"]
    metrics = RunFolder(run_path).metrics
    # as if it had not ended yet
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:-1]))
    with held_for_training(RunFolder(run_path)):
        before = contents(run_path)
        with pytest.raises(UserError, match=r"another process is training .* wait until it has ended"):
            train.main([*again, "--training.precision", "bf16"])
        assert contents(run_path) == before
    train.main(again)


def test_one_results_folder_by_two_processes(evaluated_run, tmp_path):
    publish.main([str(evaluated_run), "--out", str(tmp_path / "alone")])
    outcomes = at_once("publish", str(evaluated_run), "--out", str(tmp_path / "together"))
    assert_one_clear_outcome(outcomes, "another process is publishing in")
    assert contents(tmp_path / "together") == contents(tmp_path / "alone")


@pytest.mark.slow
def test_one_run_evaluated_by_two_processes(run_path):
    outcomes = at_once("evaluate", str(run_path))
    assert_one_clear_outcome(outcomes, "another process is evaluating")
    run = RunFolder(run_path)
    looks = read_looks(run)
    assert len(looks) == [code for code, _ in outcomes].count(0)
    test = read_predictions(run.predictions_of("test"))
    threshold = read_json(run.operating_point)["threshold"]
    accuracy = ((test.probability >= threshold) == test.label).mean()
    assert read_json(run.evaluation)["test"]["metrics"]["accuracy"]["value"] == accuracy
    assert all(look["result"]["accuracy"] == accuracy for look in looks)
    assert not list(run_path.rglob(".unfinished-*"))
