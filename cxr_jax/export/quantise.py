"""The network of a bundle in whole numbers of 8 bits, by onnxruntime's static quantisation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cxr_jax.data.progress import Waiting, unseen

CALIBRATION_IMAGES = 200
"""Training images from which the ranges of all activations are taken."""


def quantise(source: Path, target: Path, images: np.ndarray, *, waiting: Waiting = unseen) -> None:
    """Writes the ONNX file `source` to `target` with 8-bit weights, a scale for each channel, and 8-bit activations.

    The ranges of the activations are those on `images`, uint8 [N, S, S] in 0..255, which should be of training
    (onnxruntime's `quantize_static`, entries QuantizeLinear and DequantizeLinear around each convolution). What is done
    to an image before the first convolution, and the map and the logits after the last, stay in float32.
    """
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        """Hands over one image after the other, as the quantiser asks for them."""

        def __init__(self) -> None:
            self._rest: Iterator[np.ndarray] = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self._rest, None)
            return None if image is None else {"images": image[None]}

    prepared = target.with_suffix(".prepared.onnx")
    quant_pre_process(source, prepared, skip_symbolic_shape=True)
    convolutions = [node.name for node in onnx.load(prepared).graph.node if node.op_type == "Conv"]
    with waiting(f"Writing {target.name}, its ranges from {len(images)} training images"):
        quantize_static(
            prepared,
            target,
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_quantize=convolutions,
            calibrate_method=CalibrationMethod.MinMax,
        )
    prepared.unlink()
