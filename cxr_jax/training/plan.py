"""What lies ahead of a run, and whether it can work at all: known before its folder is made."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np
import optax

from cxr_jax.config.schema import Config, PhaseConfig
from cxr_jax.devices import choose_devices, require_divisible
from cxr_jax.errors import UserError
from cxr_jax.images.batches import epoch_rows, iterations_per_epoch
from cxr_jax.images.image_set import ImageSet
from cxr_jax.inference.forward import Precision
from cxr_jax.models.network import TRANSITION, has_prefix
from cxr_jax.training.loss import Weights, class_weights
from cxr_jax.training.network import Network
from cxr_jax.training.optimizer import frozen_stages, make_optimizer, make_schedule, partition, trains_head_alone
from cxr_jax.training.precision import Activations, settle_activations


@dataclass(frozen=True)
class Phase:
    """One stretch of training, with what the network makes of its config."""

    config: PhaseConfig  # no field is None
    iterations: int
    trainable: tuple[str, ...]  # names of the parameters that it trains
    trained_size: int  # numbers in them
    frozen_size: int  # numbers in the parameters that it leaves alone
    schedule: optax.Schedule
    optimizer: Callable[[optax.Schedule], optax.GradientTransformation]  # at the rates of a schedule
    frozen_stages: tuple[str, ...]  # stages that run as in evaluation
    frozen_backbone: bool  # the classifier alone is trained, on features in evaluation mode

    @property
    def computes_features_once(self) -> bool:
        """True if the pooled features of an image are the same in every epoch of the phase."""
        return self.frozen_backbone and not self.config.augmentation.is_random


@dataclass(frozen=True)
class Plan:
    """A run as it will be computed."""

    config: Config
    devices: list[jax.Device]  # of all processes
    phases: tuple[Phase, ...]
    batches_per_epoch: int
    class_weights: Weights  # [K], 1 for every class if unweighted; of findings those of absence and presence
    activations: Activations

    def epochs_before(self, phase: int) -> int:
        """Returns how many epochs the phases before number `phase` have."""
        return sum(entry.config.epochs for entry in self.phases[:phase])


def plan_run(
    config: Config,
    network: Network,
    train_set: ImageSet,
    validation_set: ImageSet,
    recorded: Precision | None = None,
) -> Plan:
    """Returns what training `network` as `config` says will do.

    `recorded` is the precision that a run that goes on was trained in. It stays, unless `config` asks for one.

    Raises UserError if the run cannot work: there is no whole batch, the devices cannot share a batch, validation
    cannot be monitored as asked, or a phase has no parameters to train or no steps after its warm-up.
    """
    training, backend = config.training, config.parallel.backend
    devices = choose_devices(config.parallel.devices)
    batches = iterations_per_epoch(train_set.images_per_epoch, training.batch_size)
    if batches == 0:
        count = train_set.images_per_epoch
        raise UserError(
            f"training.batch_size is {training.batch_size}, but there are only {count} training images; take "
            "a smaller batch"
        )
    phases = config.resolved_phases()
    mixes = any(phase.augmentation.mixup > 0 for phase in phases)
    require_divisible("training.batch_size", training.batch_size, devices, training.accumulation_steps, pairs=mixes)
    require_divisible("training.evaluation_batch_size", training.evaluation_batch_size, devices)
    if train_set.labels.ndim == 2 and training.sampling == "balanced":
        raise UserError(
            'training.sampling is "balanced", which visits classes alike, and an image shows any number of findings: '
            'set it to "shuffled", and loss.class_weights to "balanced" for rare ones'
        )
    if train_set.labels.ndim == 1 and config.loss.class_weights == "balanced_in_batch":
        raise UserError(
            'loss.class_weights is "balanced_in_batch", which is for findings that occur together, and an image here '
            'has one class: set it to "balanced"'
        )
    if config.validation.monitor == "roc_auc" and not _can_be_ranked(validation_set.labels):
        raise UserError(
            "validation.monitor is roc_auc, but the validation images are all of one class; monitor the loss, or take "
            "another validation split"
        )
    _require_trained_transition(phases[0], network)
    # shares of classes are those of what an epoch visits
    visited = train_set.labels[epoch_rows(len(train_set), train_set.replay, seed=training.seed, epoch=0)]
    return Plan(
        config=config,
        devices=devices,
        phases=tuple(_plan_phase(phase, network, phase.epochs * batches) for phase in phases),
        batches_per_epoch=batches,
        class_weights=class_weights(config.loss.class_weights, visited, len(train_set.classes)),
        activations=settle_activations(
            training.precision,
            devices,
            backend,
            config.model.name,
            natively=network.has_native_kernels,
            recorded=recorded,
        ),
    )


def _can_be_ranked(labels: np.ndarray) -> bool:
    """Returns whether labels are of two classes; of findings, [N, K], whether one is both present and absent."""
    columns = labels.T if labels.ndim == 2 else labels[None]
    return any(len(np.unique(column[~np.isnan(column)])) > 1 for column in columns)


def _require_trained_transition(first: PhaseConfig, network: Network) -> None:
    """Raises UserError if the first phase trains a classifier behind a transition layer that stays as it was drawn."""
    drawn = any(has_prefix(name, (TRANSITION,)) for name in network.fresh)
    if drawn and first.trainable and not set(first.trainable) & {TRANSITION}:
        raise UserError(
            f"phase {first.name!r} leaves the transition layer at its random values, which the weights do not give: "
            f'add "{TRANSITION}" to its trainable'
        )


def _plan_phase(config: PhaseConfig, network: Network, iterations: int) -> Phase:
    schedule = make_schedule(config.optimizer, config.schedule, iterations)
    trainable, frozen = partition(network.params, config)
    return Phase(
        config=config,
        iterations=iterations,
        trainable=tuple(trainable),
        trained_size=_size(trainable.values()),
        frozen_size=_size(frozen.values()),
        schedule=schedule,
        optimizer=functools.partial(make_optimizer, config.optimizer, names=tuple(trainable), stages=network.stages),
        frozen_stages=frozen_stages(trainable, frozen, network.stages),
        frozen_backbone=bool(network.stages) and trains_head_alone(trainable),
    )


def _size(arrays: Sequence) -> int:
    return sum(map(np.size, arrays))
