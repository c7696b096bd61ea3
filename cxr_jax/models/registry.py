"""The architectures by name: how each is built and what images it expects."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from flax import nnx

from cxr_jax.errors import UserError, suggestion
from cxr_jax.models.denoiser import with_denoiser
from cxr_jax.models.first_stages import LOGITS, FirstStages
from cxr_jax.models.head import USUAL, Head, with_head
from cxr_jax.models.layers import Lowering
from cxr_jax.models.networks import (
    densenet,
    efficientnet_lite,
    efficientnetv2,
    inceptionv3,
    mobilenetv1,
    mobilenetv2,
    squeezenet,
    xception,
)
from cxr_jax.models.networks.densenet import DenseNet
from cxr_jax.models.networks.efficientnet_lite import EfficientNetLite
from cxr_jax.models.networks.efficientnetv2 import EfficientNetV2
from cxr_jax.models.networks.inceptionv3 import InceptionV3
from cxr_jax.models.networks.inverted_residual import UNSCALED, Scaling, Stage
from cxr_jax.models.networks.mobilenetv1 import MobileNetV1
from cxr_jax.models.networks.mobilenetv2 import MobileNetV2
from cxr_jax.models.networks.resnet import BasicBlock, Bottleneck, ResNet
from cxr_jax.models.networks.squeezenet import FireShape, SqueezeNet
from cxr_jax.models.networks.stephen2019 import Stephen2019
from cxr_jax.models.networks.xception import Xception, XceptionShape
from cxr_jax.models.original_names import FULLY_CONNECTED, OriginalNames
from cxr_jax.models.state import ArrayDict, split_model

IMAGENET_CLASSES = 1000
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5)
IMAGENET = (IMAGENET_MEAN, IMAGENET_STD)
BY_HALVES = (HALVES, HALVES)
"""x / 127.5 - 1, as TensorFlow's networks have it."""

AS_IN_TENSORFLOW = "tf_"
"""Begins the name of a network with TensorFlow's padding and epsilon, where the one without it has torch's."""

FROM_IMAGENET_21K = ("in21k_ft_in1k", "in1k", "in21k")


@dataclass(frozen=True)
class Architecture:
    """A network that can be asked for by name."""

    build: Callable[..., nnx.Module]  # takes classes, dropout_rate, stochastic_depth, lowering and generator
    image_size: int  # side in pixels of the images that its published weights were trained on
    evaluation_size: int  # side in pixels at which those weights were judged
    mean: tuple[float, float, float]  # of the channels in [0, 1]
    std: tuple[float, float, float]
    weights: tuple[str, ...] = ()  # timm's tags of published weights, the one to prefer first
    interpolation: str = "bicubic"  # by which the images of those weights were resized
    original_names: OriginalNames = ()  # what the original calls by another name
    passed_over: tuple[str, ...] = ()  # prefixes of the original's tensors that we have no use for


def _network(
    build: Callable[..., nnx.Module],
    sizes: tuple[int, int],
    statistics: tuple[tuple[float, float, float], tuple[float, float, float]],
    *weights: str,
    **more: object,
) -> Architecture:
    return Architecture(build, *sizes, *statistics, weights, **more)


def _mobilenetv2(*weights: str, **shape: object) -> Architecture:
    return Architecture(
        functools.partial(MobileNetV2, **shape),
        image_size=224,
        evaluation_size=224,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        weights=weights,
    )


def _efficientnetv2(
    stages: tuple[Stage, ...], stem: int, sizes: tuple[int, int], *weights: str, **shape: object
) -> Architecture:
    return Architecture(
        functools.partial(EfficientNetV2, stages=stages, stem_channels=stem, **shape),
        image_size=sizes[0],
        evaluation_size=sizes[1],
        mean=HALVES,
        std=HALVES,
        weights=weights,
    )


def _efficientnetv2_base(width: float, depth: float, sizes: tuple[int, int], *weights: str) -> Architecture:
    # unlike S, M and L, the base networks may round channels down by any amount
    scaling = Scaling(width, depth, round_limit=0.0)
    architecture = _efficientnetv2(efficientnetv2.BASE_STAGES, 32, sizes, *weights, scaling=scaling)
    return dataclasses.replace(architecture, mean=IMAGENET_MEAN, std=IMAGENET_STD)


def _mobilenetv1(sizes: tuple[int, int], *weights: str, **shape: object) -> Architecture:
    return _network(functools.partial(MobileNetV1, **shape), sizes, BY_HALVES, *weights)


def _squeezenet(fires: tuple[FireShape, ...], **shape: object) -> Architecture:
    build = functools.partial(SqueezeNet, fires=fires, **shape)
    names = squeezenet.original_names(fires)
    return _network(build, (224, 224), IMAGENET, interpolation="bilinear", original_names=names)


def _lite(scaling: Scaling, size: int, *weights: str, interpolation: str = "bicubic", **shape: object) -> Architecture:
    build = functools.partial(EfficientNetLite, scaling=scaling, **shape)
    return _network(build, (size, size), BY_HALVES, *weights, interpolation=interpolation)


