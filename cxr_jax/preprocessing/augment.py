"""Random changes of training images, drawn per example and applied inside the compiled step.

Which changes exist at all is decided when the step is traced, from the frozen configuration: a change that is off costs
nothing. Sums over pixels and coordinates are of integers, and products are rounded before they are added up. An image
therefore has the same bits in a batch of any size and on any number of devices, in whatever order the compiler puts
floating-point operations.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key, UInt8

from cxr_jax.config.schema import AugmentationConfig
from cxr_jax.preprocessing.degradation import add_noise, cut_out, gaussian_blur
from cxr_jax.preprocessing.equalisation import equalise, equalise_adaptively
from cxr_jax.preprocessing.normalise import GREY_RANGE
from cxr_jax.preprocessing.parts import from_parts, in_parts
from cxr_jax.preprocessing.rounding import product
from cxr_jax.preprocessing.tone import TONE_SEGMENTS, adjust_contrast, adjust_gamma, apply_tone_curve, mean_grey
from cxr_jax.preprocessing.warp import Crop, warp

# Numbers folded into an image's key: what is drawn from one of them is not moved by any other change.
_NOISE, _NOISE_PIXELS, _BLUR, _CROP, _CUTOUT, _TONE, _EQUALISATION, _CLAHE, _GAIN = range(9)
_SHARED_UNIFORMS = 9
"""Numbers drawn from the image's key itself, by the changes of geometry, brightness, contrast and gamma."""


class Draw(NamedTuple):
    """What chance decided for one image; a change that is off has its neutral value."""

    horizontal_flip: Bool[Array, ""]
    vertical_flip: Bool[Array, ""]
    angle: Float[Array, ""]  # radians, counter-clockwise
    scale: Float[Array, ""]  # above 1 enlarges
    shift_x: Float[Array, ""]  # share of the side, to the right
    shift_y: Float[Array, ""]  # share of the side, downwards
    brightness: Float[Array, ""]  # grey levels added
    contrast: Float[Array, ""]  # factor about the image's mean
    gamma: Float[Array, ""]  # exponent
    gain: Float[Array, ""]  # factor
    crop: Crop  # part of the picture that is kept
    clahe: Bool[Array, ""]
    equalisation: Bool[Array, ""]
    tone: Float[Array, " K"]  # slopes of the pieces of the tone curve
    blur: Float[Array, ""]  # sigma, pixels
    noise: Float[Array, ""]  # standard deviation, grey levels
    cutout_x: Float[Array, ""]  # the square's centre, share of the side
    cutout_y: Float[Array, ""]


def draw(key: Key[Array, ""], config: AugmentationConfig) -> Draw:
    """Draws the changes of one image from its key.

    Angles, shifts, brightness, noise, blur, the area and place of a crop and the place of a cutout are uniform;
    factors, slopes and aspects are uniform on the logarithm, so that doubling is as likely as halving. Every change
    has its own number, so that switching one on does not change what the others draw.
    """
    uniform = jax.random.uniform(key, (_SHARED_UNIFORMS,), jnp.float32)
    signed = 2 * uniform - 1

    def own(number: int, strength: float, count: int = 1) -> Float[Array, " count"]:
        """Returns uniform numbers of one change alone; zeros if it is off."""
        if strength == 0:
            return jnp.zeros(count, jnp.float32)
        return jax.random.uniform(jax.random.fold_in(key, number), (count,), jnp.float32)

    cutout = own(_CUTOUT, config.cutout, 2)
    return Draw(
        horizontal_flip=uniform[0] < config.horizontal_flip,
        vertical_flip=uniform[1] < config.vertical_flip,
        angle=signed[2] * jnp.deg2rad(jnp.float32(config.rotation)),
        scale=_factor(signed[3], config.scale),
        shift_x=signed[4] * config.translation,
        shift_y=signed[5] * config.translation,
        brightness=product(signed[6], jnp.float32(config.brightness * GREY_RANGE)),
        contrast=_factor(signed[7], config.contrast),
        gamma=_factor(signed[8], config.gamma),
        gain=_factor(2 * own(_GAIN, config.gain)[0] - 1, config.gain),
        crop=_crop(own(_CROP, config.crop, 4), config),
        clahe=own(_CLAHE, config.clahe)[0] < config.clahe,
        equalisation=own(_EQUALISATION, config.equalisation)[0] < config.equalisation,
        tone=_tone(2 * own(_TONE, config.tone, TONE_SEGMENTS) - 1, config.tone),
        blur=own(_BLUR, config.blur)[0] * config.blur,
        noise=product(own(_NOISE, config.noise)[0], jnp.float32(config.noise * GREY_RANGE)),
        cutout_x=cutout[0],
        cutout_y=cutout[1],
    )


def _factor(signed: Float[Array, "*N"], strength: float) -> Float[Array, "*N"]:
    """Numbers in -1..1 to factors from 1 / (1 + strength) to 1 + strength."""
    return jnp.exp(signed * jnp.log1p(jnp.float32(strength)))


