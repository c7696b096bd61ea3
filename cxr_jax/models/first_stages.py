"""A network cut behind one of its stages, with a linear classifier on what that stage gives."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from cxr_jax.errors import UserError, suggestion
from cxr_jax.models.layers import Classifier, Mode
from cxr_jax.models.network import CLASSIFIER, EVALUATION, NamedStage, StagedNetwork

LOGITS = "logits"
"""The stage behind all others: what the network's own classifier says of every pixel. Its mean over the image is the
logits, less a bias that is the same for every image."""

_INSIDE = "network"


class FirstStages(StagedNetwork):
    """The stages of a network up to one of them, the mean over the image, and a linear classifier of its own.

    The stages keep their names; the names of their parameters begin with `network.`.
    """

    def __init__(
        self, network: StagedNetwork, last: str, *, classes: int, image_size: int, generator: np.random.Generator
    ) -> None:
        """Takes `network` over and drops what lies behind the stage `last`.

        `image_size` is the side of images that the network can take; the channels of the stage are found by it.

        Raises:
            UserError: the network has no such stage, or no stages at all.
        """
        if not hasattr(network, "stages"):
            raise UserError(
                f"{type(network).__name__} has no stages whose output could be taken: make it a StagedNetwork, as "
                "docs/extending.md shows"
            )
        names = (*(stage.name for stage in network.stages), LOGITS)
        if last not in names:
            raise UserError(
                f"{type(network).__name__} has no stage {last!r}{suggestion(last, names)} (it has {', '.join(names)})"
            )
        self.network, self.last = network, last
        self.has_native_kernels = network.has_native_kernels
        image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
        channels = jax.eval_shape(lambda x: self._run(x, self.stages, EVALUATION), image).shape[-1]
        for stage in _all_stages(network)[names.index(last) + 1 :]:
            for layer in reversed(stage.layers):
                _drop(network, layer)
        self.classifier = Classifier(channels, classes, generator)

    @property
    def stages(self) -> Sequence[NamedStage]:
        """Those of the network up to the last one that is kept."""
        found = _all_stages(self.network)
        kept = found[: [stage.name for stage in found].index(self.last) + 1]
        return tuple(stage._replace(layers=tuple(f"{_INSIDE}.{layer}" for layer in stage.layers)) for stage in kept)


def has_linear_head(network: nnx.Module) -> bool:
    """Returns whether the logits of `network` are a linear layer's, of the mean over its last feature map."""
    is_mean = getattr(type(network), "reduce", None) is StagedNetwork.reduce
    return is_mean and isinstance(network.classifier, Classifier)


def _all_stages(network: StagedNetwork) -> tuple[NamedStage, ...]:
    """Returns the stages of `network`, and its classifier as the last."""

    def said(x: Array, mode: Mode) -> Array:
        del mode
        return network.evidence(x)

    return (*network.stages, NamedStage(LOGITS, (CLASSIFIER,), said))


def _drop(network: nnx.Module, layer: str) -> None:
    """Takes the layer of a dotted name out of `network`; a place in a list stays, empty."""
    *path, name = layer.split(".")
    owner = network
    for part in path:
        owner = owner[int(part)] if part.isdigit() else getattr(owner, part)
    if name.isdigit():
        owner[int(name)] = nnx.List([])
    else:
        setattr(owner, name, None)
