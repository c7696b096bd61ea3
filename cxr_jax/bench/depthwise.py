"""The depthwise convolution by itself: every layer of a network, every lowering, against the bytes that it must move.

Whether a grouped convolution's gradients are fast on a GPU has been doubted for years (jax#13800), and a whole step
does not show it. A depthwise convolution does so little arithmetic that its floor is the time of reading its operands
and writing its result once, at the measured speed of a copy.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from cxr_jax.bench.cases import DepthwiseCase
from cxr_jax.bench.ceilings import fastest
from cxr_jax.models.kernels.depthwise import Padding, grouped_depthwise, shifted_depthwise
from cxr_jax.models.registry import model_shapes
from cxr_jax.models.state import merge_model
from cxr_jax.vocabulary import CLASS_NAMES

LOWERINGS = {"grouped": grouped_depthwise, "shifted": shifted_depthwise}
DIRECTIONS = ("forward", "input_gradient", "weight_gradient")

ON_ACCELERATORS = 8
"""Runs of an operation in one program, and programs queued: a launch takes longer than the smallest layers."""


@dataclass(frozen=True)
class Layer:
    """One depthwise convolution."""

    height: int  # of the input
    width: int
    channels: int
    window: int
    stride: int
    padding: Padding

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width of the output."""
        height, width = (
            (size + sum(pad) - self.window) // self.stride + 1
            for size, pad in zip((self.height, self.width), self.padding, strict=True)
        )
        return height, width

    def floor_bytes(self, batch_size: int, itemsize: int) -> int:
        """What each direction must move, the same for all three.

        Forward reads the input and writes the output, the input's gradient the other way round, and the weight's
        gradient reads both.
        """
        height, width = self.output_size
        return batch_size * self.channels * itemsize * (self.height * self.width + height * width)


def depthwise_layers(model: str, image_size: int) -> dict[Layer, int]:
    """How often the network holds each depthwise convolution, first to last; UserError for an unknown model."""
    graphdef, params, batch_stats = model_shapes(model, classes=len(CLASS_NAMES), lowering="plain")

    def logits(params: dict, batch_stats: dict, images: Array) -> Array:
        return merge_model(graphdef, params, batch_stats)(images)

    images = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    layers: Counter[Layer] = Counter()
    for equation in _equations(jax.make_jaxpr(logits)(params, batch_stats, images).jaxpr):
        if equation.primitive.name == "conv_general_dilated" and equation.params["feature_group_count"] > 1:
            x, kernel = (variable.aval.shape for variable in equation.invars)
            padding = tuple(tuple(pair) for pair in equation.params["padding"])
            layers[Layer(*x[1:], kernel[0], equation.params["window_strides"][0], padding)] += 1
    return dict(layers)


def measure_depthwise(case: DepthwiseCase, copy_bytes: float) -> Iterator[dict[str, Any]]:
    """Yield a row, ready for JSON, for every layer and lowering, as soon as it is measured on the first device.

    `copy_bytes` is the ceiling of a copy, in bytes read and written a second. A row has the seconds of each direction,
    or an `error` where a lowering fails.
    """
    dtype = jnp.dtype(case.precision)
    for layer, count in depthwise_layers(case.model, case.image_size).items():
        floor = layer.floor_bytes(case.batch_size, dtype.itemsize) / copy_bytes
        for lowering, convolution in LOWERINGS.items():
            row = {
                "layer": f"{layer.height} x {layer.width} x {layer.channels}, stride {layer.stride}",
                "count": count,
                "lowering": lowering,
                "floor_seconds": floor,
            }
            try:
                yield row | {"seconds": _seconds(layer, convolution, case.batch_size, dtype)}
            except jax.errors.JaxRuntimeError as error:
                yield row | {"error": " ".join(str(error).split())[:300]}


def repeated(operation: Callable[..., Array], times: int) -> Callable[..., Array]:
    """A function with the last result of `operation` carried out `times` times, one after the other.

    The first element of each result takes the place of that of the first operand, so that every run needs the one
    before; and each result goes round the loop, so that all of it is written.
    """
    if times == 1:
        # XLA:CPU is slow with a convolution inside a loop (jax#12868)
        return operation

    def again(operands: tuple[Array, ...]) -> tuple[tuple[Array, ...], Array]:
        result = operation(*operands)
        first = (0,) * result.ndim
        changed = lax.dynamic_update_slice(operands[0], result[first].reshape((1,) * operands[0].ndim), first)
        return (changed, *operands[1:]), result

    def program(*operands: Array) -> Array:
        carry = again(operands)
        return lax.fori_loop(1, times, lambda _, carry: again(carry[0]), carry)[1]

    return program


def _seconds(layer: Layer, convolution: Callable, batch_size: int, dtype: jnp.dtype) -> dict[str, float]:
    """Seconds of each direction."""
    times = 1 if jax.devices()[0].platform == "cpu" else ON_ACCELERATORS
    convolve = functools.partial(convolution, stride=layer.stride, padding=layer.padding)
    shapes = {
        "x": (batch_size, layer.height, layer.width, layer.channels),
        "kernel": (layer.window, layer.window, 1, layer.channels),
        "gradient": (batch_size, *layer.output_size, layer.channels),
    }
    keys = jax.random.split(jax.random.key(0), len(shapes))
    arrays = {name: jax.random.normal(key, shapes[name]).astype(dtype) for key, name in zip(keys, shapes, strict=True)}
    # a gradient of a linear function does not depend on where it is taken
    x, kernel = jnp.zeros(shapes["x"], dtype), jnp.zeros(shapes["kernel"], dtype)
    operations: dict[str, tuple[Callable[..., Array], str, str]] = {
        "forward": (lambda kernel, x: convolve(x, kernel), "kernel", "x"),
        "input_gradient": (lambda kernel, g: jax.vjp(lambda x: convolve(x, kernel), x)[1](g)[0], "kernel", "gradient"),
        "weight_gradient": (lambda g, x: jax.vjp(lambda k: convolve(x, k), kernel)[1](g)[0], "gradient", "x"),
    }
    seconds = {}
    for direction in DIRECTIONS:
        operation, *operands = operations[direction]
        program = jax.jit(repeated(operation, times))
        seconds[direction] = fastest(program, *(arrays[name] for name in operands), queued=times) / times
    return seconds


def _equations(jaxpr: Any) -> Iterator[Any]:
    """All equations of a jaxpr, those of the jaxprs inside it too."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)
