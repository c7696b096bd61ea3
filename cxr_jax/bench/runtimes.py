"""Inference by programs that do nothing else, on the ONNX file of our own network."""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax import export

from cxr_jax.bench.cases import Case
from cxr_jax.bench.workload import DISTINCT_BATCHES, Workload, noise_images
from cxr_jax.config.schema import ModelConfig
from cxr_jax.errors import UserError
from cxr_jax.export.from_jaxpr import to_onnx
from cxr_jax.export.runtimes import run_in
from cxr_jax.models.state import merge_model
from cxr_jax.preprocessing.normalise import normalise
from cxr_jax.training.network import build_network


def prepare(case: Case) -> Workload:
    """Returns the inference of `case` in onnxruntime or OpenVINO, on the CPU.

    The network is that of our own case, as `cxr-jax export` writes it: uint8 grey images are the input, normalisation
    is inside, BatchNorm is folded. Raises UserError if the runtime is missing, or does not know the precision.
    """
    if case.implementation not in ("onnxruntime", "openvino"):
        raise ValueError(f"{case.implementation} is no runtime of ONNX files")
    try:
        import onnx  # noqa: F401
    except ImportError as error:
        raise UserError("--against a runtime of ONNX files needs onnx: pip install 'cxr-jax[runtimes]'") from error
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(onnx_of(case))
        network = run_in(case.implementation, path, threads=case.threads, precision=case.precision)
    images = noise_images(DISTINCT_BATCHES * case.batch_size, case.image_size).images
    batches = itertools.cycle(np.split(images, DISTINCT_BATCHES))
    name, version = network.runtime.split()
    facts = {
        "platform": "cpu",
        "device": "cpu",
        "devices": 1,
        "products": case.precision,
        "versions": {name.lower(): version},
        "compile_seconds": time.perf_counter() - began,
    }
    return Workload(lambda: network.logits(next(batches)), facts, lambda: None)


def onnx_of(case: Case) -> bytes:
    """Returns our network with random weights as an ONNX file that answers with logits."""
    network = build_network(ModelConfig(name=case.model), seed=0)
    model = merge_model(network.graphdef, network.params, network.batch_stats)

    def answers(images: jax.Array) -> dict[str, jax.Array]:
        return {"logits": model(normalise(images, network.mean, network.std))}

    (batch,) = export.symbolic_shape("batch")
    size = case.image_size
    return to_onnx(answers, jax.ShapeDtypeStruct((batch, size, size), jnp.uint8)).SerializeToString()
