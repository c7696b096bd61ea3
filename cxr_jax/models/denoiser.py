"""A small network before the first stage that takes noise from images: it predicts the noise and subtracts it.

That is the layout of Zhang et al. 2017 ("Beyond a Gaussian denoiser"), smaller and without BatchNorm. It is a stage of
the network that it stands before, so that checkpoints, heat maps and exported networks have it without knowing of it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from cxr_jax.errors import UserError
from cxr_jax.models.activations import relu
from cxr_jax.models.layers import Convolution, LayerRules, Lowering, Mode
from cxr_jax.models.network import DENOISER, NamedStage, StagedNetwork

_WINDOW, _HIDDEN = 3, 2
"""Side of a kernel, and convolutions between the first and the last."""

_IMAGE_CHANNELS = 3


class Denoiser(nnx.Module):
    """Convolutions of 3 x 3 with ReLU between them, from a normalised image to the noise in it."""

    def __init__(self, channels: int, lowering: Lowering, generator: np.random.Generator) -> None:
        """Builds it as what leaves images as they are: its last kernel is zero."""
        rules = LayerRules(padding="symmetric", activation=relu, epsilon=1e-5, lowering=lowering)
        widths = [_IMAGE_CHANNELS, *[channels] * (_HIDDEN + 1), _IMAGE_CHANNELS]
        self.convolutions = nnx.List(
            [
                Convolution(inputs, outputs, _WINDOW, 1, rules, generator, bias=True)
                for inputs, outputs in itertools.pairwise(widths)
            ]
        )
        last = self.convolutions[-1]
        last.kernel = nnx.Param(jnp.zeros_like(last.kernel[...]))

    def __call__(self, x: Array, mode: Mode) -> Array:
        """Returns `x` [B, H, W, 3] without its noise, in its own dtype; computed in float32 at least."""
        del mode
        noisy = x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x
        noise = noisy
        *others, last = self.convolutions
        for convolution in others:
            noise = relu(convolution(noise))
        return (noisy - last(noise)).astype(x.dtype)


class _WithDenoiser(StagedNetwork):
    """What a network behind a denoiser does otherwise than the one that it is made of."""

    denoiser: Denoiser

    @property
    def stages(self) -> Sequence[NamedStage]:
        """The denoiser, and those of the network."""
        return (NamedStage(DENOISER, (DENOISER,), self.denoiser), *super().stages)


def with_denoiser(
    network: nnx.Module, channels: int, *, lowering: Lowering, generator: np.random.Generator
) -> StagedNetwork:
    """Returns `network` behind a denoiser with `channels`, drawn by `generator`; its layers keep their names.

    Raises UserError for a plain module, which has no stages.
    """
    if not isinstance(network, StagedNetwork):
        raise UserError(
            f"{type(network).__name__} has no stages before which noise could be taken away: leave model.denoiser out"
        )
    object.__setattr__(network, "__class__", _class_with_denoiser(type(network)))
    network.denoiser = Denoiser(channels, lowering, generator)
    return network


@functools.cache
def _class_with_denoiser(kind: type[StagedNetwork]) -> type[StagedNetwork]:
    """Returns the class of networks of this kind behind a denoiser: one for each, as equal structures are compared."""
    return type(f"{kind.__name__}WithDenoiser", (_WithDenoiser, kind), {"__module__": __name__})
