"""Which of two ways to compute the same is traced: the one for CPUs, or the one for every other platform.

`jax.lax.platform_dependent` traces both, with their gradients, and leaves one out when the program is lowered. Where
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
    *operands: Operands.args, cpu: Callable[Operands, Result], default: Callable[Operands, Result]
) -> Result:
    """Returns what `cpu` makes of the operands where a program runs on a CPU, and what `default` does elsewhere."""
    if every_platform.value or backends().keys() != {"cpu"}:
        return lax.platform_dependent(*operands, cpu=cpu, default=default)
    return cpu(*operands)
