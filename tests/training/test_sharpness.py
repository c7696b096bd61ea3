"""Sharpness-aware minimisation: a step by the gradient uphill, and nothing else of the second pass."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_runs import Steps, Watcher, assert_equal_runs, batch_of, doubled

from cxr_jax.config.schema import OptimizerConfig, ParallelConfig, TrainingConfig
from cxr_jax.errors import UserError
from cxr_jax.training.optimizer import uphill

RATE, RADIUS = 0.1, 0.5


def after_a_step(network, batch, *, radius=0.0, params=None, devices=1, backend="jit", **training):
    """The state after one step at a fixed rate, from `params` or the network's own, and what it measured."""
    network = network if params is None else dataclasses.replace(network, params=params)
    steps = Steps(
        network,
        optimizer=OptimizerConfig(RATE, momentum=0.0, weight_decay=0.0, sharpness_radius=radius),
        training=TrainingConfig(batch_size=16, evaluation_batch_size=16, seed=3, precision="float32", **training),
        parallel=ParallelConfig(backend, devices),
    )
    step = steps.compiled()
    state, metrics = step(steps.replicated(), step.place(batch), steps.moment())
    return jax.tree.map(np.asarray, state), [float(value) for value in metrics]


@pytest.mark.parametrize(
    ("devices", "backend", "changes"),
    [
        pytest.param(1, "jit", {}, id="one device"),
        pytest.param(
            *(2, "pmap", {"accumulation_steps": 2, "batch_norm": "frozen"}),
            id="in parts, on two devices",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_step_is_the_gradient_uphill_and_the_rest_is_of_the_first_pass(
    network, train_images, devices, backend, changes
):
    batch = batch_of(train_images)
    frozen = {name: value for name, value in changes.items() if name == "batch_norm"}
    with jax.enable_x64(True):
        network = doubled(network)
        before = {name: np.asarray(value) for name, value in network.params.items()}
        plain, measured = after_a_step(network, batch, **frozen)
        gradients = {name: (value - plain.params[name]) / RATE for name, value in before.items()}
        norm = np.sqrt(sum(np.sum(np.square(gradient)) for gradient in gradients.values()))
        above = {name: value + RADIUS * gradients[name] / norm for name, value in before.items()}
        second, _ = after_a_step(network, batch, params=above, **frozen)
        found, found_measured = after_a_step(network, batch, radius=RADIUS, devices=devices, backend=backend, **changes)
    assert found_measured == pytest.approx(measured, rel=1e-9)
    for name, value in before.items():
        expected = value - (above[name] - second.params[name])
        np.testing.assert_allclose(found.params[name], expected, rtol=1e-7, atol=1e-9, err_msg=name)
    moved = max(np.abs(found.params[name] - plain.params[name]).max() for name in before)
    assert moved > 1e-3
    for name, value in plain.batch_stats.items():
        np.testing.assert_allclose(found.batch_stats[name], value, rtol=1e-9, atol=1e-12, err_msg=name)
    if not frozen:
        stirred = [np.abs(second.batch_stats[name] - value).max() for name, value in plain.batch_stats.items()]
        assert max(stirred) > 1e-6


def test_the_place_uphill_is_at_its_distance_and_a_gradient_of_nothing_leads_nowhere():
    params = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(3.0)}
    above = uphill(params, {"a": jnp.array([3.0, 0.0]), "b": jnp.array(-4.0)}, 0.5)
    np.testing.assert_allclose(above["a"], [1.3, -2.0], rtol=1e-6)
    np.testing.assert_allclose(above["b"], 2.6, rtol=1e-6)
    still = uphill(params, jax.tree.map(jnp.zeros_like, params), 0.5)
    for name, value in params.items():
        np.testing.assert_array_equal(still[name], value)


def test_an_interrupted_run_goes_on_to_the_same_bits(trainer, config):
    optimizer = OptimizerConfig(0.05, sharpness_radius=0.05)
    training = dataclasses.replace(config.training, epochs=1, sampling="balanced", ema_decay=0.9)
    undisturbed = trainer("undisturbed", optimizer=optimizer, training=training)
    undisturbed.train()
    with pytest.raises(UserError, match="was interrupted after step 3"):
        trainer("run", Watcher(signal_at=3), optimizer=optimizer, training=training).train()
    resumed = trainer("run", optimizer=optimizer, training=training)
    resumed.train(resume=True)
    assert_equal_runs(undisturbed, resumed)
