"""A run that is killed or stopped wherever it may be, and gone on with, is the run that was left alone."""

from __future__ import annotations

import dataclasses
import os
import signal

import numpy as np
import pytest
from training_runs import HEAD, PHASES, Watcher, assert_equal_runs, lines_of

from cxr_jax.checkpoints import CheckpointWriter, read_newest, saved_steps
from cxr_jax.config.schema import ValidationConfig
from cxr_jax.errors import UserError
from cxr_jax.inference import forward
from cxr_jax.runs.metrics_log import is_finished
from cxr_jax.training import run as training_run
from cxr_jax.training.progress import Progress
from cxr_jax.training.saving import BEST, LAST


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the package handles it."""


@pytest.fixture
def saves(monkeypatch):
    """Which steps were saved where, in order; the `fatal`th save is the last thing that a run does."""
    done = []
    save = CheckpointWriter.save

    def record(writer, step, arrays, details):
        save(writer, step, arrays, details)
        done.append((writer.folder.name, step))
        if len(done) == record.fatal:
            writer.wait()
            raise Killed

    record.fatal = 0
    monkeypatch.setattr(CheckpointWriter, "save", record)
    record.done = done
    return record


@pytest.mark.parametrize("patience", [0, 1])
def test_killed_after_a_save_a_run_goes_on_as_if_undisturbed(trainer, saves, patience):
    validation_rule = ValidationConfig(2, patience=patience, monitor="accuracy")
    undisturbed = trainer("undisturbed", phases=PHASES, validation=validation_rule)
    undisturbed.train()
    done = list(saves.done)
    # no step twice, because to replace a checkpoint is to be without it for a moment
    last = [step for folder, step in done if folder == LAST]
    assert last == ([2, 4, 5, 7, 9, 10] if not patience else sorted(set(last)))
    border = done.index((LAST, 5)) + 1 if not patience else 0
    # after the first, which is of the best network, at the border of the phases, and after the last
    for fatal in {1, border, len(done)} if border else {len(done)}:
        saves.done.clear()
        saves.fatal = fatal
        killed = trainer(f"killed{fatal}", phases=PHASES, validation=validation_rule)
        with pytest.raises(Killed):
            killed.train()
        saves.fatal = 0
        resumed = trainer(f"killed{fatal}", phases=PHASES, validation=validation_rule)
        resumed.train(resume=True)
        assert_equal_runs(undisturbed, resumed)
        assert saved_steps(resumed.run.checkpoints / BEST)[-1] == saved_steps(undisturbed.run.checkpoints / BEST)[-1]
    assert (lines_of(undisturbed, "end")[0]["reason"] == "patience") == bool(patience)


def test_a_run_whose_last_state_cannot_be_written_is_not_finished(trainer, monkeypatch):
    wait = CheckpointWriter.wait

    def fail_at_the_end(writer):
        wait(writer)
        if writer.folder.name == LAST and saved_steps(writer.folder)[-1:] == [10]:
            raise UserError("the disk is full")

    run = trainer("run", phases=PHASES)
    with monkeypatch.context() as full, pytest.raises(UserError, match="the disk is full"):
        full.setattr(CheckpointWriter, "wait", fail_at_the_end)
        run.train()
    assert not is_finished(run.run.metrics)
    assert trainer("run", phases=PHASES).train(resume=True) == "finished"


def test_a_state_and_the_best_network_are_saved_one_after_the_other(trainer, monkeypatch):
    """Shown with saves that write nothing until somebody waits for them."""
    found, expected, under_way = [], [], {}
    save, wait = CheckpointWriter.save, CheckpointWriter.wait

    def look_and_save_later(writer, step, arrays, details):
        writer.wait()
        newest = {folder: max(saved_steps(writer.folder.parent / folder), default=0) for folder in (BEST, LAST)}
        if writer.folder.name == LAST:
            found.append(newest[BEST])
            # the network that the state names is there before the state is
            expected.append(details["best_step"])
        else:
            found.append(newest[LAST])
            # and the state of the validation before is there before the network that may push out its own
            expected.append(step - 2)
        under_way[writer] = (step, {name: np.asarray(value) for name, value in arrays.items()}, details)

    def save_now(writer):
        if writer in under_way:
            save(writer, *under_way.pop(writer))
        wait(writer)

    monkeypatch.setattr(CheckpointWriter, "save", look_and_save_later)
    monkeypatch.setattr(CheckpointWriter, "wait", save_now)
    trainer("run").train()
    assert len(found) > 6
    assert found == expected


def test_a_better_network_that_the_resumed_run_knows_nothing_of_is_forgotten(trainer):
    run = trainer("run")
    run.train()
    best = run.run.checkpoints / BEST
    known = saved_steps(best)[-1]
    # as if a run that took another way had been killed after it saved a better network, and before its state
    with CheckpointWriter(best, keep=2) as writer:
        writer.save(99, read_newest(best).arrays, {})
    trainer("run").train(resume=True)
    assert saved_steps(best)[-1] == known


@pytest.mark.parametrize(("phases", "step"), [((), 2), ((HEAD,), 5)], ids=["images", "end of cached features"])
def test_a_signal_during_a_validation_leaves_it_and_resuming_makes_up_for_it(
    trainer, train_undisturbed, monkeypatch, phases, step
):
    undisturbed = train_undisturbed(phases)
    stopped = trainer("stopped", phases=phases)
    batches = []
    padded = forward.padded_batches

    def signal_in_the_first(images, batch_size, **share):
        last = lines_of(stopped, "train")[-1:]
        for batch in padded(images, batch_size, **share):
            if last and last[0]["step"] == step:
                batches.append(batch)
                if len(batches) == 1:
                    os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(forward, "padded_batches", signal_in_the_first)
        with pytest.raises(UserError, match=f"terminated after step {step}"):
            stopped.train()
    # of the two batches of a validation only the first was begun
    assert len(batches) == 1
    saved = read_newest(stopped.run.checkpoints / LAST)
    assert (saved.step, saved.details["validation_due"]) == (step, True)
    resumed = trainer("stopped", phases=phases)
    resumed.train(resume=True)
    assert_equal_runs(undisturbed, resumed)


def test_killed_after_a_validation_that_was_made_up_for_no_line_is_doubled(trainer, undisturbed, saves):
    # stopped in the validation of step 2, resumed, and killed once the line of that validation is written
    run = trainer("run", Watcher(signal_at=2))
    with pytest.raises(UserError):
        run.train()
    progress = Progress.from_json(read_newest(run.run.checkpoints / LAST).details)
    assert progress.validation_due
    saves.done.clear()
    saves.fatal = 1
    with pytest.raises(Killed):
        trainer("run").train(resume=True)
    saves.fatal = 0
    resumed = trainer("run")
    resumed.train(resume=True)
    assert_equal_runs(undisturbed, resumed)


def test_stopped_in_the_same_validation_again_the_checkpoint_is_not_replaced(trainer, undisturbed, saves, monkeypatch):
    with pytest.raises(UserError):
        trainer("run", Watcher(signal_at=2)).train()
    padded = forward.padded_batches

    def signal_first(images, batch_size, **share):
        os.kill(os.getpid(), signal.SIGTERM)
        return padded(images, batch_size, **share)

    saves.done.clear()
    with monkeypatch.context() as patch:
        patch.setattr(forward, "padded_batches", signal_first)
        with pytest.raises(UserError, match="terminated after step 2"):
            trainer("run").train(resume=True)
    assert saves.done == []
    resumed = trainer("run")
    resumed.train(resume=True)
    assert_equal_runs(undisturbed, resumed)


def test_a_signal_before_the_first_step_of_a_phase_is_not_kept_waiting(trainer, undisturbed_phases, monkeypatch):
    run, compile_train_step = trainer("run", phases=PHASES), training_run.compile_train_step

    def signal_while_compiling(plan, network, phase, *given, **named):
        if phase.config.name == "all":
            os.kill(os.getpid(), signal.SIGTERM)
        return compile_train_step(plan, network, phase, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "compile_train_step", signal_while_compiling)
        with pytest.raises(UserError, match="terminated after step 5; go on with"):
            run.train()
    resumed = trainer("run", phases=PHASES)
    resumed.train(resume=True)
    assert_equal_runs(undisturbed_phases, resumed)


def test_what_another_version_adds_to_the_progress_is_passed_over():
    progress = Progress(step=3, reason="patience")
    assert Progress.from_json(progress.as_json() | {"colour": "grey"}) == progress
    older = {name: value for name, value in progress.as_json().items() if name not in ("reason", "validation_due")}
    assert Progress.from_json(older) == dataclasses.replace(progress, reason="finished")


def test_a_run_goes_on_with_more_devices_and_with_fewer_again(trainer, config):
    on = {count: {"parallel": dataclasses.replace(config.parallel, devices=count)} for count in (1, 8)}
    undisturbed = trainer("undisturbed", **on[1])
    undisturbed.train()
    for devices, step in ((1, 3), (8, 7)):
        with pytest.raises(UserError):
            trainer("run", Watcher(signal_at=step), **on[devices]).train(resume=step > 3)
    resumed = trainer("run", **on[1])
    resumed.train(resume=True)
    lines, expected = lines_of(resumed, "train"), lines_of(undisturbed, "train")
    assert [line["step"] for line in lines] == [line["step"] for line in expected]
    # sums over devices round in another order, and training carries that on
    np.testing.assert_allclose([line["loss"] for line in lines], [line["loss"] for line in expected], rtol=1e-3)
    assert lines[:3] == expected[:3]
