"""The network of a bundle with weights of half precision: half as large a file, and all arithmetic in float32."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from cxr_jax.errors import UserError

SMALLEST = 1024
"""Numbers that a constant must hold to be rounded: kernels, that is; biases and scales cost little room."""


def in_half_precision(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns a copy of a model whose large float32 constants are stored as float16, each with a cast back to float32.

    A runtime casts them once, when it loads the model, and computes with the rounded weights as it does with others.

    Raises:
        UserError: a weight is too large for half precision.
    """
    halved = onnx.ModelProto()
    halved.CopyFrom(model)
    graph = halved.graph
    constants, casts = [], []
    for constant in graph.initializer:
        values = numpy_helper.to_array(constant)
        if values.dtype != np.float32 or values.size < SMALLEST:
            constants.append(constant)
            continue
        with np.errstate(over="ignore"):
            rounded = values.astype(np.float16)
        if not np.isfinite(rounded).all():
            highest = np.finfo(np.float16).max
            raise UserError(
                f"the network has a weight of {np.abs(values).max():.3g}, and half precision ends at {highest:,.0f}: "
                "export it without --half"
            )
        name = f"{constant.name}_half"
        constants.append(numpy_helper.from_array(rounded, name))
        casts.append(
            helper.make_node("Cast", [name], [constant.name], f"cast_{constant.name}", to=onnx.TensorProto.FLOAT)
        )
    nodes = list(graph.node)
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(constants)
    graph.node.extend([*casts, *nodes])
    onnx.checker.check_model(halved, full_check=True)
    return halved
