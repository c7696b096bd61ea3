"""The training step: a pure function, written once, for one device or many."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax

from cxr_jax.inference.forward import activations_dtype
from cxr_jax.models.layers import Mode
from cxr_jax.models.state import ArrayDict, batch_stats_of, merge_model
from cxr_jax.preprocessing.augment import augment
from cxr_jax.preprocessing.mixup import mix_pairs, swap_pairs
from cxr_jax.preprocessing.normalise import normalise
from cxr_jax.preprocessing.parts import fewest_parts, in_parts
from cxr_jax.training.finding_loss import weights_in_batch
from cxr_jax.training.loss import batch_weight, questions, right_answers, weighted_losses
from cxr_jax.training.network import Network
from cxr_jax.training.optimizer import uphill
from cxr_jax.training.plan import Phase, Plan
from cxr_jax.training.state import TrainState, averaged, dtype_of


class DeviceBatch(NamedTuple):
    """A training batch on the devices."""

    images: Array  # [B, S, S] uint8 in 0..255, or pooled features [B, C] float32
    labels: Array  # [B] int32; of findings [B, K] float32, NaN if unknown
    ids: Array  # [B] int32


class StepMetrics(NamedTuple):
    """What a step measured on its batch, before the update."""

    loss: Array  # [] weighted mean cross-entropy, or focal loss
    accuracy: Array  # [] share of the batch that got its own label, in a mixture too; of findings of the known labels


class Moment(NamedTuple):
    """What else decides a step: inputs of its program, so that one serves all seeds and schedules."""

    seed: Any  # [] uint32, of the run
    epoch: Any  # [] int32
    learning_rate: Any  # [] of the dtype of the parameters


def moment_of(seed: int, epoch: int = 0, learning_rate: float = 0.0, dtype: Any = np.float32) -> Moment:
    """Returns the moment on the host; `dtype` is that of the parameters."""
    # the low half is all that a key takes of a seed
    return Moment(np.uint32(seed & 0xFFFFFFFF), np.int32(epoch), np.asarray(learning_rate, dtype))


def train_step(
    state: TrainState,
    batch: DeviceBatch,
    moment: Moment,
    *,
    network: Network,
    plan: Plan,
    phase: Phase,
    first_step: int = 0,
    axis_name: str | None = None,
) -> tuple[TrainState, StepMetrics]:
    """Returns the state after one step of SGD on `batch`: augment, normalise, forward, loss, backward, update.

    Seed and epoch of `moment` and an example's id decide that example's augmentation and dropout.
    The moving average begins at step `first_step`. Under a mapped axis `axis_name` loss, gradients and BatchNorm
    statistics are those of the whole batch. In sharpness-aware minimisation the gradient is that at the place uphill;
    loss, accuracy and statistics are those of the weights themselves.
    """
    config = plan.config
    dtype = dtype_of(state)
    weights = plan.class_weights
    if config.loss.class_weights == "balanced_in_batch":
        counts = _mean_over(axis_name, [jnp.sum((batch.labels == value).astype(dtype)) for value in (1, 0)])
        weights = weights_in_batch(*counts, batch.labels.shape[1])
    total_weight = _mean_over(axis_name, batch_weight(batch.labels, weights, dtype))
    asked = questions(batch.labels)
    if batch.labels.ndim == 2:
        # a batch may hold no label that anybody knows: it then teaches nothing
        total_weight = jnp.maximum(total_weight, jnp.finfo(dtype).tiny)
        asked = jnp.maximum(_mean_over(axis_name, asked), jnp.ones_like(asked))

    def loss_of(params: ArrayDict, batch_stats: ArrayDict, part: DeviceBatch) -> tuple[Array, tuple[Array, ArrayDict]]:
        """Returns the share of `part` in the batch's loss, how many it got right, and the statistics after it."""
        model = merge_model(network.graphdef, state.frozen | params, batch_stats)
        logits, share = _training_logits(model, part, moment, network, plan, phase, dtype, axis_name)
        losses = weighted_losses(logits, part.labels, weights, config.loss)
        if share is not None:
            others = weighted_losses(logits, swap_pairs(part.labels), weights, config.loss)
            losses = others + share.astype(dtype) * (losses - others)
        correct = right_answers(logits, part.labels)
        return _mean_over(axis_name, losses.sum()) / total_weight, (correct, batch_stats_of(model))

    gradient_of = jax.value_and_grad(loss_of, has_aux=True)

    def learned(params: ArrayDict) -> tuple[Array, Array, ArrayDict, ArrayDict]:
        """Returns loss, right answers, statistics and gradients of the batch, of a network with these `params`."""
        if config.training.accumulation_steps > 1:
            return _accumulate(gradient_of, params, state.batch_stats, batch, config.training.accumulation_steps)
        (loss, (correct, batch_stats)), gradients = gradient_of(params, state.batch_stats, batch)
        return loss, correct, batch_stats, gradients

    loss, correct, batch_stats, gradients = learned(state.params)
    gradients, accuracy = _mean_over(axis_name, (gradients, correct / asked))
    radius = phase.config.optimizer.sharpness_radius
    if radius > 0:
        # what the batch taught at the place uphill moves the weights, and nothing else of it is kept
        *_, gradients = learned(uphill(state.params, gradients, radius))
        gradients = _mean_over(axis_name, gradients)
    optimizer = phase.optimizer(lambda _: moment.learning_rate)
    updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = state.average
    if average:
        decay, step = config.training.ema_decay, state.step - first_step
        average = averaged(average, state.frozen | params, batch_stats, decay, step)
    return (
        TrainState(params, state.frozen, batch_stats, optimizer_state, state.step + 1, average),
        StepMetrics(loss, accuracy),
    )


