"""The training loop: phases, epochs, steps, validations and checkpoints, top to bottom."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import jax
import numpy as np

from cxr_jax.checkpoints import Checkpoint, CheckpointWriter, read_newest, saved_steps
from cxr_jax.config.schema import Config, PhaseConfig
from cxr_jax.data.batches import iterations_per_epoch
from cxr_jax.data.image_set import ImageSet
from cxr_jax.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, UserError
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.metrics_log import MetricsLog
from cxr_jax.training.interruption import Interruption, InterruptionError
from cxr_jax.training.loss import class_weights
from cxr_jax.training.network import Network
from cxr_jax.training.optimizer import (
    frozen_stages,
    make_optimizer,
    make_schedule,
    partition,
    rates_of,
    trains_head_alone,
)
from cxr_jax.training.parallel import TrainStep, compile_evaluation_step, compile_pooling_step, compile_train_step
from cxr_jax.training.placement import Placement, placed_batches
from cxr_jax.training.plan import plan_run
from cxr_jax.training.processes import ALONE, NoWriter, ProcessGroup
from cxr_jax.training.progress import EndReason, Observer, Progress, after_validation
from cxr_jax.training.sharding import choose_devices, replicate
from cxr_jax.training.state import (
    TrainState,
    all_params,
    network_arrays,
    new_state,
    restore_network,
    restore_state,
    standing_network,
    state_arrays,
)
from cxr_jax.training.steps import StepMetrics, StepRules
from cxr_jax.training.validation import Validator, in_batches

LAST, BEST = "last", "best"
"""Folders of checkpoints: the whole state to resume from, and the network that validated best."""


@dataclass(frozen=True)
class PreparedPhase:
    """A phase ready to run."""

    config: PhaseConfig
    iterations: int
    state: TrainState
    step: TrainStep
    learning_rates: list[float]  # of every iteration of the phase
    train_set: ImageSet
    validator: Validator


class Trainer:
    """One run: what stays the same from step to step, and the writers of its folder."""

    def __init__(
        self,
        config: Config,
        network: Network,
        train_set: ImageSet,
        validation_set: ImageSet,
        run: RunFolder,
        observer: Observer,
        group: ProcessGroup = ALONE,
    ) -> None:
        """Check that the run can work at all, as `plan_run` does; UserError if not.

        Each process of `group` makes the same trainer; the first of them alone reads and writes the folder of `run`.
        """
        self.config, self.network, self.observer, self.run = config, network, observer, run
        self.group = group
        self.train_set, self.validation_set = train_set, validation_set
        self.devices = choose_devices(config.parallel.devices)
        self.phases = config.resolved_phases()
        self.batches = iterations_per_epoch(len(train_set), config.training.batch_size)
        self.plan = plan_run(config, network, train_set, validation_set, self.devices)
        self.placement = Placement(config.data.placement, self.devices, group, kept=train_set)
        self.class_weights = class_weights(config.loss.class_weights, train_set.labels)

    def train(self, *, resume: bool = False) -> EndReason:
        """Train to the end, or until patience runs out; returns why it ended.

        With `resume` the run goes on from its newest intact checkpoint, in the very state in which it was saved.
        Ctrl-C and SIGTERM save and raise UserError with the exit code that belongs to them; a loss that is not finite
        raises UserError naming the step.
        """
        self.group.connect(self.devices)
        checkpoint = self.group.handed_out(self._newest) if resume else None
        progress = Progress.from_json(checkpoint.details) if checkpoint else Progress()
        self._began = time.perf_counter() - progress.seconds
        self.observer.on_start(self.plan, progress)
        params, batch_stats = self.network.params, self.network.batch_stats
        if checkpoint is not None:
            params, batch_stats = restore_network(checkpoint.arrays, params, batch_stats, str(self.run.checkpoints))
        with contextlib.ExitStack() as stack:
            self._open_writers(stack, progress)
            self.interruption = stack.enter_context(Interruption(self.group))
            while progress.phase < len(self.phases):
                try:
                    phase = self._prepare(progress, params, batch_stats)
                    # what comes next needs all of them, and does not wait long for one that compiles slowly
                    self.group.together()
                    self.interruption.check()
                except InterruptionError:
                    self._leave(progress)
                if checkpoint is not None and progress.iteration > 0:
                    # between two phases the optimizer stored is that of the phase before, and starts anew
                    restored = restore_state(checkpoint.arrays, phase.state, str(self.run.checkpoints))
                    phase = dataclasses.replace(phase, state=restored)
                checkpoint = None
                state, progress = self._run_phase(phase, progress)
                params, batch_stats = standing_network(state)
            self.log.write("end", reason=progress.reason, step=progress.step, seconds=progress.seconds)
        return progress.reason

    def _newest(self) -> Checkpoint | None:
        """What to go on from; None for a run that was killed before its first checkpoint, which begins again."""
        last = self.run.checkpoints / LAST
        return read_newest(last, self.observer.on_note) if saved_steps(last) else None

    def _open_writers(self, stack: contextlib.ExitStack, progress: Progress) -> None:
        """Open the log and the checkpoints of a run that stands at `progress`, until `stack` is left."""
        if not self.group.writes:
            self.log = self.last = self.best = NoWriter()
            return
        log = MetricsLog(self.run.metrics, rewind_to=progress.step, validation_due=progress.validation_due)
        self.log = stack.enter_context(log)
        self.last = stack.enter_context(CheckpointWriter(self.run.checkpoints / LAST, keep=2))
        # a killed run may have saved a better network than the last state knows of: the one before is still needed
        best = CheckpointWriter(self.run.checkpoints / BEST, keep=2, rewind_to=progress.step)
        self.best = stack.enter_context(best)

    def _prepare(self, progress: Progress, params: dict, batch_stats: dict) -> PreparedPhase:
        """The phase that `progress` is in, its step compiled and its optimizer fresh."""
        phase = self.phases[progress.phase]
        iterations = phase.epochs * self.batches
        schedule = make_schedule(phase.optimizer, phase.schedule, iterations)
        trainable, frozen = partition(params, phase)
        optimizer = make_optimizer(phase.optimizer, schedule, trainable, frozen)
        decay = self.config.training.average_decay
        state = new_state(trainable, frozen, batch_stats, optimizer, progress.step, averages=decay > 0)
        rules = StepRules(
            graphdef=self.network.graphdef,
            optimizer=optimizer,
            mean=self.network.mean,
            std=self.network.std,
            augmentation=phase.augmentation,
            class_weights=self.class_weights,
            label_smoothing=self.config.loss.label_smoothing,
            focusing=self.config.loss.focusing,
            batch_statistics=phase.batch_norm == "train",
            seed=self.config.training.seed,
            frozen_stages=frozen_stages(params, phase),
            frozen_backbone=self.network.has_features and trains_head_alone(params, phase),
            accumulation_steps=self.config.training.accumulation_steps,
            precision=self.plan.precision,
            native_kernels=self.plan.native_kernels,
            average_decay=decay,
            first_step=progress.step - progress.iteration,
        )
        train_set, validation_set = self.train_set, self.validation_set
        if rules.frozen_backbone and not phase.augmentation.is_random:
            # the same every epoch, so computed once
            train_set, validation_set = self._pooled(rules, state, train_set, validation_set)
            rules = dataclasses.replace(rules, feature_channels=train_set.images.shape[1])
        size, training = self.config.data.image_size, self.config.training
        backend, table = self.config.parallel.backend, self.placement.table(train_set)
        step = compile_train_step(rules, state, size, training.batch_size, self.devices, backend, table)
        evaluate = compile_evaluation_step(
            rules, all_params(state), batch_stats, size, training.evaluation_batch_size, self.devices
        )
        validator = Validator(evaluate, validation_set, training.evaluation_batch_size, self.group.share)
        return PreparedPhase(phase, iterations, state, step, rates_of(schedule, iterations), train_set, validator)

    def _batches(self, phase: PreparedPhase, progress: Progress) -> Iterator[tuple[int, Any]]:
        """Epoch and batch of every step of the phase from `progress` on."""
        epoch, start = divmod(progress.iteration, self.batches)
        # counted over the whole run, so that a phase does not repeat the order and draws of the one before
        before = sum(entry.epochs for entry in self.phases[: progress.phase])
        return placed_batches(
            phase.step,
            phase.train_set,
            batch_size=self.config.training.batch_size,
            seed=self.config.training.seed,
            epochs=range(before + epoch, before + phase.config.epochs),
            start=start,
            share=self.group.share,
        )

    def _pooled(self, rules: StepRules, state: TrainState, *sets: ImageSet) -> list[ImageSet]:
        """Each of `sets` with its pooled features [N, C] in place of the images."""
        size, batch_size = self.config.data.image_size, self.config.training.evaluation_batch_size
        state = replicate(state, self.devices)
        params = all_params(state)
        pool = compile_pooling_step(rules, params, state.batch_stats, size, batch_size, self.devices)

        def features(images: ImageSet) -> np.ndarray:
            return in_batches(
                pool, params, state.batch_stats, images.images, batch_size, self.interruption.check, self.group.share
            )

        return [dataclasses.replace(images, images=features(images)) for images in sets]

    def _run_phase(self, phase: PreparedPhase, progress: Progress) -> tuple[TrainState, Progress]:
        """Train from `progress` to the end of the phase; the progress returned stands before the next phase."""
        state = replicate(phase.state, self.devices)
        every = self.config.validation.every_iterations or self.batches
        if progress.validation_due:
            progress = self._validate(phase, state, progress)
        batches = self._batches(phase, progress)
        following = next(batches, None)
        while not self._is_over(phase, progress):
            epoch, batch = following
            began = time.perf_counter()
            state, metrics = phase.step.take(state, batch, epoch)
            # read and on its way to the devices while the step runs
            following = next(batches, None)
            progress = self._after_step(phase, progress, metrics, began)
            validated = progress.iteration % every == 0 or progress.iteration == phase.iterations
            if validated:
                progress = self._validate(phase, state, progress)
            if self._is_over(phase, progress):
                break
            stop = self.interruption.ask()
            if validated or stop is not None:
                self._save(state, progress)
            if stop is not None:
                self._leave(progress)
        progress = dataclasses.replace(
            progress,
            phase=progress.phase + 1,
            iteration=0,
            phase_best=None,
            stale_validations=0,
            reason="patience" if self._is_exhausted(progress) else "finished",
        )
        # once and not after the last validation too: to replace a checkpoint is to be without it for a moment
        self._save(state, progress)
        if self.interruption.ask() is not None:
            self._leave(progress)
        return state, progress

    def _after_step(self, phase: PreparedPhase, progress: Progress, metrics: StepMetrics, began: float) -> Progress:
        """Wait for the step, log it, and stop on a loss that is not finite."""
        loss, accuracy = (float(value) for value in jax.device_get(metrics))
        elapsed = time.perf_counter() - began
        learning_rate = phase.learning_rates[progress.iteration]
        progress = dataclasses.replace(
            progress,
            iteration=progress.iteration + 1,
            step=progress.step + 1,
            seconds=time.perf_counter() - self._began,
        )
        line = {
            "step": progress.step,
            "epoch": self._epochs_passed(progress),
            "phase": phase.config.name,
            "loss": loss,
            "accuracy": accuracy,
            "learning_rate": learning_rate,
            "images_per_second": self.config.training.batch_size / elapsed,
            "seconds": progress.seconds,
        }
        self.log.write("train", **line)
        self.observer.on_train(line)
        if not math.isfinite(loss):
            raise UserError(
                f"the loss is {loss} at step {progress.step} (learning rate {learning_rate:g}); lower "
                "optimizer.learning_rate or lengthen schedule.warmup_iterations"
            )
        return progress

    def _validate(self, phase: PreparedPhase, state: TrainState, progress: Progress) -> Progress:
        """Validate, log, and save the network if it is the best of the run so far."""
        try:
            figures = phase.validator.figures(*standing_network(state), self.interruption.check)
        except InterruptionError:
            # begun again when the run is resumed; if it was due already, this very state is what there is on the disk
            if not progress.validation_due:
                progress = dataclasses.replace(progress, validation_due=True)
                self._save(state, progress)
            self._leave(progress)
        monitor = self.config.validation.monitor
        progress = dataclasses.replace(progress, seconds=time.perf_counter() - self._began)
        progress, best = after_validation(progress, monitor, figures[monitor])
        line = {
            "step": progress.step,
            "epoch": self._epochs_passed(progress),
            "phase": phase.config.name,
            **figures,
            "best": best,
            "seconds": progress.seconds,
        }
        self.log.write("validation", **line)
        self.observer.on_validation(line)
        if best:
            # only the two newest networks are kept: the state that a kill leaves must find its own among them
            self.last.wait()
            self.best.save(progress.step, network_arrays(state), {"monitor": monitor, "value": figures[monitor]})
        return progress

    def _save(self, state: TrainState, progress: Progress) -> None:
        """Save everything that is needed to go on from `progress`."""
        # a kill must not leave a state on the disk without the best network that it names: it is not saved again
        self.best.wait()
        self.last.save(progress.step, state_arrays(state), progress.as_json())

    def _leave(self, progress: Progress) -> NoReturn:
        """Leave with the exit code of the signal; what there is to save must be saved or under way."""
        reason = self.interruption.reason
        self.last.wait()
        # the others must not end before the one that saves has done so
        self.group.together()
        self.log.write("end", reason=reason, step=progress.step, seconds=progress.seconds)
        raise UserError(
            f"training was {reason} after step {progress.step}; go on with cxr-jax train {self.run.config} "
            f"--out {self.run.path} --resume",
            EXIT_INTERRUPTED if reason == "interrupted" else EXIT_TERMINATED,
        )

    def _is_over(self, phase: PreparedPhase, progress: Progress) -> bool:
        return progress.iteration >= phase.iterations or self._is_exhausted(progress)

    def _is_exhausted(self, progress: Progress) -> bool:
        return 0 < self.config.validation.patience <= progress.stale_validations

    def _epochs_passed(self, progress: Progress) -> float:
        before = sum(phase.epochs for phase in self.phases[: progress.phase])
        return round(before + progress.iteration / self.batches, 6)
