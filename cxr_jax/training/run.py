"""A run of training, top to bottom: phases, epochs, steps, validations and checkpoints."""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Protocol

import jax

from cxr_jax.devices import replicate, shapes_of
from cxr_jax.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, UserError
from cxr_jax.images.image_set import ImageSet
from cxr_jax.inference.forward import (
    ForwardProgram,
    compile_classifier,
    compile_on_images,
    logits_of,
    pooled_features_of,
)
from cxr_jax.models.state import ArrayDict
from cxr_jax.process import release_freed_memory
from cxr_jax.runs.folder import RunFolder
from cxr_jax.terminal import as_typed
from cxr_jax.training.compile import CompiledStep, compile_step
from cxr_jax.training.feed import Feed, make_feed
from cxr_jax.training.interruption import Interruption, InterruptionError
from cxr_jax.training.network import Network
from cxr_jax.training.optimizer import rates_of
from cxr_jax.training.plan import Phase, Plan
from cxr_jax.training.processes import ALONE, ProcessGroup
from cxr_jax.training.progress import EndReason, Progress, after_validation, is_over, next_phase
from cxr_jax.training.saving import RunWriter, newest_state
from cxr_jax.training.state import (
    TrainState,
    all_params,
    dtype_of,
    new_state,
    restore_network,
    restore_state,
    standing_network,
)
from cxr_jax.training.step import DeviceBatch, Moment, StepMetrics, moment_of, train_step
from cxr_jax.training.validation import Validator


class Observer(Protocol):
    """Who is told of a run's progress."""

    def on_start(self, plan: Plan, progress: Progress) -> None:
        """Is called when training begins, or goes on from `progress`."""

    def on_features(self, done: int, total: int) -> None:
        """Is called as a phase computes features once: of `total` images `done` have theirs."""

    def on_train(self, line: dict[str, Any]) -> None:
        """Is called after a step; `line` is what metrics.jsonl says of it."""

    def on_validation(self, line: dict[str, Any]) -> None:
        """Is called after a validation; `line` is what metrics.jsonl says of it."""

    def on_note(self, sentence: str) -> None:
        """Is told what a person should know."""


