"""Every format of the project: how an odd file of it is made, and how the project reads it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import numpy as np

from cxr_jax.data.decode import decode_grey, to_square, without_header
from cxr_jax.data.encoded import MAX_PIXELS
from cxr_jax.data.sources import find_source
from cxr_jax.errors import UserError

from . import containers, images
from .mutations import mutate


def _read_image(path: Path) -> None:
    data = path.read_bytes()
    grey = decode_grey(data, name=path.name)
    assert grey.dtype == np.uint8 and grey.ndim == 2 and 0 < grey.size <= MAX_PIXELS
    assert to_square(grey, 16, "pad").shape == (16, 16)
    kept = decode_grey(without_header(data, name=path.name), name=path.name)
    assert np.array_equal(kept, grey)


def _read_source(path: Path) -> None:
    source = find_source(path)
    listing = source.listing
    assert listing.entries
    refused = None
    with source.opened() as reader:
        for entry in listing.entries:
            try:
                assert decode_grey(reader.read(entry), name=entry.file).dtype == np.uint8
            except UserError as error:
                _check_sentence(error)
                refused = error
    if refused:
        raise refused


def _read_config(path: Path) -> None:
    from cxr_jax.config.loading import format_config, load_config

    config = load_config(path)
    path.write_text(format_config(config), encoding="utf-8")
    assert load_config(path) == config


def _read_table(path: Path) -> None:
    from cxr_jax.data.examples import read_examples
    from cxr_jax.runs.predictions import read_predictions, write_predictions

    try:
        read_examples(path)
    except UserError as error:
        _check_sentence(error)
    predictions = read_predictions(path)
    write_predictions(path, predictions)
    again = read_predictions(path)
    assert (again.file, again.group, again.probability.tolist()) == (
        predictions.file,
        predictions.group,
        predictions.probability.tolist(),
    )


def _read_ledger(path: Path) -> None:
    from cxr_jax.runs.folder import RunFolder, read_json
    from cxr_jax.runs.ledger import read_looks
    from cxr_jax.runs.metrics_log import read_metrics

    run = RunFolder(path.parent)
    for read in (read_json, read_metrics):
        try:
            read(path)
        except UserError as error:
            _check_sentence(error)
    assert path == run.ledger
    assert all(isinstance(look, dict) for look in read_looks(run))


@cache
def _network() -> tuple[dict, dict]:
    from cxr_jax.models.registry import model_shapes

    _, params, batch_stats = model_shapes("mobilenetv2_tiny", classes=2)
    return tuple({k: np.zeros(v.shape, np.float32) for k, v in part.items()} for part in (params, batch_stats))


def _read_weights(path: Path) -> None:
    from cxr_jax.models.pretrained import load_weights

    params, batch_stats = _network()
    loaded = load_weights(path, "mobilenetv2_tiny", params, batch_stats)
    assert all(np.isfinite(value).all() for value in (loaded.params | loaded.batch_stats).values())
    loaded.image_statistics()


def _check_sentence(error: UserError) -> None:
    """Raise ValueError if an error is not one line that a terminal can show as it is."""
    text = str(error)
    if not text.strip() or not text.isprintable() or len(text) > 1500:
        raise ValueError(f"not one printable sentence: {text[:300]!r}")


@dataclass(frozen=True)
class Format:
    """A kind of file."""

    name: str  # of the file that a case is written to
    make: Callable[[Random], bytes]  # an odd file, before bytes are mutated
    read: Callable[[Path], None]  # raises UserError, or returns if all that came out is as promised
    most: int = 4  # mutations


FORMATS = {
    "jpeg": Format("case.jpeg", images.jpeg, _read_image),
    "png": Format("case.png", images.png, _read_image, most=1),
    "dicom": Format("case.dcm", images.film, _read_image),
    "zip": Format("case.zip", containers.archive, _read_source, most=2),
    "npz": Format("case.npz", containers.arrays, _read_source, most=1),
    "toml": Format("case.toml", containers.config, _read_config, most=2),
    "csv": Format("case.csv", containers.table, _read_table, most=2),
    "ledger": Format("ledger.jsonl", containers.lines, _read_ledger, most=2),
    "safetensors": Format("case.safetensors", containers.weights, _read_weights, most=2),
}


def case(name: str, seed: int, index: int) -> bytes:
    """The file of one case: the same for the same arguments."""
    random = Random(f"{name}/{seed}/{index}")
    return mutate(FORMATS[name].make(random), random, FORMATS[name].most)


def run(name: str, path: Path) -> str:
    """Read the file of a case; returns `valid` or `refused`, and raises whatever must not happen."""
    try:
        FORMATS[name].read(path)
    except UserError as error:
        _check_sentence(error)
        return "refused"
    return "valid"
