#!/usr/bin/env python
"""Counts how many films and pictures unlike those of training a run tells.

Three things are measured. Bounds for uncertain calls come from one half of the groups of validation and are held to
the other half. The limit in the network's features is fixed on validation for every stage, as `evaluate` fixes it for
one; then the films beyond it are counted, as they are and stored as JPEG. And files that show no chest are predicted
as `cxr-jax predict` does. Of the run's own data train and validation are read, and no test image.

    cxr-jax prepare SOURCE --name nih_sample
    cxr-jax prepare SOURCE_OF_THE_ORIGINALS --name originals
    .venv/bin/python scripts/measure_unlike_films.py --run RUN --pictures FOLDER --out results/external/unlike.json

The folder of pictures has a folder for each source, such as a package. Counted are files with the suffix of a picture,
and DICOM files with pixels, whatever their suffix. Films of patients with an odd number are counted once more by
themselves, because the stage was chosen by films of the others.
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom

from cxr_jax import Unreadable, load
from cxr_jax.config.command_line import parse
from cxr_jax.config.loading import load_config
from cxr_jax.data.prepared import PreparedData, open_data_of_run
from cxr_jax.data.split_loading import load_rows, load_split
from cxr_jax.errors import UserError, run_script
from cxr_jax.evaluation.conformal import ERROR_RATES, ConformalSets
from cxr_jax.evaluation.judged_sets import judge_sets
from cxr_jax.evaluation.operating_point import read_operating_point
from cxr_jax.images.image_set import ImageSet
from cxr_jax.inference.features import SPLITS, make_feature_reference
from cxr_jax.inference.forward import statistics_of
from cxr_jax.inference.restore import TrainedModel, restore_run
from cxr_jax.process import available_cores, keep_freed_memory
from cxr_jax.runs.environment import processor_name
from cxr_jax.runs.files import write_json
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.predictions import Predictions, read_predictions
from cxr_jax.terminal import Terminal
from cxr_jax.vocabulary import CLASS_NAMES

DRAWS = 40
"""Of halves of validation."""

PICTURES = (".png", ".jpg", ".jpeg", ".tif", ".tiff")
"""Suffixes of files that count as pictures."""

JPEG_QUALITY = 75
"""Of films that are stored anew at the size of the network, as the training images had been."""


@dataclass(frozen=True)
class Options:
    """What to measure."""

    run: str = ""  # an evaluated run of one network
    films: str = "nih_sample"  # prepared films of another source
    originals: str = "originals"  # prepared training images in their original size
    pictures: str = ""  # folder with a folder for each source of files that show no chest
    out: str = ""  # the JSON file that is written


def main(arguments: Sequence[str]) -> None:
    """Measures, prints and writes; UserError if that cannot be done."""
    options = parse(Options, arguments, prog="measure_unlike_films.py", description=__doc__)
    for name in ("run", "pictures", "out"):
        if not getattr(options, name):
            raise UserError(f"give --{name}; --help says what it is")
    sources = sources_in(Path(options.pictures))
    keep_freed_memory()
    run, terminal = RunFolder.open(options.run), Terminal()
    trained = restore_run(run)
    if trained.reference is None:
        raise UserError(f"{run.path} tells no distance: take an evaluated run of one network that is no plain module")
    validation = read_predictions(run.predictions_of("val"))
    found = {
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": "scripts/measure_unlike_films.py --run RUN --pictures FOLDER --out results/external/unlike.json",
        "processor": processor_name(),
        "cores": available_cores(),
        "network": trained.title,
        "checkpoint_sha256": trained.checkpoint_sha256,
        "halves": halves(validation, read_operating_point(run.operating_point).threshold),
        **told_by_stages(run, trained, options, terminal),
        "pictures": told_of_pictures(run, sources),
    }
    write_json(Path(options.out), found)
    print(f"Written: {options.out}")


def halves(validation: Predictions, threshold: float) -> dict[str, Any]:
    """Returns what bounds from one half of the groups of each class are worth on the other, on average over draws."""
    clusters, draw = validation.clusters(), np.random.default_rng(0)
    values: dict[float, list[list[float]]] = {rate: [] for rate in ERROR_RATES}
    for _ in range(DRAWS):
        mine = np.isin(clusters, half_of_groups(validation, draw))
        sets = ConformalSets.of(validation.select(mine))
        for rate in ERROR_RATES:
            judged = judge_sets(sets.rule(rate), validation.select(~mine), threshold)
            covered = [judged.of(name).covered.value for name in CLASS_NAMES]
            values[rate].append([*covered, judged.of("all").uncertain.value])
    titles = [f"covered_{name}" for name in CLASS_NAMES] + ["uncertain"]
    means = {rate: np.mean(found, axis=0).tolist() for rate, found in values.items()}
    rates = [{"error_rate": rate, **dict(zip(titles, mean, strict=True))} for rate, mean in means.items()]
    return {"draws": DRAWS, "images": len(validation), "groups": int(clusters.max() + 1), "rates": rates}


def half_of_groups(predictions: Predictions, draw: np.random.Generator) -> np.ndarray:
    """Returns the numbers of half of the groups of each class; a group is of the class of its first image."""
    groups, first = np.unique(predictions.clusters(), return_index=True)
    parts = []
    for label in range(len(CLASS_NAMES)):
        own = draw.permutation(groups[predictions.label[first] == label])
        parts.append(own[: len(own) // 2])
    return np.concatenate(parts)


def told_by_stages(run: RunFolder, trained: TrainedModel, options: Options, terminal: Terminal) -> dict[str, Any]:
    """Returns for every stage which share of validation, films and originals lies beyond its limit."""
    data = load_config(run.config).data.of_radiographs()
    prepared = open_data_of_run(run)
    training, validation = (load_split(prepared, data, name, track=terminal.track) for name in SPLITS)
    others = {name: PreparedData.open(getattr(options, name)) for name in ("films", "originals")}
    sets = {"validation": np.asarray(validation.images[:])}
    for name, other in others.items():
        sets[name] = np.asarray(load_rows(other, data, np.arange(len(other.examples)), track=terminal.track).images[:])
    sets["films_as_jpeg"] = stored_as_jpeg(sets["films"])
    apart = np.array([example.group[-1:] in tuple("13579") for example in others["films"].examples])
    stages = [
        told_by(stage, trained, training, validation, sets, apart, terminal) for stage in trained.model().stage_names
    ]
    counts = {name: len(images) for name, images in sets.items()} | {"films_of_odd_patients": int(apart.sum())}
    return {"images": counts, "stages": stages}


def told_by(
    stage: str,
    trained: TrainedModel,
    training: ImageSet,
    validation: ImageSet,
    sets: dict[str, np.ndarray],
    apart: np.ndarray,
    terminal: Terminal,
) -> dict[str, Any]:
    """Returns how many images of each of `sets` lie beyond the limit of one stage, and whether the program uses it.

    Of the films those in `apart`, bool [N], are counted once more.
    """
    reference = make_feature_reference(trained, training, validation, stage=stage, track=terminal.track)
    program = trained.compile(functools.partial(statistics_of, stage=stage), 64)
    counts = {}
    with terminal.track(f"Measuring {stage}", sum(map(len, sets.values()))) as advance:
        for name, images in sets.items():
            features = program.over(trained.params, trained.batch_stats, images, advance=advance)
            beyond = reference.distance(features) > reference.limit.distance
            counts[name] = int(beyond.sum())
            if name == "films":
                counts["films_of_odd_patients"] = int(beyond[apart].sum())
    used = trained.reference is not None and trained.reference.stage == stage
    return {"stage": stage, "used": used, "share": reference.limit.share, "fitted_on": reference.images, "told": counts}


def stored_as_jpeg(images: np.ndarray) -> np.ndarray:
    """Returns `images` [N, S, S] uint8 in 0..255 as they are read again from JPEG files of `JPEG_QUALITY`."""
    parameters = (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY)
    files = (cv2.imencode(".jpeg", image, parameters)[1] for image in images)
    return np.stack([cv2.imdecode(file, cv2.IMREAD_GRAYSCALE) for file in files])


def sources_in(folder: Path) -> list[Path]:
    """Returns the folders of sources in a folder, sorted; UserError if there is none."""
    sources = sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    if not sources:
        raise UserError(f"{folder} has no folder in it: put the files of each source into one")
    return sources


def told_of_pictures(run: RunFolder, sources: Sequence[Path]) -> list[dict[str, Any]]:
    """Returns for each source how many files there are, are refused, are told with a warning, and with none."""
    model, found = load(run.path), []
    for source in sources:
        answers = model.predict(image_files(source), on_error="keep")
        refused = [answer for answer in answers if isinstance(answer, Unreadable)]
        silent = [answer.file for answer in answers if not isinstance(answer, Unreadable) and not answer.warnings]
        told = len(answers) - len(refused) - len(silent)
        print(f"{source.name}: {len(answers)} files, {len(refused)} refused, {told} told, {len(silent)} not told")
        files = [str(Path(file).relative_to(source.parent)) for file in silent]
        counts = {"files": len(answers), "refused": len(refused), "told": told}
        found.append({"source": source.name, **counts, "not_told": files})
    return found


def image_files(folder: Path) -> list[str]:
    """Returns the pictures and the DICOM files with pixels in a folder and those below it, sorted."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return [str(path) for path in files if path.suffix.lower() in PICTURES or _has_pixels(path)]


def _has_pixels(path: Path) -> bool:
    """Returns whether a file is a DICOM file with pixels."""
    try:
        return "PixelData" in pydicom.dcmread(path)
    except (pydicom.errors.InvalidDicomError, EOFError, ValueError, KeyError, NotImplementedError):
        return False


if __name__ == "__main__":
    run_script(main)
