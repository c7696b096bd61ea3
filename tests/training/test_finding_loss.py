"""The loss of findings that occur together, on labels of which some are unknown."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit
from sklearn import metrics as sk
from training_runs import Steps, draw_images

from cxr_jax.config.schema import (
    AugmentationConfig,
    LossConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    PhaseConfig,
    TrainingConfig,
    ValidationConfig,
)
from cxr_jax.errors import UserError
from cxr_jax.training.finding_loss import finding_weights, label_weights, weights_in_batch
from cxr_jax.training.loss import class_weights, weighted_losses
from cxr_jax.training.network import build_network
from cxr_jax.training.step import DeviceBatch
from cxr_jax.training.validation import validation_figures

WEIGHTS = ((0.6, 3.0), (1.0, 1.0), (2.0, 0.7))


def labels_of(seed, count=8, findings=3, unknown=0.3):
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, (count, findings)).astype(np.float32)
    labels[random.random(labels.shape) < unknown] = np.nan
    return labels


def test_balanced_weights_let_presence_and_absence_of_every_finding_count_alike():
    labels = np.array([[1, 0], [0, 0], [0, np.nan], [0, 1]], np.float32)
    assert class_weights("none", labels, 2) == ((1.0, 1.0), (1.0, 1.0))
    found = class_weights("balanced", labels, 2)
    assert found[0] == pytest.approx((4 / 6, 2.0))
    assert found[1] == pytest.approx((3 / 4, 1.5))
    # a finding that nobody shows cannot be balanced
    assert finding_weights("balanced", labels[1:2]) == ((0.5, 0.5), (0.5, 0.5))


@given(st.integers(0, 500))
def test_the_mean_balanced_weight_of_a_known_label_is_one(seed):
    labels = labels_of(seed, count=40)
    for column, (absence, presence) in zip(labels.T, finding_weights("balanced", labels), strict=True):
        known = column[~np.isnan(column)]
        assert np.where(known == 1, presence, absence).mean() == pytest.approx(1)


def losses_by_hand(logits, labels, smoothing, gamma):
    """Binary cross-entropy and focal loss as their papers write them, by way of probabilities; 0 where unknown."""
    probability, truth = expit(logits), np.nan_to_num(labels.astype(np.float64))
    target = truth * (1 - smoothing) + smoothing / 2
    losses = -(target * np.log(probability) + (1 - target) * np.log(1 - probability))
    of_truth = np.where(truth == 1, probability, 1 - probability)
    weights = np.array([[pair[int(label)] for pair, label in zip(WEIGHTS, row, strict=True)] for row in truth])
    return np.where(np.isnan(labels), 0, weights * (1 - of_truth) ** gamma * losses)


@functools.partial(jax.jit, static_argnames="loss")
def losses_and_gradient(logits, labels, loss):
    def losses_of(values):
        return weighted_losses(values, labels, WEIGHTS, loss)

    return losses_of(logits), jax.grad(lambda values: losses_of(values).sum())(logits)


@given(gamma=st.sampled_from([0.0, 1.0, 2.0]), smoothing=st.sampled_from([0.0, 0.1]), seed=st.integers(0, 99))
def test_loss_and_gradient_are_those_worked_out_by_hand_and_zero_where_a_label_is_unknown(gamma, smoothing, seed):
    random = np.random.default_rng(seed)
    labels, logits = labels_of(seed), random.normal(0, 3, (8, 3))
    loss = LossConfig(label_smoothing=smoothing, focal_gamma=gamma)
    with jax.enable_x64(True):
        found, gradient = map(np.asarray, losses_and_gradient(jnp.asarray(logits), jnp.asarray(labels), loss))
    np.testing.assert_allclose(found, losses_by_hand(logits, labels, smoothing, gamma).sum(1), rtol=1e-9, atol=1e-12)
    assert np.all(gradient[np.isnan(labels)] == 0)
    assert np.all(gradient[~np.isnan(labels)] != 0)
    change = random.normal(size=logits.shape)
    ends = [losses_by_hand(logits + sign * 1e-5 * change, labels, smoothing, gamma).sum() for sign in (1, -1)]
    np.testing.assert_allclose((gradient * change).sum(), (ends[0] - ends[1]) / 2e-5, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
@pytest.mark.parametrize("extreme", [-200.0, 200.0, 1e30])
def test_gradients_stay_finite_and_unknown_ones_exactly_zero_at_extreme_logits(gamma, extreme):
    labels = jnp.asarray([[1.0, 0.0, jnp.nan]], jnp.float32)
    logits = jnp.full((1, 3), extreme, jnp.float32)

    def loss_of(values):
        return weighted_losses(values, labels, WEIGHTS, LossConfig(focal_gamma=gamma)).sum()

    gradient = np.asarray(jax.grad(loss_of)(logits))
    assert np.isfinite(gradient).all()
    assert gradient[0, 2] == 0


def steps_of(labels, features, parts=1, devices=1, backend="jit", rule="none"):
    count = len(labels)
    images = dataclasses.replace(draw_images(count, seed=0), labels=labels, classes=("a", "b", "c"))
    return Steps(
        build_network(ModelConfig(name="mobilenetv2_tiny"), seed=0, classes=3),
        images=dataclasses.replace(images, images=features),
        class_weights=WEIGHTS,
        augmentation=AugmentationConfig(),
        loss=LossConfig(class_weights=rule),
        optimizer=OptimizerConfig(0.1, weight_decay=0.0),
        training=TrainingConfig(batch_size=count, evaluation_batch_size=count, accumulation_steps=parts),
        parallel=ParallelConfig(backend, devices),
        phases=(PhaseConfig(trainable=("classifier",), batch_norm="frozen"),),
    )


@pytest.mark.parametrize(
    ("parts", "devices", "backend", "rule"),
    [
        *((1, 1, "jit", "none"), (2, 1, "jit", "none"), (1, 2, "jit", "none"), (1, 2, "pmap", "none")),
        *((2, 1, "jit", "balanced_in_batch"), (1, 2, "pmap", "balanced_in_batch")),
    ],
)
def test_a_step_on_findings_is_that_worked_out_by_hand_however_the_batch_is_shared(parts, devices, backend, rule):
    # the shares of the batch know different numbers of labels
    labels = labels_of(3)
    labels[:3] = np.nan
    network = build_network(ModelConfig(name="mobilenetv2_tiny"), seed=0, classes=3)
    kernel, bias = (np.asarray(network.params[f"classifier.{name}"], np.float64) for name in ("kernel", "bias"))
    features = np.random.default_rng(0).normal(size=(8, kernel.shape[0])).astype(np.float32)
    steps = steps_of(labels, features, parts, devices, backend, rule)
    step, state = steps.compiled(), steps.replicated()
    batch = DeviceBatch(features, labels, np.arange(8, dtype=np.int32))
    after, metrics = step(state, step.place(batch), steps.moment())

    logits = features.astype(np.float64) @ kernel + bias
    truth, known = np.nan_to_num(labels), ~np.isnan(labels)
    weights = np.where(known, np.where(truth == 1, [w[1] for w in WEIGHTS], [w[0] for w in WEIGHTS]), 0)
    if rule == "balanced_in_batch":
        present = np.sum(labels == 1)
        weights = np.where(known, np.where(truth == 1, known.sum() / present, known.sum() / np.sum(labels == 0)), 0)
    losses = weights * (np.logaddexp(0, logits) - truth * logits)
    assert float(metrics.loss) == pytest.approx(losses.sum() / weights.sum(), rel=1e-5)
    assert float(metrics.accuracy) == pytest.approx(((logits > 0) == (truth == 1))[known].mean())
    gradients = weights * (expit(logits) - truth) / weights.sum()
    np.testing.assert_allclose(after.params["classifier.bias"], bias - 0.1 * gradients.sum(0), atol=1e-6)
    expected = kernel - 0.1 * features.astype(np.float64).T @ gradients
    np.testing.assert_allclose(after.params["classifier.kernel"], expected, atol=1e-6)


@given(st.integers(0, 500))
def test_balanced_in_a_batch_presence_and_absence_weigh_alike_over_all_findings_together(seed):
    labels = labels_of(seed)
    present, absent = (jnp.asarray(np.sum(labels == value), jnp.float32) for value in (1, 0))
    weights = label_weights(jnp.asarray(labels), weights_in_batch(present, absent, 3), jnp.float32)
    for value, count in ((1, present), (0, absent)):
        expected = float(present + absent if count else 0)
        assert np.sum(weights, where=labels == value) == pytest.approx(expected, rel=1e-5)
    assert not np.any(np.asarray(weights)[np.isnan(labels)])


def test_a_batch_of_which_nobody_knows_anything_teaches_nothing():
    labels = np.full((8, 3), np.nan, np.float32)
    network = build_network(ModelConfig(name="mobilenetv2_tiny"), seed=0, classes=3)
    features = np.ones((8, network.params["classifier.kernel"].shape[0]), np.float32)
    # the plan wants a label that can be ranked; the batch has none
    steps = steps_of(labels_of(1), features)
    before = steps.state()
    after, metrics = steps.once(before, DeviceBatch(jnp.asarray(features), jnp.asarray(labels), jnp.arange(8)))
    assert (float(metrics.loss), float(metrics.accuracy)) == (0, 0)
    for name, value in after.params.items():
        assert np.array_equal(value, network.params[name]), name


@given(st.integers(0, 200))
def test_validation_figures_are_those_of_the_known_labels(seed):
    labels, logits = labels_of(seed, count=30), np.random.default_rng(seed).normal(0, 2, (30, 3))
    found = validation_figures(logits.astype(np.float32), labels)
    known = ~np.isnan(labels)
    truth, probability = labels[known], expit(logits.astype(np.float32).astype(float))[known]
    assert found["loss"] == pytest.approx(sk.log_loss(truth, probability), rel=1e-6)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(truth, probability > 0.5))
    columns = [(labels[known[:, k], k], logits[known[:, k], k]) for k in range(3)]
    areas = [sk.roc_auc_score(*column) for column in columns if len(np.unique(column[0])) == 2]
    assert found["roc_auc"] == pytest.approx(np.mean(areas))


def test_without_a_finding_that_can_be_ranked_there_is_no_area():
    assert np.isnan(validation_figures(np.zeros((2, 2)), np.array([[1, np.nan], [1, 0]], np.float32))["roc_auc"])


def test_what_a_plan_cannot_do_with_findings_is_refused():
    with pytest.raises(UserError, match="validation images are all of one class"):
        images = dataclasses.replace(
            draw_images(8, seed=0), labels=np.ones((8, 3), np.float32), classes=("a", "b", "c")
        )
        network = build_network(ModelConfig(name="mobilenetv2_tiny"), seed=0, classes=3)
        sections = {"training": TrainingConfig(batch_size=8, evaluation_batch_size=8)}
        Steps(network, images=images, validation=ValidationConfig(monitor="roc_auc"), **sections)
    with pytest.raises(UserError, match=r'"balanced_in_batch", which is for findings'):
        one_class_each = draw_images(8, seed=0)
        Steps(network, images=one_class_each, loss=LossConfig("balanced_in_batch"), **sections)
    with pytest.raises(UserError, match=r'"balanced", which visits classes alike'):
        images = dataclasses.replace(images, labels=labels_of(0))
        Steps(network, images=images, training=TrainingConfig(batch_size=8, sampling="balanced"))
