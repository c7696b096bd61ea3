"""Do the maps depend on what was learned? Cascading randomisation of the weights.

Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018: the weights are drawn anew from the classifier down,
one stage more at every level, and the maps are compared with those of the trained network. A map that stays as it was
shows the image, not what the network learned. As in Arun et al. 2021 (Radiology: Artificial Intelligence), maps of
different images under the trained network tell how alike maps are that have nothing to do with each other.

Rule: a map passes if its rank correlation with that of the trained network, averaged over all levels of the cascade, is
below 0.5 by the upper end of its 95 % interval over images. The average over levels and not the last level alone,
because a map that only the lowest layers move shows edges, however little is left of it in the end.

BatchNorm statistics of the stages drawn anew are measured again on the same images. With those of the trained network,
or with none, activations die out on the way, the map goes blank, and every method would pass.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from cxr_jax.explain.heat_maps import HeatMaps, enlarged
from cxr_jax.explain.similarity import rank_correlation, structural_similarity
from cxr_jax.explain.verdict import Check, Verdict, means_by_class
from cxr_jax.images.batches import padded_batches
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.models.head import head_of
from cxr_jax.models.layers import BatchNorm
from cxr_jax.models.network import CLASSIFIER, has_prefix, stage_layers_of, stage_names_of
from cxr_jax.models.registry import build_model
from cxr_jax.models.state import ArrayDict, batch_stats_of, merge_model, split_model
from cxr_jax.preprocessing.normalise import normalise
from cxr_jax.vocabulary import CLASS_NAMES

LIMIT = 0.5
"""Rank correlation under which maps count as different: a quarter of the variance of the ranks is then shared."""

DRAWS = 2
"""How often the cascade is run, each time with other weights."""

CHECK = Check(
    name="randomisation",
    title="Changes when the weights are drawn anew",
    source="Adebayo et al. 2018",
    measure="rank correlation with the trained network's map, mean over the cascade",
    rule=f"upper end below {LIMIT:g}",
)

_IMAGES_OF_STATISTICS = 32
"""How many images BatchNorm statistics are measured on."""

MapFunction = Callable[[TrainedModel, np.ndarray, np.ndarray, str], HeatMaps]
"""Heat maps of uint8 images [N, S, S], each for its class [N], at a stage; `heat_maps.heat_maps` is one."""


@dataclass(frozen=True)
class Cascade:
    """How N maps change while L levels of the network are drawn anew, from the classifier down."""

    levels: tuple[str, ...]  # the stage that is drawn anew at each level, together with all before it
    rank_correlation: np.ndarray  # float64 [N, L] with the map of the trained network, mean over draws
    similarity: np.ndarray  # float64 [N, L], structural, the same
    blank: np.ndarray  # float64 [L], share of maps that are blank
    other_images: float  # mean rank correlation of trained maps of different images
    examples: np.ndarray  # float32 [E, L, h, w], maps of the first images in the first draw


def cascade_levels(stage_names: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the stages in the order in which they are drawn anew: from the classifier to the stem."""
    return (CLASSIFIER, *reversed(stage_names))


def cascade(
    trained: TrainedModel,
    images: np.ndarray,
    classes: np.ndarray,
    stage: str,
    *,
    original: np.ndarray,
    map_function: MapFunction,
    draws: int = DRAWS,
    seed: int = 0,
    examples: int = 3,
    advance: Callable[[int], None] = lambda steps: None,
) -> Cascade:
    """Returns how the maps of `images`, uint8 [N, S, S], for `classes`, int [N], change under randomisation.

    Args:
        trained: the network.
        images: at least two.
        classes: whose evidence is shown, the same at every level.
        stage: at which maps are made.
        original: maps [N, h, w] of the trained network.
        map_function: makes the maps.
        draws: how many cascades are averaged.
        seed: of the weights.
        examples: how many maps are kept to be looked at.
        advance: is told after each level.
    """
    levels = cascade_levels(stage_names_of(trained.model()))
    side = images.shape[-1]
    correlation, similarity = (np.zeros((draws, len(images), len(levels))) for _ in range(2))
    blank = np.zeros((draws, len(levels)))
    kept = []
    for draw in range(draws):
        fresh = _fresh_arrays(trained, seed=seed + draw)
        for level in range(len(levels)):
            changed = randomised(trained, levels[: level + 1], fresh, images)
            found = map_function(changed, images, classes, stage)
            correlation[draw, :, level] = rank_correlation(original, found.heat)
            similarity[draw, :, level] = structural_similarity(enlarged(original, side), enlarged(found.heat, side))
            blank[draw, level] = found.blank.mean()
            if draw == 0:
                kept.append(found.heat[:examples])
            advance(1)
    return Cascade(
        levels,
        correlation.mean(axis=0),
        similarity.mean(axis=0),
        blank.mean(axis=0),
        float(np.mean(rank_correlation(original, np.roll(original, 1, axis=0)))),
        np.stack(kept, axis=1),
    )


