"""What the originals give and learn from drawn weights and images, under our names and in our layout.

Imported only where torch and timm are installed.
"""

import functools
import importlib

import numpy as np
from drawn import (
    CLASSES,
    DECAY,
    LEARNING_BATCH,
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
    learning_size,
)

from cxr_jax.models.original_names import as_ours, original_name
from cxr_jax.models.registry import build_model, find_architecture, model_shapes
from cxr_jax.porting.originals import original_network
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
    "mobilenetv1_tiny": {
        "block_args": [["dsa_r1_k3_s1_c16"], ["dsa_r2_k3_s2_c16"], ["dsa_r1_k3_s2_c32"]],
        "act_layer": "relu6",
        "pad_type": "",
        "eps": 1e-5,
        "num_features": 0,
        "stem_size": 16,
    },
    "efficientnet_lite_tiny": {
        "block_args": [["ds_r1_k3_s1_e1_c8"], ["ir_r1_k5_s2_e6_c16"], ["ir_r1_k3_s2_e6_c24"]],
        "act_layer": "relu6",
        "pad_type": "same",
        "eps": 1e-3,
        "num_features": 32,
    },
}
"""Our small networks in timm's language, which has no names for them."""


def network(name, dtype):
    """The network of that name with drawn weights."""
    drawn = drawn_tensors(_shapes(name), find_architecture(name).original_names)
    tensors = {key: torch.from_numpy(value) for key, value in drawn.items()}
    model = _built(name)
    counters = {key: value for key, value in model.state_dict().items() if key.endswith("num_batches_tracked")}
    model.double().load_state_dict(tensors | counters)
    return model.to(getattr(torch, dtype))


def _built(name):
    """The original of the network of that name, or a small one of the same parts."""
    if name in TWINS:
        return _twin(**TWINS[name])
    if name in BUILDERS:
        return BUILDERS[name]()
    return original_network(name, CLASSES)


def _twin(block_args, act_layer, pad_type, eps, num_features=64, stem_size=8):
    return timm.models.efficientnet.EfficientNet(
        block_args=timm.models._efficientnet_builder.decode_arch_def(block_args),
        num_classes=CLASSES,
        num_features=num_features,
        stem_size=stem_size,
        pad_type=pad_type,
        act_layer=timm.layers.get_act_layer(act_layer),
        norm_layer=functools.partial(torch.nn.BatchNorm2d, eps=eps),
    )


def _small_resnet(block, channels):
    return timm.models.resnet.ResNet(block, (1, 2, 1, 1), CLASSES, channels=channels)


def _small_squeezenet():
    torchvision = importlib.import_module("torchvision.models.squeezenet")
    model = torchvision.SqueezeNet("1_1", CLASSES, dropout=0.0)
    model.features = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3, 2),
        torch.nn.ReLU(),
        torch.nn.MaxPool2d(3, 2, ceil_mode=True),
        torchvision.Fire(8, 4, 8, 8),
        torch.nn.MaxPool2d(3, 2, ceil_mode=True),
        torchvision.Fire(16, 6, 12, 12),
    )
    model.classifier[1] = torch.nn.Conv2d(24, CLASSES, 1)
    return model


def _small_xception():
    from timm.models.xception import Block, SeparableConv2d, Xception

    model = Xception(CLASSES)
    nn = torch.nn
    model.conv1, model.bn1 = nn.Conv2d(3, 8, 3, 2, bias=False), nn.BatchNorm2d(8)
    model.conv2, model.bn2 = nn.Conv2d(8, 8, 3, bias=False), nn.BatchNorm2d(8)
    model.block1 = Block(8, 16, 2, 2, start_with_relu=False)
    model.block2, model.block3 = Block(16, 24, 2, 2), Block(24, 24, 3)
    model.block4 = Block(24, 32, 2, 2, grow_first=False)
    for number in range(5, 13):
        setattr(model, f"block{number}", nn.Identity())
    model.conv3, model.bn3 = SeparableConv2d(32, 32, 3, 1, 1), nn.BatchNorm2d(32)
    model.conv4, model.bn4 = SeparableConv2d(32, 48, 3, 1, 1), nn.BatchNorm2d(48)
    model.fc = nn.Linear(48, CLASSES)
    return model


