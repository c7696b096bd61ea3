from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_jax.config.schema import OptimizerConfig, PhaseConfig, ScheduleConfig
from cxr_jax.errors import UserError
from cxr_jax.training.optimizer import frozen_stages, has_prefix, make_optimizer, make_schedule, partition

PARAMS = {
    "conv_stem.kernel": jnp.full((2, 2), 0.5),
    "bn1.scale": jnp.full((2,), 1.0),
    "blocks.1.0.conv_pw.kernel": jnp.full((2,), 2.0),
    "blocks.10.0.conv_pw.kernel": jnp.full((2,), 3.0),
    "classifier.kernel": jnp.full((2,), -1.0),
    "classifier.bias": jnp.full((1,), 4.0),
}


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decayed", ["kernels", "all"])
def test_three_steps_are_those_worked_out_by_hand(decayed, nesterov):
    config = OptimizerConfig(learning_rate=0.1, momentum=0.9, weight_decay=0.01, decayed=decayed, nesterov=nesterov)
    optimizer = make_optimizer(config, lambda step: 0.1, PARAMS)
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
    assert frozen_stages(params, deeper) == ("blocks.1", "conv_head")
    assert frozen_stages(params, PhaseConfig()) == ()


@given(st.lists(st.sampled_from(["conv_stem", "bn1", "blocks", "blocks.1", "blocks.10.0", "classifier"]), unique=True))
def test_every_parameter_is_on_one_side(prefixes):
    trainable, frozen = partition(PARAMS, PhaseConfig(trainable=tuple(prefixes)))
    assert not trainable.keys() & frozen.keys()
    assert trainable.keys() | frozen.keys() == PARAMS.keys()


def test_an_unknown_prefix_is_named_with_what_there_is():
    with pytest.raises(UserError, match=r"no parameter is called blocks\.9.*blocks\.1, blocks\.10, bn1"):
        partition(PARAMS, PhaseConfig(trainable=("blocks.9", "classifier")))
