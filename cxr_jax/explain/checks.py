"""All checks of a run's heat maps: on a sample of validation, with a verdict each, stored beside the maps.

The checks never look at test. Each rule is in the module of its check and is the same for every run. A failed check is
reported as failed.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cxr_jax.data.progress import Track, silently
from cxr_jax.errors import UserError
from cxr_jax.evaluation.cases import calls_of
from cxr_jax.explain import agreement, attention, insertion_deletion, randomisation
from cxr_jax.explain.agreement import judge_agreement
from cxr_jax.explain.attention import judge_attention
from cxr_jax.explain.heat_maps import heat_maps
from cxr_jax.explain.insertion_deletion import KINDS, Curves, draw_curves, judge_curves
from cxr_jax.explain.lung_field import lung_fields
from cxr_jax.explain.overlap import FieldOverlap, field_overlap
from cxr_jax.explain.randomisation import (
    DRAWS,
    Cascade,
    MapFunction,
    cascade,
    cascade_levels,
    judge_randomisation,
)
from cxr_jax.explain.record import CascadeRecord, CurvesRecord, MapChecks, Scores
from cxr_jax.explain.verdict import FEWEST_IMAGES, Verdict, column_means, judged_classes
from cxr_jax.images.image_set import ImageSet
from cxr_jax.images.regions import WHOLE
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.models.network import stage_names_of
from cxr_jax.runs.predictions import probability_of
from cxr_jax.vocabulary import NORMAL, PNEUMONIA

CHECKS = (
    randomisation.CHECK,
    *insertion_deletion.CHECKS.values(),
    agreement.CHECK,
    attention.LUNGS,
    attention.BORDER,
)
"""Every check, in the order of the report."""

_NO_OTHER_RUN = "Not made: name other runs of the recipe with --seeds."


@dataclass(frozen=True)
class Sample:
    """The images that maps are checked on."""

    images: np.ndarray  # uint8 [N, S, S]
    files: tuple[str, ...]
    clusters: np.ndarray  # int [N], equal for images of one group
    classes: np.ndarray  # int [N], whose evidence the maps show
    masks: np.ndarray | None = None  # bool [N, S, S], their lung masks, empty for an image without one; None: no masks


@dataclass(frozen=True)
class Findings:
    """What the checks of one run found."""

    trained: TrainedModel
    stage: str
    sample: Sample  # without the images whose map is blank
    blank: int  # images of the sample whose map is blank
    original: np.ndarray  # float32 [N, h, w], the maps that were checked
    verdicts: tuple[Verdict, ...]
    cascade: Cascade | None  # None where too few maps were left
    curves: Curves | None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes of the network."""
        return self.trained.description.classes

    def record(self) -> MapChecks:
        """Returns what a run keeps of the findings: verdicts, and what the figures show."""
        clusters, cascade, curves = self.sample.clusters, self.cascade, self.curves
        return MapChecks(
            step=self.trained.step,
            stage=self.stage,
            explained={name: int(np.sum(self.sample.classes == i)) for i, name in enumerate(self.names)},
            images=len(self.sample.files),
            groups=len(np.unique(clusters)),
            blank=self.blank,
            checks=self.verdicts,
            cascade=cascade
            and CascadeRecord(
                levels=cascade.levels,
                rank_correlation=column_means(cascade.rank_correlation, clusters),
                similarity=column_means(cascade.similarity, clusters),
                blank=tuple(cascade.blank.tolist()),
                other_images=cascade.other_images,
            ),
            curves=curves
            and CurvesRecord(
                shares=tuple(curves.shares.tolist()),
                by_class={
                    name: _mean_scores(curves, rows)
                    for name, rows in judged_classes(self.sample.classes, self.names).items()
                },
            ),
            date=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            architecture=self.trained.description.architecture,
            files=self.sample.files,
            field_overlap=self._field_overlap(),
        )

    def _field_overlap(self) -> FieldOverlap | None:
        """Returns how the coarse lung field lies on the masks; None without masks, or where lungs are not shown."""
        sample = self.sample
        if sample.masks is None or self.trained.description.region != WHOLE or not sample.masks.any():
            return None
        having = sample.masks.any(axis=(1, 2))
        return field_overlap(lung_fields(sample.images[having]), sample.masks[having], sample.clusters[having])


def _mean_scores(curves: Curves, rows: np.ndarray) -> Scores:
    """Returns the mean curves of the images of a mask [N], by kind and by what put the pixels in order."""
    return {
        kind: {name: tuple(score[rows].mean(axis=0).tolist()) for name, score in curves.scores[kind].items()}
        for kind in KINDS
    }


def draw_sample(images: ImageSet, count: int, *, seed: int = 0) -> np.ndarray:
    """Returns the rows of `count` images by lot, ascending: as many of each class as far as there are enough.

    Of findings all images are of one kind.
    """
    random = np.random.default_rng(seed)
    if images.labels.ndim == 2:
        return np.sort(random.permutation(len(images))[:count])
    drawn = [random.permutation(np.flatnonzero(images.labels == label)) for label in range(len(images.classes))]
    turns = [(turn, label, row) for label, rows in enumerate(drawn) for turn, row in enumerate(rows)]
    return np.sort(np.array([row for _, _, row in sorted(turns)[:count]], dtype=np.intp))