def _small_inception():
    inception_v3 = importlib.import_module("timm.models.inception_v3")

    class Narrow(timm.layers.ConvNormAct):
        def __init__(self, inputs, outputs, **how):
            super().__init__(inputs if inputs == 3 else inputs // 8, outputs // 8, **how)

    whole = inception_v3.ConvNormAct
    inception_v3.ConvNormAct = Narrow
    try:
        model = inception_v3.InceptionV3(CLASSES)
    finally:
        inception_v3.ConvNormAct = whole
    block = functools.partial(Narrow, padding=0, norm_layer="batchnorm2d", act_layer="relu", norm_kwargs={"eps": 1e-3})
    for name in ("Mixed_5c", "Mixed_5d", "Mixed_6c", "Mixed_6d", "Mixed_6e", "Mixed_7c"):
        setattr(model, name, torch.nn.Identity())
    model.Mixed_6a = inception_v3.InceptionB(256, conv_block=block)
    model.Mixed_6b = inception_v3.InceptionC(736, 128, conv_block=block)
    model.fc = torch.nn.Linear(256, CLASSES)
    return model


BUILDERS = {
    "inception_tiny": _small_inception,
    "resnet_basic_tiny": lambda: _small_resnet(timm.models.resnet.BasicBlock, (8, 16, 32, 64)),
    "resnet_tiny": lambda: _small_resnet(timm.models.resnet.Bottleneck, (4, 8, 16, 32)),
    "densenet_tiny": lambda: timm.models.densenet.DenseNet(growth_rate=8, block_config=(2, 2), num_classes=CLASSES),
    "squeezenet_tiny": _small_squeezenet,
    "xception_tiny": _small_xception,
}
"""The same of networks of other parts."""

ENDS = {
    "mobilenetv1": {"conv_stem": "bn1"},
    "efficientnet_lite": {"conv_stem": "bn1", "conv_head": "bn2"},
    "squeezenet": {"conv1": "features.2"},
    "resnet": {"conv1": "maxpool"},
    "densenet": {"conv0": "features.pool0"},
    "xception": {"conv1": "act2", "conv4": "act4"},
    "inception": {"Conv2d_2b_3x3": "Pool1", "Conv2d_4a_3x3": "Pool2"},
}
"""The module that ends a stage of ours, by family, where it is not the one called like the stage."""


def stages(name, size, dtype):
    """Output of every stage and the classifier, in evaluation mode."""
    model, found = network(name, dtype).eval(), {}
    names = find_architecture(name).original_names
    ends = next((ends for family, ends in ENDS.items() if family in name), {})

    def keeper(key):
        def keep(module, inputs, output):
            found[key] = output.permute(0, 2, 3, 1).clone().numpy()

        return keep

    for stage in build_model(name, classes=CLASSES).stage_names:
        end = ends.get(stage) or original_name(f"{stage}.bias", names).removesuffix(".bias")
        model.get_submodule(end).register_forward_hook(keeper(stage))
    with torch.inference_mode():
        logits = model(_images(2, size, dtype))
    return found | {"logits": logits.numpy()}


def learning(name):
    """What the first of five steps of SGD in float64 gives, the losses of all, and the network after them."""
    model, losses, found = network(name, "float64").train(), [], {}
    optimizer = torch.optim.SGD(model.parameters(), RATE, momentum=MOMENTUM, weight_decay=DECAY)
    labels = torch.from_numpy(drawn_labels(LEARNING_BATCH))
    for iteration in range(SGD_STEPS):
        optimizer.zero_grad()
        logits = model(_images(LEARNING_BATCH, learning_size(name), "float64", seed=iteration))
        loss = torch.nn.functional.cross_entropy(logits, labels)
        loss.backward()
        if not found:
            gradients = {key: value.grad.clone() for key, value in model.named_parameters()}
            moved = {key: value.clone() for key, value in model.state_dict().items()}
            found = {"logits": logits.detach().numpy()} | _under_our_names(name, gradients, "gradients")
            found |= _under_our_names(name, moved, "moved")
        optimizer.step()
        losses.append(loss.item())
    state = model.state_dict()
    after = _under_our_names(name, state, "params") | _under_our_names(name, state, "statistics")
    return found | {"losses": np.array(losses)} | after


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
    wanted = batch_stats if kind in ("statistics", "moved") else params
    names = find_architecture(name).original_names
    originals = {key: original_name(key, names) for key in wanted}
    return {
        f"{kind}.{key}": as_ours(originals[key], tensors[originals[key]].numpy(), value.ndim)
        for key, value in wanted.items()
    }
