"""The loss of a batch, as torch has it: the weighted sum over a batch, divided by its weights.

Of classes that exclude each other it is softmax cross-entropy, weighted by class. Of findings, whose labels are [B, K],
it is what `finding_loss` says.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from cxr_jax.config.schema import LossConfig
from cxr_jax.training.finding_loss import FindingWeights, WeightRule, finding_losses, finding_weights, label_weights

Weights = tuple[float, ...] | FindingWeights
"""Of each class; of findings those of absence and presence of each."""


def class_weights(rule: WeightRule, labels: np.ndarray, classes: int) -> Weights:
    """Returns the weight of each of `classes` classes: 1, or inverse to its share of `labels` [N] so that the mean
    weight of an image is 1; of findings, with labels [N, K], as `finding_weights` does.
    """
    if labels.ndim == 2:
        return finding_weights(rule, labels)
    counts = np.bincount(labels, minlength=classes)
    if rule == "none":
        return (1.0,) * len(counts)
    return tuple(float(len(labels) / (len(counts) * max(count, 1))) for count in counts)


def example_weights(labels: Array, weights: tuple[float, ...], dtype: jnp.dtype) -> Array:
    """Returns the weight [B] of each example, that of its class among `weights` [K]."""
    return jnp.asarray(weights, dtype)[labels]


def batch_weight(labels: Array, weights: Weights, dtype: jnp.dtype) -> Array:
    """Returns the summed weight [] of a batch, by which its loss is divided."""
    if labels.ndim == 2:
        return label_weights(labels, weights, dtype).sum()
    return example_weights(labels, weights, dtype).sum()


def right_answers(logits: Array, labels: Array) -> Array:
    """Returns how many images [] got their own label; of findings how many known labels were told right at 0.5."""
    if labels.ndim == 2:
        right = (logits > 0) == (labels > 0.5)
        return jnp.sum((right & ~jnp.isnan(labels)).astype(jnp.float32))
    return jnp.sum((jnp.argmax(logits, -1).astype(labels.dtype) == labels).astype(jnp.float32))


def questions(labels: Array) -> int | Array:
    """Returns how many answers a batch can have right: one an image, or one a known label of findings."""
    return jnp.sum((~jnp.isnan(labels)).astype(jnp.float32)) if labels.ndim == 2 else labels.shape[0]


def weighted_losses(logits: Array, labels: Array, weights: Weights, loss: LossConfig) -> Array:
    """Returns the losses [B] of `logits` [B, K]: of findings, with labels [B, K], as `finding_losses` does.

    Else they are the softmax cross-entropies, each weighted by the class of its example.

    Smoothing mixes the label with the uniform distribution (Szegedy et al. 2016). With a gamma above 0 it is the focal
    loss (Lin et al. 2017), -w_t (1 - p_t)^gamma log p_t with p_t the probability of the label's own class and w_t that
    class's weight. Where both are asked for, (1 - p_t)^gamma multiplies the smoothed cross-entropy; p_t itself is not
    smoothed.
    """
    if labels.ndim == 2:
        return finding_losses(logits, labels, weights, loss)
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    targets = optax.smooth_labels(targets, loss.label_smoothing) if loss.label_smoothing > 0 else targets
    losses = optax.softmax_cross_entropy(logits, targets)
    if loss.focal_gamma > 0:
        losses = jnp.exp(loss.focal_gamma * _log_probability_of_others(logits, labels)) * losses
    return example_weights(labels, weights, logits.dtype) * losses


def _log_probability_of_others(logits: Array, labels: Array) -> Array:
    """Returns log(1 - p_t) [B], finite with its gradient where p_t rounds to 1 and a power of 1 - p_t would have
    none.
    """
    others = jnp.arange(logits.shape[-1])[None, :] != labels[:, None]
    return jax.nn.logsumexp(logits, axis=-1, where=others) - jax.nn.logsumexp(logits, axis=-1)
