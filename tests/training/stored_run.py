"""A run that was stopped half-way, as later versions must be able to go on with: made here, stored under tests/."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
from training_runs import SIZE, TrainingRun, Watcher, draw_images

from cxr_jax.checkpoints import FORMAT_VERSION
from cxr_jax.config.loading import load_config, write_config
from cxr_jax.config.schema import (
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ParallelConfig,
    PhaseConfig,
    TrainingConfig,
    ValidationConfig,
)
from cxr_jax.errors import UserError
from cxr_jax.inference.restore import restore_run
from cxr_jax.runs.description import NetworkDescription, write_description
from cxr_jax.runs.files import atomic_path, write_json
from cxr_jax.runs.folder import SCHEMA_VERSION, RunFolder
from cxr_jax.runs.metrics_log import read_metrics
from cxr_jax.training.network import build_network
from cxr_jax.vocabulary import CLASS_NAMES

STORED = Path(__file__).parents[1] / "stored_runs"
STOPPED_AT = 7

CONFIG = Config(
    data=DataConfig(dataset="drawn", image_size=SIZE),
    model=ModelConfig(name="mobilenetv2_tiny", dropout=0.2),
    optimizer=OptimizerConfig(learning_rate=0.05),
    training=TrainingConfig(batch_size=8, evaluation_batch_size=8),
    validation=ValidationConfig(every_iterations=2),
    parallel=ParallelConfig(devices=1),
    phases=(
        PhaseConfig("head", 1, trainable=("classifier",), batch_norm="frozen"),
        PhaseConfig("top", 1, trainable=("classifier", "conv_head", "bn2"), batch_norm="train"),
    ),
)
"""Few trained parameters keep the stored momentum small."""


def stored_file() -> Path:
    """The archive of the run that today's format writes."""
    return STORED / f"format_{FORMAT_VERSION}.zip"


def trainer_of(run: RunFolder, watcher: Watcher | None = None) -> TrainingRun:
    """Training as `run` says, on images that are drawn anew."""
    config = load_config(run.config)
    network = build_network(config.model, config.training.seed)
    return TrainingRun(config, network, draw_images(44, seed=0), draw_images(10, seed=1), run, watcher or Watcher())


def outcome(run: RunFolder) -> dict:
    """Logits of drawn images by the best network, and the losses that were logged."""
    lines = read_metrics(run.metrics)
    return {
        "logits": restore_run(run).logits(draw_images(4, seed=2).images, batch_size=4).tolist(),
        "losses": [line["loss"] for line in lines if line["kind"] == "train"],
        "validation_losses": [line["loss"] for line in lines if line["kind"] == "validation"],
    }


def make(folder: Path) -> None:
    """Train half-way in the new `folder`, store that as `stored_file()` with what comes of it, and train to the end."""
    run = RunFolder.create(folder)
    network = build_network(CONFIG.model, CONFIG.training.seed)
    description = NetworkDescription(
        architecture=CONFIG.model.name,
        classes=CLASS_NAMES,
        image_size=SIZE,
        resize=CONFIG.data.resize,
        interpolation=CONFIG.data.interpolation,
        mean=network.mean,
        std=network.std,
        weights="",
        weights_sha256="",
        parameters=sum(value.size for value in network.params.values()),
    )
    write_json(run.environment, {"schema_version": SCHEMA_VERSION, "data_fingerprint": "drawn"})
    write_description(run, description)
    write_config(CONFIG, run.config)
    try:
        trainer_of(run, Watcher(signal_at=STOPPED_AT)).train()
    except UserError:
        pass
    else:
        raise AssertionError("the run was not stopped")
    stopped = outcome(run)
    when = (2000, 1, 1, 0, 0, 0)
    with atomic_path(stored_file()) as unfinished, zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(run.path.rglob("*")):
            if path.is_file():
                name = zipfile.ZipInfo(str(path.relative_to(run.path)), when)
                archive.writestr(name, path.read_bytes(), zipfile.ZIP_DEFLATED)
        trainer_of(run).train(resume=True)
        expected = {"stopped": stopped, "finished": outcome(run)}
        archive.writestr(zipfile.ZipInfo("expected.json", when), json.dumps(expected))


def open_stored(archive: Path, folder: Path) -> tuple[RunFolder, dict]:
    """The stored run, unpacked into `folder`, and what `make` found in it."""
    with zipfile.ZipFile(archive) as stored:
        stored.extractall(folder)
    return RunFolder.open(folder), json.loads((folder / "expected.json").read_text(encoding="utf-8"))


def assert_close(found: dict, expected: dict) -> None:
    """Both `outcome`s agree to what another processor may round otherwise."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4, err_msg=name)
