"""Mixup in the training step: the loss is both labels', on any number of devices, and batches hold whole pairs."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from smallest_network import smallest_network
from training_runs import Steps, batch_of, doubled, take_steps

from cxr_jax.config.schema import AugmentationConfig, LossConfig, ModelConfig, PhaseConfig, TrainingConfig
from cxr_jax.errors import UserError
from cxr_jax.models.state import merge_model
from cxr_jax.preprocessing.mixup import mix_pairs
from cxr_jax.preprocessing.normalise import normalise
from cxr_jax.training.step import DeviceBatch, example_keys

MIXUP = AugmentationConfig(horizontal_flip=0.5, mixup=0.4)


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_the_loss_is_each_labels_by_its_share(train_images, gamma):
    # without dropout, which would hide what is to be seen
    network = smallest_network(ModelConfig(name="mobilenetv2_tiny"))
    weights = (0.7, 1.6)
    steps = Steps(
        network,
        class_weights=weights,
        augmentation=AugmentationConfig(mixup=0.4),
        loss=LossConfig(label_smoothing=0.1, focal_gamma=gamma),
        training=TrainingConfig(batch_size=8, evaluation_batch_size=8, seed=3, batch_norm="frozen"),
    )
    images, labels, ids = map(jnp.asarray, batch_of(train_images, slice(8)))
    step = jax.jit(lambda state, batch: steps.once(state, batch, epoch=2))
    _, metrics = step(steps.state(), DeviceBatch(images, labels, ids))

    keys, _ = example_keys(3, jnp.int32(2), ids)
    mixed, share = mix_pairs(images.astype(jnp.float32), keys, 0.4)
    model = merge_model(network.graphdef, network.params, network.batch_stats)
    logits = jax.jit(lambda images: model(normalise(images, network.mean, network.std)))(mixed)
    swapped = np.asarray(labels).reshape(-1, 2)[:, ::-1].reshape(-1)
    expected = 0.0
    for row in range(8):
        for label, part in ((int(labels[row]), float(share[row])), (int(swapped[row]), 1 - float(share[row]))):
            target = optax.smooth_labels(jax.nn.one_hot(label, 2), 0.1)
            loss = weights[label] * float(optax.softmax_cross_entropy(logits[row], target))
            expected += part * loss * float(1 - jax.nn.softmax(logits[row])[label]) ** gamma
    expected /= sum(weights[int(label)] for label in labels)
    np.testing.assert_allclose(metrics.loss, expected, rtol=1e-5)


@pytest.mark.parametrize(("devices", "backend"), [(2, "jit"), pytest.param(4, "pmap", marks=pytest.mark.slow)])
def test_every_backend_and_device_count_mixes_alike(network, devices, backend):
    with jax.enable_x64(True):
        losses, arrays = take_steps(doubled(network), 1, "jit", augmentation=MIXUP)
        plain, _ = take_steps(doubled(network), 1, "jit")
        others, other_arrays = take_steps(doubled(network), devices, backend, augmentation=MIXUP)
    np.testing.assert_allclose(others, losses, rtol=1e-9)
    for name, value in arrays.items():
        np.testing.assert_allclose(other_arrays[name], value, rtol=1e-9, atol=1e-9, err_msg=name)
    assert not np.allclose(plain, losses, rtol=1e-3)


def test_devices_must_hold_whole_pairs(trainer, config):
    phases = (PhaseConfig(augmentation=MIXUP),)
    training = dataclasses.replace(config.training, batch_size=10)
    with pytest.raises(
        UserError, match=r"batch_size is 10, which cannot be shared in pairs \(augmentation.mixup\) evenly"
    ):
        trainer("run", training=training, phases=phases)
