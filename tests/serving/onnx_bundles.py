"""Exported networks that are written node by node, so that their answers are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from cxr_jax.bundle.record import ONNX_FILE, Bundle, content_of, write_bundle
from cxr_jax.runs.description import NetworkDescription
from cxr_jax.vocabulary import CLASS_NAMES, EXCLUSIVE, Kind


def write_onnx_bundle(
    folder: Path,
    architecture: str,
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, np.ndarray],
    outputs: Mapping[str, Sequence[int]],
    *,
    side: int,
    resize: str,
    classes: tuple[str, ...] = CLASS_NAMES,
    kind: Kind = EXCLUSIVE,
    **told: Any,
) -> Path:
    """Writes the bundle of a network of `nodes`, and returns its folder.

    Args:
        folder: of the bundle, which exists.
        architecture: what the network is called.
        nodes: from `images`, uint8 [B, side, side], to the outputs.
        constants: what the nodes read besides, by name.
        outputs: shapes of what the network answers, float32, without their first axis.
        side: of its images, in pixels.
        resize: how a radiograph becomes such an image.
        classes: of the network.
        kind: of the classes.
        told: what bundle.json says of this network.
    """
    graph = helper.make_graph(
        nodes,
        architecture,
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", side, side])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *shape]) for name, shape in outputs.items()],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    (folder / ONNX_FILE).write_bytes(model.SerializeToString())
    description = NetworkDescription(
        architecture=architecture,
        classes=classes,
        kind=kind,
        image_size=side,
        resize=resize,
        interpolation="area",
        mean=(0.5,),
        std=(0.5,),
        weights="",
        weights_sha256="",
        parameters=0,
    )
    bundle = Bundle(
        kind=kind,
        network=description,
        checkpoint="best",
        checkpoint_sha256="",
        data_fingerprint="",
        software={},
        files=(content_of(folder / ONNX_FILE),),
        **told,
    )
    write_bundle(folder, bundle)
    return folder
