"""One step of a DCGAN: the discriminator learns from real and made images, then the generator from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array, lax

from cxr_jax.config.schema import Config, SynthesisConfig
from cxr_jax.inference.forward import Precision, activations_dtype
from cxr_jax.models.layers import Mode
from cxr_jax.models.state import ArrayDict, batch_stats_of, merge_model, split_model
from cxr_jax.synthesis.networks import Discriminator, Generator
from cxr_jax.training.step import DeviceBatch

_HALF_RANGE = 127.5
_OF_TRAINING, _OF_SAMPLES = 0, 1
"""Part the latent vectors of training from those of samples."""


class NetworkState(NamedTuple):
    """One of the two networks, with its optimizer."""

    params: ArrayDict
    batch_stats: ArrayDict
    optimizer_state: optax.OptState


class SynthesisState(NamedTuple):
    """What a step takes and returns."""

    generator: NetworkState
    discriminator: NetworkState
    step: Array  # [] int32, steps since training began


class SynthesisMetrics(NamedTuple):
    """What a step measured on its batch: the discriminator before its update, the generator before its own."""

    discriminator_loss: Array  # [] of real and made images together
    generator_loss: Array  # []
    called_real: Array  # [] share of the real images that the discriminator calls real
    made_called_real: Array  # [] share of the made ones


@dataclass(frozen=True)
class Networks:
    """The structure of both networks, and what trains them."""

    generator: nnx.GraphDef
    discriminator: nnx.GraphDef
    optimizer: optax.GradientTransformation
    latent_size: int
    image_size: int


def build_networks(config: Config) -> tuple[Networks, SynthesisState]:
    """Returns both networks of `config` and the state with which training begins, drawn from its seed."""
    synthesis, size = config.synthesis, config.data.image_size
    draws = np.random.default_rng(config.training.seed)
    made = split_model(Generator(size, synthesis.latent_size, synthesis.channels, draws))
    judged = split_model(Discriminator(size, synthesis.channels, draws))
    optimizer = adam(synthesis)
    state = SynthesisState(
        *(NetworkState(params, stats, optimizer.init(params)) for _, params, stats in (made, judged)),
        step=jnp.asarray(0, jnp.int32),
    )
    return Networks(made[0], judged[0], optimizer, synthesis.latent_size, size), state


def adam(synthesis: SynthesisConfig) -> optax.GradientTransformation:
    """Returns the optimizer of both networks."""
    return optax.adam(synthesis.adam_learning_rate, b1=synthesis.adam_beta1, b2=0.999)


def synthesis_step(
    state: SynthesisState,
    batch: DeviceBatch,
    epoch: Array,
    *,
    networks: Networks,
    config: Config,
    precision: Precision,
    native_kernels: bool = False,
    axis_name: str | None = None,
) -> tuple[SynthesisState, SynthesisMetrics]:
    """Returns the state after one step on the real images of `batch`, [B, S, S] uint8.

    As many images are made, of latent vectors that seed, `epoch` and the ids of the batch decide. Real and made images
    go through the discriminator apart, each with the statistics of its own batch. The generator's loss is the
    non-saturating one. Under a mapped axis `axis_name` losses, gradients and statistics are those of the whole batch.
    """
    dtype = activations_dtype(jnp.dtype(jnp.float32), precision)
    mode = Mode(batch_statistics=True, axis_name=axis_name, native=native_kernels)
    latents = training_latents(config.training.seed, epoch, batch.ids, networks.latent_size).astype(dtype)
    real = (batch.images.astype(jnp.float32) / _HALF_RANGE - 1)[..., None].astype(dtype)

    def generate(params: ArrayDict) -> tuple[Array, ArrayDict]:
        model = merge_model(networks.generator, params, state.generator.batch_stats)
        return model(latents, mode), batch_stats_of(model)

    # what the discriminator sees first is what the generator is judged by next: made once, differentiated once
    made, back, generator_stats = jax.vjp(generate, state.generator.params, has_aux=True)

    def discriminate(params: ArrayDict) -> tuple[Array, tuple[Array, Array, ArrayDict]]:
        model = merge_model(networks.discriminator, params, state.discriminator.batch_stats)
        of_real, of_made = model(real, mode), model(made.astype(dtype), mode)
        target = 1 - config.synthesis.label_smoothing
        losses = target * _loss(of_real) + (1 - target) * _loss(-of_real) + _loss(-of_made)
        return _mean_over(axis_name, losses.mean()), (of_real, of_made, batch_stats_of(model))

    of_discriminator = jax.value_and_grad(discriminate, has_aux=True)
    (loss, (of_real, of_made, stats)), gradients = of_discriminator(state.discriminator.params)
    discriminator = _updated(networks, state.discriminator, _mean_over(axis_name, gradients), stats)

    def deceive(images: Array) -> Array:
        model = merge_model(networks.discriminator, discriminator.params, discriminator.batch_stats)
        return _mean_over(axis_name, _loss(model(images.astype(dtype), mode)).mean())

    generator_loss, of_images = jax.value_and_grad(deceive)(made)
    generator_gradients = _mean_over(axis_name, back(of_images)[0])
    generator = _updated(networks, state.generator, generator_gradients, generator_stats)
    shares = _mean_over(axis_name, [(logits > 0).astype(jnp.float32).mean() for logits in (of_real, of_made)])
    return SynthesisState(generator, discriminator, state.step + 1), SynthesisMetrics(loss, generator_loss, *shares)


def training_latents(seed: int, epoch: Array, ids: Array, size: int) -> Array:
    """Returns a latent vector for every id, [B, size] float32, uniform from -1 to 1; seed, epoch and id decide it."""
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _OF_TRAINING), epoch)
    return _latents(key, ids, size)


def sample_latents(seed: int, numbers: Array, size: int) -> Array:
    """Returns the latent vectors of the samples with these `numbers`, [B, size] float32, which no training step has."""
    return _latents(jax.random.fold_in(jax.random.key(seed), _OF_SAMPLES), numbers, size)


def images_of(params: ArrayDict, batch_stats: ArrayDict, latents: Array, *, graphdef: nnx.GraphDef) -> Array:
    """Returns the images [B, S, S] uint8 of `latents` [B, Z], by running statistics: each image is of its own alone."""
    made = merge_model(graphdef, params, batch_stats)(latents, Mode())
    return jnp.clip(jnp.round((made[..., 0] + 1) * _HALF_RANGE), 0, 255).astype(jnp.uint8)


def _latents(key: Array, numbers: Array, size: int) -> Array:
    keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
    return jax.vmap(lambda one: jax.random.uniform(one, (size,), jnp.float32, -1, 1))(keys)


def _loss(logits: Array) -> Array:
    """Returns the cross-entropy [B] of `logits` [B] whose images should count as real."""
    return jax.nn.softplus(-logits)


def _updated(networks: Networks, state: NetworkState, gradients: ArrayDict, stats: ArrayDict) -> NetworkState:
    # optax raises a float to the power of an integer, which strict promotion refuses
    with jax.numpy_dtype_promotion("standard"):
        updates, optimizer_state = networks.optimizer.update(gradients, state.optimizer_state, state.params)
    return NetworkState(optax.apply_updates(state.params, updates), stats, optimizer_state)


def _mean_over(axis_name: str | None, values: Any) -> Any:
    """Returns the mean of `values` over the devices of a mapped axis; `values` themselves without one."""
    return values if axis_name is None else lax.pmean(values, axis_name)
