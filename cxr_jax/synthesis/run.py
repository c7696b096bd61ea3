"""The training of a generator, top to bottom: epochs, steps, pictures and checkpoints."""

from __future__ import annotations

import contextlib
import functools
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cxr_jax.checkpoints import CheckpointWriter
from cxr_jax.config.schema import Config
from cxr_jax.devices import choose_devices, replicate, require_divisible
from cxr_jax.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, UserError
from cxr_jax.images.batches import iterations_per_epoch
from cxr_jax.images.image_set import ImageSet
from cxr_jax.images.stamp import grid_of, marked_png
from cxr_jax.inference.forward import Precision
from cxr_jax.runs.files import write_bytes
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.metrics_log import MetricsLog
from cxr_jax.synthesis.state import restore_state, state_arrays
from cxr_jax.synthesis.step import (
    Networks,
    SynthesisMetrics,
    SynthesisState,
    build_networks,
    images_of,
    sample_latents,
    synthesis_step,
)
from cxr_jax.terminal import as_typed
from cxr_jax.training.compile import CompiledStep, compile_step
from cxr_jax.training.feed import Feed, make_feed
from cxr_jax.training.interruption import Interruption
from cxr_jax.training.precision import Activations, settle_activations
from cxr_jax.training.processes import ALONE
from cxr_jax.training.saving import LAST, newest_state
from cxr_jax.training.step import DeviceBatch

GRID = 64
"""Samples on the picture of every epoch, always of the same latent vectors: the last that could be asked for."""

_COLUMNS = 8
_FIRST_OF_GRID = 2**30
_SAMPLES_AT_ONCE = 64


@dataclass(frozen=True)
class SynthesisPlan:
    """A training of a generator as it will be computed."""

    config: Config
    devices: list[jax.Device]
    batches_per_epoch: int
    activations: Activations

    @property
    def steps(self) -> int:
        """How many steps there are in all."""
        return self.batches_per_epoch * self.config.training.epochs


class Observer(Protocol):
    """Who is told of a training's progress."""

    def on_start(self, plan: SynthesisPlan, step: int) -> None:
        """Is called when training begins, or goes on after `step` steps."""

    def on_train(self, line: dict[str, Any]) -> None:
        """Is called after a step; `line` is what metrics.jsonl says of it."""

    def on_epoch(self, epoch: int, picture: Path) -> None:
        """Is called after an epoch, from 1, whose samples were drawn."""

    def on_note(self, sentence: str) -> None:
        """Is told what a person should know."""


def plan_synthesis(config: Config, images: ImageSet, recorded: Precision | None = None) -> SynthesisPlan:
    """Returns what training a generator on `images` as `config` says will do, going on in the `recorded` precision.

    Raises UserError if it cannot work: there is no whole batch, or the devices cannot share one.
    """
    training = config.training
    devices = choose_devices(config.parallel.devices)
    require_divisible("training.batch_size", training.batch_size, devices)
    batches = iterations_per_epoch(len(images), training.batch_size)
    if batches == 0:
        raise UserError(
            f"training.batch_size is {training.batch_size}, but there are only {len(images)} training images of "
            f"{config.synthesis.label}; take a smaller batch"
        )
    activations = settle_activations(
        training.precision, devices, config.parallel.backend, config.synthesis.generator, recorded=recorded
    )
    return SynthesisPlan(config, devices, batches, activations)


