"""A bundle whose network has a known answer for every image: its logit of PNEUMONIA is (mean grey level - 128) / 32."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from onnx import TensorProto, helper

from cxr_jax.bundle.record import Call, UsualRange
from cxr_jax.bundle.scores import Scores
from cxr_jax.vocabulary import FINDINGS, Kind
from tests.serving.onnx_bundles import write_onnx_bundle

SIZE = 32

FILMS = "This network learned from flat squares, and is for squares like those."


def film(level: int, width: int = 40, height: int = 32, kind: str = ".png") -> bytes:
    """A flat grey image."""
    return cv2.imencode(kind, np.full((height, width), level, np.uint8))[1].tobytes()


def probability(level: float) -> float:
    """What the network says of `film(level)`."""
    return 1 / (1 + float(np.exp(-(level - 128) / 32)))


def write_mean_bundle(folder: Path, *, work: int = 0, scores: Scores | None = None) -> Path:
    """Writes the bundle; with `work` every batch also takes a product of two matrices of that size."""
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
    constants = {
        "sides": np.array([1, 2], np.int64),
        "last": np.array([1], np.int64),
        "middle": np.float32(128),
        "width": np.float32(32),
        "none": np.float32(0),
    }
    if work:
        nodes += [
            helper.make_node("ReduceSum", ["healthy"], ["zero"], keepdims=0),
            helper.make_node("Expand", ["zero", "square"], ["matrix"]),
            helper.make_node("MatMul", ["matrix", "matrix"], ["product"]),
            helper.make_node("ReduceSum", ["product"], ["still_zero"], keepdims=0),
            helper.make_node("Add", ["columns", "still_zero"], ["logits"]),
        ]
        constants["square"] = np.array([work, work], np.int64)
    else:
        nodes.append(helper.make_node("Identity", ["columns"], ["logits"]))
    nodes.append(helper.make_node("Softmax", ["logits"], ["probability"], axis=1))
    folder.mkdir(parents=True)
    return write_onnx_bundle(
        folder,
        "mean",
        nodes,
        constants,
        {"logits": [2], "probability": [2], "evidence": [2, SIZE // 8, SIZE // 8]},
        side=SIZE,
        resize="squash",
        name="flat",
        calls=(Call("PNEUMONIA", 0.5, "youden", 0.9, 0.8, 200),),
        temperature=1.0,
        quality=(UsualRange("mean", "Mean brightness", 50.0, 250.0),),
        training_images=1000,
        step=1,
        date="2026-11-26",
        scores=scores,
        films=FILMS,
    )


def write_other_bundle(folder: Path, classes: tuple[str, ...], kind: Kind, calls: tuple[Call, ...] = ()) -> Path:
    """Writes the bundle of a network of other classes.

    Its logit of class k is (mean grey level - 128) / 32 * (1 - k), and its evidence the grey levels in 4 x 4 cells.
    """
    nodes = [
        helper.make_node("Cast", ["images"], ["grey"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["grey", "sides"], ["mean"], keepdims=0),
        helper.make_node("Sub", ["mean", "middle"], ["centred"]),
        helper.make_node("Unsqueeze", ["centred", "last"], ["column"]),
        helper.make_node("Mul", ["column", "slopes"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probability"])
        if kind == FINDINGS
        else helper.make_node("Softmax", ["logits"], ["probability"], axis=1),
        helper.make_node("Unsqueeze", ["grey", "last"], ["one_channel"]),
        helper.make_node("AveragePool", ["one_channel"], ["pooled"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Concat", ["pooled"] * len(classes), ["evidence"], axis=1),
    ]
    constants = {
        "sides": np.array([1, 2], np.int64),
        "last": np.array([1], np.int64),
        "middle": np.float32(128),
        "slopes": np.array([[(1 - place) / 32 for place in range(len(classes))]], np.float32),
    }
    folder.mkdir(parents=True)
    return write_onnx_bundle(
        folder,
        "mean",
        nodes,
        constants,
        {"logits": [len(classes)], "probability": [len(classes)], "evidence": [len(classes), SIZE // 8, SIZE // 8]},
        side=SIZE,
        resize="squash",
        classes=classes,
        kind=kind,
        name="other",
        calls=calls,
        temperature=None,
        quality=(UsualRange("mean", "Mean brightness", 50.0, 250.0),),
        training_images=1000,
        step=1,
        date="2026-11-26",
        films=FILMS,
    )
