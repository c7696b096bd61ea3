"""A traced function of JAX as nodes of ONNX.

Activations [B, H, W, C] are stored channels first, as ONNX has its convolutions, from the image on: what a function
says of their axes is translated, so that nothing is transposed on the way. What depends on constants alone is computed
here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
import onnx
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal
from onnx import helper

from cxr_jax.errors import UserError
from cxr_jax.export.graph import Graph
from cxr_jax.models.kernels.platform import every_platform

CHANNELS_FIRST = (0, 3, 1, 2)
CHANNELS_LAST = (0, 2, 3, 1)


@dataclass(frozen=True)
class Stored:
    """A value that is known only when the model runs."""

    name: str
    shape: tuple[Any, ...]  # as JAX sees it; the size of a batch may be a symbol
    channels_first: bool = False  # the last of its four axes stands second

    def axis(self, axis: int) -> int:
        """Returns where an axis of JAX's stands."""
        return CHANNELS_FIRST.index(axis) if self.channels_first else axis


Value = np.ndarray | Stored

_SAME = ("copy", "copy_p", "stop_gradient", "optimization_barrier", "name", "reduce_precision")
_UNARY = {
    **{"exp": "Exp", "log": "Log", "tanh": "Tanh", "logistic": "Sigmoid", "neg": "Neg", "abs": "Abs"},
    **{"sqrt": "Sqrt", "erf": "Erf", "floor": "Floor", "ceil": "Ceil", "sign": "Sign"},
}
_BINARY = {
    **{"add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min"},
    "pow": "Pow",
}
_BY_NUMPY: dict[str, Callable[..., np.ndarray]] = {
    **{"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "neg": np.negative},
    **{"rsqrt": lambda value: 1 / np.sqrt(value), "sqrt": np.sqrt},
    **{"reshape": np.asarray, "squeeze": np.asarray, "convert_element_type": np.asarray},
}
_REDUCTIONS = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin"}
_CALLS = ("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "remat2", "checkpoint")


class Translation:
    """Translates one jaxpr after another into the nodes of one graph."""

    def __init__(self) -> None:
        """Begins with an empty graph."""
        self.graph = Graph()

    def run(self, jaxpr: ClosedJaxpr, arguments: Sequence[Value]) -> list[Value]:
        """Returns the results of `jaxpr` for `arguments`; raises UserError for an operation that has no translation."""
        return self._run(jaxpr.jaxpr, [np.asarray(value) for value in jaxpr.consts], arguments)

    def _run(self, jaxpr: Jaxpr, constants: Sequence[Value], arguments: Sequence[Value]) -> list[Value]:
        known: dict[Any, Value] = dict(zip(jaxpr.constvars, constants, strict=True))
        known |= dict(zip(jaxpr.invars, arguments, strict=True))

        def read(variable: Any) -> Value:
            return np.asarray(variable.val) if isinstance(variable, Literal) else known[variable]

        for equation in jaxpr.eqns:
            if equation.primitive.name == "platform_index":
                continue
            if equation.primitive.name == "cond" and equation.params.get("branches_platforms"):
                # what is fast on one platform is left out, what is right on all others is taken
                branch = equation.params["branches"][equation.params["branches_platforms"].index(None)]
                results = self.run(branch, [read(variable) for variable in equation.invars[1:]])
            else:
                results = self._equation(equation, [read(variable) for variable in equation.invars])
            known |= dict(zip(equation.outvars, results, strict=True))
        return [read(variable) for variable in jaxpr.outvars]

    def _equation(self, equation: Any, values: list[Value]) -> list[Value]:
        name = equation.primitive.name
        if name in _CALLS:
            inner = equation.params.get("call_jaxpr", equation.params.get("jaxpr"))
            return self.run(inner, values) if hasattr(inner, "consts") else self._run(inner, (), values)
        if name in _SAME:
            return values
        shapes = tuple(tuple(variable.aval.shape) for variable in equation.outvars)
        if not any(isinstance(value, Stored) for value in values):
            return [self._computed(equation, values, shapes[0])]
        translate = self._translations().get(name)
        if translate is None:
            raise _without_translation(name)
        return [translate(equation, values, shapes[0])]

    def _computed(self, equation: Any, values: list[Value], shape: tuple[Any, ...]) -> np.ndarray:
        """Returns what an equation gives of constants alone."""
        if equation.primitive.name == "broadcast_in_dim" and not all(isinstance(size, int) for size in shape):
            # the axis of the batch is left at 1, from which ONNX broadcasts by itself
            sizes = [1] * len(shape)
            for axis, size in zip(equation.params["broadcast_dimensions"], values[0].shape, strict=True):
                sizes[axis] = size
            return values[0].reshape(sizes)
        by_numpy = _BY_NUMPY.get(equation.primitive.name)
        # jax would compile a program for every shape
        computed = by_numpy(*values) if by_numpy else equation.primitive.bind(*values, **equation.params)
        return np.asarray(computed, equation.outvars[0].aval.dtype).reshape(shape)

    def _translations(self) -> dict[str, Callable[[Any, list[Value], tuple[Any, ...]], Stored]]:
        return {
            **dict.fromkeys(_UNARY, self._unary),
            **dict.fromkeys(_BINARY, self._binary),
            **dict.fromkeys(_REDUCTIONS, self._reduce),
            "square": lambda equation, values, shape: self._together("Mul", [values[0], values[0]], shape),
            "rsqrt": self._rsqrt,
            "integer_pow": self._integer_power,
            "clamp": self._clamp,
            "convert_element_type": self._cast,
            "broadcast_in_dim": self._broadcast,
            "reshape": self._reshape,
            "squeeze": self._squeeze,
            "transpose": self._transpose,
            "rev": self._reverse,
            "slice": self._slice,
            "pad": self._pad,
            "concatenate": self._concatenate,
            "dot_general": self._product,
            "conv_general_dilated": self._convolution,
            "reduce_window_max": self._pool,
            "reduce_window_sum": self._pool,
        }

    # what works value by value

    def _together(self, operator: str, values: Sequence[Value], shape: tuple[Any, ...]) -> Stored:
        """Returns the result of an operator on values that broadcast, stored as those are that are stored."""
        first = any(isinstance(value, Stored) and value.channels_first for value in values)
        names = [self.in_order(value, channels_first=first) for value in values]
        return Stored(self.graph.add(operator, names), shape, first)

    def in_order(self, value: Value, *, channels_first: bool) -> str:
        """Returns the name of a value with its channels where they are asked for."""
        if isinstance(value, np.ndarray):
            turned = value.transpose(CHANNELS_FIRST) if channels_first and value.ndim == 4 else value
            return self.graph.constant(np.ascontiguousarray(turned) if turned.ndim else turned)
        if value.channels_first == channels_first or len(value.shape) != 4:
            return value.name
        return self.graph.add("Transpose", [value.name], perm=CHANNELS_FIRST if channels_first else CHANNELS_LAST)

    def _unary(self, equation: Any, values: list[Value], shape: tuple[Any, ...]) -> Stored:
        return self._together(_UNARY[equation.primitive.name], values, shape)

    def _binary(self, equation: Any, values: list[Value], shape: tuple[Any, ...]) -> Stored:
        return self._together(_BINARY[equation.primitive.name], values, shape)

    def _rsqrt(self, equation: Any, values: list[Value], shape: tuple[Any, ...]) -> Stored:
        return self._together("Reciprocal", [self._together("Sqrt", values, shape)], shape)

    def _integer_power(self, equation: Any, values: list[Value], shape: tuple[Any, ...]) -> Stored:
        return self._together("Pow", [values[0], np.asarray(equation.params["y"], np.float32)], shape)

    def _clamp(self, equation: Any, values: list[Value], shape: tuple[Any, ...]) -> Stored:
        low, value, high = values
        if isinstance(low, Stored) or isinstance(high, Stored) or low.ndim or high.ndim:
            raise _without_translation("clamp between arrays")
        names = [value.name, self.graph.constant(low), self.graph.constant(high)]
        return Stored(self.graph.add("Clip", names), shape, value.channels_first)

    def _cast(self, equation: Any, values: list[Value], shape: tuple[Any, ...]) -> Stored:
        (value,) = values
        if equation.invars[0].aval.dtype == equation.params["new_dtype"]:
            return value
        to = helper.np_dtype_to_tensor_dtype(np.dtype(equation.params["new_dtype"]))
        return Stored(self.graph.add("Cast", [value.name], to=to), shape, value.channels_first)

    # what moves or adds axes

    def _broadcast(self, equation: Any, values: list[Value], shape: tuple[Any, ...]) -> Stored:
        (value,) = values
        kept = equation.params["broadcast_dimensions"]
        added = [axis for axis in range(len(shape)) if axis not in kept]
        is_repeated = any(shape[axis] != size for axis, size in zip(kept, value.shape, strict=True))
        if is_repeated or any(shape[axis] != 1 for axis in added):
            raise _without_translation("a value is repeated")
        if not added:
            return value
        # channels are put first as soon as there are four axes
        first = len(shape) == 4
        result = Stored("", shape, first)
        name = self.in_order(value, channels_first=False)
        if first and [axis for axis in CHANNELS_FIRST if axis in kept] != list(kept):
            return Stored(self.graph.add("Unsqueeze", [name, self.graph.constant(added)]), shape)
        axes = self.graph.constant(sorted(result.axis(axis) for axis in added))
        return Stored(self.graph.add("Unsqueeze", [name, axes]), shape, first)

    def _reshape(self, equation: Any, values: list[Value], shape: tuple[Any, ...]) -> Stored:
        (value,) = values
        if [size for size in value.shape if size != 1] == [size for size in shape if size != 1] and len(shape) == 4:
            # axes of length 1 are added or moved; channels stay where they are for ONNX
            name = self.in_order(value, channels_first=False)
            first = [shape[axis] for axis in CHANNELS_FIRST]
            if [size for size in first if size != 1] == [size for size in shape if size != 1]:
                return Stored(self.graph.add("Reshape", [name, self.graph.constant(_sizes(first))]), shape, True)
        name = self.in_order(value, channels_first=False)
        return Stored(self.graph.add("Reshape", [name, self.graph.constant(_sizes(shape))]), shape)

    def _squeeze(self, equation: Any, values: list[Value], shape: tuple[Any, ...]) -> Stored:
        (value,) = values
        axes = [value.axis(axis) for axis in equation.params["dimensions"]]
        left = [axis for axis in range(len(value.shape)) if axis not in equation.params["dimensions"]]
        if value.channels_first and sorted(left, key=value.axis) != left:
            value, axes = Stored(self.in_order(value, channels_first=False), value.shape), equation.params["dimensions"]
        return Stored(self.graph.add("Squeeze", [value.name, self.graph.constant(sorted(axes))]), shape)

    def _transpose(self, equation: Any, values: list[Value], shape: tuple[Any, ...]) -> Stored:
        name = self.in_order(values[0], channels_first=False)
        return Stored(self.graph.add("Transpose", [name], perm=equation.params["permutation"]), shape)

    def _reverse(self, equation: Any, values: list[Value], shape: tuple[Any, ...]) -> Stored:
        (value,) = values
        axes = [value.axis(axis) for axis in equation.params["dimensions"]]
        lowest = np.iinfo(np.int64).min
        bounds = [[-1] * len(axes), [lowest + 1] * len(axes), axes, [-1] * len(axes)]
        names = [value.name, *(self.graph.constant(bound) for bound in bounds)]
        return Stored(self.graph.add("Slice", names), shape, value.channels_first)

    def _slice(self, equation: Any, values: list[Value], shape: tuple[Any, ...]) -> Stored:
        (value,) = values
        steps = equation.params["strides"] or (1,) * len(shape)
        starts, limits = equation.params["start_indices"], equation.params["limit_indices"]
        cut = [
            (start, limit, value.axis(axis), step)
            for axis, (start, limit, step) in enumerate(zip(starts, limits, steps, strict=True))
            if (start, step) != (0, 1) or (limit is not value.shape[axis] and limit != value.shape[axis])
        ]
        if not cut:
            return value
        names = [value.name, *(self.graph.constant(column) for column in zip(*cut, strict=True))]
        return Stored(self.graph.add("Slice", names), shape, value.channels_first)

    def _pad(self, equation: Any, values: list[Value], shape: tuple[Any, ...]) -> Stored:
        value, fill = values
        widths = equation.params["padding_config"]
        if isinstance(fill, Stored) or any(inner or min(low, high) < 0 for low, high, inner in widths):
            raise _without_translation("cropping or spreading by pad")
        placed = sorted((value.axis(axis), low, high) for axis, (low, high, _) in enumerate(widths))
        pads = [low for _, low, _ in placed] + [high for _, _, high in placed]
        names = [value.name, self.graph.constant(pads), self.graph.constant(fill)]
        return Stored(self.graph.add("Pad", names), shape, value.channels_first)

    def _concatenate(self, equation: Any, values: list[Value], shape: tuple[Any, ...]) -> Stored:
        first = any(isinstance(value, Stored) and value.channels_first for value in values)
        names = [self.in_order(value, channels_first=first) for value in values]
        axis = Stored("", shape, first).axis(equation.params["dimension"])
        return Stored(self.graph.add("Concat", names, axis=axis), shape, first)

    # what adds up

    def _reduce(self, equation: Any, values: list[Value], shape: tuple[Any, ...]) -> Stored:
        (value,) = values
        kept = [axis for axis in range(len(value.shape)) if axis not in equation.params["axes"]]
        if value.channels_first and sorted(kept, key=value.axis) != kept:
            value = Stored(self.in_order(value, channels_first=False), value.shape)
        axes = self.graph.constant(sorted(value.axis(axis) for axis in equation.params["axes"]))
        operator = _REDUCTIONS[equation.primitive.name]
        return Stored(self.graph.add(operator, [value.name, axes], keepdims=0), shape)

    def _product(self, equation: Any, values: list[Value], shape: tuple[Any, ...]) -> Stored:
        left, right = values
        (contracted, batched) = equation.params["dimension_numbers"]
        last = (len(left.shape) - 1,)
        if batched != ((), ()) or contracted != (last, (0,)) or isinstance(right, Stored) or right.ndim != 2:
            raise _without_translation("a product of two activations")
        if len(left.shape) == 4:
            # a product over the channels is a convolution by one pixel
            kernel = self.graph.constant(np.ascontiguousarray(right.T[:, :, None, None]))
            names = [self.in_order(left, channels_first=True), kernel]
            return Stored(self.graph.add("Conv", names, kernel_shape=(1, 1)), shape, True)
        return Stored(self.graph.add("MatMul", [left.name, self.graph.constant(right)]), shape)

    def _convolution(self, equation: Any, values: list[Value], shape: tuple[Any, ...]) -> Stored:
        params = equation.params
        numbers = params["dimension_numbers"]
        told = (numbers.lhs_spec, numbers.rhs_spec, numbers.out_spec)
        value, kernel = values
        usual = told == ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)) and set(params["lhs_dilation"]) == {1}
        if not usual or isinstance(kernel, Stored):
            raise _without_translation("an unusual convolution")
        turned = self.graph.constant(np.ascontiguousarray(kernel.transpose(3, 2, 0, 1)))
        output = self.graph.add(
            "Conv",
            [self.in_order(value, channels_first=True), turned],
            kernel_shape=kernel.shape[:2],
            strides=params["window_strides"],
            dilations=params["rhs_dilation"],
            group=params["feature_group_count"],
            pads=_pads(params["padding"]),
        )
        return Stored(output, shape, True)

    def _pool(self, equation: Any, values: list[Value], shape: tuple[Any, ...]) -> Stored:
        params = equation.params
        window, value = params["window_dimensions"], values[0]
        plain = (len(window) == 4, window[0] == window[-1] == 1, set(params["window_dilation"]) == {1})
        if not all(plain) or set(params["base_dilation"]) != {1}:
            raise _without_translation("an unusual pooling")
        settings = {
            "kernel_shape": window[1:3],
            "strides": params["window_strides"][1:3],
            "pads": _pads(params["padding"][1:3]),
        }
        name = self.in_order(value, channels_first=True)
        if equation.primitive.name == "reduce_window_max":
            return Stored(self.graph.add("MaxPool", [name], **settings), shape, True)
        means = Stored(self.graph.add("AveragePool", [name], count_include_pad=1, **settings), shape, True)
        return self._together("Mul", [means, np.asarray(np.prod(window), np.float32)], shape)