def judge_randomisation(
    cascade: Cascade, classes: np.ndarray, clusters: np.ndarray, names: Sequence[str] = CLASS_NAMES
) -> Verdict:
    """Returns the verdict by the rule above.

    `classes` [N] are those explained, indices into `names`; `clusters` [N] number the groups.
    """
    means = means_by_class(cascade.rank_correlation.mean(axis=1), classes, clusters, names)
    told = (
        f"With only the classifier drawn anew the rank correlation is {cascade.rank_correlation[:, 0].mean():.2f}, "
        f"with every stage {cascade.rank_correlation[:, -1].mean():.2f} ({cascade.blank[-1]:.0%} of these maps are "
        f"blank); maps of different images correlate by {cascade.other_images:.2f}."
    )
    return CHECK.verdict(means, lambda mean: mean.high < LIMIT, told)


def randomised(
    trained: TrainedModel, stages: tuple[str, ...], fresh: tuple[ArrayDict, ArrayDict], images: np.ndarray
) -> TrainedModel:
    """Returns the network with the parameters of `stages` taken from `fresh`, parameters and BatchNorm statistics.

    Their statistics are then measured on `images`, uint8 [N, S, S], of which the first ones are used.
    """
    table = stage_layers_of(trained.model())
    layers = tuple(layer for stage in stages for layer in table[stage])
    params = _replaced(trained.params, fresh[0], layers)
    batch, _ = next(padded_batches(images[:_IMAGES_OF_STATISTICS], min(len(images), _IMAGES_OF_STATISTICS)))
    start = _replaced(trained.batch_stats, fresh[1], layers)
    measured = _measured_statistics(trained.graphdef, params, start, batch, trained.mean, trained.std)
    return dataclasses.replace(trained, params=params, batch_stats=_replaced(trained.batch_stats, measured, layers))


def _replaced(arrays: ArrayDict, others: ArrayDict, layers: tuple[str, ...]) -> ArrayDict:
    """Returns `arrays`, with those of `others` where their names begin with one of `layers`."""
    return {name: others[name] if has_prefix(name, layers) else value for name, value in arrays.items()}


def _fresh_arrays(trained: TrainedModel, *, seed: int) -> tuple[ArrayDict, ArrayDict]:
    """Returns parameters and statistics of the same network before any training."""
    description = trained.description
    # Far from the seeds of training runs: the very weights that a run began with would not be random to it.
    model = build_model(
        description.architecture,
        classes=len(description.classes),
        seed=1_000_003 + seed,
        until=description.until,
        head=head_of(description),
        denoiser=description.denoiser,
    )
    return split_model(model)[1:]


@functools.partial(jax.jit, static_argnames=("graphdef", "mean", "std"))
def _measured_statistics(
    graphdef: nnx.GraphDef,
    params: ArrayDict,
    batch_stats: ArrayDict,
    images: Array,
    mean: tuple[float, ...],
    std: tuple[float, ...],
) -> ArrayDict:
    """Returns the BatchNorm statistics of a batch of uint8 images [B, S, S], every layer fed by normalised ones."""
    model = merge_model(graphdef, params, batch_stats)
    layers = [node for _, node in nnx.iter_modules(model) if isinstance(node, BatchNorm)]
    if not layers:
        return {}
    kept = layers[0].momentum
    model(normalise(jnp.asarray(images), mean, std), train=True)
    # A step of training moves the running statistics by a share of the way; this is the whole way.
    return {name: (moved - kept * batch_stats[name]) / (1 - kept) for name, moved in batch_stats_of(model).items()}
