from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_runs import arrays_of

from cxr_jax.config.schema import OptimizerConfig, PhaseConfig, ScheduleConfig, TrainingConfig
from cxr_jax.errors import UserError
from cxr_jax.models.network import has_prefix, stage_of
from cxr_jax.training.network import build_network
from cxr_jax.training.optimizer import (
    frozen_stages,
    layer_shares,
    make_optimizer,
    make_schedule,
    partition,
)

PARAMS = {
    "conv_stem.kernel": jnp.full((2, 2), 0.5),
    "bn1.scale": jnp.full((2,), 1.0),
    "blocks.1.0.conv_pw.kernel": jnp.full((2,), 2.0),
    "blocks.10.0.conv_pw.kernel": jnp.full((2,), 3.0),
    "classifier.kernel": jnp.full((2,), -1.0),
    "classifier.bias": jnp.full((1,), 4.0),
}

STAGES = {
    "conv_stem": ("conv_stem", "bn1"),
    "blocks.1": ("blocks.1",),
    "blocks.2": ("blocks.2",),
    "blocks.10": ("blocks.10",),
    "conv_head": ("conv_head", "bn2"),
    "classifier": ("classifier",),
}


@pytest.fixture(scope="module")
def network(config):
    """A network of several stages."""
    return build_network(config.model, seed=0)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decayed", ["kernels", "all"])
def test_three_steps_are_those_worked_out_by_hand(decayed, nesterov):
    config = OptimizerConfig(learning_rate=0.1, momentum=0.9, weight_decay=0.01, decayed=decayed, nesterov=nesterov)
    optimizer = make_optimizer(config, lambda step: 0.1, PARAMS, STAGES)
    params, state = PARAMS, optimizer.init(PARAMS)
    expected = {name: np.asarray(value, np.float64) for name, value in PARAMS.items()}
    velocity = dict.fromkeys(PARAMS, 0.0)
    for step in range(3):
        gradients = {name: jnp.full_like(value, step + 1.0) for name, value in PARAMS.items()}
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        for name in expected:
            decay = 0.01 if decayed == "all" or name.endswith(".kernel") else 0.0
            gradient = step + 1.0 + decay * expected[name]
            velocity[name] = 0.9 * velocity[name] + gradient
            move = gradient + 0.9 * velocity[name] if nesterov else velocity[name]
            expected[name] = expected[name] - 0.1 * move
    for name, value in params.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-6, atol=1e-6)


