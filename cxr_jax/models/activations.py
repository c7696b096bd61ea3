"""The activations of the networks, and which of them the native kernels have built in."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array, lax

Activation = Callable[[Array], Array]


def relu(x: Array) -> Array:
    """Returns max(x, 0); its gradient is 0 at 0, as in torch."""
    return jax.nn.relu(x)


def relu6(x: Array) -> Array:
    """Returns min(max(x, 0), 6), the activation of MobileNetV2 (Sandler et al. 2018)."""
    # as in torch the gradient is 0 at 0 and at 6; that of jnp.clip would be a half, and slower
    return lax.clamp(jnp.zeros((), x.dtype), x, jnp.full((), 6, x.dtype))


def silu(x: Array) -> Array:
    """Returns x * sigmoid(x), the activation of EfficientNetV2 (Tan and Le 2021)."""
    return x * jax.nn.sigmoid(x)


def identity(x: Array) -> Array:
    """Returns `x`: no activation."""
    return x


NATIVE_ACTIVATIONS: dict[Activation, str] = {identity: "none", relu6: "relu6", silu: "silu", relu: "relu"}
"""The names of activations that the native kernels have built in."""


def native_activation(activation: Activation) -> tuple[str, Activation]:
    """Returns the name by which the native kernels are to activate, and what is left to do behind them."""
    name = NATIVE_ACTIVATIONS.get(activation)
    return ("none", activation) if name is None else (name, identity)
