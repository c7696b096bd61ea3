"""A graph of ONNX while it is built: nodes, constants and names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

OPSET = 18


@dataclass
class Graph:
    """Nodes in the order in which they run, and the constants that they read."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)

    def add(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Adds a node with one output; returns the output's name."""
        output = self._name(operator.lower())
        self.nodes.append(helper.make_node(operator, list(inputs), [output], output, **attributes))
        return output

    def constant(self, value: np.ndarray | Sequence[int]) -> str:
        """Adds a constant, int64 if it is a sequence of numbers; returns its name."""
        array = value if isinstance(value, np.ndarray) else np.asarray(value, np.int64)
        name = self._name("constant")
        self.constants[name] = array
        return name

    def _name(self, kind: str) -> str:
        self._counts[kind] += 1
        return f"{kind}_{self._counts[kind]}"

    def _fold_affine(self) -> None:
        """Folds factors and offsets of channels that follow a convolution into its kernel and bias (BatchNorm's)."""
        readers = Counter(name for node in self.nodes for name in node.input)
        position = {node.output[0]: index for index, node in enumerate(self.nodes)}
        taken: dict[str, str] = {}  # outputs that are now those of a convolution
        kept: list[onnx.NodeProto] = []
        for node in self.nodes:
            node.input[:] = [taken.get(name, name) for name in node.input]
            source, values = self._affine_of(node)
            convolution = self.nodes[position[source]] if source in position else None
            if convolution is None or convolution.op_type != "Conv" or readers[source] > 1:
                kept.append(node)
                continue
            self._fold(convolution, node.op_type, values)
            taken[node.output[0]] = source
            readers[source] = readers[node.output[0]]
        self.nodes = kept
        self._drop_unread()

    def _affine_of(self, node: onnx.NodeProto) -> tuple[str, np.ndarray]:
        """Returns what a node multiplies by, or adds to, constants of the channels; an empty name if it does not."""
        if node.op_type in ("Mul", "Add", "Sub"):
            for source, other in ((0, 1), (1, 0)):
                values = self.constants.get(node.input[other])
                if values is None or node.input[source] in self.constants or (node.op_type == "Sub" and source):
                    continue
                if values.ndim == 0 or (values.ndim == 4 and values.size == values.shape[1]):
                    return node.input[source], values.reshape(-1)
        return "", np.zeros(0)

    def _fold(self, convolution: onnx.NodeProto, operator: str, values: np.ndarray) -> None:
        kernel = self.constants[convolution.input[1]]
        has_bias = len(convolution.input) == 3
        bias = self.constants[convolution.input[2]] if has_bias else np.zeros(len(kernel), kernel.dtype)
        if operator == "Mul":
            kernel, bias = kernel * values.reshape(-1, 1, 1, 1), bias * values
        else:
            bias = bias + values if operator == "Add" else bias - values
        convolution.input[1:] = [self.constant(kernel), self.constant(bias)]

    def _drop_unread(self) -> None:
        read = {name for node in self.nodes for name in node.input}
        self.constants = {name: value for name, value in self.constants.items() if name in read}

    def model(
        self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[tuple[str, str, Sequence[int | str]]]
    ) -> onnx.ModelProto:
        """Returns the checked model whose `outputs` are internal name, name to the outside and shape, all float32."""
        for internal, name, _ in outputs:
            self.nodes.append(helper.make_node("Identity", [internal], [name], name))
        self._fold_affine()
        infos = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for _, name, shape in outputs]
        constants = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(self.nodes, "cxr_jax", inputs, infos, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="cxr_jax")
        # the oldest format that has this opset, so that older runtimes read it too
        model.ir_version = helper.find_min_ir_version_for(model.opset_import)
        onnx.checker.check_model(model, full_check=True)
        return model
