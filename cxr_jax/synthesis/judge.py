"""Samples of a generator beside real images of train and of validation, in the features of a network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import numpy as np

from cxr_jax.config.schema import Config
from cxr_jax.errors import UserError
from cxr_jax.evaluation.kernel_distance import kernel_distance
from cxr_jax.evaluation.memorisation import memorisation, nearest
from cxr_jax.evaluation.samples import JudgedSamples, likeness, verdict_of
from cxr_jax.images.enlarged import EnlargedRows
from cxr_jax.images.image_set import ImageSet
from cxr_jax.inference.forward import compile_on_images, pooled_features_of
from cxr_jax.models.network import StagedNetwork
from cxr_jax.models.registry import find_architecture
from cxr_jax.models.state import merge_model
from cxr_jax.synthesis.similarity import scales_of, similarity
from cxr_jax.training.network import Network, build_network

PAIRS = 500
"""Pairs of different images whose similarity is measured at most, of samples and of training images each."""

_PAIRS_AT_ONCE = 50


@dataclass(frozen=True)
class Neighbours:
    """The nearest training image of every sample."""

    by_pixels: np.ndarray  # [N] its row among the training images
    pixel_distances: np.ndarray  # [N] in grey levels, from 0 to 255
    by_features: np.ndarray  # [N]
    feature_distances: np.ndarray  # [N]


class FeatureProgram:
    """The features of the network of [model], on images of any size."""

    def __init__(self, config: Config, devices: Sequence[jax.Device]) -> None:
        """Builds and compiles it; UserError for a plain module, which has no features to take."""
        self._network = network = build_network(config.model, config.training.seed)
        _require_stages(network, config.model.name)
        self._side = find_architecture(config.model.name).image_size
        self._program = compile_on_images(
            pooled_features_of,
            network.graphdef,
            network.params,
            network.batch_stats,
            mean=network.mean,
            std=network.std,
            image_size=self._side,
            batch_size=config.training.evaluation_batch_size,
            devices=devices,
        )

    def of(self, images: np.ndarray, advance: Callable[[int], None] = lambda _: None) -> np.ndarray:
        """Returns the features [N, C] of `images` [N, S, S] uint8, which are enlarged to what the network expects."""
        shown = EnlargedRows(images, self._side)
        network = self._network
        return self._program.over(network.params, network.batch_stats, shown, advance=advance)


def judge_samples(
    config: Config,
    samples: np.ndarray,
    training: ImageSet,
    held_out: ImageSet,
    program: FeatureProgram,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[JudgedSamples, Neighbours]:
    """Returns what `samples` [N, S, S] uint8 are worth, and the nearest training image of each.

    Args:
        config: of the generator; its [model] is the network of the features.
        samples: as they were made, without a mark.
        training: what the generator learned from.
        held_out: validation images of the same class, which it has not seen.
        program: the features of the network.
        advance: is told how many more images are done, of all three sets.
    """
    real, unseen = np.asarray(training.images), np.asarray(held_out.images)
    features = {name: program.of(images, advance) for name, images in _named(samples, real, unseen)}
    pixels, by_pixels = nearest(samples, real)
    in_features, by_features = nearest(features["samples"], features["real"])
    seed = config.training.seed
    halves = _halves(training.groups, seed)
    judged = JudgedSamples(
        samples=len(samples),
        training_images=len(real),
        held_out_images=len(unseen),
        image_size=samples.shape[1],
        network=config.model.name,
        pretrained=bool(config.model.weights),
        scales=scales_of(samples.shape[1]),
        distance=kernel_distance(features["samples"], features["real"], seed=seed),
        distance_of_halves=kernel_distance(*(features["real"][half] for half in halves), seed=seed),
        samples_alike=likeness(_similarities(samples, np.arange(len(samples)), seed)),
        real_alike=likeness(_similarities(real, np.unique(training.groups, return_inverse=True)[1], seed)),
        in_pixels=memorisation(pixels, nearest(unseen, real)[0]),
        in_features=memorisation(in_features, nearest(features["unseen"], features["real"])[0]),
    )
    judged = dataclasses.replace(judged, verdict=verdict_of(judged))
    return judged, Neighbours(by_pixels, pixels, by_features, in_features)


def _named(samples: np.ndarray, real: np.ndarray, unseen: np.ndarray) -> list[tuple[str, np.ndarray]]:
    return [("samples", samples), ("real", real), ("unseen", unseen)]


def _similarities(images: np.ndarray, groups: np.ndarray, seed: int) -> np.ndarray:
    """Returns the similarities of up to `PAIRS` pairs of images, drawn by `seed`.

    No group is in two pairs, nor twice in one, so that the pairs are independent.
    """
    order = np.random.default_rng(seed).permutation(len(images))
    # of every group the image that comes first in a random order
    drawn = order[np.sort(np.unique(groups[order], return_index=True)[1])]
    count = min(PAIRS, len(drawn) // 2)
    if not count:
        raise UserError("there are not two groups of images to compare: more training images are needed")
    first, second, found = drawn[:count], drawn[count : 2 * count], []
    for start in range(0, count, _PAIRS_AT_ONCE):
        # always as many, for one compiled program
        pairs = np.resize(np.arange(start, min(start + _PAIRS_AT_ONCE, count)), _PAIRS_AT_ONCE)
        found.append(np.asarray(similarity(images[first[pairs]], images[second[pairs]])))
    return np.concatenate(found)[:count].astype(np.float64)


def _halves(groups: Sequence[str], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of two halves of the images, of as many groups each and none in common."""
    names, group = np.unique(np.array(groups), return_inverse=True)
    chosen = np.random.default_rng(seed).permutation(len(names)) < len(names) // 2
    return np.flatnonzero(chosen[group]), np.flatnonzero(~chosen[group])


def _require_stages(network: Network, name: str) -> None:
    model = merge_model(network.graphdef, network.params, network.batch_stats)
    if not isinstance(model, StagedNetwork):
        raise UserError(f"model.name is {name}, which has no features to compare images by: choose another network")
