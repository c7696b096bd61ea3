from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from sklearn import metrics as sk
from training_runs import Steps, lines_of

from cxr_jax.config.schema import (
    AugmentationConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    PhaseConfig,
    TrainingConfig,
)
from cxr_jax.training.loss import class_weights, weighted_losses
from cxr_jax.training.network import build_network
from cxr_jax.training.step import DeviceBatch
from cxr_jax.training.validation import validation_figures

WEIGHTS = (0.5, 2.0)


def test_balanced_weights_are_inverse_to_the_share_of_a_class():
    labels = np.array([0, 1, 1, 1], np.int32)
    assert class_weights("none", labels, 2) == (1.0, 1.0)
    assert class_weights("balanced", labels, 2) == pytest.approx((2.0, 2 / 3))
    # a class that does not occur cannot be balanced
    assert class_weights("balanced", labels[1:], 2) == (1.5, 0.5)


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_and_the_update_of_a_step_are_those_worked_out_by_hand(smoothing, parts):
    # the classifier alone is trained, on pooled features, without dropout
    network = build_network(ModelConfig(name="mobilenetv2_tiny"), seed=0)
    kernel, bias = (np.asarray(network.params[f"classifier.{name}"], np.float64) for name in ("kernel", "bias"))
    features = np.random.default_rng(0).normal(size=(6, kernel.shape[0])).astype(np.float32)
    # the halves that two parts take have different weights
    labels = np.array([0, 1, 0, 1, 1, 1], np.int32)
    steps = Steps(
        network,
        class_weights=WEIGHTS,
        augmentation=AugmentationConfig(),
        loss=LossConfig(label_smoothing=smoothing),
        optimizer=OptimizerConfig(0.1, weight_decay=0.0),
        training=TrainingConfig(batch_size=6, evaluation_batch_size=6, accumulation_steps=parts),
        phases=(PhaseConfig(trainable=("classifier",), batch_norm="frozen"),),
    )
    batch = DeviceBatch(jnp.asarray(features), jnp.asarray(labels), jnp.arange(6, dtype=jnp.int32))
    after, metrics = steps.once(steps.state(), batch)

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


def focal_losses(logits, labels, weights, smoothing, gamma):
    """The focal loss as its paper writes it, by way of probabilities, in float64."""
    probabilities = np.exp(logits - logits.max(1, keepdims=True))
    probabilities /= probabilities.sum(1, keepdims=True)
    classes = logits.shape[1]
    targets = np.eye(classes)[labels] * (1 - smoothing) + smoothing / classes
    true = probabilities[np.arange(len(labels)), labels]
    return np.asarray(weights)[labels] * (1 - true) ** gamma * -(targets * np.log(probabilities)).sum(1)


@functools.partial(jax.jit, static_argnames=("weights", "loss"))
def losses_and_gradient(logits, labels, weights, loss):
    def losses_of(values):
        return weighted_losses(values, labels, weights, loss)

    return losses_of(logits), jax.grad(lambda values: losses_of(values).sum())(logits)


