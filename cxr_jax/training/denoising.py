"""The training of a network's denoiser: on training images, with noise that is added to them, before all else."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from cxr_jax.devices import choose_devices
from cxr_jax.errors import UserError
from cxr_jax.images.image_set import ImageSet
from cxr_jax.models.layers import Mode
from cxr_jax.models.network import DENOISER, has_prefix
from cxr_jax.models.state import ArrayDict, merge_model
from cxr_jax.preprocessing.normalise import GREY_RANGE, normalise
from cxr_jax.training.network import Network
from cxr_jax.training.processes import ALONE, ProcessGroup

STEPS = 600
"""Of Adam, each on `PATCHES` patches."""

PATCHES, SIDE = 32, 64
"""How many patches a step sees, and their side in pixels, or that of the images where these are smaller."""

LARGEST_NOISE = 0.1
"""Standard deviation of the strongest noise, as a share of the grey range; each patch has one of its own, from 0 on."""

RATE = 1e-3

_MEASURED = 50
"""Last steps by which it is told what is left of the noise."""


class _State(NamedTuple):
    params: ArrayDict  # of the denoiser
    optimizer_state: optax.OptState


def denoiser_params(params: ArrayDict) -> ArrayDict:
    """Returns those of `params` that belong to the denoiser."""
    return {name: value for name, value in params.items() if has_prefix(name, (DENOISER,))}


def with_trained_denoiser(
    network: Network,
    images: ImageSet,
    seed: int,
    group: ProcessGroup = ALONE,
    *,
    steps: int = STEPS,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[Network, str]:
    """Returns `network` with its denoiser trained on `images`, and in a sentence what it leaves of the noise.

    Patches are drawn from the images at random; white Gaussian noise of a random strength is added to each, and the
    mean squared difference to the patch without it is made small. The seed decides everything. `advance` is told how
    many more steps are done. Raises UserError where several processes train together.
    """
    if group.world_size > 1:
        raise UserError("model.denoiser is trained by one process alone: set it to 0, or parallel.world_size to 1")
    side = min(SIDE, images.images.shape[1])
    optimizer = optax.adam(RATE)
    fixed = {name: value for name, value in network.params.items() if not has_prefix(name, (DENOISER,))}

    def loss_of(params: ArrayDict, clean: Array, noisy: Array) -> Array:
        model = merge_model(network.graphdef, fixed | params, network.batch_stats)
        return jnp.mean(jnp.square(model.denoiser(noisy, Mode()) - clean))

    @jax.jit
    def step(state: _State, patches: Array, number: Array) -> tuple[_State, Array, Array]:
        """Returns the state after a step, its loss, and the power of the noise that was added."""
        strengths, noise = jax.random.split(jax.random.fold_in(jax.random.key(seed), number))
        strength = jax.random.uniform(strengths, (PATCHES, 1, 1), jnp.float32, 0, LARGEST_NOISE * GREY_RANGE)
        grey = patches.astype(jnp.float32)
        changed = grey + strength * jax.random.normal(noise, grey.shape, jnp.float32)
        clean, noisy = (normalise(each, network.mean, network.std) for each in (grey, changed))
        loss, gradients = jax.value_and_grad(loss_of)(state.params, clean, noisy)
        # optax raises a float to the power of an integer, which strict promotion refuses
        with jax.numpy_dtype_promotion("standard"):
            updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.params)
        added = jnp.mean(jnp.square(noisy - clean))
        return _State(optax.apply_updates(state.params, updates), optimizer_state), loss, added

    params = jax.device_put(denoiser_params(network.params), choose_devices(1)[0])
    state, figures = _State(params, optimizer.init(params)), []
    for number in range(steps):
        state, *measured = step(state, _patches(images, side, seed, number), np.int32(number))
        figures.append(measured)
        advance(1)
    left, added = np.array(jax.device_get(figures[-_MEASURED:]), np.float64).mean(axis=0)
    trained = {name: state.params.get(name, value) for name, value in network.params.items()}
    told = f"The denoiser leaves {left / added:.1%} of the power of noise that was added to training images"
    return dataclasses.replace(network, params=trained), told


def _patches(images: ImageSet, side: int, seed: int, number: int) -> np.ndarray:
    """Returns the patches [PATCHES, side, side] uint8 of one step."""
    generator = np.random.default_rng([seed, number])
    rows = np.sort(generator.integers(0, len(images), PATCHES))
    places = generator.integers(0, images.images.shape[1] - side + 1, (PATCHES, 2))
    whole = np.asarray(images.images[rows])
    return np.stack(
        [image[top : top + side, left : left + side] for image, (top, left) in zip(whole, places, strict=True)]
    )