def train_generator(
    plan: SynthesisPlan, images: ImageSet, run: RunFolder, observer: Observer, *, resume: bool = False
) -> tuple[Networks, SynthesisState]:
    """Trains a generator on `images`, all of one class, as `plan` says; returns the networks at the end.

    With `resume` the training goes on from its newest intact checkpoint, in the very state in which it was saved.
    Ctrl-C and SIGTERM save the state and raise UserError with their exit code. A loss that is not finite raises
    UserError, which names the step.
    """
    config, training = plan.config, plan.config.training
    networks, state = build_networks(config)
    checkpoint = newest_state(run.checkpoints, observer.on_note) if resume else None
    done, passed = 0, 0.0
    if checkpoint is not None:
        state = restore_state(checkpoint.arrays, state, str(run.checkpoints))
        done, passed = checkpoint.step, float(checkpoint.details["seconds"])
    observer.on_start(plan, done)
    feed = make_feed(config.data.placement, images, plan.devices, ALONE)
    step = compile_synthesis_step(plan, networks, state, feed)
    state = replicate(state, plan.devices)
    began = time.perf_counter() - passed

    with contextlib.ExitStack() as opened:
        log = opened.enter_context(MetricsLog(run.metrics, rewind_to=done))
        saved = opened.enter_context(CheckpointWriter(run.checkpoints / LAST, keep=2))
        interruption = opened.enter_context(Interruption())
        batches = _placed_batches(plan, done, feed, step)
        following = next(batches, None)
        while done < plan.steps:
            epoch, batch = following
            step_began = time.perf_counter()
            state, metrics = step(state, batch, np.int32(epoch))
            # read and on its way to the devices while the step runs
            following = next(batches, None)
            figures = SynthesisMetrics(*(float(value) for value in jax.device_get(metrics)))
            done, now = done + 1, time.perf_counter()
            line = {
                "step": done,
                "epoch": round(done / plan.batches_per_epoch, 6),
                **figures._asdict(),
                "images_per_second": training.batch_size / (now - step_began),
                "seconds": now - began,
            }
            log.write("train", **line)
            observer.on_train(line)
            _require_finite(figures, done)
            whole, within = divmod(done, plan.batches_per_epoch)
            if within == 0:
                picture = run.path / "grids" / f"epoch_{whole:04d}.png"
                _draw_grid(networks, state, config, whole, picture)
                observer.on_epoch(whole, picture)
            reason = interruption.ask()
            if within == 0 or reason is not None:
                saved.save(done, state_arrays(state), {"seconds": now - began})
            if reason is not None:
                saved.wait()
                log.write("end", reason=reason, step=done, seconds=now - began)
                samples = ("--synthesis.samples", config.synthesis.samples) if config.synthesis.samples else ()
                raise UserError(
                    f"training was {reason} after step {done}; go on with "
                    + as_typed("cxr-jax", "synthesize", run.config, "--out", run.path, "--resume", *samples),
                    EXIT_INTERRUPTED if reason == "interrupted" else EXIT_TERMINATED,
                )
        saved.wait()
        log.write("end", reason="finished", step=done, seconds=time.perf_counter() - began)
    return networks, state


def compile_synthesis_step(plan: SynthesisPlan, networks: Networks, state: SynthesisState, feed: Feed) -> CompiledStep:
    """Returns `synthesis_step` as a program that takes what `feed` hands over."""

    def step(
        state: SynthesisState, batch: Any, epoch: Array, *resident: DeviceBatch, axis_name: str | None = None
    ) -> tuple[SynthesisState, SynthesisMetrics]:
        examples = feed.examples(batch, *resident)
        how = {"precision": plan.activations.precision, "native_kernels": plan.activations.native_kernels}
        return synthesis_step(state, examples, epoch, networks=networks, config=plan.config, axis_name=axis_name, **how)

    shapes = feed.shapes(plan.config.training.batch_size)
    return compile_step(step, state, shapes, np.int32(0), plan.devices, plan.config.parallel.backend, feed.resident)


def draw_samples(
    networks: Networks, state: SynthesisState, seed: int, numbers: np.ndarray, advance: Any = lambda _: None
) -> np.ndarray:
    """Returns the samples with these `numbers` [N], uint8 [N, S, S]: each is decided by the seed and its number alone.

    `advance` is told how many more are drawn.
    """
    generator = jax.tree.map(lambda leaf: jnp.asarray(np.asarray(leaf)), (state.generator[0], state.generator[1]))
    parts = []
    for start in range(0, len(numbers), _SAMPLES_AT_ONCE):
        part = numbers[start : start + _SAMPLES_AT_ONCE]
        padded = np.resize(part, _SAMPLES_AT_ONCE).astype(np.int32)
        parts.append(
            np.asarray(_drawn(*generator, padded, seed, networks.generator, networks.latent_size))[: len(part)]
        )
        advance(len(part))
    return np.concatenate(parts)


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _drawn(params: Any, batch_stats: Any, numbers: Array, seed: int, graphdef: Any, latent_size: int) -> Array:
    return images_of(params, batch_stats, sample_latents(seed, numbers, latent_size), graphdef=graphdef)


def _draw_grid(networks: Networks, state: SynthesisState, config: Config, epoch: int, path: Path) -> None:
    numbers = np.arange(_FIRST_OF_GRID, _FIRST_OF_GRID + GRID)
    images = draw_samples(networks, state, config.training.seed, numbers)
    write_bytes(
        path, marked_png(grid_of(images, _COLUMNS, f"SYNTHETIC, no radiographs; epoch {epoch}"), {"Epoch": str(epoch)})
    )


def _placed_batches(plan: SynthesisPlan, done: int, feed: Feed, step: CompiledStep) -> Iterator[tuple[int, Any]]:
    """Yields the epoch and the batch, on the devices, of every step after the first `done`."""
    first, start = divmod(done, plan.batches_per_epoch)
    training = plan.config.training
    for epoch in range(first, training.epochs):
        for batch in feed.batches(batch_size=training.batch_size, seed=training.seed, epoch=epoch, start=start):
            yield epoch, step.place(batch)
        start = 0


def _require_finite(figures: SynthesisMetrics, step: int) -> None:
    """Raises UserError if training has run away."""
    for name in ("discriminator_loss", "generator_loss"):
        if not math.isfinite(value := getattr(figures, name)):
            raise UserError(f"{name} is {value} at step {step}; lower synthesis.adam_learning_rate and synthesize anew")
