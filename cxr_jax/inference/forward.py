"""The forward pass of a network as compiled programs: what validation, restored runs and predictions run.

Each is compiled ahead of time for batches of one shape, so that it cannot be compiled again unseen, and spread over the
devices that it is given. If there are several processes, each calls it with its own share of the rows of a batch. The
result is that of the whole batch, on all of them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.stages import Compiled

from cxr_jax.devices import replicated, require_divisible, shapes_of, sharded, share_out
from cxr_jax.evaluation.feature_distance import FeatureReference
from cxr_jax.images.batches import WHOLE, Share, padded_batches
from cxr_jax.images.image_set import Pixels
from cxr_jax.models.layers import Mode
from cxr_jax.models.state import ArrayDict, merge_model
from cxr_jax.preprocessing.normalise import normalise

Precision = Literal["float32", "bf16"]
"""What activations are computed in."""


def activations_dtype(parameters: jnp.dtype, precision: Precision) -> jnp.dtype:
    """Returns the dtype of the activations of a network whose parameters have the dtype `parameters`."""
    return jnp.dtype(jnp.bfloat16) if precision == "bf16" else parameters


def logits_of(
    params: ArrayDict,
    batch_stats: ArrayDict,
    images: Array,
    *,
    graphdef: nnx.GraphDef,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    precision: Precision = "float32",
    native_kernels: bool = False,
) -> Array:
    """Returns logits [B, K] of `images` [B, S, S] uint8 in 0..255, by running statistics and without dropout."""
    inputs = normalise(images, mean, std, activations_dtype(jnp.dtype(jnp.float32), precision))
    return merge_model(graphdef, params, batch_stats)(inputs, native=native_kernels)


def pooled_features_of(
    params: ArrayDict,
    batch_stats: ArrayDict,
    images: Array,
    *,
    graphdef: nnx.GraphDef,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> Array:
    """Returns pooled features [B, C] of `images` [B, S, S] uint8 in 0..255, in evaluation mode."""
    return merge_model(graphdef, params, batch_stats).pooled(normalise(images, mean, std))


def logits_and_distances_of(
    params: ArrayDict,
    batch_stats: ArrayDict,
    images: Array,
    *,
    graphdef: nnx.GraphDef,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    reference: FeatureReference,
) -> Array:
    """Returns logits and the distance from the training images, [B, K + 1], of `images` [B, S, S] uint8 in 0..255."""
    network = merge_model(graphdef, params, batch_stats)
    features, activations = network.features_by_way_of(normalise(images, mean, std), reference.stage)
    distance = reference.distance(channel_statistics(activations), jnp)
    return jnp.concatenate([network.classify(features), distance[:, None]], axis=1)


def statistics_of(
    params: ArrayDict,
    batch_stats: ArrayDict,
    images: Array,
    *,
    graphdef: nnx.GraphDef,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    stage: str,
) -> Array:
    """Returns the statistics [B, 2 C] of a stage for `images` [B, S, S] uint8 in 0..255."""
    network = merge_model(graphdef, params, batch_stats)
    return channel_statistics(network.activations(normalise(images, mean, std), stage))


def channel_statistics(activations: Array) -> Array:
    """Returns mean and standard deviation over the image of every channel, [B, 2 C], of activations [B, h, w, C]."""
    mean = jnp.mean(activations, (1, 2))
    spread = jnp.mean(jnp.square(activations - mean[:, None, None, :]), (1, 2))
    return jnp.concatenate([mean, jnp.sqrt(spread)], axis=1)


def classified(params: ArrayDict, batch_stats: ArrayDict, pooled: Array, *, graphdef: nnx.GraphDef) -> Array:
    """Returns logits [B, K] of pooled features [B, C], without dropout."""
    return merge_model(graphdef, params, batch_stats).classify_pooled(pooled, Mode())


class ForwardProgram:
    """A forward pass compiled for batches of one shape, on the devices that it was compiled for."""

    def __init__(
        self,
        function: Callable[[ArrayDict, ArrayDict, Array], Array],
        params: ArrayDict,
        batch_stats: ArrayDict,
        batch: jax.ShapeDtypeStruct,
        devices: Sequence[jax.Device],
    ) -> None:
        """Compiles `function` for networks like `params` and `batch_stats`, and for batches of the shape `batch`.

        Raises UserError if the devices cannot share the batch evenly.
        """
        require_divisible("training.evaluation_batch_size", batch.shape[0], devices)
        everywhere = replicated(devices)
        jitted = jax.jit(function, in_shardings=(everywhere, everywhere, sharded(devices)), out_shardings=everywhere)
        self.compiled: Compiled = jitted.lower(shapes_of(params), shapes_of(batch_stats), batch).compile()
        self._batch_size, self._devices = batch.shape[0], devices

    def __call__(self, params: ArrayDict, batch_stats: ArrayDict, batch: np.ndarray) -> Array:
        """Returns the result [B, ...] for one whole batch; does not wait for it."""
        return self.compiled(params, batch_stats, share_out(batch, self._devices))

    def over(
        self,
        params: ArrayDict,
        batch_stats: ArrayDict,
        examples: Pixels,
        *,
        before_each: Callable[[], None] = lambda: None,
        advance: Callable[[int], None] = lambda _: None,
        share: Share = WHOLE,
    ) -> np.ndarray:
        """Returns the results [N, ...] for `examples` [N, ...], at least one, by batches; the last one is padded.

        `before_each` is called before every batch and may raise to leave the work. `advance` is told how many more
        examples are done. Of every batch this process reads `share`.
        """
        parts: list[np.ndarray] = []
        running: tuple[Array, int] | None = None

        def finish(values: Array, count: int) -> None:
            parts.append(np.asarray(values)[:count])
            advance(count)

        for batch, count in padded_batches(examples, self._batch_size, share=share):
            before_each()
            following = (self(params, batch_stats, batch), count)
            # one batch ahead keeps the devices busy, and no more: the work can then be left within two batches
            if running is not None:
                finish(*running)
            running = following
        finish(*running)
        return np.concatenate(parts)


def compile_on_images(
    answer: Callable[..., Array],
    graphdef: nnx.GraphDef,
    params: ArrayDict,
    batch_stats: ArrayDict,
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    image_size: int,
    batch_size: int,
    devices: Sequence[jax.Device],
    **how: Any,
) -> ForwardProgram:
    """Returns the program that gives `answer` of images [batch_size, image_size, image_size] uint8 in 0..255.

    `answer` is `logits_of` or `pooled_features_of`, and `how` are its further options. What a network is judged by is
    computed in float32 however it was trained; another precision is for measuring speed. Raises UserError if the
    devices cannot share the batch evenly.
    """
    function = functools.partial(answer, graphdef=graphdef, mean=mean, std=std, **how)
    images = jax.ShapeDtypeStruct((batch_size, image_size, image_size), jnp.uint8)
    return ForwardProgram(function, params, batch_stats, images, devices)


def compile_classifier(
    graphdef: nnx.GraphDef,
    params: ArrayDict,
    batch_stats: ArrayDict,
    *,
    channels: int,
    batch_size: int,
    devices: Sequence[jax.Device],
) -> ForwardProgram:
    """Returns the program that gives logits [batch_size, K] of pooled features [batch_size, channels] float32."""
    pooled = jax.ShapeDtypeStruct((batch_size, channels), jnp.float32)
    return ForwardProgram(functools.partial(classified, graphdef=graphdef), params, batch_stats, pooled, devices)
