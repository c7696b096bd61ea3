"""Options of the benchmark suite: which network, how large."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a small machine, or somebody in a hurry, measure something smaller."""
    group = parser.getgroup("cxr_jax")
    group.addoption("--model", default="mobilenetv2_100")
    group.addoption("--image-size", type=int, default=224)
    group.addoption("--batch-size", type=int, default=32)
    group.addoption("--no-bounds", action="store_true", help="measure only; no figure is too low")


def pytest_configure() -> None:
    """Keeps freed memory, as the commands do, before anything is allocated."""
    from cxr_jax.process import keep_freed_memory

    keep_freed_memory()


@pytest.fixture(params=["forward", "input_gradient", "weight_gradient"])
def direction(request: pytest.FixtureRequest) -> Direction:
    """One direction of a convolution after the other: what a test is to time of it."""
    return Direction(request.param)


class Direction(NamedTuple):
    """A convolution `convolve(x, kernel)` forward, or one of its gradients."""

    name: str

    def of(self, convolve: Callable[..., Any]) -> Callable[..., Any]:
        """Returns a program of `x`, `kernel` and the result `y`, or its gradient."""
        import jax

        programs = {
            "forward": lambda x, kernel, y: convolve(x, kernel),
            "input_gradient": lambda x, kernel, y: jax.vjp(lambda x: convolve(x, kernel), x)[1](y)[0],
            "weight_gradient": lambda x, kernel, y: jax.vjp(lambda kernel: convolve(x, kernel), kernel)[1](y)[0],
        }
        return jax.jit(programs[self.name])


class Turns(NamedTuple):
    """Two steps that took turns."""

    seconds: float  # of the step that is measured, the median
    beside: float  # seconds of the other one, the median
    times_as_long: float  # as the other one, the median over the rounds


@pytest.fixture
def in_turns(request: pytest.FixtureRequest) -> Callable[..., Turns]:
    """Times a step, and before each time another one."""
    pytest.importorskip("pytest_benchmark", reason="needs pytest-benchmark")
    benchmark = request.getfixturevalue("benchmark")

    def measure(step: Callable[[], None], other: Callable[[], None], rounds: int = 6) -> Turns:
        beside: list[float] = []

        def take_turns() -> None:
            began = time.perf_counter()
            other()
            beside.append(time.perf_counter() - began)

        benchmark.pedantic(step, setup=take_turns, rounds=rounds, warmup_rounds=1)
        seconds = benchmark.stats.stats.data
        ratio = statistics.median(one / two for one, two in zip(seconds, beside[1:], strict=True))
        found = Turns(statistics.median(seconds), statistics.median(beside[1:]), ratio)
        benchmark.extra_info |= found._asdict()
        return found

    return measure
