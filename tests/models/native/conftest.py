"""The kernels as a program of their own, for every processor that they are written for."""

import pytest

from .kernel_program import KernelProgram
from .kernel_targets import SLOW_TARGETS, TARGETS


@pytest.fixture(
    scope="module",
    params=[*TARGETS, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_TARGETS)],
)
def program(request):
    target = (TARGETS | SLOW_TARGETS)[request.param]
    if reason := target.why_not():
        pytest.skip(reason)
    running = KernelProgram(target, threads=3)
    yield running
    running.close()
