"""Which of several ways to compute the same is traced: the one for CPUs, or those for other platforms.

`jax.lax.platform_dependent` traces all, with their gradients, and keeps one of them when the program is lowered. Where
this process has CPUs alone, ours is the only one that can ever run, and to trace the other takes a third of the time of
tracing a step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

import jax
from jax import lax
from jax.extend.backend import backends

Operands = ParamSpec("Operands")
Result = TypeVar("Result")

every_platform = jax.make_user_context(False)
"""A context, entered by `every_platform(True)`, for what is traced here to be lowered for other platforms too."""


def chosen_by_platform(
    *operands: Operands.args,
    cpu: Callable[Operands, Result],
    default: Callable[Operands, Result],
    cuda: Callable[Operands, Result] | None = None,
) -> Result:
    """Returns what `cpu` makes of the operands where a program runs on a CPU, and what `default` does elsewhere.

    On NVIDIA's GPUs it is `cuda`, where that is given.
    """
    if every_platform.value or backends().keys() != {"cpu"}:
        return lax.platform_dependent(*operands, cpu=cpu, default=default, **({"cuda": cuda} if cuda else {}))
    return cpu(*operands)
