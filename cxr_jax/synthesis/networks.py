"""The two networks of a DCGAN (Radford et al. 2016): one makes images, the other tells them from real ones.

Both are convolutions alone, with strides in place of pooling. BatchNorm follows every one of them but the generator's
last and the discriminator's first. Kernels begin as N(0, 0.02) and the factors of BatchNorm as N(1, 0.02).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from cxr_jax.models.activations import relu
from cxr_jax.models.kernels.dense import dense_convolution
from cxr_jax.models.kernels.depthwise import accumulator_of
from cxr_jax.models.kernels.native import operations as kernels
from cxr_jax.models.kernels.platform import chosen_by_platform
from cxr_jax.models.layers import BatchNorm, Convolution, LayerRules, Mode, is_native

SMALLEST_MAP = 4
"""Side of the maps that latent vectors become first, and that images become last."""

_WINDOW, _STRIDE = 4, 2
_DEVIATION = 0.02
_LEAK = 0.2
_RULES = LayerRules(padding="same", activation=relu, epsilon=1e-5)


def leaky_relu(x: Array) -> Array:
    """Returns `x` where it is positive, and a fifth of it elsewhere."""
    return jnp.where(x > 0, x, x * jnp.asarray(_LEAK, x.dtype))


def levels_of(image_size: int) -> int:
    """Returns how many times a side doubles between the smallest map and an image of `image_size`."""
    return int(math.log2(image_size // SMALLEST_MAP))


class TransposedConvolution(nnx.Module):
    """A convolution that doubles both sides; `kernel` is [4, 4, I, O], without bias."""

    def __init__(self, inputs: int, outputs: int, generator: np.random.Generator) -> None:
        self.kernel = nnx.Param(_normal(generator, (_WINDOW, _WINDOW, inputs, outputs)))

    def __call__(self, x: Array, mode: Mode) -> Array:
        """Maps `x` [B, H, W, I] to [B, 2 H, 2 W, O]."""
        if is_native(x, mode):
            return doubled_by_parity(x, self.kernel[...], kernels.convolution)
        kernel = self.kernel[...].astype(x.dtype)
        return chosen_by_platform(x, kernel, cpu=doubled_by_parity, default=doubled)


def doubled(x: Array, kernel: Array) -> Array:
    """Returns the transposed convolution of `x` [B, H, W, I] by `kernel` [4, 4, I, O], as XLA has it:
    [B, 2 H, 2 W, O].
    """
    return lax.conv_transpose(x, kernel, (_STRIDE, _STRIDE), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def doubled_by_parity(x: Array, kernel: Array, convolution: Callable[..., Array] = dense_convolution) -> Array:
    """Returns the same as four convolutions of 2 x 2, one for each parity of a row and a column of the result.

    XLA's weight gradient of a transposed convolution takes ten times as long on a CPU.
    """
    batch, height, width, _ = x.shape

    def part(down: int, right: int) -> Array:
        padding = ((1 - down, down), (1 - right, right))
        return convolution(x, kernel[down::2, right::2], stride=1, padding=padding)

    rows = [jnp.stack([part(down, right) for right in range(2)], 3) for down in range(2)]
    return jnp.stack(rows, 2).reshape(batch, 2 * height, 2 * width, -1)


class Generator(nnx.Module):
    """Latent vectors to images: a linear map to 4 x 4, then transposed convolutions up to the image."""

    def __init__(self, image_size: int, latent_size: int, channels: int, generator: np.random.Generator) -> None:
        """Builds it for square images of `image_size`, with `channels` in the maps of half that side."""
        widths = [channels * 2**level for level in reversed(range(levels_of(image_size)))]
        self.first_kernel = nnx.Param(_normal(generator, (latent_size, SMALLEST_MAP**2 * widths[0])))
        self.norms = nnx.List([_norm(width, generator) for width in widths])
        self.convolutions = nnx.List(
            [
                TransposedConvolution(inputs, outputs, generator)
                for inputs, outputs in zip(widths, [*widths[1:], 1], strict=True)
            ]
        )

    def __call__(self, latents: Array, mode: Mode) -> Array:
        """Returns images [B, S, S, 1] from -1 to 1, float32, of `latents` [B, Z]; BatchNorm as `mode` says."""
        x = latents @ self.first_kernel[...].astype(latents.dtype)
        x = x.reshape(len(latents), SMALLEST_MAP, SMALLEST_MAP, -1)
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            x = convolution(norm(x, mode, relu), mode)
        return jnp.tanh(x.astype(accumulator_of(x)))


class Discriminator(nnx.Module):
    """Images to one logit each, above 0 for real: strided convolutions down to 4 x 4, then a linear map."""

    def __init__(self, image_size: int, channels: int, generator: np.random.Generator) -> None:
        """Builds it for square images of `image_size`, with `channels` in the maps of half that side."""
        widths = [channels * 2**level for level in range(levels_of(image_size))]
        self.convolutions = nnx.List(
            [_strided(inputs, outputs, generator) for inputs, outputs in zip([1, *widths[:-1]], widths, strict=True)]
        )
        self.norms = nnx.List([_norm(width, generator) for width in widths[1:]])
        self.last_kernel = nnx.Param(_normal(generator, (SMALLEST_MAP**2 * widths[-1], 1)))

    def __call__(self, images: Array, mode: Mode) -> Array:
        """Returns logits [B] float32 of `images` [B, S, S, 1] from -1 to 1; BatchNorm as `mode` says."""
        norms = [None, *self.norms]
        x = images
        for norm, convolution in zip(norms, self.convolutions, strict=True):
            x = convolution.convolved(x, mode)
            x = leaky_relu(x) if norm is None else norm(x, mode, leaky_relu)
        flat = x.reshape(len(x), -1)
        logits = flat @ self.last_kernel[...].astype(x.dtype)
        return logits[:, 0].astype(accumulator_of(logits))


def _strided(inputs: int, outputs: int, generator: np.random.Generator) -> Convolution:
    """Returns a convolution that halves both sides."""
    convolution = Convolution(inputs, outputs, _WINDOW, _STRIDE, _RULES, generator)
    convolution.kernel = nnx.Param(_normal(generator, convolution.kernel.shape))
    return convolution


def _norm(channels: int, generator: np.random.Generator) -> BatchNorm:
    norm = BatchNorm(channels, _RULES)
    norm.scale = nnx.Param(1 + _normal(generator, (channels,)))
    return norm


def _normal(generator: np.random.Generator, shape: tuple[int, ...]) -> Array:
    # drawn by numpy: jax would compile a program for every shape
    return jnp.asarray(generator.standard_normal(shape, np.float32) * np.float32(_DEVIATION))
