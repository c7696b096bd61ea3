"""What lies ahead of a run, and whether it can work at all: known before its folder is made."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np

from cxr_jax.config.schema import Config
from cxr_jax.data.batches import iterations_per_epoch
from cxr_jax.data.image_set import ImageSet
from cxr_jax.errors import UserError
from cxr_jax.training.network import Network
from cxr_jax.training.optimizer import make_schedule, partition
from cxr_jax.training.precision import choose_precision, missing_kernels, takes_native_kernels
from cxr_jax.training.progress import Plan
from cxr_jax.training.sharding import require_divisible


def plan_run(
    config: Config,
    network: Network,
    train_set: ImageSet,
    validation_set: ImageSet,
    devices: Sequence[jax.Device],
) -> Plan:
    """What training `network` as `config` says will do; UserError if it cannot work at all.

    Checked are whether there is one batch, whether the devices can share batches, whether validation can be monitored
    as asked, and whether each phase has parameters to train and steps beyond its warm-up.
    """
    training, phases = config.training, config.resolved_phases()
    batches = iterations_per_epoch(len(train_set), training.batch_size)
    if batches == 0:
        raise UserError(
            f"training.batch_size is {training.batch_size}, but there are only {len(train_set)} training images; take "
            "a smaller batch"
        )
    mixes = any(phase.augmentation.mixup > 0 for phase in phases)
    require_divisible("training.batch_size", training.batch_size, devices, training.accumulation_steps, pairs=mixes)
    require_divisible("training.evaluation_batch_size", training.evaluation_batch_size, devices)
    if config.validation.monitor == "roc_auc" and len(np.unique(validation_set.labels)) < 2:
        raise UserError(
            "validation.monitor is roc_auc, but the validation images are all of one class; monitor the loss, or take "
            "another validation split"
        )
    for phase in phases:
        make_schedule(phase.optimizer, phase.schedule, phase.epochs * batches)
    sizes = [[sum(map(np.size, part.values())) for part in partition(network.params, phase)] for phase in phases]
    backend = config.parallel.backend
    natively = network.has_native_kernels
    precision = choose_precision(training.precision, devices, backend, natively=natively)
    note = missing_kernels(training.precision, devices) if natively else ""
    return Plan(
        phase_names=tuple(phase.name for phase in phases),
        phase_iterations=tuple(phase.epochs * batches for phase in phases),
        trainable=tuple(trained for trained, _ in sizes),
        frozen=tuple(frozen for _, frozen in sizes),
        precision=precision,
        native_kernels=natively and takes_native_kernels(precision, devices, backend),
        notes=(note,) if note else (),
    )
