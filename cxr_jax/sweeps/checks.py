"""What training would refuse of a sweep's variants, found before the first run begins."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
from jax.extend.backend import clear_backends

from cxr_jax.config.effect import refuse_generator
from cxr_jax.config.schema import Config, DataConfig, ModelConfig, ParallelConfig
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.split_loading import split_without_images
from cxr_jax.errors import UserError
from cxr_jax.images.image_set import ImageSet
from cxr_jax.sweeps.runs import SweepRun
from cxr_jax.terminal import Terminal
from cxr_jax.training.network import Network, build_network
from cxr_jax.training.plan import plan_run
from cxr_jax.training.probe import freeze


def require_trainable(runs: Sequence[SweepRun], terminal: Terminal) -> None:
    """Raises UserError, naming the variant, if training would refuse one of `runs`.

    Data, weights, splits, batches, phases and schedules are looked at, as a run on one device has them; what depends on
    the devices that a run will get is not.
    """
    with _accelerator_left_alone():
        _require_trainable(runs, terminal)


@contextlib.contextmanager
def _accelerator_left_alone() -> Iterator[None]:
    """Computes on the CPU inside the block: an accelerator belongs to the runs, and after them to whoever judges them.

    Where jax has begun to compute already this changes nothing.
    """
    before = jax.config.jax_platforms
    if before == "cpu":
        yield
        return
    jax.config.update("jax_platforms", "cpu")
    try:
        yield
    finally:
        jax.config.update("jax_platforms", before)
        # or jax would stay with the devices that it found in the block
        clear_backends()


def _require_trainable(runs: Sequence[SweepRun], terminal: Terminal) -> None:
    @functools.cache
    def splits(data: DataConfig) -> tuple[ImageSet, ImageSet]:
        prepared = PreparedData.open(data.dataset)
        train, validation = (
            split_without_images(prepared, data, split, track=terminal.track) for split in ("train", "val")
        )
        return train, validation

    @functools.cache
    def network(model: ModelConfig, classes: int) -> Network:
        with terminal.waiting(f"Checking the variants of {model.name}"):
            return build_network(model, seed=0, classes=classes)

    for run in {run.variant: run for run in runs}.values():
        config = run.config
        try:
            refuse_generator(config)
            train, validation = splits(config.data)
            if config.probe.is_asked_for:
                with terminal.waiting(f"Checking the features of {config.model.name}"):
                    freeze(config, train.classes)
                continue
            built = network(_with_the_same_parameters(config.model), len(train.classes))
            plan_run(_on_one_device(config), built, train, validation)
        except UserError as error:
            raise UserError(f"variant {run.variant}: {error}") from error


def _with_the_same_parameters(model: ModelConfig) -> ModelConfig:
    """Returns the config of a network that has the same parameters as that of `model`, the same for all that do."""
    return dataclasses.replace(model, dropout=0.0, stochastic_depth=0.0, flip_average=False, shift_average=0.0)


def _on_one_device(config: Config) -> Config:
    """Returns `config` for one device of any kind, and without a search for its fastest precision."""
    training = dataclasses.replace(config.training, precision="float32")
    return dataclasses.replace(config, training=training, parallel=ParallelConfig(devices=1))
