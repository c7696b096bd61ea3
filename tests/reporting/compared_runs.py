"""Runs and tables made up to be compared."""

import csv
import io

import numpy as np

from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.operating_point import choose_operating_point, write_operating_point
from cxr_jax.runs.files import write_json, write_text
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.ledger import append_look
from cxr_jax.runs.metrics_log import MetricsLog
from cxr_jax.runs.predictions import Predictions, write_predictions
from cxr_jax.runs.recipes import RecipeFiles

QUICK = Confidence(resamples=100)
ARCHITECTURE = "mobilenetv2_tiny"


def predictions(seed, *, split="test", normals=30, pneumonia=50, skill=1.0):
    random = np.random.default_rng(seed)
    label = np.r_[np.zeros(normals, int), np.ones(pneumonia, int)]
    margin = random.normal(size=len(label)) + skill * (2 * label - 1)
    return Predictions.from_logits(
        np.stack([-margin / 2, margin / 2], axis=1),
        file=[f"{split}/{i}.jpeg" for i in range(len(label))],
        split=[split] * len(label),
        group=[f"{split}-{positive}-{i // 2}" for i, positive in enumerate(label)],
        subtype=["virus" if positive else "normal" for positive in label],
        label=label,
    )


def make_run(path, seed, *, rate=0.01, skill=1.0, looks=1, rule="sensitivity", minutes=8.0, cores=2):
    """A run folder as training and evaluation leave it, as far as a comparison reads it."""
    run = RunFolder(path)
    write_text(run.config, f"[training]\nseed = {seed}\n[optimizer]\nlearning_rate = {rate}\n")
    validation = predictions(100 + seed, split="val", skill=skill)
    write_predictions(run.predictions_of("val"), validation)
    write_predictions(run.predictions_of("test"), predictions(seed, skill=skill))
    write_operating_point(run.operating_point, choose_operating_point(validation, rule=rule, target_sensitivity=0.9))
    network = {"architecture": ARCHITECTURE, "classes": ["NORMAL", "PNEUMONIA"], "image_size": 48, "parameters": 1234}
    write_json(run.network, network)
    machine = {"cores": cores, "processor": "Slow 3000"}
    write_json(run.environment, {"schema_version": 1, "machine": machine, "devices": ["gpu H900", "gpu H900"]})
    for _ in range(looks):
        append_look(run, {"threshold": 0.5})
    with MetricsLog(run.metrics) as log:
        for step, speed in enumerate((5.0, 40.0 + seed, 41.0 + seed), start=1):
            log.write("train", step=step, images_per_second=speed, seconds=float(step))
        log.write("end", reason="finished", step=3, seconds=60 * minutes)
    return run


def files_of(*paths, name="recipe"):
    return RecipeFiles(name, paths)


def cells(markdown, title):
    """The rows of the table below a heading."""
    block = markdown.split(f"## {title}\n\n")[1].split("\n\n")[0].strip()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in block.splitlines()]


def read(text):
    return list(csv.DictReader(io.StringIO(text)))
