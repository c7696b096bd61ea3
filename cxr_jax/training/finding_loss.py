"""Binary cross-entropy of findings that occur together: one sigmoid each, and no loss where nobody knows the label."""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from cxr_jax.config.schema import LossConfig

FindingWeights = tuple[tuple[float | Array, float | Array], ...]
"""Of absence and of presence of each of K findings."""

WeightRule = Literal["none", "balanced", "balanced_in_batch"]


def finding_weights(rule: WeightRule, labels: np.ndarray) -> FindingWeights:
    """Returns the weights of absence and presence of each finding in all of train: 1, or so that both count alike.

    `labels` are float [N, K], NaN if unknown. Balanced weights are inverse to the share of the known labels, as in
    CheXNet (Rajpurkar et al. 2017), and the mean weight of a known label is 1, so that a rare finding counts as much as
    a common one. Those that are balanced in every batch come from `weights_in_batch`, and are 1 here.
    """
    if rule != "balanced":
        return ((1.0, 1.0),) * labels.shape[1]
    absent, present = (np.sum(labels == value, axis=0) for value in (0, 1))
    halves = (absent + present) / 2
    return tuple(
        (float(half / max(without, 1)), float(half / max(having, 1)))
        for half, without, having in zip(halves, absent, present, strict=True)
    )


def weights_in_batch(present: Array, absent: Array, findings: int) -> FindingWeights:
    """Returns the weights of absence and presence, the same for each of `findings` findings, in one batch.

    `present` and `absent` [] count its known labels over all findings together. Presence weighs (P + N) / P and absence
    (P + N) / N, so that the rarer of the two does not go under (Wang et al., CVPR 2017).
    """
    known = present + absent
    # what does not occur is weighed nowhere
    counts = (jnp.where(count > 0, count, jnp.ones_like(count)) for count in (absent, present))
    return (tuple(known / count for count in counts),) * findings


def label_weights(labels: Array, weights: FindingWeights, dtype: jnp.dtype) -> Array:
    """Returns the weight [B, K] of each label of `labels` [B, K]: 0 where it is NaN, unknown."""
    absence, presence = (jnp.asarray(column, dtype) for column in zip(*weights, strict=True))
    return jnp.where(jnp.isnan(labels), jnp.zeros((), dtype), jnp.where(labels > 0.5, presence, absence))


def finding_losses(logits: Array, labels: Array, weights: FindingWeights, loss: LossConfig) -> Array:
    """Returns the sum [B] over the findings of the weighted binary cross-entropies of `logits` [B, K].

    An unknown label, NaN in `labels` [B, K], adds nothing, and the gradient of its logit is zero. Smoothing moves a
    label towards one half. With a gamma above 0 each term is the focal loss (Lin et al. 2017) of its finding, as in
    `loss.weighted_losses`.
    """
    known = ~jnp.isnan(labels)
    truth = jnp.where(known, labels, jnp.zeros_like(labels)).astype(logits.dtype)
    targets = truth
    if loss.label_smoothing > 0:
        targets = truth * (1 - loss.label_smoothing) + loss.label_smoothing / 2
    losses = optax.sigmoid_binary_cross_entropy(logits, targets)
    if loss.focal_gamma > 0:
        log_of_others = jax.nn.log_sigmoid(jnp.where(truth > 0.5, -logits, logits))
        losses = jnp.exp(loss.focal_gamma * log_of_others) * losses
    weighted = label_weights(labels, weights, logits.dtype) * losses
    return jnp.sum(jnp.where(known, weighted, jnp.zeros_like(weighted)), axis=-1)