def make_sample(
    trained: TrainedModel,
    images: ImageSet,
    count: int,
    *,
    threshold: float | None,
    explained: int | None,
    masks: np.ndarray | None = None,
    seed: int = 0,
) -> Sample:
    """Returns `count` images of a split, each to be explained for class `explained`, or for the one it is called.

    PNEUMONIA is called from `threshold` on; without one, the class of the highest probability. Of findings that is the
    finding which is explained.

    `masks` [N, S, S] are the lung masks of the split's images, 0 outside; None if there are none.
    """
    rows = draw_sample(images, count, seed=seed)
    pixels = np.asarray(images.images[rows])
    logits = trained.logits(pixels)
    if threshold is None:
        called = logits.argmax(axis=1)
    else:
        called = np.where(calls_of(probability_of(logits), threshold), PNEUMONIA, NORMAL)
    groups = [images.groups[row] for row in rows]
    return Sample(
        images=pixels,
        files=tuple(images.files[row] for row in rows),
        clusters=np.unique(groups, return_inverse=True)[1],
        classes=called if explained is None else np.full(len(rows), explained),
        masks=None if masks is None else np.asarray(masks[rows]) > 0,
    )


def check_maps(
    trained: TrainedModel,
    sample: Sample,
    stage: str,
    *,
    others: Sequence[TrainedModel] = (),
    map_function: MapFunction = heat_maps,
    seed: int = 0,
    track: Track = silently,
) -> Findings:
    """Checks the maps of `sample` at `stage`; `others` are runs of the same recipe with other seeds.

    Blank maps are counted and left out: they mark nothing that could be checked. With too few images left there are
    no verdicts. `seed` is that of everything drawn by lot.

    Raises:
        UserError: a network has no such stage, or another run looks at images otherwise.
    """
    for other in others:
        _require_same_images(trained, other)
    found = map_function(trained, sample.images, sample.classes, stage)
    kept = ~np.asarray(found.blank)
    original, sample = found.heat[kept], _kept(sample, kept)
    blank = int(np.sum(~kept))
    if len(original) < FEWEST_IMAGES:
        told = f"No verdict: {len(original)} of {len(kept)} maps show anything, and {FEWEST_IMAGES} are needed."
        verdicts = tuple(check.no_verdict(told) for check in CHECKS)
        return Findings(trained, stage, sample, blank, original, verdicts, None, None)
    levels = len(cascade_levels(stage_names_of(trained.model())))
    with track("Weights drawn anew", DRAWS * levels) as advance:
        changes = cascade(
            trained,
            sample.images,
            sample.classes,
            stage,
            original=original,
            map_function=map_function,
            seed=seed,
            advance=advance,
        )
    with track("Insertion and deletion", len(original)) as advance:
        curves = draw_curves(trained, sample.images, sample.classes, original, seed=seed, advance=advance)
    classes, clusters, names = sample.classes, sample.clusters, trained.description.classes
    compared = [original, *(map_function(other, sample.images, sample.classes, stage).heat for other in others)]
    if any(maps.shape != original.shape for maps in compared):
        raise UserError(f"maps of the other runs at {stage} have another size: compare runs of one architecture")
    verdicts = (
        judge_randomisation(changes, classes, clusters, names),
        *judge_curves(curves, classes, clusters, names),
        judge_agreement(compared, classes, clusters, names) if others else agreement.CHECK.no_verdict(_NO_OTHER_RUN),
        *judge_attention(sample.images, original, classes, clusters, sample.masks, names),
    )
    return Findings(trained, stage, sample, blank, original, verdicts, changes, curves)


def _require_same_images(trained: TrainedModel, other: TrainedModel) -> None:
    """Raises UserError if another run is given images of another size or shape, or has other classes."""
    if trained.description.classes != other.description.classes:
        raise UserError(
            f"runs of the classes {', '.join(trained.description.classes)} and {', '.join(other.description.classes)} "
            "cannot be compared: name runs of one recipe"
        )
    mine, its = (
        (one.description.image_size, one.description.resize, one.description.interpolation, one.description.clarify)
        for one in (trained, other)
    )
    parts = [(one.description.region, one.description.lung_boxes) for one in (trained, other)]
    if parts[0] != parts[1]:
        raise UserError("runs that see different parts of an image cannot be compared: name runs of one recipe")
    if mine != its:
        raise UserError(
            f"runs that see images of {mine[0]} pixels ({mine[1]}, {mine[2]}) and of {its[0]} ({its[1]}, {its[2]}) "
            "cannot be compared: name runs of one recipe"
        )


def _kept(sample: Sample, rows: np.ndarray) -> Sample:
    """Returns the rows of a mask [N]."""
    files = tuple(file for file, kept in zip(sample.files, rows, strict=True) if kept)
    masks = None if sample.masks is None else sample.masks[rows]
    return Sample(sample.images[rows], files, sample.clusters[rows], sample.classes[rows], masks)
