from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cxr_jax.config.schema import AugmentationConfig, OptimizerConfig
from cxr_jax.models.registry import build_model
from cxr_jax.models.state import split_model
from cxr_jax.training.loss import class_weights
from cxr_jax.training.optimizer import make_optimizer
from cxr_jax.training.state import new_state
from cxr_jax.training.steps import DeviceBatch, StepRules, train_step

WEIGHTS = (0.5, 2.0)


def test_balanced_weights_are_inverse_to_the_share_of_a_class():
    labels = np.array([0, 1, 1, 1], np.int32)
    assert class_weights("none", labels) == (1.0, 1.0)
    assert class_weights("balanced", labels) == pytest.approx((2.0, 2 / 3))
    # a class that does not occur cannot be balanced
    assert class_weights("balanced", labels[1:]) == (1.5, 0.5)


@pytest.fixture(scope="module")
def head():
    """A network of which only the classifier is trained, on pooled features, without dropout."""
    return split_model(build_model("mobilenetv2_tiny", classes=2, seed=0))


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_and_the_update_of_a_step_are_those_worked_out_by_hand(head, smoothing, parts):
    graphdef, params, batch_stats = head
    kernel, bias = (np.asarray(params[f"classifier.{name}"], np.float64) for name in ("kernel", "bias"))
    features = np.random.default_rng(0).normal(size=(6, kernel.shape[0])).astype(np.float32)
    # the halves that two parts take have different weights
    labels = np.array([0, 1, 0, 1, 1, 1], np.int32)
    trained = {name: value for name, value in params.items() if name.startswith("classifier")}
    frozen = {name: value for name, value in params.items() if name not in trained}
    optimizer = make_optimizer(OptimizerConfig(weight_decay=0.0), optax.constant_schedule(0.1), trained)
    rules = StepRules(
        graphdef=graphdef,
        optimizer=optimizer,
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        augmentation=AugmentationConfig(),
        class_weights=WEIGHTS,
        label_smoothing=smoothing,
        batch_statistics=False,
        seed=0,
        frozen_backbone=True,
        feature_channels=features.shape[1],
        accumulation_steps=parts,
    )
    batch = DeviceBatch(jnp.asarray(features), jnp.asarray(labels), jnp.arange(6, dtype=jnp.int32))
    state = new_state(trained, frozen, batch_stats, optimizer, 0)
    after, metrics = train_step(state, batch, jnp.int32(0), rules=rules)

    logits = features.astype(np.float64) @ kernel + bias
    log_probabilities = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    targets = np.eye(2)[labels] * (1 - smoothing) + smoothing / 2
    weights = np.asarray(WEIGHTS)[labels][:, None]
    losses = -weights * targets * log_probabilities
    assert float(metrics.loss) == pytest.approx(losses.sum() / weights.sum(), rel=1e-5)
    assert float(metrics.accuracy) == pytest.approx(np.mean(logits.argmax(1) == labels))
    gradients = weights * (np.exp(log_probabilities) - targets) / weights.sum()
    np.testing.assert_allclose(after.params["classifier.bias"], bias - 0.1 * gradients.sum(0), atol=1e-6)
    np.testing.assert_allclose(
        after.params["classifier.kernel"], kernel - 0.1 * features.astype(np.float64).T @ gradients, atol=1e-6
    )
