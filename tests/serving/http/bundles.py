"""A bundle whose network has a known answer for every image: its logit of PNEUMONIA is (mean grey level - 128) / 32."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper

from cxr_jax.bundle.record import ONNX_FILE, Bundle, Call, UsualRange, content_of, write_bundle
from cxr_jax.bundle.scores import Scores
from cxr_jax.runs.description import NetworkDescription
from cxr_jax.vocabulary import CLASS_NAMES

SIZE = 32


def film(level: int, width: int = 40, height: int = 32, kind: str = ".png") -> bytes:
    """A flat grey image."""
    return cv2.imencode(kind, np.full((height, width), level, np.uint8))[1].tobytes()


def probability(level: float) -> float:
    """What the network says of `film(level)`."""
    return 1 / (1 + float(np.exp(-(level - 128) / 32)))


def write_mean_bundle(folder: Path, *, work: int = 0, scores: Scores | None = None) -> Path:
    """Writes the bundle; with `work` every batch also takes a product of two matrices of that size."""
    folder.mkdir(parents=True)
    (folder / ONNX_FILE).write_bytes(_network(work).SerializeToString())
    description = NetworkDescription(
        architecture="mean",
        classes=CLASS_NAMES,
        image_size=SIZE,
        resize="squash",
        interpolation="area",
        mean=(0.5,),
        std=(0.5,),
        weights="",
        weights_sha256="",
        parameters=0,
    )
    bundle = Bundle(
        name="flat",
        kind="exclusive",
        network=description,
        calls=(Call("PNEUMONIA", 0.5, "youden", 0.9, 0.8, 200),),
        temperature=1.0,
        quality=(UsualRange("mean", "Mean brightness", 50.0, 250.0),),
        training_images=1000,
        step=1,
        checkpoint="best",
        checkpoint_sha256="",
        data_fingerprint="",
        software={},
        date="2026-11-26",
        files=(content_of(folder / ONNX_FILE),),
        scores=scores,
    )
    write_bundle(folder, bundle)
    return folder


def _network(work: int) -> onnx.ModelProto:
    def constant(name: str, value: object, kind: type = np.float32) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array(np.array(value, kind), name)

    nodes = [
        helper.make_node("Cast", ["images"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["grey", "sides"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "middle"], ["centred"]),
        helper.make_node("Div", ["centred", "width"], ["ill"]),
        helper.make_node("Mul", ["mean", "none"], ["healthy"]),
        helper.make_node("Unsqueeze", ["healthy", "last"], ["first_column"]),
        helper.make_node("Unsqueeze", ["ill", "last"], ["second_column"]),
        helper.make_node("Concat", ["first_column", "second_column"], ["columns"], axis=1),
        helper.make_node("Unsqueeze", ["grey", "last"], ["one_channel"]),
        helper.make_node("AveragePool", ["one_channel"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Concat", ["pooled", "pooled"], ["evidence"], axis=1),
    ]
    constants = [
        constant("sides", [1, 2], np.int64),
        constant("last", [1], np.int64),
        constant("middle", 128),
        constant("width", 32),
        constant("none", 0),
    ]
    if work:
        nodes += [
            helper.make_node("ReduceSum", ["healthy"], ["zero"], keepdims=0),
            helper.make_node("Expand", ["zero", "square"], ["matrix"]),
            helper.make_node("MatMul", ["matrix", "matrix"], ["product"]),
            helper.make_node("ReduceSum", ["product"], ["still_zero"], keepdims=0),
            helper.make_node("Add", ["columns", "still_zero"], ["logits"]),
        ]
        constants.append(constant("square", [work, work], np.int64))
    else:
        nodes.append(helper.make_node("Identity", ["columns"], ["logits"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["probability"], axis=1))
    values = {"logits": ["batch", 2], "probability": ["batch", 2], "evidence": ["batch", 2, SIZE // 8, SIZE // 8]}
    graph = helper.make_graph(
        nodes,
        "mean",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIZE, SIZE])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
