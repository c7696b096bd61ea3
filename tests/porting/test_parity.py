"""Every number that a network gives or learns is timm's: live, with random weights and random BatchNorm statistics.

In float32 outputs agree to 1e-5 in relative L2 norm and gradients to 1e-4, which is what rounding leaves after dozens
of layers; float64 leaves a mistake nowhere to hide, so there the bounds are 1e-10 and 1e-8.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from drawn import drawn_images, drawn_labels, drawn_tensors

from cxr_jax.errors import UserError
from cxr_jax.models.layers import Mode
from cxr_jax.models.pretrained import as_ours, fit_weights, timm_name
from cxr_jax.models.registry import model_shapes
from cxr_jax.models.state import batch_stats_of, merge_model, split_model
from cxr_jax.porting.requirements import import_timm

try:
    timm = import_timm("the comparison")
except UserError as error:
    pytest.skip(str(error), allow_module_level=True)

import torch

CLASSES = 7

TWINS = {
    "mobilenetv2_tiny": {
        "block_args": [["ds_r1_k3_s1_c8"], ["ir_r2_k3_s2_e4_c16"], ["ir_r2_k3_s2_e4_c24"], ["ir_r1_k3_s2_e4_c32"]],
        "act_layer": "relu6",
        "pad_type": "",
        "eps": 1e-5,
    },
    "efficientnetv2_tiny": {
        "block_args": [
            ["cn_r1_k3_s1_e1_c8_skip"],
            ["er_r2_k3_s2_e2_c16"],
            ["ir_r2_k3_s2_e4_c24_se0.25"],
            ["ir_r1_k3_s1_e4_c32_se0.25"],
        ],
        "act_layer": "silu",
        "pad_type": "same",
        "eps": 1e-3,
    },
}
"""Our small networks in timm's language, which has no names for them."""


def their_network(name, dtype=torch.float64):
    """timm's network of that name with random weights."""
    if name in TWINS:
        twin = TWINS[name]
        model = timm.models.efficientnet.EfficientNet(
            block_args=timm.models._efficientnet_builder.decode_arch_def(twin["block_args"]),
            num_classes=CLASSES,
            num_features=64,
            stem_size=8,
            pad_type=twin["pad_type"],
            act_layer=timm.layers.get_act_layer(twin["act_layer"]),
            norm_layer=functools.partial(torch.nn.BatchNorm2d, eps=twin["eps"]),
        )
    else:
        model = timm.create_model(name, num_classes=CLASSES)
    _, params, batch_stats = model_shapes(name, classes=CLASSES)
    counters = {key: value for key, value in model.state_dict().items() if key.endswith("num_batches_tracked")}
    tensors = {key: torch.from_numpy(value) for key, value in drawn_tensors(params | batch_stats).items()}
    model.double().load_state_dict(tensors | counters)
    return model.to(dtype)


def our_network(name, dtype):
    """Our network of that name, taken apart, with the same weights."""
    graphdef, *shapes = model_shapes(name, classes=CLASSES)
    shapes = [{key: jax.ShapeDtypeStruct(value.shape, dtype) for key, value in part.items()} for part in shapes]
    loaded = fit_weights(drawn_tensors(shapes[0] | shapes[1]), {}, "drawn", name, *shapes)
    assert loaded.fresh == ()
    return graphdef, loaded.params, loaded.batch_stats


def to_torch(images, dtype=torch.float64):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).to(dtype)


def relative_error(ours, theirs):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


def their_outputs(model, images):
    """Output of the stem, every block, the head, pooling and the classifier, in our layout."""
    outputs = {}

    def keeper(name):
        def keep(module, inputs, output):
            outputs[name] = (output.permute(0, 2, 3, 1) if output.ndim == 4 else output).clone().numpy()

        return keep

    modules = {"conv_stem": model.bn1, "conv_head": model.bn2, "pooled": model.global_pool, "logits": model.classifier}
    for stage, blocks in enumerate(model.blocks):
        modules |= {f"blocks.{stage}.{index}": block for index, block in enumerate(blocks)}
    for name, module in modules.items():
        module.register_forward_hook(keeper(name))
    with torch.inference_mode():
        model(images)
    return outputs


def our_outputs(network, images):
    """The same of ours, in evaluation mode; blocks of one shape share a program."""
    model, mode = merge_model(*network), Mode()

    @functools.partial(jax.jit, static_argnums=0)
    def run(graphdef, params, batch_stats, x):
        return merge_model(graphdef, params, batch_stats)(x, mode)

    x = jax.jit(lambda x: model.activation(model.bn1(model.conv_stem(x), mode)))(images)
    outputs = {"conv_stem": x}
    for stage, blocks in enumerate(model.blocks):
        for index, block in enumerate(blocks):
            x = outputs[f"blocks.{stage}.{index}"] = run(*split_model(block), x)
    features = jax.jit(lambda x: model.activation(model.bn2(model.conv_head(x), mode)))(x)
    pooled = jnp.mean(features, (1, 2))
    return outputs | {"conv_head": features, "pooled": pooled, "logits": model.classify_pooled(pooled)}