def _tone(signed: Float[Array, " K"], strength: float) -> Float[Array, " K"]:
    """Returns a factor for each piece of a tone curve, as `_factor`.

    They are computed one by one, like the numbers of the other changes: in XLA the exponential of a whole row may round
    otherwise where the batch is spread over devices.
    """
    factors = [_factor(signed[piece], strength) for piece in range(signed.shape[0])]
    return jnp.stack(jax.lax.optimization_barrier(factors))


def _crop(uniform: Float[Array, 4], config: AugmentationConfig) -> Crop:
    """Returns area, aspect and place of the part that is kept, as in GoogLeNet's training (Szegedy et al., 2014).

    An aspect at which the part would be longer than the picture is brought to the nearest that fits.
    """
    if config.crop == 0:
        return Crop(jnp.float32(1), jnp.float32(1), jnp.float32(0), jnp.float32(0))
    area = config.crop + product(uniform[0], jnp.float32(1 - config.crop))
    aspect = jnp.clip(_factor(2 * uniform[1] - 1, config.crop_aspect), area, 1 / area)
    width, height = (jnp.minimum(jnp.sqrt(square), 1) for square in (area * aspect, area / aspect))
    return Crop(width, height, 2 * uniform[2] - 1, 2 * uniform[3] - 1)


@functools.partial(jax.jit, static_argnames=("config", "parts"))
def augment(
    images: UInt8[Array, "B S S"], keys: Key[Array, " B"], config: AugmentationConfig, parts: int = 1
) -> Float[Array, "B S S"]:
    """Changes each image `[B, S, S]` uint8 at random by its own key; returns float32 `[B, S, S]` in 0..255.

    In this order: flips; crop, rotation, scale and translation as one bilinear resampling, black (0) outside; CLAHE,
    then equalisation of the whole, both on grey levels rounded to whole numbers; the tone curve; contrast about the
    mean of the image as it came in; gain; brightness; clipping to 0..255; gamma; blur; noise; cutout. The result of an
    example depends on its image, its key and `config` alone. With nothing on, the grey levels come back unchanged.

    The batch is cut into `parts`, which divide it, and a loop changes one after the other. On a CPU two parts take
    about a seventh of the time of one inside a training step: what a loop computes is not fused with what comes after
    it, and XLA computes the pixels' places slowly where it fuses the resampling with the repetition over channels.
    """
    if not config.is_random:
        return images.astype(jnp.float32)
    # for the whole batch: of a part of one image XLA might round them otherwise
    batch = images, keys, jax.vmap(functools.partial(draw, config=config))(keys)
    change = jax.vmap(functools.partial(_augment_one, config=config))
    if parts == 1:
        return change(*batch)
    each = jax.tree.map(functools.partial(in_parts, count=parts), batch)
    return from_parts(jax.lax.map(lambda part: change(*part), each))


def _augment_one(
    image: UInt8[Array, "S S"], key: Key[Array, ""], drawn: Draw, config: AugmentationConfig
) -> Float[Array, "S S"]:
    """Returns `augment` for one image and what was drawn for it from its key."""
    if config.horizontal_flip > 0:
        image = jnp.where(drawn.horizontal_flip, image[:, ::-1], image)
    if config.vertical_flip > 0:
        image = jnp.where(drawn.vertical_flip, image[::-1, :], image)
    if config.rotation > 0 or config.scale > 0 or config.translation > 0 or config.crop > 0:
        crop = drawn.crop if config.crop > 0 else None
        changed = warp(image, drawn.angle, drawn.scale, drawn.shift_x, drawn.shift_y, crop)
    else:
        changed = image.astype(jnp.float32)
    changed = _change_grey_levels(changed, mean_grey(image), drawn, config)
    if config.blur > 0:
        changed = gaussian_blur(changed, drawn.blur, config.blur)
    if config.noise > 0:
        changed = add_noise(changed, jax.random.fold_in(key, _NOISE_PIXELS), drawn.noise)
    if config.cutout > 0:
        changed = cut_out(changed, drawn.cutout_x, drawn.cutout_y, config.cutout)
    return changed


def _change_grey_levels(
    image: Float[Array, "S S"], mean: Float[Array, ""], drawn: Draw, config: AugmentationConfig
) -> Float[Array, "S S"]:
    """Returns CLAHE, equalisation, tone curve, contrast about `mean`, gain, brightness and gamma, where they are on."""
    if config.clahe > 0:
        image = jnp.where(drawn.clahe, equalise_adaptively(_rounded(image)).astype(jnp.float32), image)
    if config.equalisation > 0:
        image = jnp.where(drawn.equalisation, equalise(_rounded(image)).astype(jnp.float32), image)
    if config.tone > 0:
        image = apply_tone_curve(image, drawn.tone)
    if config.contrast > 0:
        image = adjust_contrast(image, drawn.contrast, mean)
    if config.gain > 0:
        image = product(image, drawn.gain)
    if config.brightness > 0:
        image = image + drawn.brightness
    if config.contrast > 0 or config.gain > 0 or config.brightness > 0:
        image = jnp.clip(image, 0.0, GREY_RANGE)
    if config.gamma > 0:
        image = adjust_gamma(image, drawn.gamma)
    return image


def _rounded(image: Float[Array, "S S"]) -> UInt8[Array, "S S"]:
    """Returns grey levels in 0..255 as the nearest whole numbers."""
    return jnp.round(image).astype(jnp.uint8)