def train(
    plan: Plan,
    network: Network,
    train_set: ImageSet,
    validation_set: ImageSet,
    run: RunFolder,
    observer: Observer,
    group: ProcessGroup = ALONE,
    *,
    resume: bool = False,
) -> EndReason:
    """Trains `network` as `plan` says, to the end or until patience runs out; returns why it ended.

    Each process of `group` calls this with the same arguments. Only the first one reads and writes the folder of `run`.
    With `resume` the run goes on from its newest intact checkpoint, in the very state in which it was saved. Ctrl-C and
    SIGTERM save the state and raise UserError with their exit code. A loss that is not finite raises UserError, which
    names the step.
    """
    config, devices = plan.config, plan.devices
    training, monitor = config.training, config.validation.monitor
    validate_every = config.validation.every_iterations or plan.batches_per_epoch
    averages = training.ema_decay > 0

    group.connect(devices)
    checkpoint = group.handed_out(lambda: newest_state(run.checkpoints, observer.on_note)) if resume else None
    progress = Progress.from_json(checkpoint.details) if checkpoint else Progress()
    params, batch_stats = network.params, network.batch_stats
    if checkpoint is not None:
        params, batch_stats = restore_network(checkpoint.arrays, params, batch_stats, str(run.checkpoints))
    began = time.perf_counter() - progress.seconds
    observer.on_start(plan, progress)

    # made by the first phase that takes images, and shared by all that do
    image_feed = functools.cache(lambda: make_feed(config.data.placement, train_set, devices, group, training.sampling))
    state: TrainState | None = None

    with RunWriter(run, progress, group) as writer, Interruption(group) as interruption:

        def validated(state: TrainState, progress: Progress) -> Progress:
            """Validates the network, logs its figures, and saves it if it is the best of the run so far."""
            figures = validator.figures(*standing_network(state), interruption.check)
            progress = dataclasses.replace(progress, seconds=time.perf_counter() - began)
            progress, best = after_validation(progress, monitor, figures[monitor])
            line = {**_position(plan, progress), **figures, "best": best, "seconds": progress.seconds}
            writer.log("validation", **line)
            observer.on_validation(line)
            if best:
                writer.save_best(state, progress, monitor)
            return progress

        try:
            while progress.phase < len(plan.phases):
                phase = plan.phases[progress.phase]
                optimizer = phase.optimizer(phase.schedule)
                state = new_state(
                    params, batch_stats, phase.trainable, optimizer, step=progress.step, averages=averages
                )
                # the network as the steps see it: on images, or on features that are the same in every epoch
                if phase.computes_features_once:
                    sets = (train_set, validation_set)
                    features, validation_features = _pooled(
                        plan, network, state, sets, interruption.check, observer.on_features, group
                    )
                    feed = make_feed(config.data.placement, features, devices, group, training.sampling)
                    validator = _validator(plan, network, state, validation_features, group)
                else:
                    feed, validator = image_feed(), _validator(plan, network, state, validation_set, group)
                step = compile_train_step(
                    plan, network, phase, state, feed, first_step=progress.step - progress.iteration
                )
                # what comes next needs all of them, and does not wait long for one that compiles slowly
                group.together()
                interruption.check()
                if checkpoint is not None and progress.iteration > 0:
                    # between two phases the optimizer stored is that of the phase before, and starts anew
                    state = restore_state(checkpoint.arrays, state, str(run.checkpoints))
                checkpoint = None
                state = replicate(state, devices)
                if progress.validation_due:
                    progress = validated(state, progress)

                rates = rates_of(phase.schedule, phase.iterations)
                moment_at = functools.partial(moment_of, training.seed, dtype=dtype_of(state))
                batches = _placed_batches(plan, phase, progress, feed, step, group)
                following = next(batches, None)
                while not is_over(progress, phase.iterations, config.validation.patience):
                    epoch, batch = following
                    step_began = time.perf_counter()
                    rate = rates[progress.iteration]
                    state, metrics = step(state, batch, moment_at(epoch, rate))
                    # read and on its way to the devices while the step runs
                    following = next(batches, None)
                    loss, accuracy = (float(value) for value in jax.device_get(metrics))
                    now = time.perf_counter()
                    progress = dataclasses.replace(
                        progress, iteration=progress.iteration + 1, step=progress.step + 1, seconds=now - began
                    )
                    line = {
                        **_position(plan, progress),
                        "loss": loss,
                        "accuracy": accuracy,
                        "learning_rate": rate,
                        "images_per_second": training.batch_size / (now - step_began),
                        "seconds": progress.seconds,
                    }
                    writer.log("train", **line)
                    observer.on_train(line)
                    _require_finite(loss, progress.step, rate)
                    if progress.iteration % validate_every and progress.iteration != phase.iterations:
                        interruption.check()
                        continue
                    progress = dataclasses.replace(progress, validation_due=True)
                    progress = validated(state, progress)
                    if not is_over(progress, phase.iterations, config.validation.patience):
                        writer.save(state, progress)
                        interruption.check()

                progress = next_phase(progress, config.validation.patience)
                # once and not after the last validation too: while a checkpoint is replaced, there is one less
                writer.save(state, progress)
                interruption.check()
                params, batch_stats = standing_network(state)
        except InterruptionError:
            if writer.saved != progress:
                writer.save(state, progress)
            _leave(run, progress, interruption, writer, group)
        # who reads that a run is finished takes the last state that is on the disk for its network
        writer.wait()
        writer.log("end", reason=progress.reason, step=progress.step, seconds=progress.seconds)
    return progress.reason


def compile_train_step(
    plan: Plan, network: Network, phase: Phase, state: TrainState, feed: Feed, *, first_step: int = 0
) -> CompiledStep:
    """Returns `train_step` of `phase` as a program that takes what `feed` hands over."""

    def step(
        state: TrainState, batch: Any, moment: Moment, *resident: DeviceBatch, axis_name: str | None = None
    ) -> tuple[TrainState, StepMetrics]:
        examples = feed.examples(batch, *resident)
        return train_step(
            state,
            examples,
            moment,
            network=network,
            plan=plan,
            phase=phase,
            first_step=first_step,
            axis_name=axis_name,
        )

    shapes = feed.shapes(plan.config.training.batch_size)
    moment = moment_of(plan.config.training.seed, dtype=dtype_of(state))
    return compile_step(step, state, shapes, moment, plan.devices, plan.config.parallel.backend, feed.resident)


