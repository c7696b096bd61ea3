"""The architectures by name: how each is built and what images it expects."""

from __future__ import annotations

import dataclasses
import difflib
import functools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np
from flax import nnx

from cxr_jax.errors import UserError
from cxr_jax.models.layers import Lowering
from cxr_jax.models.networks import efficientnetv2, mobilenetv2
from cxr_jax.models.networks.efficientnetv2 import EfficientNetV2
from cxr_jax.models.networks.inverted_residual import Scaling, Stage
from cxr_jax.models.networks.mobilenetv2 import MobileNetV2
from cxr_jax.models.state import ArrayDict, split_model

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
HALVES = (0.5, 0.5, 0.5)
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
}


def find_architecture(name: str) -> Architecture:
    """Returns the architecture called `name`; raises UserError naming the nearest one if there is none."""
    if name not in ARCHITECTURES:
        near = difflib.get_close_matches(name, ARCHITECTURES, 1)
        hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(ARCHITECTURES)}"
        raise UserError(f"there is no model called {name!r}; {hint}")
    return ARCHITECTURES[name]


def build_model(
    name: str,
    *,
    classes: int,
    seed: int = 0,
    dropout_rate: float = 0.0,
    stochastic_depth: float = 0.0,
    lowering: Lowering = "fast",
) -> nnx.Module:
    """Returns a freshly initialised network; equal seeds give equal parameters.

    `dropout_rate` is that before the classifier, `stochastic_depth` the share of examples that skip the last block.
    Raises UserError for an unknown name.
    """
    return find_architecture(name).build(
        classes=classes,
        dropout_rate=dropout_rate,
        stochastic_depth=stochastic_depth,
        lowering=lowering,
        generator=np.random.default_rng(seed),
    )


def model_shapes(
    name: str, *, classes: int, lowering: Lowering = "fast"
) -> tuple[nnx.GraphDef, dict[str, jax.ShapeDtypeStruct], dict[str, jax.ShapeDtypeStruct]]:
    """Returns the structure of a network and the shapes of its parameters and statistics, as `split_model` names them.

    No values are drawn, so that it is quick for the largest networks. Raises UserError for an unknown name.
    """
    structure = []

    def arrays() -> tuple[ArrayDict, ArrayDict]:
        model = find_architecture(name).build(
            classes=classes, dropout_rate=0.0, stochastic_depth=0.0, lowering=lowering, generator=_ZeroGenerator()
        )
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