def _resnet(block: type[BasicBlock], repeats: tuple[int, ...], *weights: str, **shape: object) -> Architecture:
    build = functools.partial(ResNet, block=block, repeats=repeats, **shape)
    return _network(build, (224, 288 if weights else 224), IMAGENET, *weights, original_names=FULLY_CONNECTED)


def _densenet(*weights: str, **shape: object) -> Architecture:
    build = functools.partial(DenseNet, **shape)
    return _network(build, (224, 224), IMAGENET, *weights, original_names=densenet.ORIGINAL_NAMES)


def _xception(blocks: tuple[XceptionShape, ...], **shape: object) -> Architecture:
    build = functools.partial(Xception, blocks=blocks, **shape)
    return _network(build, (299, 299), BY_HALVES, original_names=xception.original_names(blocks))


def _inception(*weights: str, **shape: object) -> Architecture:
    build, auxiliary = functools.partial(InceptionV3, **shape), (inceptionv3.AUXILIARY,)
    names = FULLY_CONNECTED
    return _network(build, (299, 299), BY_HALVES, *weights, original_names=names, passed_over=auxiliary)


def _stephen2019(size: int, **shape: object) -> Architecture:
    build = functools.partial(Stephen2019, image_size=size, **shape)
    return _network(build, (size, size), ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))


ARCHITECTURES: dict[str, Architecture] = {
    "mobilenetv2_tiny": _mobilenetv2(stages=mobilenetv2.TINY_STAGES, stem_channels=8, head_channels=64),
    "mobilenetv2_050": _mobilenetv2("lamb_in1k", scaling=Scaling(width=0.5)),
    "mobilenetv2_100": _mobilenetv2("ra_in1k"),
    "mobilenetv2_140": _mobilenetv2("ra_in1k", scaling=Scaling(width=1.4)),
    "efficientnetv2_tiny": _efficientnetv2(efficientnetv2.TINY_STAGES, 8, (224, 224), head_channels=64),
    "tf_efficientnetv2_b0": _efficientnetv2_base(1.0, 1.0, (192, 224), "in1k"),
    "tf_efficientnetv2_b1": _efficientnetv2_base(1.0, 1.1, (192, 240), "in1k"),
    "tf_efficientnetv2_b2": _efficientnetv2_base(1.1, 1.2, (208, 260), "in1k"),
    "tf_efficientnetv2_b3": _efficientnetv2_base(1.2, 1.4, (240, 300), "in1k"),
    "tf_efficientnetv2_s": _efficientnetv2(efficientnetv2.SMALL_STAGES, 24, (300, 384), *FROM_IMAGENET_21K),
    "tf_efficientnetv2_m": _efficientnetv2(efficientnetv2.MEDIUM_STAGES, 24, (384, 480), *FROM_IMAGENET_21K),
    "tf_efficientnetv2_l": _efficientnetv2(efficientnetv2.LARGE_STAGES, 32, (384, 480), *FROM_IMAGENET_21K),
    "mobilenetv1_tiny": _mobilenetv1((224, 224), stages=mobilenetv1.TINY_STAGES, stem_channels=16),
    "mobilenetv1_100": _mobilenetv1((224, 256), "ra4_e3600_r224_in1k"),
    "tf_mobilenetv1_100": _mobilenetv1((224, 224), padding="same", epsilon=1e-3),
    "squeezenet_tiny": _squeezenet(squeezenet.TINY_FIRES, stem_channels=8),
    "squeezenet1_1": _squeezenet(squeezenet.FIRES),
    "efficientnet_lite_tiny": _lite(
        UNSCALED, 224, stages=efficientnet_lite.TINY_STAGES, stem_channels=8, head_channels=32
    ),
    "tf_efficientnet_lite0": _lite(UNSCALED, 224, "in1k"),
    "tf_efficientnet_lite1": _lite(Scaling(1.0, 1.1), 240, "in1k"),
    "tf_efficientnet_lite2": _lite(Scaling(1.1, 1.2), 260, "in1k"),
    "tf_efficientnet_lite3": _lite(Scaling(1.2, 1.4), 300, "in1k", interpolation="bilinear"),
    "tf_efficientnet_lite4": _lite(Scaling(1.4, 1.8), 380, "in1k", interpolation="bilinear"),
    "resnet_basic_tiny": _resnet(BasicBlock, (1, 2, 1, 1), channels=8),
    "resnet_tiny": _resnet(Bottleneck, (1, 2, 1, 1), channels=4),
    "resnet18": _resnet(BasicBlock, (2, 2, 2, 2), "a1_in1k", "a2_in1k"),
    "resnet50": _resnet(Bottleneck, (3, 4, 6, 3), "a1_in1k", "a2_in1k", "ra_in1k"),
    "densenet_tiny": _densenet(repeats=(2, 2), growth=8, stem_channels=16),
    "densenet121": _densenet("tv_in1k", "ra_in1k"),
    "xception_tiny": _xception(xception.TINY_BLOCKS, stem_channels=(8, 8), head_channels=(32, 48)),
    "legacy_xception": _xception(xception.BLOCKS),
    "tf_legacy_xception": _xception(xception.BLOCKS, pool_padding="same", epsilon=1e-3),
    "inception_tiny": _inception(modules=inceptionv3.TINY_MODULES, divisor=8),
    "inception_v3": _inception("tv_in1k"),
    "tf_inception_v3": _inception(counts_padding=False),
    "stephen2019_tiny": _stephen2019(32, channels=(8, 16, 16), dense_channels=24),
    "stephen2019": _stephen2019(200),
}


