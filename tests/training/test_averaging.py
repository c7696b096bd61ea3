"""The moving average of a network: what it is, that a run stands for it, and that it survives an interruption."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_runs import PHASES, Steps, Watcher, assert_equal_runs, batch_of, lines_of

from cxr_jax.checkpoints import read_newest
from cxr_jax.config.schema import (
    AugmentationConfig,
    LossConfig,
    ParallelConfig,
    TrainingConfig,
)
from cxr_jax.errors import UserError
from cxr_jax.inference.forward import logits_of
from cxr_jax.models.state import pack_network, unpack_network, unprefixed
from cxr_jax.training.saving import BEST, LAST
from cxr_jax.training.state import all_params, averaged
from cxr_jax.training.validation import validation_figures


def averaging(config, decay=0.8):
    return dataclasses.replace(config.training, ema_decay=decay)


def test_the_average_is_the_recursion_written_out():
    values = [np.float32(value) for value in (1.0, 5.0, -2.0, 4.0)]
    average, expected = {"params.w": jnp.float32(values[0])}, float(values[0])
    for step, value in enumerate(values[1:]):
        average = averaged(average, {"w": jnp.float32(value)}, {}, 0.3, jnp.int32(step))
        # (1 + step) / (10 + step) is 0.1, 0.18, 0.25: below the decay, so that the first steps count for more
        decay = min(0.3, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * float(value)
    np.testing.assert_allclose(average["params.w"], expected, rtol=1e-6)


def test_the_decay_asked_for_is_reached():
    average = averaged({"params.w": jnp.float32(0.0)}, {"w": jnp.float32(1.0)}, {}, 0.9, jnp.int32(10_000))
    np.testing.assert_allclose(average["params.w"], 0.1, rtol=1e-6)


@pytest.mark.parametrize(("devices", "backend"), [(1, "jit"), (2, "jit"), (2, "pmap")])
def test_a_step_averages_parameters_and_statistics_from_the_phases_first_step_on(
    network, train_images, devices, backend
):
    steps = Steps(
        network,
        class_weights=(1.0, 1.0),
        augmentation=AugmentationConfig(),
        loss=LossConfig(),
        training=TrainingConfig(batch_size=16, evaluation_batch_size=16, precision="float32", ema_decay=0.15),
        parallel=ParallelConfig(backend, devices),
    )
    expected = {name: np.asarray(value) for name, value in pack_network(network.params, network.batch_stats).items()}
    step, state = steps.compiled(first_step=100), steps.replicated(step=100)
    batch = batch_of(train_images)
    for index, decay in enumerate([0.1, 0.15, 0.15]):
        state, _ = step(state, step.place(batch), steps.moment(index))
        now = pack_network(all_params(state), state.batch_stats)
        expected = {name: decay * value + (1 - decay) * np.asarray(now[name]) for name, value in expected.items()}
    assert state.average.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(state.average[name], value, rtol=2e-5, atol=1e-6, err_msg=name)


def validation_loss(params, batch_stats, network, images):
    answer = functools.partial(logits_of, graphdef=network.graphdef, mean=network.mean, std=network.std)
    logits = jax.jit(answer)(params, batch_stats, jnp.asarray(images.images))
    return validation_figures(np.asarray(logits), images.labels)["loss"]


def test_a_run_stands_for_its_average(trainer, undisturbed, config, network, validation_images):
    """Validated, kept as the best and predicted with is the average; what is trained further lies beside it."""
    run = trainer("run", training=averaging(config))
    run.train()
    stored = read_newest(run.run.checkpoints / LAST).arrays
    logged = lines_of(run, "validation")[-1]["loss"]
    average_loss = validation_loss(*unpack_network(stored), network, validation_images)
    trained_loss = validation_loss(*unpack_network(unprefixed("trained", stored)), network, validation_images)
    np.testing.assert_allclose(average_loss, logged, rtol=1e-4)
    assert abs(trained_loss - logged) > 1e-3 * logged
    trained = unprefixed("trained", stored)
    assert any(np.any(np.asarray(stored[name]) != np.asarray(value)) for name, value in trained.items())
    # averaging changes nothing of what is trained
    for name, value in read_newest(undisturbed.run.checkpoints / LAST).arrays.items():
        if name in trained:
            np.testing.assert_array_equal(np.asarray(value), np.asarray(trained[name]), err_msg=name)
    assert not any(name.startswith("trained.") for name in read_newest(run.run.checkpoints / BEST).arrays)


def test_a_resumed_run_goes_on_with_its_average_to_the_bit(trainer, config):
    training = averaging(config)
    undisturbed = trainer("undisturbed", training=training, phases=PHASES)
    undisturbed.train()
    for step in (3, 5, 7):
        stopped = trainer(f"stopped{step}", Watcher(signal_at=step), training=training, phases=PHASES)
        with pytest.raises(UserError):
            stopped.train()
        resumed = trainer(f"stopped{step}", training=training, phases=PHASES)
        resumed.train(resume=True)
        assert_equal_runs(undisturbed, resumed)
