"""How large an architecture is: its parameters, and the work of one image."""

from __future__ import annotations

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from cxr_jax.models.registry import find_architecture, model_shapes
from cxr_jax.models.state import ArrayDict, merge_model


@dataclass(frozen=True)
class Size:
    """What a network costs."""

    parameters: int
    multiply_adds: float  # of the forward pass of one image


def measure(name: str, *, classes: int, image_size: int | None = None, until: str = "") -> Size:
    """Returns the size of the network `name` for `classes` classes and square images, by default of its own
    `image_size`; with `until` that of its first stages, as `build_model` cuts it.

    Multiply-adds are half of the floating-point operations that XLA's cost analysis counts in the program before
    optimisation, with plain convolutions. Nothing is compiled. Raises UserError for an unknown name.
    """
    side = image_size or find_architecture(name).image_size
    graphdef, params, batch_stats = model_shapes(name, classes=classes, lowering="plain", until=until)

    def forward(params: ArrayDict, batch_stats: ArrayDict, images: jax.Array) -> jax.Array:
        return merge_model(graphdef, params, batch_stats)(images)

    images = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    costs = jax.jit(forward).lower(params, batch_stats, images).cost_analysis()
    return Size(parameters=sum(math.prod(value.shape) for value in params.values()), multiply_adds=costs["flops"] / 2)
