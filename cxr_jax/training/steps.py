"""The training step and the evaluation step: pure functions, written once, wrapped by `parallel`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array, lax

from cxr_jax.config.schema import AugmentationConfig
from cxr_jax.models.layers import Mode
from cxr_jax.models.state import ArrayDict, batch_stats_of, merge_model
from cxr_jax.preprocessing.augment import augment
from cxr_jax.preprocessing.mixup import mix_pairs, swap_pairs
from cxr_jax.preprocessing.normalise import normalise
from cxr_jax.training.loss import cross_entropies, example_weights
from cxr_jax.training.precision import Precision
from cxr_jax.training.state import TrainState, averaged


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
    precision: Precision = "float32"  # of the activations
    native_kernels: bool = False  # bf16 activations go through the kernels in C++
    accumulation_steps: int = 1  # equal parts of a batch that are computed one after another, to save memory
    average_decay: float = 0.0  # of the moving average that the state carries, if it does
    first_step: int = 0  # of the phase: the average begins there
    focusing: float = 0.0  # gamma of the focal loss; 0: cross-entropy


class DeviceBatch(NamedTuple):
    """A training batch on the devices."""

    images: Array  # [B, S, S] uint8 in 0..255, or pooled features [B, C]
    labels: Array  # [B] int32
    ids: Array  # [B] int32


class StepMetrics(NamedTuple):
    """What a step measured on its batch, before the update."""

    loss: Array  # [] weighted mean cross-entropy, or focal loss
    accuracy: Array  # [] share of the batch that got its own label, in a mixture too


def train_step(
    state: TrainState, batch: DeviceBatch, epoch: Array, *, rules: StepRules, axis_name: str | None = None
) -> tuple[TrainState, StepMetrics]:
    """One step of SGD: augment, normalise, forward, loss, backward, update.

    `epoch` is a scalar int32; with the seed and an example's id it decides that example's augmentation and dropout.
    Under a mapped axis `axis_name` loss, gradients and BatchNorm statistics are those of the whole batch.
    """
    # the arithmetic is that of the parameters: float32, or float64 where rounding must not hide a mistake
    dtype = next(iter(state.params.values())).dtype
    total_weight = _mean_over(axis_name, example_weights(batch.labels, rules.class_weights, dtype).sum())

    def loss_of(params: ArrayDict, batch_stats: ArrayDict, part: DeviceBatch) -> tuple[Array, tuple[Array, ArrayDict]]:
        """The share of `part` in the batch's loss; with how many it got right and the statistics after it."""
        model = merge_model(rules.graphdef, state.frozen | params, batch_stats)
        activations = _activations_dtype(dtype, rules.precision)
        logits, share = _training_logits(model, part, epoch, rules, activations, axis_name)
        losses = _losses(logits, part.labels, rules)
        if share is not None:
            others = _losses(logits, swap_pairs(part.labels), rules)
            losses = others + share.astype(dtype) * (losses - others)
        correct = jnp.sum((jnp.argmax(logits, -1).astype(part.labels.dtype) == part.labels).astype(jnp.float32))
        return _mean_over(axis_name, losses.sum()) / total_weight, (correct, batch_stats_of(model))

    gradient_of = jax.value_and_grad(loss_of, has_aux=True)
    if rules.accumulation_steps == 1:
        (loss, (correct, batch_stats)), gradients = gradient_of(state.params, state.batch_stats, batch)
    else:
        loss, correct, batch_stats, gradients = _accumulate(gradient_of, state, batch, rules.accumulation_steps)
    gradients, accuracy = _mean_over(axis_name, (gradients, correct / batch.labels.shape[0]))
    updates, optimizer_state = rules.optimizer.update(gradients, state.optimizer_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average = state.average
    if average:
        step = state.step - rules.first_step
        average = averaged(average, state.frozen | params, batch_stats, rules.average_decay, step)
    return (
        TrainState(params, state.frozen, batch_stats, optimizer_state, state.step + 1, average),
        StepMetrics(loss, accuracy),
    )


def _training_logits(
    model: Any, batch: DeviceBatch, epoch: Array, rules: StepRules, dtype: jnp.dtype, axis_name: str | None
) -> tuple[Array, Array | None]:
    """Logits [B, K] of `batch`, augmented and with dropout; the model's BatchNorm statistics move.

    With mixup also the share [B] that each example has in its own image, else None.
    """
    augmentation_keys, dropout_keys = _example_keys(rules.seed, epoch, batch.ids)
    if rules.feature_channels:
        pooled = batch.images.astype(model.classifier.kernel.dtype)
        return model.classify_pooled(pooled, Mode(keys=dropout_keys)), None
    images, share = augment(batch.images, augmentation_keys, rules.augmentation), None
    if rules.augmentation.mixup > 0:
        images, share = mix_pairs(images, augmentation_keys, rules.augmentation.mixup)
    inputs = normalise(images, rules.mean, rules.std, dtype)
    if rules.frozen_backbone:
        pooled = model.pooled(inputs, Mode(native=rules.native_kernels))
        return model.classify_pooled(pooled, Mode(keys=dropout_keys)), share
    logits = model(
        inputs,
        train=rules.batch_statistics,
        keys=dropout_keys,
        axis_name=axis_name,
        frozen_stages=rules.frozen_stages,
        native=rules.native_kernels,
    )
    return logits, share


def _losses(logits: Array, labels: Array, rules: StepRules) -> Array:
    """The weighted losses [B] of `logits` [B, K]."""
    return cross_entropies(logits, labels, rules.class_weights, rules.label_smoothing, rules.focusing)


def _activations_dtype(dtype: jnp.dtype, precision: Precision) -> jnp.dtype:
    """What activations are computed in where parameters are of `dtype`."""
    return jnp.dtype(jnp.bfloat16) if precision == "bf16" else dtype


def _accumulate(
    gradient_of: Callable[..., Any], state: TrainState, batch: DeviceBatch, count: int
) -> tuple[Array, Array, ArrayDict, ArrayDict]:
    """Loss, number of right answers, BatchNorm statistics and gradients of `batch`, computed in `count` parts.

    Only one part's activations exist at a time. Part i holds the rows i, i + count, ...: with the batch cut into
    contiguous shares of whole multiples of `count`, each device holds its share of every part.
    """

    def add(carry: tuple, part: DeviceBatch) -> tuple[tuple, None]:
        batch_stats, *sums = carry
        (loss, (correct, batch_stats)), gradients = gradient_of(state.params, batch_stats, part)
        return (batch_stats, *jax.tree.map(jnp.add, tuple(sums), (loss, correct, gradients))), None

    parts = jax.tree.map(
        lambda rows: jnp.moveaxis(rows.reshape(rows.shape[0] // count, count, *rows.shape[1:]), 1, 0), batch
    )
    shapes = jax.eval_shape(gradient_of, state.params, state.batch_stats, jax.tree.map(lambda rows: rows[0], parts))
    (loss, (correct, _)), gradients = jax.tree.map(lambda shape: jnp.zeros(shape.shape, shape.dtype), shapes)
    (batch_stats, loss, correct, gradients), _ = lax.scan(add, (state.batch_stats, loss, correct, gradients), parts)
    return loss, correct, batch_stats, gradients


def evaluation_step(
    params: ArrayDict,
    batch_stats: ArrayDict,
    images: Array,
    *,
    graphdef: nnx.GraphDef,
    mean: tuple,
    std: tuple,
    precision: Precision = "float32",
    native_kernels: bool = False,
) -> Array:
    """Logits [B, K] of `images` [B, S, S] uint8 in 0..255, by running statistics and without dropout."""
    dtype = _activations_dtype(jnp.dtype(jnp.float32), precision)
    return merge_model(graphdef, params, batch_stats)(normalise(images, mean, std, dtype), native=native_kernels)


def pooling_step(
    params: ArrayDict, batch_stats: ArrayDict, images: Array, *, graphdef: nnx.GraphDef, mean: tuple, std: tuple
) -> Array:
    """Pooled features [B, C] of `images` [B, S, S] uint8 in 0..255, in evaluation mode."""
    return merge_model(graphdef, params, batch_stats).pooled(normalise(images, mean, std))


def classification_step(params: ArrayDict, batch_stats: ArrayDict, pooled: Array, *, graphdef: nnx.GraphDef) -> Array:
    """Logits [B, K] of pooled features [B, C], without dropout."""
    return merge_model(graphdef, params, batch_stats).classify_pooled(pooled)


def _mean_over(axis_name: str | None, values: Any) -> Any:
    """The mean of `values` over the devices of a mapped axis; `values` themselves without one."""
    return values if axis_name is None else lax.pmean(values, axis_name)


def _example_keys(seed: int, epoch: Array, ids: Array) -> tuple[Array, Array]:
    """Two keys for every example, [B] and [B], decided by seed, epoch and the example's id alone."""
    epoch_key = jax.random.fold_in(jax.random.key(seed), epoch)
    keys = jax.vmap(lambda identity: jax.random.split(jax.random.fold_in(epoch_key, identity), 2))(ids)
    return keys[:, 0], keys[:, 1]
