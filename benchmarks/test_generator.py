"""How fast does a generator train, beside float32 through XLA? Run by hand, as `test_speed.py` is.

Steps of configs/dcgan_normals.toml in the precision that `auto` chooses take turns with steps in float32, on random
images. On a CPU the first are those of the native kernels where a compiler is there.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

pytest.importorskip("pytest_benchmark", reason="needs pytest-benchmark")

import jax

from cxr_jax.bench.workload import DISTINCT_BATCHES, noise_images
from cxr_jax.config.loading import load_config
from cxr_jax.config.shipped import find_config
from cxr_jax.devices import replicate
from cxr_jax.process import keep_freed_memory
from cxr_jax.synthesis.run import compile_synthesis_step, plan_synthesis
from cxr_jax.synthesis.step import build_networks
from cxr_jax.training.feed import HostFeed

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytest_benchmark.fixture import BenchmarkFixture

AT_LEAST = 1.5
"""Times as fast as float32 through XLA, on a CPU with AVX-512 BF16."""

ROUNDS = 5


def test_a_generator_trains_faster_than_in_float32(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> None:
    """Time steps as `auto` has them, and before each a step in float32."""
    keep_freed_memory()  # as the commands do
    in_float32, chosen = _stepper("float32"), _stepper("auto")
    slow: list[float] = []

    def take_turns() -> None:
        began = time.perf_counter()
        in_float32()
        slow.append(time.perf_counter() - began)

    benchmark.pedantic(chosen, setup=take_turns, rounds=ROUNDS, warmup_rounds=1)
    fast = benchmark.stats.stats.data
    times_as_fast = statistics.median(other / one for one, other in zip(fast, slow[1:], strict=True))
    seconds = statistics.median(fast), statistics.median(slow)
    benchmark.extra_info |= {"seconds": seconds[0], "seconds_in_float32": seconds[1], "times_as_fast": times_as_fast}
    print(f"\na step takes {seconds[0]:.2f} s, {seconds[1]:.2f} s in float32: {times_as_fast:.2f} times as fast")
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
