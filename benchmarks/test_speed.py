"""Is a step still as fast as it was? Run by hand on a quiet machine; no part of the tests or of CI.

    pip install --editable '.[bench]'
    python -m pytest benchmarks                                  about ten minutes on 2 cores
    python -m pytest benchmarks --benchmark-autosave             keep the figures in .benchmarks/
    python -m pytest benchmarks --benchmark-compare              beside those kept last
    python -m pytest benchmarks --benchmark-compare-fail=median:10%
    python -m pytest benchmarks --model mobilenetv2_tiny --image-size 64 --no-bounds

Times of two machines cannot be compared, so two figures that hardly depend on the machine are kept with every time and
have a lower bound: how many times as fast as the same network with stock convolutions (`plain`, what `nnx.Conv` calls)
our step is, and which share of the machine's ceilings it reaches: that of a large product in its precision for
operations, and that of a copy for bytes, whichever is higher. In bfloat16 the step is that of the native kernels, and
stock convolutions stay in float32, which is faster for them. Ceilings and stock convolutions are measured in the same
run, every program in a process of its own with the settings of the console entry point.
"""

from __future__ import annotations

import dataclasses
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("pytest_benchmark", reason="needs pytest-benchmark")

from cxr_jax.bench.cases import Case, Contest, Effort, Precision, Work
from cxr_jax.bench.children import ask_ceilings, start_case
from cxr_jax.bench.measure import Measurement, run_contest
from cxr_jax.bench.record import shares
from cxr_jax.models.kernels.native.library import why_not
from cxr_jax.process import available_cores
from cxr_jax.terminal import Terminal

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

EFFORT = Effort(rounds=3, steps=2, seconds=1.0, limit=600.0)
"""Of the contest with stock convolutions."""

ROUNDS = 15
"""Steps that pytest-benchmark times one by one."""


@dataclass(frozen=True)
class Bounds:
    """What a step must reach; well below what was seen, so that only a real loss falls under it."""

    times_as_fast_as_plain: float
    share_of_ceiling: float


BOUNDS: dict[tuple[Work, Precision], Bounds] = {
    ("train", "float32"): Bounds(5.0, 0.2),
    ("train", "bfloat16"): Bounds(15.0, 0.2),
    ("inference", "float32"): Bounds(3.0, 0.2),
    ("inference", "bfloat16"): Bounds(8.0, 0.2),
}


@pytest.fixture(scope="session")
def ceilings() -> dict[int, dict[str, float]]:
    """The machine's ceilings, by the number of cores: all of them."""
    return {available_cores(): ask_ceilings(available_cores())}


@pytest.fixture(params=BOUNDS, ids="-".join)
def case(request: pytest.FixtureRequest) -> Case:
    """The case that the options choose."""
    option, (work, precision) = request.config.getoption, request.param
    if precision == "bfloat16" and (reason := why_not()):
        pytest.skip(reason)
    sizes = option("--model"), option("--image-size"), option("--batch-size")
    return Case(*sizes, work, available_cores(), precision=precision)


def test_step(
    benchmark: BenchmarkFixture, case: Case, ceilings: dict[int, dict[str, float]], request: pytest.FixtureRequest
) -> None:
    """Time single steps; the ratio to stock convolutions comes from a contest in which both take turns."""
    measurements = run_contest(
        Contest(case, (dataclasses.replace(case, implementation="plain", precision="float32"),)),
        EFFORT,
        Terminal(quiet=True),
    )
    assert [measurement.error for measurement in measurements] == ["", ""]
    times_as_fast = statistics.median(measurements[1].of_rounds)

    with start_case(case, EFFORT) as child:
        benchmark.pedantic(child.ask, ({"steps": 1, "seconds": 0.0, "uncounted": 0},), rounds=ROUNDS, warmup_rounds=2)
        measurement = Measurement(case, child.facts, list(benchmark.stats.stats.data))
    reached = shares(measurement, ceilings)
    share = max(reached["share_of_matmul"], reached["share_of_copy"])
    benchmark.extra_info |= {
        "images_per_second": measurement.images_per_second,
        "times_as_fast_as_plain": times_as_fast,
        "compile_seconds": child.facts["compile_seconds"],
        **reached,
    }
    if not request.config.getoption("--no-bounds"):
        bounds = BOUNDS[case.work, case.precision]
        assert times_as_fast >= bounds.times_as_fast_as_plain
        assert share >= bounds.share_of_ceiling
