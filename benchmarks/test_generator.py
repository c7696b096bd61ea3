"""How fast does a generator train, beside float32 through XLA? Run by hand, as `test_speed.py` is.

Steps of configs/dcgan_normals.toml in the precision that `auto` chooses take turns with steps in float32, on random
images. On a CPU the first are those of the native kernels where a compiler is there.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

import jax
import numpy as np
import pytest

from cxr_jax.bench.workload import DISTINCT_BATCHES, noise_images
from cxr_jax.config.loading import load_config
from cxr_jax.config.shipped import find_config
from cxr_jax.devices import replicate
from cxr_jax.models.kernels.native.library import why_not
from cxr_jax.synthesis.run import compile_synthesis_step, plan_synthesis
from cxr_jax.synthesis.step import build_networks
from cxr_jax.training.feed import HostFeed

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import Turns

AT_LEAST = 1.5
"""Times as fast as float32 through XLA, on a CPU with AVX-512 BF16."""


def test_a_generator_trains_faster_than_in_float32(
    in_turns: Callable[..., Turns], request: pytest.FixtureRequest
) -> None:
    """Time steps as `auto` has them, and before each a step in float32."""
    if reason := why_not():
        pytest.skip(reason)
    found = in_turns(_stepper("auto"), _stepper("float32"))
    times_as_fast = 1 / found.times_as_long
    print(f"\na step takes {found.seconds:.2f} s, {found.beside:.2f} s in float32: {times_as_fast:.2f} times as fast")
    if not request.config.getoption("--no-bounds"):
        assert times_as_fast >= AT_LEAST


def _stepper(precision: str) -> Callable[[], None]:
    """Returns a function that takes one step of both networks, and waits for it."""
    config = load_config(find_config("dcgan_normals"))
    config = dataclasses.replace(config, training=dataclasses.replace(config.training, precision=precision))
    batch_size = config.training.batch_size
    noise = noise_images(DISTINCT_BATCHES * batch_size, config.data.image_size)
    plan = plan_synthesis(config, noise)
    networks, state = build_networks(config)
    feed = HostFeed(noise)
    run = compile_synthesis_step(plan, networks, state, feed)
    state = replicate(state, plan.devices)
    batches = itertools.cycle([*feed.batches(batch_size=batch_size, seed=0, epoch=0)])

    def step() -> None:
        nonlocal state
        state, metrics = run(state, run.place(next(batches)), np.int32(0))
        jax.block_until_ready((state, metrics))

    step()
    return step
