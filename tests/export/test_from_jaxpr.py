"""Functions of JAX as ONNX: each operation that networks are made of, and whole networks, against JAX's own answer."""

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest
from jax import export, lax

from cxr_jax.errors import UserError
from cxr_jax.export.from_jaxpr import to_onnx
from cxr_jax.models.head import USUAL, Head
from cxr_jax.models.registry import ARCHITECTURES, build_model
from cxr_jax.models.state import merge_model, split_model
from cxr_jax.preprocessing.normalise import normalise

SIDE = 17
NHWC = ("NHWC", "HWIO", "NHWC")


def exported(function, side=SIDE):
    (batch,) = export.symbolic_shape("batch")
    return to_onnx(function, jax.ShapeDtypeStruct((batch, side, side), jnp.uint8))


def assert_equal(function, side=SIDE, tolerance=2e-6):
    """The model's answers are those of `function`, for batches of one image and of several; returns the model."""
    model = exported(function, side)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    generator = np.random.default_rng(0)
    names = [output.name for output in session.get_outputs()]
    images = generator.integers(0, 256, (3, side, side), dtype=np.uint8)
    expected = jax.jit(function)(images)
    assert sorted(expected) == sorted(names)
    for size in (1, 3):
        for name, found in zip(names, session.run(names, {"images": images[:size]}), strict=True):
            wanted = np.asarray(expected[name])[:size]
            wanted = wanted.transpose(0, 3, 1, 2) if wanted.ndim == 4 else wanted
            assert found.shape == wanted.shape
            np.testing.assert_allclose(found, wanted, rtol=0, atol=tolerance * max(1, np.abs(wanted).max()))
    return model


def channels(images, count=4):
    """Grey images as activations with channels of different scales: [B, S, S, count]."""
    scales = np.linspace(0.5, 2, count, dtype=np.float32).reshape(1, 1, 1, -1) / 255
    return images[..., None].astype(jnp.float32) * scales - np.float32(0.3171)


def kernel(*shape):
    return np.random.default_rng(1).normal(0, 0.3, shape).astype(np.float32)


def window(kind, x, size, stride, padding):
    identity = -jnp.inf if kind is lax.max else 0.0
    return lax.reduce_window(x, identity, kind, (1, size, size, 1), (1, stride, stride, 1), padding)


FUNCTIONS = {
    "convolution, stride 2, uneven padding": lambda x: lax.conv_general_dilated(
        x, kernel(3, 3, 4, 6), (2, 2), ((0, 1), (1, 0)), dimension_numbers=NHWC
    ),
    "grouped convolution": lambda x: lax.conv_general_dilated(
        x, kernel(3, 3, 2, 6), (1, 1), "SAME", dimension_numbers=NHWC, feature_group_count=2
    ),
    "product over channels": lambda x: x @ kernel(4, 7),
    "maximum of windows": lambda x: window(lax.max, x, 3, 2, ((0, 0), (1, 1), (1, 1), (0, 0))),
    "maximum of windows, cut off at the end": lambda x: window(lax.max, x, 3, 2, ((0, 0), (0, 1), (0, 1), (0, 0))),
    "sum of windows": lambda x: window(lax.add, x, 3, 1, ((0, 0), (1, 1), (1, 1), (0, 0))),
    "concatenation": lambda x: jnp.concatenate([x, jnp.tanh(x), x * 2], axis=3),
    "padding": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 3), (0, 0)), constant_values=0.5),
    "slices": lambda x: lax.slice_in_dim(lax.slice_in_dim(x, 1, 12, 2, axis=1), 1, 3, axis=3),
    "mirror image": lambda x: jnp.flip(x, 2),
    "squeeze and excite": lambda x: x * jax.nn.sigmoid(jnp.mean(x, (1, 2), keepdims=True) @ kernel(4, 4)),
    "hard activations": lambda x: jnp.clip(x, 0, 0.4) + jax.nn.relu(x) + jax.nn.silu(x) + jnp.minimum(x, 0.1),
    "powers and roots": lambda x: jnp.square(x) + x**3 + jnp.sqrt(jnp.abs(x)) + lax.rsqrt(jnp.abs(x) + 1),
    "affine after a convolution": lambda x: (x @ kernel(4, 5)) * kernel(1, 1, 1, 5) + kernel(1, 1, 1, 5) - 0.5,
    "affine after a convolution that is read twice": lambda x: (y := x @ kernel(4, 5)) * kernel(1, 1, 1, 5) + y,
    "an offset from which a convolution is taken": lambda x: kernel(1, 1, 1, 5) - x @ kernel(4, 5),
    "flattened": lambda x: x.reshape(x.shape[0], -1) @ kernel(SIDE * SIDE * 4, 2),
    "turned axes": lambda x: jnp.transpose(x, (0, 2, 1, 3)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_operation_gives_what_jax_gives(name):
    model = assert_equal(lambda images: {"result": FUNCTIONS[name](channels(images))})
    operators = [node.op_type for node in model.graph.node]
    assert "Conv" not in name or "Conv" in operators
    if name in ("affine after a convolution", "grouped convolution"):
        # factor and offset are in the kernel and the bias, and nothing was transposed
        assert "Transpose" not in operators
        assert operators[operators.index("Conv") + 1 :] == ["Identity"]


def test_several_results_share_their_beginning():
    def function(images):
        x = jax.nn.relu(channels(images) @ kernel(4, 5))
        pooled = jnp.mean(x, (1, 2))
        return {"map": x, "pooled": pooled, "share": jax.nn.softmax(pooled)}

    model = assert_equal(function)
    assert [node.op_type for node in model.graph.node].count("Conv") == 1


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (lambda x: jnp.sort(x, axis=-1), "sort"),
        (lambda x: jnp.cumsum(x, axis=1), "cumsum"),
        (lambda x: jnp.einsum("bhwc,bhwd->bcd", x, x), "a product of two activations"),
    ],
)
def test_an_operation_without_a_translation_is_named(function, name):
    with pytest.raises(UserError, match=rf"cannot be exported yet: {name}"):
        exported(lambda images: {"result": function(channels(images))})


