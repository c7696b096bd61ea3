"""What is known of the images of a run without its network, and how it goes with the network's errors."""

from __future__ import annotations

import numpy as np

from cxr_jax.config.schema import Config
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.quality.measures import MEASURES
from cxr_jax.data.quality.reference import QualityReference, write_reference
from cxr_jax.data.split_loading import quality_of_split
from cxr_jax.evaluation.baselines import judge_baselines
from cxr_jax.evaluation.operating_point import OperatingPoint
from cxr_jax.evaluation.quality import ImageQuality, MeasureDefinition, Range, SplitQuality
from cxr_jax.evaluation.quality_audit import audit_errors, summarise
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.predictions import Predictions
from cxr_jax.terminal import Terminal
from cxr_jax.vocabulary import SPLIT_NAMES


def judge_quality(
    prepared: PreparedData,
    config: Config,
    validation: Predictions,
    test: Predictions,
    point: OperatingPoint,
    run: RunFolder,
    terminal: Terminal,
) -> ImageQuality:
    """Returns what is known of the images without the network, and stores what `predict` compares new images with."""
    found = {split: quality_of_split(prepared, config.data, split, track=terminal.track) for split in SPLIT_NAMES}
    tables = {split: table for split, (table, _) in found.items()}
    reference = QualityReference.of(tables["train"])
    write_reference(run.quality_reference, reference)
    columns = {split: table.columns for split, table in tables.items()}
    with terminal.track("Judging image quality and baselines", len(MEASURES) + 3) as advance:
        audit = audit_errors(columns["test"], test, point.threshold)
        advance(1)
        baselines = judge_baselines(
            columns["train"],
            found["train"][1],
            (columns["val"], validation),
            (columns["test"], test),
            advance=advance,
        )
    return ImageQuality(
        measures={name: MeasureDefinition(told.title, told.unit, told.definition) for name, told in MEASURES.items()},
        splits={
            split: SplitQuality(
                images=len(found[split][1]),
                outside=int(np.any(list(reference.outside(table).values()), axis=0).sum()),
                measures=summarise(table.columns),
            )
            for split, table in tables.items()
        },
        ranges={name: Range(low, high) for name, (low, high) in reference.ranges.items()},
        audit=audit,
        baselines=baselines,
    )