SHARES = {
    "conv_stem": 0.5**6,
    "bn1": 0.5**6,
    "blocks.0": 0.5**5,
    "blocks.1": 0.5**4,
    "blocks.2": 0.5**3,
    "blocks.3": 0.5**2,
    "conv_head": 0.5,
    "bn2": 0.5,
    "classifier": 1.0,
}
"""Of the learning rate, in the tiny network under a layer decay of a half."""


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("trainable", [(), ("bn1", "blocks.1", "blocks.2.0", "conv_head")])
def test_with_layer_decay_every_stage_steps_by_its_share_of_the_rate(network, trainable, nesterov):
    params, _ = partition(network.params, PhaseConfig(trainable=trainable))
    config = OptimizerConfig(momentum=0.9, weight_decay=0.01, nesterov=nesterov, layer_decay=0.5)
    optimizer = make_optimizer(config, lambda step: 0.1 * 0.5**step, params, network.stages)
    state = optimizer.init(params)
    expected = {name: np.asarray(value, np.float64) for name, value in params.items()}
    velocity = dict.fromkeys(params, 0.0)
    for step in range(3):
        gradients = {name: jnp.cos(3 * value + step) for name, value in params.items()}
        updates, state = optimizer.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        for name, value in expected.items():
            gradient = np.asarray(gradients[name], np.float64) + (0.01 * value if name.endswith(".kernel") else 0.0)
            velocity[name] = 0.9 * velocity[name] + gradient
            move = gradient + 0.9 * velocity[name] if nesterov else velocity[name]
            share = next(share for stage, share in SHARES.items() if has_prefix(name, (stage,)))
            expected[name] = value - share * 0.1 * 0.5**step * move
    for name, value in params.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    # what is remembered is the sum of the gradients, whatever the rate
    momenta = [leaf for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert len(momenta) == len(params)
    for name, momentum in zip(sorted(params), momenta, strict=True):
        np.testing.assert_allclose(momentum, velocity[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_shares_fall_towards_the_input_stage_by_stage():
    shares = layer_shares({*PARAMS, "bn2.scale", "blocks.2.0.bn1.bias"}, 0.9, STAGES)
    assert shares["classifier.kernel"] == shares["classifier.bias"] == 1
    assert [shares[name] for name in ("bn2.scale", "blocks.10.0.conv_pw.kernel")] == pytest.approx([0.9, 0.9**2])
    assert [shares[name] for name in ("blocks.2.0.bn1.bias", "blocks.1.0.conv_pw.kernel")] == pytest.approx(
        [0.9**3, 0.9**4]
    )
    assert shares["conv_stem.kernel"] == shares["bn1.scale"] == pytest.approx(0.9**5)


def test_without_layer_decay_the_optimizer_is_the_plain_one(network):
    plain = optax.chain(
        optax.add_decayed_weights(1e-4, {name: name.endswith(".kernel") for name in network.params}),
        optax.sgd(lambda step: 0.1, 0.9),
    )
    ours = make_optimizer(OptimizerConfig(layer_decay=1.0), lambda step: 0.1, network.params, network.stages)
    gradients = {name: jnp.cos(value) for name, value in network.params.items()}
    states = [optimizer.init(network.params) for optimizer in (plain, ours)]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
    updates = [
        optimizer.update(gradients, state, network.params)[0]
        for optimizer, state in zip((plain, ours), states, strict=True)
    ]
    for name, update in updates[0].items():
        np.testing.assert_array_equal(update, updates[1][name], err_msg=name)


def test_a_run_counts_stages_over_what_a_phase_leaves_alone(trainer, network):
    training = TrainingConfig(epochs=1, batch_size=44, evaluation_batch_size=10)
    moved = {}
    for decay in (1.0, 0.5):
        optimizer = OptimizerConfig(learning_rate=0.1, layer_decay=decay)
        phases = (PhaseConfig(trainable=("blocks.3", "classifier"), optimizer=optimizer),)
        run = trainer(f"decay{decay}", training=training, phases=phases)
        run.train()  # one step
        after = arrays_of(run)
        moved[decay] = {name: after[f"params.{name}"] - np.asarray(network.params[name]) for name in network.params}
    for name, move in moved[1.0].items():
        share = {"blocks.3": 0.5**2, "classifier": 1.0}.get(stage_of(name, network.stages), 0.0)
        np.testing.assert_allclose(moved[0.5][name], share * move, rtol=1e-3, atol=1e-6, err_msg=name)
    moves = [np.abs(moved[1.0][name]).max() for name in ("blocks.3.0.conv_pwl.kernel", "classifier.kernel")]
    assert min(moves) > 1e-4


def test_schedules_begin_peak_and_end_where_they_should():
    optimizer = OptimizerConfig(learning_rate=0.2)
    constant = make_schedule(optimizer, ScheduleConfig(), 10)
    assert [float(constant(step)) for step in (0, 9)] == pytest.approx([0.2, 0.2])
    for kind in ("cosine", "linear"):
        schedule = make_schedule(optimizer, ScheduleConfig(kind=kind, warmup_iterations=4, final_fraction=0.1), 24)
        rates = [float(schedule(step)) for step in range(25)]
        assert rates[0] == pytest.approx(0.04)
        assert max(rates) == rates[4] == pytest.approx(0.2)
        assert rates[14] == pytest.approx(0.11)
        assert rates[24] == pytest.approx(0.02)
        assert np.all(np.diff(rates[:5]) > 0)
        assert np.all(np.diff(rates[4:]) < 0)


def test_a_warm_up_longer_than_the_phase_is_refused():
    with pytest.raises(UserError, match="warmup_iterations is 10, but the phase has only 10"):
        make_schedule(OptimizerConfig(), ScheduleConfig(warmup_iterations=10), 10)


def test_a_prefix_ends_at_a_dot():
    trainable, frozen = partition(PARAMS, PhaseConfig(trainable=("blocks.1", "classifier")))
    assert set(trainable) == {"blocks.1.0.conv_pw.kernel", "classifier.kernel", "classifier.bias"}
    assert trainable | frozen == PARAMS
    assert not has_prefix("conv_head.kernel", ("conv",))


def test_a_stage_is_frozen_when_none_of_its_parameters_is_trained():
    params = dict.fromkeys(("conv_stem.kernel", "bn1.scale", "blocks.1.0.kernel", "blocks.10.0.kernel", "bn2.scale"))
    deeper = PhaseConfig(trainable=("bn1", "blocks.10"), batch_norm="train")
    assert frozen_stages(*partition(params, deeper), STAGES) == ("blocks.1", "conv_head")
    assert frozen_stages(*partition(params, PhaseConfig()), STAGES) == ()


@given(st.lists(st.sampled_from(["conv_stem", "bn1", "blocks", "blocks.1", "blocks.10.0", "classifier"]), unique=True))
def test_every_parameter_is_on_one_side(prefixes):
    trainable, frozen = partition(PARAMS, PhaseConfig(trainable=tuple(prefixes)))
    assert not trainable.keys() & frozen.keys()
    assert trainable.keys() | frozen.keys() == PARAMS.keys()


def test_an_unknown_prefix_is_named_with_what_there_is():
    with pytest.raises(UserError, match=r"no parameter is called blocks\.9.*blocks\.1, blocks\.10, bn1"):
        partition(PARAMS, PhaseConfig(trainable=("blocks.9", "classifier")))