def assert_same_outputs(name, size, dtype, bound):
    images = drawn_images(2, size)
    their_dtype = torch.float64 if dtype == jnp.float64 else torch.float32
    theirs = their_outputs(their_network(name, their_dtype).eval(), to_torch(images, their_dtype))
    ours = our_outputs(our_network(name, dtype), jnp.asarray(images, dtype))
    assert ours.keys() == theirs.keys()
    errors = {key: relative_error(ours[key], theirs[key]) for key in theirs}
    assert max(errors.values()) < bound, errors


SMALL = ["mobilenetv2_tiny", "efficientnetv2_tiny", "mobilenetv2_050", "tf_efficientnetv2_b0"]
STUDIED = ["mobilenetv2_100", "tf_efficientnetv2_s"]


@pytest.mark.parametrize("size", [64, 97])
@pytest.mark.parametrize("name", SMALL)
def test_every_output_in_float64(name, size):
    with jax.enable_x64(True):
        assert_same_outputs(name, size, jnp.float64, 1e-10)


@pytest.mark.parametrize("size", [128, 193])
@pytest.mark.parametrize("name", STUDIED)
def test_every_output_of_the_studied_networks_in_float32(name, size):
    assert_same_outputs(name, size, jnp.float32, 1e-5)


@pytest.mark.parametrize("name", STUDIED)
def test_every_output_of_the_studied_networks_in_float64(name):
    with jax.enable_x64(True):
        assert_same_outputs(name, 193, jnp.float64, 1e-10)


def our_step(name, dtype):
    """A compiled function of parameters, statistics, images and labels: gradients, loss, logits and statistics."""
    graphdef, params, batch_stats = our_network(name, dtype)

    @jax.jit
    def step(params, batch_stats, images, labels):
        def loss_of(params):
            model = merge_model(graphdef, params, batch_stats)
            logits = model(images, train=True)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
            return loss, (logits, batch_stats_of(model))

        (loss, (logits, moved)), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
        return gradients, loss, logits, moved

    return step, params, batch_stats


def named(theirs, ours):
    """Pairs of arrays under our names, theirs in our layout."""
    return {
        name: (ours[name], as_ours(timm_name(name), theirs[timm_name(name)].detach().numpy(), ours[name].ndim))
        for name in ours
    }


def assert_same_training_pass(name, dtype, output_bound, gradient_bound):
    images, labels = drawn_images(8, 65), drawn_labels(8, CLASSES)
    their_dtype = torch.float64 if dtype == jnp.float64 else torch.float32
    model = their_network(name, their_dtype).train()
    logits = model(to_torch(images, their_dtype))
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels)).backward()
    step, params, batch_stats = our_step(name, dtype)
    gradients, _, our_logits, moved = step(params, batch_stats, jnp.asarray(images, dtype), jnp.asarray(labels))

    assert relative_error(our_logits, logits.detach()) < output_bound
    statistics = {key: relative_error(*pair) for key, pair in named(dict(model.named_buffers()), moved).items()}
    assert max(statistics.values()) < output_bound, statistics
    pairs = named({key: value.grad for key, value in model.named_parameters()}, gradients)
    assert pairs.keys() == params.keys()
    whole = np.sqrt(sum(np.square(theirs).sum() for _, theirs in pairs.values()))
    # a bias whose effect the next BatchNorm takes away has a gradient of zero, and what both compute is rounding
    errors = {
        key: np.linalg.norm(ours - theirs) / max(np.linalg.norm(theirs), 1e-3 * whole)
        for key, (ours, theirs) in pairs.items()
    }
    assert max(errors.values()) < gradient_bound, errors


@pytest.mark.parametrize("name", [*TWINS, "mobilenetv2_050", "tf_efficientnetv2_b0"])
def test_a_training_pass_in_float64(name):
    with jax.enable_x64(True):
        assert_same_training_pass(name, jnp.float64, 1e-10, 1e-8)


@pytest.mark.parametrize("name", TWINS)
def test_a_training_pass_in_float32(name):
    assert_same_training_pass(name, jnp.float32, 1e-5, 1e-4)


@pytest.mark.parametrize("name", TWINS)
def test_five_steps_of_sgd(name):
    rate, momentum, decay = 0.01, 0.9, 1e-4
    model = their_network(name).train()
    their_optimizer = torch.optim.SGD(model.parameters(), rate, momentum=momentum, weight_decay=decay)
    with jax.enable_x64(True):
        optimizer = optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate, momentum))
        step, params, batch_stats = our_step(name, jnp.float64)
        start, state = params, optimizer.init(params)
        update = jax.jit(optimizer.update)
        for iteration in range(5):
            images, labels = drawn_images(16, 48, seed=iteration), drawn_labels(16, CLASSES)
            gradients, loss, _, batch_stats = step(params, batch_stats, jnp.asarray(images), jnp.asarray(labels))
            updates, state = update(gradients, state, params)
            params = optax.apply_updates(params, updates)

            their_optimizer.zero_grad()
            their_loss = torch.nn.functional.cross_entropy(model(to_torch(images)), torch.from_numpy(labels))
            their_loss.backward()
            their_optimizer.step()
            np.testing.assert_allclose(float(loss), their_loss.item(), rtol=1e-9)
        errors = {key: relative_error(*pair) for key, pair in named(model.state_dict(), params | batch_stats).items()}
        assert max(errors.values()) < 1e-8, errors
        assert min(relative_error(params[key], start[key]) for key in params) > 1e-6