def _validator(plan: Plan, network: Network, state: TrainState, images: ImageSet, group: ProcessGroup) -> Validator:
    """Returns what judges the network on `images`, which may be pooled features.

    Its program is compiled when it is first needed: the first step does not wait for it.
    """
    training, params, batch_stats = plan.config.training, shapes_of(all_params(state)), shapes_of(state.batch_stats)

    @functools.cache
    def compiled() -> ForwardProgram:
        if len(images.images.shape) == 2:
            program = compile_classifier(
                network.graphdef,
                params,
                batch_stats,
                channels=images.images.shape[1],
                batch_size=training.evaluation_batch_size,
                devices=plan.devices,
            )
        else:
            program = _on_images(logits_of, plan, network, params, batch_stats)
        release_freed_memory()
        return program

    if group.world_size > 1:
        # several processes compute together, and would wait for one that compiles slowly
        compiled()
    return Validator(compiled, images, group.share)


def _pooled(
    plan: Plan,
    network: Network,
    state: TrainState,
    sets: tuple[ImageSet, ImageSet],
    before_each: Callable[[], None],
    tell: Callable[[int, int], None],
    group: ProcessGroup,
) -> list[ImageSet]:
    """Returns each of `sets` with its pooled features [N, C] in place of the images; `tell` hears of how many."""
    params, batch_stats = replicate((all_params(state), state.batch_stats), plan.devices)
    program = _on_images(pooled_features_of, plan, network, params, batch_stats)
    done, total = 0, sum(len(images.labels) for images in sets)

    def advance(more: int) -> None:
        nonlocal done
        done += more
        tell(done, total)

    advance(0)
    given = {"before_each": before_each, "advance": advance, "share": group.share}
    return [
        dataclasses.replace(images, images=program.over(params, batch_stats, images.images, **given)) for images in sets
    ]


def _on_images(
    answer: Callable[..., jax.Array], plan: Plan, network: Network, params: ArrayDict, batch_stats: ArrayDict
) -> ForwardProgram:
    """Returns the program that gives `answer` of a batch of images in evaluation."""
    return compile_on_images(
        answer,
        network.graphdef,
        params,
        batch_stats,
        mean=network.mean,
        std=network.std,
        image_size=plan.config.data.image_size,
        batch_size=plan.config.training.evaluation_batch_size,
        devices=plan.devices,
    )


def _placed_batches(
    plan: Plan, phase: Phase, progress: Progress, feed: Feed, step: CompiledStep, group: ProcessGroup
) -> Iterator[tuple[int, Any]]:
    """Yields the epoch and the batch, on the devices, of every step of the phase from `progress` on."""
    done, start = divmod(progress.iteration, plan.batches_per_epoch)
    order = {"batch_size": plan.config.training.batch_size, "seed": plan.config.training.seed, "share": group.share}
    # counted over the whole run, so that a phase does not repeat the order and draws of the one before
    before = plan.epochs_before(progress.phase)
    for epoch in range(before + done, before + phase.config.epochs):
        for batch in feed.batches(epoch=epoch, start=start, **order):
            yield epoch, step.place(batch)
        start = 0


def _position(plan: Plan, progress: Progress) -> dict[str, Any]:
    """Returns where a run stands, as a line of metrics.jsonl begins."""
    passed = plan.epochs_before(progress.phase) + progress.iteration / plan.batches_per_epoch
    name = plan.phases[progress.phase].config.name
    return {"step": progress.step, "epoch": round(passed, 6), "phase": name}


def _require_finite(loss: float, step: int, learning_rate: float) -> None:
    """Raises UserError if training has run away."""
    if not math.isfinite(loss):
        raise UserError(
            f"the loss is {loss} at step {step} (learning rate {learning_rate:g}); lower optimizer.learning_rate or "
            "lengthen schedule.warmup_iterations"
        )


def _leave(
    run: RunFolder, progress: Progress, interruption: Interruption, writer: RunWriter, group: ProcessGroup
) -> NoReturn:
    """Leaves with the exit code of the signal, once what there is to save is on the disk."""
    reason = interruption.reason
    writer.wait()
    # the others must not end before the one that saves has done so
    group.together()
    writer.log("end", reason=reason, step=progress.step, seconds=progress.seconds)
    raise UserError(
        f"training was {reason} after step {progress.step}; go on with "
        + as_typed("cxr-jax", "train", run.config, "--out", run.path, "--resume"),
        EXIT_INTERRUPTED if reason == "interrupted" else EXIT_TERMINATED,
    )