def _training_logits(
    model: Any,
    batch: DeviceBatch,
    moment: Moment,
    network: Network,
    plan: Plan,
    phase: Phase,
    dtype: jnp.dtype,
    axis_name: str | None,
) -> tuple[Array, Array | None]:
    """Returns logits [B, K] of `batch`, augmented and with dropout; the model's BatchNorm statistics move.

    `dtype` is that of the parameters. With mixup also the share [B] that each example has in its own image, else None.
    """
    augmentation_keys, dropout_keys = example_keys(moment.seed, moment.epoch, batch.ids)
    if batch.images.ndim == 2:
        return model.classify_pooled(batch.images.astype(dtype), Mode(keys=dropout_keys)), None
    augmentation = phase.config.augmentation
    parts = _parts_of_augmentation(batch.images.shape[0], plan, axis_name)
    images, share = augment(batch.images, augmentation_keys, augmentation, parts), None
    if augmentation.mixup > 0:
        images, share = mix_pairs(images, augmentation_keys, augmentation.mixup)
    inputs = normalise(images, network.mean, network.std, activations_dtype(dtype, plan.activations.precision))
    if phase.frozen_backbone:
        pooled = model.pooled(inputs, Mode(native=plan.activations.native_kernels))
        return model.classify_pooled(pooled, Mode(keys=dropout_keys)), share
    logits = model(
        inputs,
        train=phase.config.batch_norm == "train",
        keys=dropout_keys,
        axis_name=axis_name,
        frozen_stages=phase.frozen_stages,
        native=plan.activations.native_kernels,
    )
    return logits, share


def _parts_of_augmentation(rows: int, plan: Plan, axis_name: str | None) -> int:
    """Returns the number of parts in which a batch of `rows` is augmented.

    It is 1 on GPUs and TPUs. On CPUs it is the fewest equal parts of a device's share.
    """
    share, left = (rows, 0) if axis_name is not None else divmod(rows, len(plan.devices))
    return 1 if left or plan.devices[0].platform != "cpu" else fewest_parts(share)


def _accumulate(
    gradient_of: Callable[..., Any], params: ArrayDict, batch_stats: ArrayDict, batch: DeviceBatch, count: int
) -> tuple[Array, Array, ArrayDict, ArrayDict]:
    """Returns loss, right answers, BatchNorm statistics and gradients of `batch`, computed in `count` parts.

    Only one part's activations exist at a time.
    """

    def add(carry: tuple, part: DeviceBatch) -> tuple[tuple, None]:
        batch_stats, *sums = carry
        (loss, (correct, batch_stats)), gradients = gradient_of(params, batch_stats, part)
        return (batch_stats, *jax.tree.map(jnp.add, tuple(sums), (loss, correct, gradients))), None

    parts = jax.tree.map(functools.partial(in_parts, count=count), batch)
    shapes = jax.eval_shape(gradient_of, params, batch_stats, jax.tree.map(lambda rows: rows[0], parts))
    (loss, (correct, _)), gradients = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    (batch_stats, loss, correct, gradients), _ = lax.scan(add, (batch_stats, loss, correct, gradients), parts)
    return loss, correct, batch_stats, gradients


def _mean_over(axis_name: str | None, values: Any) -> Any:
    """Returns the mean of `values` over the devices of a mapped axis; `values` themselves without one."""
    return values if axis_name is None else lax.pmean(values, axis_name)


def example_keys(seed: int | Array, epoch: Array, ids: Array) -> tuple[Array, Array]:
    """Returns two keys for every example, [B] and [B], decided by seed, epoch and the example's id alone."""
    epoch_key = jax.random.fold_in(jax.random.key(seed), epoch)
    keys = jax.vmap(lambda identity: jax.random.split(jax.random.fold_in(epoch_key, identity), 2))(ids)
    return keys[:, 0], keys[:, 1]
