"""Options of the benchmark suite: which network, how large."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a small machine, or somebody in a hurry, measure something smaller."""
    group = parser.getgroup("cxr_jax")
    group.addoption("--model", default="mobilenetv2_100")
    group.addoption("--image-size", type=int, default=224)
    group.addoption("--batch-size", type=int, default=32)
    group.addoption("--no-bounds", action="store_true", help="measure only; no figure is too low")
