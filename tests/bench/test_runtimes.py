"""The ONNX files that runtimes are measured on."""

import numpy as np
import onnxruntime

from cxr_jax.bench.cases import Case
from cxr_jax.bench.runtimes import onnx_of, prepare
from cxr_jax.config.schema import ModelConfig
from cxr_jax.models.state import merge_model
from cxr_jax.preprocessing.normalise import normalise
from cxr_jax.training.network import build_network

CASE = Case("mobilenetv2_tiny", 32, 4, "inference", threads=1, implementation="onnxruntime", backend="onnx")


def test_the_file_holds_the_network_that_we_are_measured_on():
    network = build_network(ModelConfig(name=CASE.model), seed=0)
    model = merge_model(network.graphdef, network.params, network.batch_stats)
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32), dtype=np.uint8)
    session = onnxruntime.InferenceSession(onnx_of(CASE))
    (logits,) = session.run(["logits"], {"images": images})
    expected = model(normalise(images, network.mean, network.std))
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_a_step_runs_a_whole_batch_and_says_in_what():
    workload = prepare(CASE)
    workload.step()
    assert workload.facts["versions"] == {"onnxruntime": onnxruntime.__version__}
    assert workload.facts["products"] == "float32" and workload.device_peak_bytes() is None
