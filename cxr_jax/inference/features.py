"""The training images in the features of a trained network, and how far other images lie from them."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cxr_jax.config.schema import Config
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.progress import Track, silently
from cxr_jax.data.split_loading import load_split
from cxr_jax.evaluation.feature_distance import FeatureReference, write_feature_reference
from cxr_jax.images.image_set import ImageSet
from cxr_jax.inference.ensemble import Ensemble
from cxr_jax.inference.forward import statistics_of
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.models.network import EVALUATION, StagedNetwork
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.ledger import is_evaluated

SPLITS = ("train", "val")

TRAINING_IMAGES = 2000
"""Of training, at most, from which a reference is made; more would change it little."""


def measured_stage(network: StagedNetwork, image_size: int) -> str:
    """Returns the first stage whose map is as small as the last one's.

    Earlier ones see how a file was compressed rather than what it shows, later ones what the classes differ in.
    """

    def maps_of(x: Array) -> list[Array]:
        """Returns the output of every stage, each computed from the one before."""
        maps = [x]
        for stage in network.stages:
            maps.append(stage.run(maps[-1], EVALUATION))
        return maps[1:]

    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    sides = [found.shape[1] for found in jax.eval_shape(maps_of, image)]
    return network.stage_names[sides.index(sides[-1])]


def make_feature_reference(
    model: TrainedModel,
    training: ImageSet,
    validation: ImageSet,
    *,
    stage: str | None = None,
    batch_size: int = 64,
    track: Track = silently,
) -> FeatureReference | None:
    """Returns the training images in the features of a network, with the limit that validation gives.

    At most `TRAINING_IMAGES` of them are taken, by a fixed draw, and the features of `stage`, by default of
    `measured_stage`. None for a plain module, which has no stages.
    """
    network = model.model()
    if not isinstance(network, StagedNetwork):
        return None
    stage = stage or measured_stage(network, model.image_size)
    rows = np.sort(np.random.default_rng(0).permutation(len(training))[:TRAINING_IMAGES])
    program = model.compile(functools.partial(statistics_of, stage=stage), batch_size)
    with track("Comparing validation with train in the network's features", len(rows) + len(validation)) as advance:
        of_training, of_validation = (
            program.over(model.params, model.batch_stats, images, advance=advance)
            for images in (training.images[rows], validation.images)
        )
    groups = np.unique(np.array(validation.groups), return_inverse=True)[1]
    return FeatureReference.of(stage, (of_training, training.labels[rows]), (of_validation, groups))


def fix_feature_reference(
    run: RunFolder,
    config: Config,
    prepared: PreparedData,
    trained: TrainedModel | Ensemble,
    *,
    track: Track = silently,
) -> None:
    """Stores the training images in the features of one network, with the limit that validation gives.

    One that was stored for the same network before a look at test is kept. Nothing is stored for an ensemble, whose
    members have features of their own, nor for a plain module.

    Raises:
        UserError: a split cannot be loaded, or the reference cannot be written.
    """
    kept = run.feature_reference.is_file() and is_evaluated(run, trained.step, trained.checkpoint_sha256)
    if kept or isinstance(trained, Ensemble):
        return
    data = config.data.of_radiographs()
    training, validation = (load_split(prepared, data, name, track=track, mapped=True) for name in SPLITS)
    batch_size = config.training.evaluation_batch_size
    reference = make_feature_reference(trained, training, validation, batch_size=batch_size, track=track)
    if reference is not None:
        write_feature_reference(run.feature_reference, reference)
