"""What timm's networks give and learn from drawn weights and images, under our names and in our layout.

Imported only where torch and timm are installed.
"""

import functools

import numpy as np
from drawn import (
    CLASSES,
    DECAY,
    MOMENTUM,
    RATE,
    SGD_BATCH,
    SGD_SIZE,
    SGD_STEPS,
    TRAINING_BATCH,
    TRAINING_SIZE,
    drawn_images,
    drawn_labels,
    drawn_tensors,
)

from cxr_jax.models.pretrained import as_ours, timm_name
from cxr_jax.models.registry import model_shapes
from cxr_jax.porting.requirements import import_timm, import_torch

torch, timm = import_torch("the comparison"), import_timm("the comparison")

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


def network(name, dtype):
    """The network of that name with drawn weights."""
    model = _twin(**TWINS[name]) if name in TWINS else timm.create_model(name, num_classes=CLASSES)
    tensors = {key: torch.from_numpy(value) for key, value in drawn_tensors(_shapes(name)).items()}
    counters = {key: value for key, value in model.state_dict().items() if key.endswith("num_batches_tracked")}
    model.double().load_state_dict(tensors | counters)
    return model.to(getattr(torch, dtype))


def _twin(block_args, act_layer, pad_type, eps):
    return timm.models.efficientnet.EfficientNet(
        block_args=timm.models._efficientnet_builder.decode_arch_def(block_args),
        num_classes=CLASSES,
        num_features=64,
        stem_size=8,
        pad_type=pad_type,
        act_layer=timm.layers.get_act_layer(act_layer),
        norm_layer=functools.partial(torch.nn.BatchNorm2d, eps=eps),
    )


def outputs(name, size, dtype):
    """Output of the stem, every block, the head, pooling and the classifier, in evaluation mode."""
    model, found = network(name, dtype).eval(), {}

    def keeper(key):
        def keep(module, inputs, output):
            found[key] = (output.permute(0, 2, 3, 1) if output.ndim == 4 else output).clone().numpy()

        return keep

    modules = {"conv_stem": model.bn1, "conv_head": model.bn2, "pooled": model.global_pool, "logits": model.classifier}
    for stage, blocks in enumerate(model.blocks):
        modules |= {f"blocks.{stage}.{index}": block for index, block in enumerate(blocks)}
    for key, module in modules.items():
        module.register_forward_hook(keeper(key))
    with torch.inference_mode():
        model(_images(2, size, dtype))
    return found


def training_pass(name, dtype):
    """Logits of a pass in training mode, the statistics that it moves, and the gradient of every parameter."""
    model = network(name, dtype).train()
    logits = model(_images(TRAINING_BATCH, TRAINING_SIZE, dtype))
    torch.nn.functional.cross_entropy(logits, torch.from_numpy(drawn_labels(TRAINING_BATCH))).backward()
    gradients = {key: value.grad for key, value in model.named_parameters()}
    found = _under_our_names(name, gradients, "gradients") | _under_our_names(name, model.state_dict(), "statistics")
    return {"logits": logits.detach().numpy()} | found


def sgd(name):
    """Losses of five steps of SGD in float64, and the parameters and statistics after them."""
    model, losses = network(name, "float64").train(), []
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=MOMENTUM, weight_decay=DECAY)
    for iteration in range(SGD_STEPS):
        optimizer.zero_grad()
        logits = model(_images(SGD_BATCH, SGD_SIZE, "float64", seed=iteration))
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(drawn_labels(SGD_BATCH)))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    state = model.state_dict()
    found = _under_our_names(name, state, "params") | _under_our_names(name, state, "statistics")
    return {"losses": np.array(losses)} | found


def _shapes(name):
    _, params, batch_stats = model_shapes(name, classes=CLASSES)
    return params | batch_stats


def _images(count, size, dtype, seed=0):
    images = drawn_images(count, size, seed).transpose(0, 3, 1, 2).copy()
    return torch.from_numpy(images).to(getattr(torch, dtype))


def _under_our_names(name, tensors, kind):
    """Parameters, or the statistics of BatchNorm, under `kind`."""
    _, params, batch_stats = model_shapes(name, classes=CLASSES)
    wanted = batch_stats if kind == "statistics" else params
    return {
        f"{kind}.{key}": as_ours(timm_name(key), tensors[timm_name(key)].numpy(), value.ndim)
        for key, value in wanted.items()
    }
