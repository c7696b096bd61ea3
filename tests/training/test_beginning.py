"""What a run begins with is made without a program, for which a first step would wait."""

import logging

import jax
import numpy as np
import optax
import pytest

from cxr_jax.config.schema import OptimizerConfig, ScheduleConfig
from cxr_jax.devices import replicate
from cxr_jax.models.blocks import DepthwiseSeparable, InvertedResidual
from cxr_jax.models.networks.inverted_residual import Stage
from cxr_jax.models.networks.mobilenetv2 import MobileNetV2
from cxr_jax.models.state import split_model
from cxr_jax.training.optimizer import make_optimizer, make_schedule
from cxr_jax.training.state import new_state, state_arrays

# numbers of channels that no other test knows: what is compiled is kept as long as the process runs
STAGES = (
    Stage(DepthwiseSeparable, 13, repeats=1, stride=1),
    Stage(InvertedResidual, 23, repeats=2, stride=2, expansion=3),
)


def test_a_run_begins_without_a_program(caplog):
    devices = jax.devices()[:1]
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        network = MobileNetV2(
            classes=7, generator=np.random.default_rng(0), stages=STAGES, stem_channels=11, head_channels=47
        )
        _, params, batch_stats = split_model(network)
        optimizer = optax.sgd(0.1, momentum=0.9)
        state = new_state(params, batch_stats, list(params), optimizer, averages=True)
        whole = replicate(state, devices)
        jax.block_until_ready(whole)
    compiled = [line for line in caplog.messages if line.startswith("Finished XLA compilation")]
    assert compiled == []
    for name, value in state_arrays(state).items():
        np.testing.assert_array_equal(value, state_arrays(whole)[name])
    places = [value.unsafe_buffer_pointer() for value in jax.tree.leaves((params, batch_stats, whole))]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize(
    "given",
    [{}, {"momentum": 0.0}, {"nesterov": True}, {"weight_decay": 0.0}, {"layer_decay": 0.5}, {"decayed": "all"}],
    ids=repr,
)
def test_an_optimizer_remembers_nothing_but_zeros_at_first(given):
    params = {"conv.kernel": np.ones((2, 3), np.float32), "classifier.bias": np.ones(5, np.float32)}
    config, stages = OptimizerConfig(**given), {"conv": ("conv",), "classifier": ("classifier",)}
    optimizer = make_optimizer(config, make_schedule(config, ScheduleConfig(), iterations=100), params, stages)
    expected = optimizer.init(params)
    found = new_state(params, {}, list(params), optimizer).optimizer_state
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for began, own in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert began.dtype == own.dtype
        np.testing.assert_array_equal(began, own)
