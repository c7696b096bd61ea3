"""What is left of a network's calls when it is shown a region of every image alone, beside the images whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from cxr_jax.evaluation.cases import calls_of
from cxr_jax.evaluation.class_points import against_the_rest
from cxr_jax.evaluation.confidence import LEVEL, RESAMPLES
from cxr_jax.evaluation.intervals import bootstrap_weights, percentile_interval
from cxr_jax.evaluation.measures import Measured
from cxr_jax.evaluation.paired import compare_auc
from cxr_jax.evaluation.rates import mean_of
from cxr_jax.evaluation.robustness import Level
from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.runs.files import write_json
from cxr_jax.runs.predictions import Predictions
from cxr_jax.runs.records import fields_to_json, read_record
from cxr_jax.vocabulary import FINDINGS, NORMAL, PNEUMONIA

SCHEMA_VERSION = 1
"""Version of occlusion.json."""


@dataclass(frozen=True)
class Shown:
    """What a network is worth on one region, and how much more or less that is than on the same images whole.

    Attributes:
        level: figures on the region, whose name is the level's kind.
        roc_auc: the area on the region less that on whole images.
        sensitivity: the same, at the fixed threshold.
        specificity: the same, at the fixed threshold.
    """

    level: Level
    roc_auc: Measured
    sensitivity: Measured
    specificity: Measured

    @property
    def region(self) -> str:
        """What of the images was shown."""
        return self.level.kind


@dataclass(frozen=True)
class Occlusion:
    """The contents of occlusion.json.

    Attributes:
        split: whose images were shown.
        images: how many, all with a mask.
        without_mask: how many images of the split have none and are left out.
        threshold: fixed on validation, on whole images; None of several classes, which have one each.
        checkpoint_sha256: of the network.
        masks: fingerprint of the lung masks.
        whole: the same images as they are.
        regions: every region, in order.
        classes: each class against the rest, or each finding, by name, where they are not NORMAL and PNEUMONIA; the
            figures beside it are then the means over them.
    """

    split: Literal["val", "test"]
    images: int
    without_mask: int
    threshold: float | None
    checkpoint_sha256: str
    masks: str
    whole: Level
    regions: tuple[Shown, ...]
    classes: dict[str, Occlusion] = field(default_factory=dict)


def class_shown(
    levels: Mapping[str, Level], whole: ClassProbabilities, region: ClassProbabilities, thresholds: Mapping[str, float]
) -> dict[str, Shown]:
    """Returns a region for all classes together, under the empty name, and for each; arguments as of `shown`.

    Means over the classes are over those, or over the findings, of which `levels` have a mean.
    """
    each = {
        name: shown(levels[name], against_the_rest(whole, name), against_the_rest(region, name), thresholds[name])
        for name in whole.classes
        if whole.asked(name)[0].any()
    }
    counted = [entry for entry in each.values() if whole.KIND != FINDINGS or entry.level.roc_auc.value is not None]
    means = (mean_of([getattr(entry, name) for entry in counted]) for name in ("roc_auc", "sensitivity", "specificity"))
    return {"": Shown(levels[""], *means), **each}


def shown(level: Level, whole: Predictions, region: Predictions, threshold: float) -> Shown:
    """Returns a region with its differences to whole images, paired image by image, with 95 % intervals over groups.

    Args:
        level: figures on the region.
        whole: predictions on whole images.
        region: predictions on the region of the same images, in the same order.
        threshold: at which both are called.

    Raises:
        ValueError: they are of other images.
    """
    if whole.file != region.file:
        raise ValueError("predictions of different images cannot be paired")
    clusters = whole.clusters()
    area = compare_auc(whole.label, region.probability[None], whole.probability[None], clusters)
    called = [calls_of(table.probability, threshold) == PNEUMONIA for table in (region, whole)]
    more = called[0].astype(np.float64) - called[1]
    return Shown(
        level,
        Measured(
            "ROC-AUC less that of whole images",
            area.value if area else None,
            None if area else "a class has fewer than two groups",
            (area.interval,) if area and area.interval else (),
        ),
        _mean("sensitivity less that on whole images", more, whole.label == PNEUMONIA, clusters),
        _mean("specificity less that on whole images", -more, whole.label == NORMAL, clusters),
    )


def _mean(title: str, values: np.ndarray, rows: np.ndarray, clusters: np.ndarray) -> Measured:
    """Returns the mean of `values` [N] over the rows of a mask [N], with the interval of the group bootstrap."""
    if not rows.any():
        return Measured(title, None, "the images lack a class", ())
    chosen = values[rows]
    index = np.unique(clusters[rows], return_inverse=True)[1]
    weights = bootstrap_weights(index, RESAMPLES, np.random.default_rng(0))
    value = float(chosen.mean())
    interval = percentile_interval(weights @ chosen / weights.sum(axis=1), value, LEVEL)
    return Measured(title, value, None, (interval,) if interval else ())


def write_occlusion(path: str | Path, occlusion: Occlusion) -> None:
    """Writes the record atomically; UserError as in `write_json`."""
    write_json(path, {"schema_version": SCHEMA_VERSION, **fields_to_json(occlusion)})


def read_occlusion(path: str | Path) -> Occlusion:
    """Reads a record of occlusion.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    advice = "evaluate the run with --occluded again"
    return read_record(path, Occlusion, version=SCHEMA_VERSION, where="it", advice=advice)


def ordered(regions: Sequence[Shown]) -> tuple[Shown, ...]:
    """Returns the regions on which the network ranks best first."""
    return tuple(sorted(regions, key=lambda entry: -(entry.level.roc_auc.value or 0)))
