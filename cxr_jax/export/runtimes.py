"""Programs that run ONNX files, behind one signature."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cxr_jax.bundle.runtime import open_session
from cxr_jax.errors import UserError

RuntimeName = Literal["onnxruntime", "openvino"]
"""The two that `pip` brings; onnxruntime-web is that of the page."""

Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class RunningNetwork:
    """An ONNX file that answers."""

    runtime: str  # name and version
    logits: Callable[[np.ndarray], np.ndarray]  # [B, K] float32 of images [B, S, S] uint8 in 0..255


def run_in(runtime: RuntimeName, model: Path, *, threads: int = 0, precision: Precision = "float32") -> RunningNetwork:
    """Returns the network of an ONNX file, loaded by `runtime` on the CPU, on `threads` cores (0: on all).

    onnxruntime runs with all its optimisations (ENABLE_ALL, its default), OpenVINO with the hint of that precision.

    Raises:
        UserError: the runtime is not installed, or it does not know the precision.
    """
    return (_onnxruntime if runtime == "onnxruntime" else _openvino)(model, threads, precision)


def _onnxruntime(model: Path, threads: int, precision: Precision) -> RunningNetwork:
    if precision != "float32":
        raise UserError("onnxruntime computes a float32 file in float32; leave bfloat16 out for it")
    session = open_session(model, threads=threads)
    import onnxruntime  # it is there, since a session is

    def logits(images: np.ndarray) -> np.ndarray:
        return session.run(["logits"], {"images": np.ascontiguousarray(images)})[0]

    return RunningNetwork(f"onnxruntime {onnxruntime.__version__}", logits)


def _openvino(model: Path, threads: int, precision: Precision) -> RunningNetwork:
    # it would report its use to its makers over the network; without this module it does not
    sys.modules.setdefault("openvino_telemetry", None)
    try:
        import openvino
    except ImportError as error:
        raise UserError("OpenVINO is not installed: pip install openvino") from error
    hints = {"INFERENCE_PRECISION_HINT": "f32" if precision == "float32" else "bf16", "PERFORMANCE_HINT": "LATENCY"}
    if threads:
        hints["INFERENCE_NUM_THREADS"] = str(threads)
    compiled = openvino.Core().compile_model(model, "CPU", hints)

    def logits(images: np.ndarray) -> np.ndarray:
        return compiled({"images": np.ascontiguousarray(images)})["logits"]

    return RunningNetwork(f"OpenVINO {openvino.__version__.split('-')[0]}", logits)


def installed_runtimes() -> tuple[RuntimeName, ...]:
    """Returns those that can be imported here; nothing is imported for it."""
    from importlib.util import find_spec

    return tuple(name for name in ("onnxruntime", "openvino") if find_spec(name) is not None)
