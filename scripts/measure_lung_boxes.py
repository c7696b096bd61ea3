#!/usr/bin/env python
"""Holds the predicted boxes of the lungs to those of real lung masks; no test image is read.

Every image is judged by the regression that was fitted without its group. Beside the boxes stands what the mean box of
all would reach. The crop is the box with its margin, as `data.crop = "lungs"` cuts it.

    cxr-jax prepare --name chest_xray --masks FOLDER
    .venv/bin/python scripts/measure_lung_boxes.py --out results/shortcuts/lung_boxes.json
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
from cxr_jax.config.schema import DataConfig
from cxr_jax.data.masks.decoded import decoded_masks
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.prepared_boxes import boxes_of_masks, overlap_of_boxes, prepared_boxes
from cxr_jax.errors import UserError, run_script
from cxr_jax.images.crops import cut_by
from cxr_jax.runs.environment import processor_name
from cxr_jax.runs.files import write_json
from cxr_jax.terminal import Terminal

WANTED = "this script"


@dataclass(frozen=True)
class Options:
    """What to measure."""

    dataset: str = "chest_xray"  # prepared data with masks
    image_size: int = 224  # side in pixels of the images and masks
    out: str = ""  # the JSON file that is written


def main(arguments: Sequence[str]) -> None:
    """Measures, prints and writes; UserError if that cannot be done."""
    options = parse(Options, arguments, prog="measure_lung_boxes.py", description=__doc__)
    if not options.out:
        raise UserError("name the file to write by --out")
    terminal, prepared = Terminal(), PreparedData.open(options.dataset)
    data = DataConfig(dataset=options.dataset, image_size=options.image_size, crop="lungs")
    boxes = prepared_boxes(prepared, data, track=terminal.track).boxes
    masks = decoded_masks(prepared, data, WANTED, track=terminal.track)
    learnable = np.array([example.split != "test" for example in prepared.examples])
    rows = np.flatnonzero(learnable & masks.any(axis=(1, 2)))
    found = {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": "scripts/measure_lung_boxes.py --out results/shortcuts/lung_boxes.json",
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "phantom": bool(prepared.card["phantom"]),
        "masks": prepared.require_masks(WANTED).fingerprint,
        **judged_boxes(boxes[rows], masks[rows]),
    }
    write_json(Path(options.out), found)
    iou, kept = found["iou"], found["lung_pixels_kept"]
    print(f"{found['images']:,} images: IoU {iou['mean']:.3f}, {kept['mean']:.1%} of the lungs' pixels in the crop")
    print(f"Written: {options.out}")


def judged_boxes(boxes: np.ndarray, masks: np.ndarray) -> dict[str, Any]:
    """Returns how well `boxes` [N, 4], shares of the side, fit lungs of `masks` [N, S, S], and what a crop keeps."""
    real = boxes_of_masks(masks)
    overlap = overlap_of_boxes(boxes, real)
    mean_box = np.broadcast_to(real.mean(axis=0), real.shape)
    parts = [mask[cut_by(box, len(mask))] > 0 for box, mask in zip(boxes, masks, strict=True)]
    kept = [part.sum() / (mask > 0).sum() for part, mask in zip(parts, masks, strict=True)]
    return {
        "images": len(boxes),
        "iou": {"mean": float(overlap.mean()), "of_95_in_100": float(np.quantile(overlap, 0.05))},
        "iou_of_the_mean_box": float(overlap_of_boxes(mean_box, real).mean()),
        "lung_pixels_kept": {"mean": float(np.mean(kept)), "of_99_in_100": float(np.quantile(kept, 0.01))},
        "share_of_the_image": float(np.mean([part.size for part in parts]) / masks[0].size),
    }


if __name__ == "__main__":
    run_script(main)