SMALLEST = {"inception_tiny": 80, "densenet_tiny": 80, "xception_tiny": 80, "stephen2019_tiny": 80}
"""Sides of images, where those of 64 pixels leave nothing of a feature map."""


@pytest.mark.parametrize(
    ("name", "head"),
    [
        *(pytest.param(name, USUAL, id=name) for name in ARCHITECTURES if name.endswith("_tiny")),
        pytest.param("mobilenetv1_tiny", Head("log_sum_exp", transition=6), id="log_sum_exp and a transition layer"),
        pytest.param("mobilenetv1_tiny", Head("max"), id="max"),
    ],
)
def test_every_kind_of_network_gives_what_jax_gives(name, head):
    """With statistics as after training; convolutions are as many as the network has, and BatchNorm is in them."""
    graphdef, params, batch_stats = split_model(build_model(name, classes=2, head=head))
    generator = np.random.default_rng(0)
    batch_stats = {
        statistic: jnp.asarray(generator.uniform(0.7, 1.4, value.shape), jnp.float32)
        if statistic.endswith("var")
        else jnp.asarray(generator.normal(0, 0.1, value.shape), jnp.float32)
        for statistic, value in batch_stats.items()
    }

    def answers(images):
        network = merge_model(graphdef, params, batch_stats)
        features = network.features(normalise(images, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)))
        return {"evidence": network.evidence(features), "logits": network.classify(features)}

    model = assert_equal(answers, side=SMALLEST.get(name, 64), tolerance=5e-6)
    attributes = {attribute.name for node in model.graph.node for attribute in node.attribute}
    assert "auto_pad" not in attributes
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert model.opset_import[0].version >= 18
    # the pixels of SqueezeNet's classifier are laid out one after another
    turned = [node.op_type for node in model.graph.node].count("Transpose")
    assert turned == (1 if name == "squeezenet_tiny" else 0)


def test_a_network_behind_a_denoiser_gives_what_jax_gives():
    graphdef, params, batch_stats = split_model(build_model("squeezenet_tiny", classes=2, denoiser=4))
    drawn = np.random.default_rng(0)
    params = {
        name: jnp.asarray(drawn.normal(0, 0.2, value.shape), jnp.float32) if name.startswith("denoiser") else value
        for name, value in params.items()
    }

    def answers(images):
        network = merge_model(graphdef, params, batch_stats)
        return {"logits": network(normalise(images, (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)))}

    assert_equal(answers, side=64, tolerance=5e-6)
