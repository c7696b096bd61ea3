"""The training step and the evaluation step: pure functions, written once, wrapped by `parallel`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array, lax

from cxr_jax.config.schema import AugmentationConfig
from cxr_jax.models.layers import Mode
from cxr_jax.models.state import ArrayDict, batch_stats_of, merge_model
from cxr_jax.preprocessing.augment import augment
from cxr_jax.preprocessing.normalise import normalise
from cxr_jax.training.state import TrainState


@dataclass(frozen=True)
class StepRules:
    """What is fixed while a step is compiled."""

    graphdef: nnx.GraphDef
    optimizer: optax.GradientTransformation
    mean: tuple[float, ...]  # of the channels in [0, 1]
    std: tuple[float, ...]
    augmentation: AugmentationConfig
    class_weights: tuple[float, ...]  # [K], 1 for every class if unweighted
    label_smoothing: float
    batch_statistics: bool  # BatchNorm by the batch's statistics, or frozen
    seed: int
    frozen_stages: tuple[str, ...] = ()  # stages that run as in evaluation, whatever `batch_statistics` says
    frozen_backbone: bool = False  # only the classifier is trained, on features in evaluation mode
    feature_channels: int = 0  # above 0, batches hold pooled features of so many channels in place of images


class DeviceBatch(NamedTuple):
    """A training batch on the devices."""

    images: Array  # [B, S, S] uint8 in 0..255, or pooled features [B, C]
    labels: Array  # [B] int32
    ids: Array  # [B] int32


class StepMetrics(NamedTuple):
    """What a step measured on its batch, before the update."""

    loss: Array  # [] weighted mean cross-entropy
    accuracy: Array  # [] share of the batch


def train_step(
    state: TrainState, batch: DeviceBatch, epoch: Array, *, rules: StepRules, axis_name: str | None = None
) -> tuple[TrainState, StepMetrics]:
    """One step of SGD: augment, normalise, forward, loss, backward, update.

    `epoch` is a scalar int32; with the seed and an example's id it decides that example's augmentation and dropout.
    Under a mapped axis `axis_name` loss, gradients and BatchNorm statistics are those of the whole batch.
    """
    augmentation_keys, dropout_keys = _example_keys(rules.seed, epoch, batch.ids)
    # the arithmetic is that of the parameters: float32, or float64 where rounding must not hide a mistake
    dtype = next(iter(state.params.values())).dtype
    if rules.feature_channels:
        inputs = batch.images.astype(dtype)
    else:
        images = augment(batch.images, augmentation_keys, rules.augmentation)
        inputs = normalise(images, rules.mean, rules.std, dtype)

    def loss_of(params: ArrayDict) -> tuple[Array, tuple[Array, ArrayDict]]:
        model = merge_model(rules.graphdef, state.frozen | params, state.batch_stats)
        if rules.frozen_backbone:
            pooled = inputs if rules.feature_channels else model.pooled(inputs)
            logits = model.classify_pooled(pooled, Mode(keys=dropout_keys))
        else:
            logits = model(
                inputs,
                train=rules.batch_statistics,
                keys=dropout_keys,
                axis_name=axis_name,
                frozen_stages=rules.frozen_stages,
            )
        loss = weighted_cross_entropy(logits, batch.labels, rules.class_weights, rules.label_smoothing, axis_name)
        return loss, (logits, batch_stats_of(model))

    (loss, (logits, batch_stats)), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    accuracy = jnp.mean((jnp.argmax(logits, -1).astype(batch.labels.dtype) == batch.labels).astype(jnp.float32))
    if axis_name is not None:
        gradients, accuracy = lax.pmean((gradients, accuracy), axis_name)
    updates, optimizer_state = rules.optimizer.update(gradients, state.optimizer_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return (
        TrainState(params, state.frozen, batch_stats, optimizer_state, state.step + 1),
        StepMetrics(loss, accuracy),
    )


def evaluation_step(
    params: ArrayDict, batch_stats: ArrayDict, images: Array, *, graphdef: nnx.GraphDef, mean: tuple, std: tuple
) -> Array:
    """Logits [B, K] of `images` [B, S, S] uint8 in 0..255, by running statistics and without dropout."""
    return merge_model(graphdef, params, batch_stats)(normalise(images, mean, std))


def pooling_step(
    params: ArrayDict, batch_stats: ArrayDict, images: Array, *, graphdef: nnx.GraphDef, mean: tuple, std: tuple
) -> Array:
    """Pooled features [B, C] of `images` [B, S, S] uint8 in 0..255, in evaluation mode."""
    return merge_model(graphdef, params, batch_stats).pooled(normalise(images, mean, std))


def classification_step(params: ArrayDict, batch_stats: ArrayDict, pooled: Array, *, graphdef: nnx.GraphDef) -> Array:
    """Logits [B, K] of pooled features [B, C], without dropout."""
    return merge_model(graphdef, params, batch_stats).classify_pooled(pooled)


def weighted_cross_entropy(
    logits: Array,
    labels: Array,
    class_weights: tuple[float, ...],
    label_smoothing: float = 0.0,
    axis_name: str | None = None,
) -> Array:
    """Softmax cross-entropy of `logits` [B, K], averaged with each example weighted by its class as torch does.

    Smoothing mixes the label with the uniform distribution (Szegedy et al. 2016). Under a mapped axis the sums run
    over all devices.
    """
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    targets = optax.smooth_labels(targets, label_smoothing) if label_smoothing > 0 else targets
    weights = jnp.asarray(class_weights, logits.dtype)[labels]
    numerator = jnp.sum(weights * optax.softmax_cross_entropy(logits, targets))
    denominator = jnp.sum(weights)
    if axis_name is None:
        return numerator / denominator
    # pmean of both, so that the gradient of each device's share is averaged like the loss
    return lax.pmean(numerator, axis_name) / lax.pmean(denominator, axis_name)


def _example_keys(seed: int, epoch: Array, ids: Array) -> tuple[Array, Array]:
    """Two keys for every example, [B] and [B], decided by seed, epoch and the example's id alone."""
    epoch_key = jax.random.fold_in(jax.random.key(seed), epoch)
    keys = jax.vmap(lambda identity: jax.random.split(jax.random.fold_in(epoch_key, identity), 2))(ids)
    return keys[:, 0], keys[:, 1]