def _without_translation(operation: str) -> UserError:
    return UserError(f"the network has an operation that cannot be exported yet: {operation}")


def _pads(padding: Sequence[tuple[int, int]]) -> list[int]:
    return [low for low, _ in padding] + [high for _, high in padding]


def _sizes(shape: Sequence[Any]) -> list[int]:
    """Returns a shape for ONNX; the size of the batch, a symbol, is -1."""
    return [size if isinstance(size, int) else -1 for size in shape]


def to_onnx(
    function: Callable[[jax.Array], dict[str, jax.Array]], image: jax.ShapeDtypeStruct, batch: str = "batch"
) -> onnx.ModelProto:
    """Returns a model of `function`, from images [B, S, S] uint8 to arrays by name, float32, for any size of the batch.

    Arrays of four axes, [B, H, W, C] in JAX, come out of the model as [B, C, H, W].

    Args:
        function: what is exported; it may look at the platform, of which the default is taken.
        image: shape and dtype of the batch, whose first axis is a symbol of `jax.export.symbolic_shape`.
        batch: what the batch's axis is called in the model.

    Raises:
        UserError: an operation of the function has no translation; it is named.
    """
    with every_platform(True):
        jaxpr, results = jax.make_jaxpr(function, return_shape=True)(image)
    translation = Translation()
    values = translation.run(jaxpr, [Stored("images", tuple(image.shape))])
    outputs = []
    for (name, result), value in zip(sorted(results.items()), values, strict=True):
        order = CHANNELS_FIRST if len(result.shape) == 4 else range(len(result.shape))
        shape = [size if isinstance(size, int) else batch for size in (result.shape[axis] for axis in order)]
        outputs.append((translation.in_order(value, channels_first=True), name, shape))
    sizes = [size if isinstance(size, int) else batch for size in image.shape]
    inputs = [helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, sizes)]
    return translation.graph.model(inputs, outputs)