def find_architecture(name: str) -> Architecture:
    """Returns the architecture called `name`; raises UserError naming the nearest one if there is none."""
    if name not in ARCHITECTURES:
        # part of a name means the networks whose names have it, but the tiny ones, which are to try things on
        meant = [known for known in ARCHITECTURES if name in known and "tiny" not in known] or ARCHITECTURES
        hint = suggestion(name, meant) or f"; choose one of {', '.join(ARCHITECTURES)}"
        raise UserError(f"there is no model called {name!r}{hint}")
    return ARCHITECTURES[name]


def build_model(
    name: str,
    *,
    classes: int,
    seed: int = 0,
    dropout_rate: float = 0.0,
    stochastic_depth: float = 0.0,
    lowering: Lowering = "fast",
    until: str = "",
    head: Head = USUAL,
    denoiser: int = 0,
) -> nnx.Module:
    """Returns a freshly initialised network; equal seeds give equal parameters.

    `dropout_rate` is that before the classifier, `stochastic_depth` the share of examples that skip the last block.
    With `until` it is cut behind the stage of that name, as `FirstStages` says; its own classifier, which LOGITS keeps,
    has ImageNet's classes. `head` is what stands behind the last stage, and `denoiser` how many channels a denoiser
    before the first one has; with 0 there is none. Raises UserError for an unknown name or stage, or a network that is
    cut and is to have another head or a denoiser.
    """
    rates = {"dropout_rate": dropout_rate, "stochastic_depth": stochastic_depth}
    generator = np.random.default_rng(seed)
    return _built(name, generator, until, head, denoiser, classes=classes, lowering=lowering, **rates)


def _built(name: str, generator: Any, until: str, head: Head, denoiser: int, *, classes: int, **how: Any) -> nnx.Module:
    """Returns the network of `build_model`, its values drawn by `generator`."""
    network = _without_denoiser(name, generator, until, head, classes=classes, **how)
    if not denoiser:
        return network
    if until:
        raise UserError(f"{name} cannot be cut behind {until} and have a denoiser")
    return with_denoiser(network, denoiser, lowering=how["lowering"], generator=generator)


def _without_denoiser(name: str, generator: Any, until: str, head: Head, *, classes: int, **how: Any) -> nnx.Module:
    architecture = find_architecture(name)
    if until and not head.is_usual:
        raise UserError(f"{name} cannot be cut behind {until} and have another pooling or a transition layer")
    own_classes = IMAGENET_CLASSES if until == LOGITS else classes
    network = architecture.build(classes=own_classes, generator=generator, **how)
    given = {"classes": classes, "image_size": architecture.image_size, "generator": generator}
    if until:
        return FirstStages(network, until, **given)
    if head.is_usual:
        return network
    return with_head(network, head, lowering=how["lowering"], **given)


def model_shapes(
    name: str, *, classes: int, lowering: Lowering = "fast", until: str = "", head: Head = USUAL, denoiser: int = 0
) -> tuple[nnx.GraphDef, dict[str, jax.ShapeDtypeStruct], dict[str, jax.ShapeDtypeStruct]]:
    """Returns the structure of a network and the shapes of its parameters and statistics, as `split_model` names them.

    No values are drawn, so that it is quick for the largest networks. Raises UserError for an unknown name.
    """
    structure = []

    def arrays() -> tuple[ArrayDict, ArrayDict]:
        how = {"dropout_rate": 0.0, "stochastic_depth": 0.0, "lowering": lowering}
        model = _built(name, _ZeroGenerator(), until, head, denoiser, classes=classes, **how)
        graphdef, *arrays = split_model(model)
        structure.append(graphdef)
        return tuple(arrays)

    params, batch_stats = jax.eval_shape(arrays)
    return structure[0], params, batch_stats


class _ZeroGenerator:
    """A generator for shapes alone: its zeros take no time and, as views of one zero, no memory."""

    def integers(self, high: int) -> int:
        del high
        return 0

    def standard_normal(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        return np.broadcast_to(dtype(0), shape)

    def uniform(self, low: float, high: float, shape: tuple[int, ...]) -> np.ndarray:
        del low, high
        return np.broadcast_to(np.float64(0), shape)
