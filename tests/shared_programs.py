"""Programs that tests of whole runs share: to trace and load one takes longer than all that a tiny run does."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import pytest

from cxr_jax.config.schema import ValidationConfig
from cxr_jax.devices import shapes_of
from cxr_jax.inference import restore
from cxr_jax.inference.forward import ForwardProgram
from cxr_jax.training import run
from cxr_jax.training.compile import CompiledStep
from cxr_jax.training.feed import Feed, HostFeed
from cxr_jax.training.network import Network
from cxr_jax.training.plan import Phase, Plan
from cxr_jax.training.state import TrainState

_KEPT: dict[Any, Any] = {}
_USED = [
    (run, "compile_train_step"),
    (run, "compile_classifier"),
    (run, "compile_on_images"),
    (restore, "compile_on_images"),
]
_ANEW = [getattr(*used) for used in _USED]


def share_programs(patch: pytest.MonkeyPatch) -> None:
    """Has runs and restored networks take a program again that was compiled in this process for the same plan and
    shapes.
    """
    for (user, name), compile_one in zip(_USED, _ANEW, strict=True):
        shared = _shared_step(compile_one) if name == "compile_train_step" else _shared_forward(name, compile_one)
        patch.setattr(user, name, shared)


def compile_anew(patch: pytest.MonkeyPatch) -> None:
    """Has them compile their own programs, for a test that counts these or changes what is traced."""
    for (user, name), compile_one in zip(_USED, _ANEW, strict=True):
        patch.setattr(user, name, compile_one)


def _shared_step(compile_one: Callable[..., CompiledStep]) -> Callable[..., CompiledStep]:
    def compile_train_step(
        plan: Plan, network: Network, phase: Phase, state: TrainState, feed: Feed, *, first_step: int = 0
    ) -> CompiledStep:
        if not isinstance(feed, HostFeed):
            # what it has put on the devices belongs to its program
            return compile_one(plan, network, phase, state, feed, first_step=first_step)
        planned = {
            field.name: getattr(part, field.name)
            for part in (plan, phase)
            for field in dataclasses.fields(part)
            # the functions follow from the config and the iterations, and what is validated from no step
            if field.name not in ("config", "phases", "schedule", "optimizer")
        }
        config = dataclasses.replace(plan.config, validation=ValidationConfig())
        shapes = _described((state, feed.shapes(plan.config.training.batch_size)))
        key = (repr((config, phase.config, planned, network.mean, network.std, first_step)), network.graphdef, shapes)
        if key not in _KEPT:
            _KEPT[key] = compile_one(plan, network, phase, state, feed, first_step=first_step)
        return _KEPT[key]

    return compile_train_step


def _shared_forward(name: str, compile_one: Callable[..., ForwardProgram]) -> Callable[..., ForwardProgram]:
    def compile_forward(*given: Any, **how: Any) -> ForwardProgram:
        *answer, graphdef, params, batch_stats = given
        options = {}
        if answer and isinstance(answer[0], functools.partial):
            options, answer = answer[0].keywords, [answer[0].func]
        if not all(isinstance(value, str) for value in options.values()):
            # arrays become constants of the program
            return compile_one(*given, **how)
        key = (name, *answer, graphdef, _described((params, batch_stats)), repr((options, how)))
        if key not in _KEPT:
            _KEPT[key] = compile_one(*given, **how)
        return _KEPT[key]

    return compile_forward


def _described(tree: Any) -> str:
    """The shapes and types of all arrays of `tree`, and where they stand in it."""
    return str(jax.tree.map(lambda leaf: (leaf.shape, str(leaf.dtype)), shapes_of(tree)))