@given(
    gamma=st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]),
    smoothing=st.sampled_from([0.0, 0.1]),
    classes=st.sampled_from([2, 3]),
    seed=st.integers(0, 99),
)
def test_the_focal_loss_and_its_gradient_are_those_of_its_paper(gamma, smoothing, classes, seed):
    random = np.random.default_rng(seed)
    logits, labels = random.normal(0, 2, (7, classes)), random.integers(0, classes, 7)
    weights = (0.5, 2.0, 1.3)[:classes]
    loss = LossConfig(label_smoothing=smoothing, focal_gamma=gamma)
    with jax.enable_x64(True):
        found, gradient = losses_and_gradient(jnp.asarray(logits), jnp.asarray(labels), weights, loss)
    np.testing.assert_allclose(found, focal_losses(logits, labels, weights, smoothing, gamma), rtol=1e-9)
    change = random.normal(size=logits.shape)
    ends = [focal_losses(logits + sign * 1e-5 * change, labels, weights, smoothing, gamma).sum() for sign in (1, -1)]
    np.testing.assert_allclose((np.asarray(gradient) * change).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_gamma_the_loss_is_cross_entropy_to_the_bit(smoothing):
    logits = jnp.asarray(np.random.default_rng(1).normal(0, 3, (32, 2)), jnp.float32)
    labels = jnp.arange(32, dtype=jnp.int32) % 2
    targets = (1 - smoothing) * jax.nn.one_hot(labels, 2) + smoothing / 2
    expected = jnp.asarray(WEIGHTS)[labels] * optax.softmax_cross_entropy(logits, targets)
    found = weighted_losses(logits, labels, WEIGHTS, LossConfig(label_smoothing=smoothing))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_focal_loss_has_a_gradient_where_the_network_is_sure(smoothing, gamma):
    # from where 1 - p_t rounds to 0, to where an exponential overflows
    margins = np.array([0.0, 15, 17, 20, 60, 120, 1e4, 1e30], np.float32)
    logits = jnp.asarray(np.stack([np.concatenate([margins, -margins]), np.zeros(16, np.float32)], 1))
    labels = jnp.zeros(16, jnp.int32)

    def losses_of(values):
        loss = LossConfig(label_smoothing=smoothing, focal_gamma=gamma)
        return weighted_losses(values, labels, (1.0, 1.0), loss)

    losses = np.asarray(losses_of(logits))
    gradients = np.asarray(jax.grad(lambda values: losses_of(values).sum())(logits))
    assert np.isfinite(losses).all()
    assert np.isfinite(gradients).all()
    # a sure and right answer costs nothing and moves nothing; a sure and wrong one costs what cross-entropy asks
    assert losses[5:8].max() < 1e-10
    assert abs(gradients[5:8]).max() < 1e-10
    cross_entropies = weighted_losses(logits, labels, (1.0, 1.0), LossConfig(label_smoothing=smoothing))
    np.testing.assert_allclose(losses[9:], cross_entropies[9:], rtol=1e-6)
    np.testing.assert_allclose(gradients[11:, 0], smoothing / 2 - 1, rtol=1e-6)


def test_a_run_takes_the_gamma_of_its_config(trainer):
    # the classifier alone is trained, on features that are computed once: quickly compiled
    changes = {
        "phases": (PhaseConfig(trainable=("classifier",)),),
        "training": TrainingConfig(epochs=1, batch_size=22, evaluation_batch_size=10),
    }
    plain, focal = (trainer(f"gamma{gamma}", loss=LossConfig(focal_gamma=gamma), **changes) for gamma in (0.0, 2.0))
    for run in (plain, focal):
        run.train()
    (before, *_), (after, *_) = (lines_of(run, "train") for run in (plain, focal))
    # the same network and batch, of which every example counts less
    assert 0 < after["loss"] < 0.7 * before["loss"]
    assert after["accuracy"] == before["accuracy"]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_the_losses_of_three_classes_are_those_worked_out_by_hand(smoothing, gamma):
    labels, weights = np.array([0, 1, 2, 2], np.int32), (0.5, 1.0, 2.0)
    logits = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    probability = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    targets = (1 - smoothing) * np.eye(3)[labels] + smoothing / 3
    expected = -np.sum(targets * np.log(probability), axis=1) * (1 - probability[range(4), labels]) ** gamma
    config = LossConfig(label_smoothing=smoothing, focal_gamma=gamma)
    found = weighted_losses(jnp.asarray(logits), jnp.asarray(labels), weights, config)
    assert np.asarray(found) == pytest.approx(np.array(weights)[labels] * expected, rel=1e-5)
    assert class_weights("balanced", labels, 3) == pytest.approx((4 / 3, 4 / 3, 2 / 3))
    assert class_weights("balanced", labels, 4) == pytest.approx((1, 1, 0.5, 1))


def test_validation_of_three_classes_is_that_of_scikit_learn():
    random = np.random.default_rng(0)
    labels = np.arange(60) % 3
    logits = random.normal(size=(60, 3)) + np.eye(3)[labels]
    probability = softmax(logits, axis=1)
    figures = validation_figures(logits, labels)
    assert figures["loss"] == pytest.approx(sk.log_loss(labels, probability))
    assert figures["accuracy"] == sk.accuracy_score(labels, probability.argmax(axis=1))
    assert figures["roc_auc"] == pytest.approx(sk.roc_auc_score(labels, probability, multi_class="ovr"))
    # a class that validation lacks has no area; of one class alone there is none
    two = labels < 2
    areas = [sk.roc_auc_score(labels[two] == label, probability[two, label]) for label in (0, 1)]
    assert validation_figures(logits[two], labels[two])["roc_auc"] == pytest.approx(np.mean(areas))
    assert np.isnan(validation_figures(logits[labels == 1], labels[labels == 1])["roc_auc"])


@pytest.mark.filterwarnings("error")
def test_logits_of_three_classes_that_are_not_finite_show_in_the_loss():
    assert np.isnan(validation_figures(np.full((4, 3), np.nan, np.float32), np.array([0, 1, 2, 2]))["loss"])
