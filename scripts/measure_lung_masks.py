#!/usr/bin/env python
r"""Holds the coarse lung field, and the heat maps of a trained network, to real lung masks; no test image is read.

The field is scored on train and validation as a run cuts them (Dice and IoU), the maps on all validation images, for
the class that each is called: the share of heat in the lungs and the pointing game, against chance, and beside them
what the coarse field would have said. The field holds what lies between the lungs, so both are held to the masks with
that filled in, too.

    cxr-jax prepare --name chest_xray --masks FOLDER
    .venv/bin/python scripts/measure_lung_masks.py --run runs/mobilenetv2_moderate_crops \
        --out results/shortcuts/lung_masks.json
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cxr_jax.config.command_line import parse
from cxr_jax.config.loading import load_config
from cxr_jax.config.schema import DataConfig
from cxr_jax.data.prepared import PreparedData, open_data_of_run
from cxr_jax.data.split_loading import load_split, masks_of_split
from cxr_jax.errors import UserError, run_script
from cxr_jax.evaluation.cases import calls_of
from cxr_jax.explain.attention import heat_share, hits, judge_attention
from cxr_jax.explain.heat_maps import heat_maps
from cxr_jax.explain.lung_field import lung_fields
from cxr_jax.explain.overlap import field_overlap
from cxr_jax.images.image_set import ImageSet
from cxr_jax.inference.restore import TrainedModel, restore_run
from cxr_jax.models.network import stage_names_of
from cxr_jax.runs.environment import processor_name
from cxr_jax.runs.files import write_json
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.predictions import probability_of
from cxr_jax.runs.records import to_json
from cxr_jax.terminal import Terminal
from cxr_jax.vocabulary import CLASS_NAMES, NORMAL, PNEUMONIA

WANTED = "this script"
_CHUNK = 256


@dataclass(frozen=True)
class Options:
    """What to measure."""

    run: str = ""  # folder of an evaluated run that was trained on whole images
    out: str = ""  # the JSON file that is written


def main(arguments: Sequence[str]) -> None:
    """Measures, prints and writes; UserError if that cannot be done."""
    options = parse(Options, arguments, prog="measure_lung_masks.py", description=__doc__)
    if not options.run or not options.out:
        raise UserError("name a run by --run and the file to write by --out")
    run, terminal = RunFolder.open(options.run), Terminal()
    data, prepared = load_config(run.config).data, open_data_of_run(run)
    splits = {name: masked_split(prepared, data, name, terminal) for name in ("train", "val")}
    fields = {name: fields_of(images, terminal) for name, (images, _) in splits.items()}
    found = {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": "scripts/measure_lung_masks.py --run RUN --out results/shortcuts/lung_masks.json",
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "phantom": bool(prepared.card["phantom"]),
        "masks": prepared.require_masks(WANTED).fingerprint,
        "field": {name: by_class(fields[name], masks, images) for name, (images, masks) in splits.items()},
        "field_with_what_lies_between": {
            name: by_class(fields[name], filled(masks), images) for name, (images, masks) in splits.items()
        },
        "heat_maps": judged_maps(restore_run(run), *splits["val"], fields["val"], terminal),
    }
    write_json(Path(options.out), found)
    for name, told in found["field"].items():
        every = told["all"]
        print(f"{name}: {every['images']} images, Dice {every['dice']['value']:.3f}, IoU {every['iou']['value']:.3f}")
    for verdict in found["heat_maps"]["verdicts"]:
        print(f"{verdict['title']}: {verdict['told']}")
    print(f"Written: {options.out}")


def masked_split(
    prepared: PreparedData, data: DataConfig, name: str, terminal: Terminal
) -> tuple[ImageSet, np.ndarray]:
    """Returns the images of a split that have a mask, and the masks, bool [N, S, S]."""
    images = load_split(prepared, data, name, track=terminal.track, mapped=True)
    masks = masks_of_split(prepared, data, name, WANTED, track=terminal.track) > 0
    rows = np.flatnonzero(masks.any(axis=(1, 2)))
    return images.select(rows), masks[rows]


def fields_of(images: ImageSet, terminal: Terminal) -> np.ndarray:
    """Returns the coarse lung field of every image, bool [N, S, S]."""
    parts = []
    with terminal.track("Finding the lung fields", len(images)) as advance:
        for start in range(0, len(images), _CHUNK):
            parts.append(lung_fields(images.images[start : start + _CHUNK]))
            advance(len(parts[-1]))
    return np.concatenate(parts)


def filled(masks: np.ndarray) -> np.ndarray:
    """Returns masks, bool [N, S, S], with what lies between the lungs in a row: heart, spine and vessels."""
    from_left = np.logical_or.accumulate(masks, axis=2)
    return from_left & np.logical_or.accumulate(masks[:, :, ::-1], axis=2)[:, :, ::-1]


def by_class(fields: np.ndarray, masks: np.ndarray, images: ImageSet) -> dict[str, Any]:
    """Returns the overlap of fields and masks, of all images and of each class."""
    clusters = clusters_of(images)
    chosen = {"all": np.ones(len(images), bool)}
    chosen |= {name: images.labels == label for label, name in enumerate(CLASS_NAMES)}
    return {name: to_json(field_overlap(fields[rows], masks[rows], clusters[rows])) for name, rows in chosen.items()}


def clusters_of(images: ImageSet) -> np.ndarray:
    """Returns the number of the group of every image, int [N]."""
    return np.unique(images.groups, return_inverse=True)[1]


def judged_maps(
    model: TrainedModel, images: ImageSet, masks: np.ndarray, fields: np.ndarray, terminal: Terminal
) -> dict[str, Any]:
    """Returns what the maps of the called classes are worth against masks, and against the coarse field."""
    if model.threshold is None:
        raise UserError("the run has no threshold yet: evaluate it first")
    pixels = np.asarray(images.images[:])
    with terminal.waiting(f"Explaining {len(images)} validation images"):
        called = np.where(calls_of(probability_of(model.logits(pixels)), model.threshold), PNEUMONIA, NORMAL)
        stage = stage_names_of(model.model())[-1]
        maps = heat_maps(model, pixels, called, stage)
    kept = ~np.asarray(maps.blank)
    heat, masks, fields, classes = maps.heat[kept], masks[kept], fields[kept], called[kept]
    clusters = clusters_of(images)[kept]
    verdicts = judge_attention(pixels[kept], heat, classes, clusters, masks)
    return {
        "network": model.title,
        "step": model.step,
        "checkpoint_sha256": model.checkpoint_sha256,
        "stage": stage,
        "split": "val",
        "images": len(images),
        "blank": int(np.sum(~kept)),
        "explained": {name: int(np.sum(classes == label)) for label, name in enumerate(CLASS_NAMES)},
        "share_in_lungs": float(heat_share(heat, masks).mean()),
        "share_of_lungs": float(masks.mean()),
        "hits": int(hits(heat, masks).sum()),
        "hits_between": int((hits(heat, filled(masks)) & ~hits(heat, masks)).sum()),
        "share_between": float((filled(masks) & ~masks).mean()),
        "verdicts": [to_json(verdict) for verdict in verdicts],
        "by_the_coarse_field": to_json(judge_attention(pixels[kept], heat, classes, clusters)[0]),
        "hits_of_the_coarse_field": int(hits(heat, fields).sum()),
    }


if __name__ == "__main__":
    run_script(main)
