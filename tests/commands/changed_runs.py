"""Changes of a trained run by which it becomes another, without training."""

from __future__ import annotations

import json

import numpy as np

from cxr_jax.checkpoints import CheckpointWriter, read_newest
from cxr_jax.runs.folder import RunFolder


def change_config(run: RunFolder, **changes: object) -> None:
    """Sets fields, by `section__name`, in the config of a run."""
    text = run.config.read_text()
    for key, value in changes.items():
        section, name = key.split("__")
        before, rest = text.split(f"[{section}]\n")
        lines = [f"{name} = {json.dumps(value)}" if line.startswith(f"{name} =") else line for line in rest.split("\n")]
        text = f"{before}[{section}]\n" + "\n".join(lines)
    run.config.write_text(text)


def change_network(run: RunFolder, checkpoint: str, seed: int) -> None:
    """Gives a checkpoint of a run, best or last, another classifier."""
    folder = run.checkpoints / checkpoint
    found = read_newest(folder)
    arrays = {name: np.array(value) for name, value in found.arrays.items()}
    (name,) = [name for name in arrays if name.endswith("classifier.kernel") and "params" in name]
    arrays[name] += np.random.default_rng(seed).normal(size=arrays[name].shape).astype(np.float32)
    with CheckpointWriter(folder) as writer:
        writer.save(found.step + seed, arrays, found.details)
