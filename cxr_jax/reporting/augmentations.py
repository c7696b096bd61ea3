"""Figures of random changes on phantoms: each change alone, and what the training images of a config look like."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cxr_jax.config.schema import AugmentationConfig, DataConfig, PhaseConfig
from cxr_jax.data.decode import to_square
from cxr_jax.data.phantoms.folder import draw_phantom
from cxr_jax.images.clarity import clarified
from cxr_jax.preprocessing.augment import augment
from cxr_jax.preprocessing.mixup import mix_pairs
from cxr_jax.reporting.style import new_figure, styled
from cxr_jax.runs.files import write_bytes

SHOWN: dict[str, AugmentationConfig] = {
    "horizontal_flip": AugmentationConfig(horizontal_flip=0.5),
    "vertical_flip": AugmentationConfig(vertical_flip=0.5),
    "rotation": AugmentationConfig(rotation=20.0),
    "scale": AugmentationConfig(scale=0.3),
    "translation": AugmentationConfig(translation=0.2),
    "crop": AugmentationConfig(crop=0.3),
    "crop_aspect": AugmentationConfig(crop=0.5, crop_aspect=0.8),
    "clahe": AugmentationConfig(clahe=0.5),
    "equalisation": AugmentationConfig(equalisation=0.5),
    "tone": AugmentationConfig(tone=3.0),
    "contrast": AugmentationConfig(contrast=0.8),
    "gain": AugmentationConfig(gain=0.8),
    "brightness": AugmentationConfig(brightness=0.3),
    "gamma": AugmentationConfig(gamma=1.0),
    "blur": AugmentationConfig(blur=2.0),
    "noise": AugmentationConfig(noise=0.1),
    "cutout": AugmentationConfig(cutout=0.4),
    "mixup": AugmentationConfig(mixup=1.0),
}
"""Every change at a strength that shows, in the order in which they are applied."""

_KINDS = ("normal", "bacteria", "virus", "normal")
_SIZE = 88
"""Side of the images of `changes_figure`, in pixels; blur is in pixels, and stronger on a small image."""
_RESOLUTION = 100
_CAPTION = "Phantoms: drawn by a program, no patients."


def changes_figure(*, seed: int = 0, columns: int = 4) -> Figure:
    """Returns a row for every change in `SHOWN`: a phantom, then what comes of it in `columns` draws, the mildest
    first.

    Draws are ordered by the mean difference of grey levels, and picked at equal steps from the eighth to the strongest
    of 32, so that both ends of what a strength allows are seen.
    """
    images = phantoms(DataConfig(image_size=_SIZE), seed=seed)
    rows = [np.stack([images[1], *_by_strength(images, config, seed, columns)]) for config in SHOWN.values()]
    titles = ["unchanged", *("mildest" if not column else "" for column in range(columns - 1)), "strongest"]
    return _grid(rows, [describe(config).replace(", ", "\n") for config in SHOWN.values()], titles, _SIZE / _RESOLUTION)


def training_figure(data: DataConfig, phases: Sequence[PhaseConfig], *, seed: int = 0, columns: int = 6) -> Figure:
    """Returns four phantoms as `data` prepares images, then `columns` draws of each in every phase, as training would
    see them.

    A phase in which nothing changes at random has one row with one image.

    Args:
        data: size and resize of the images.
        phases: with their augmentation filled in, as `Config.resolved_phases` gives them.
        seed: of phantoms and draws.
        columns: how many draws.
    """
    images = phantoms(data, seed=seed)
    rows: list[np.ndarray] = []
    labels: list[str] = []
    for number, phase in enumerate(phases):
        if not phase.augmentation.is_random:
            rows.append(images[:1])
            labels.append(f"phase {phase.name}\n\nnothing changes\nat random")
            continue
        keys = jax.random.split(jax.random.fold_in(jax.random.key(seed), number), (columns, len(images)))
        drawn = np.stack([_changed(images, of_column, phase.augmentation) for of_column in keys])
        rows += [np.stack([image, *drawn[:, place]]) for place, image in enumerate(images)]
        told = describe(phase.augmentation).replace(", ", "\n")
        labels += [f"phase {phase.name}\n\n{told}", *[""] * (len(images) - 1)]
    return _grid(rows, labels, ["unchanged", *[""] * columns], 1.1)


def phantoms(data: DataConfig, *, seed: int = 0) -> UInt8[np.ndarray, "4 S S"]:
    """Returns four phantoms, a focal and a diffuse opacity among them, cut to the square that `data` asks for."""
    drawn = [draw_phantom(kind, person, person, seed=seed) for person, kind in enumerate(_KINDS)]
    squares = (to_square(image, data.image_size, data.resize, data.interpolation) for image in drawn)
    return np.stack([clarified(square, data.clarify) for square in squares])


def describe(config: AugmentationConfig) -> str:
    """Returns the changes that are on with their strengths, as `rotation = 10, contrast = 0.2`; empty if none is."""
    strengths = dataclasses.asdict(config).items()
    return ", ".join(f"{name} = {strength:g}" for name, strength in strengths if strength > 0)


def write_figure(figure: Figure, path: Path) -> None:
    """Writes a figure that has no colour as a grey PNG to `path`, atomically; UserError if it cannot be written."""
    canvas = FigureCanvasAgg(figure)
    with styled():
        canvas.draw()
    grey = cv2.cvtColor(np.asarray(canvas.buffer_rgba()), cv2.COLOR_RGBA2GRAY)
    write_bytes(path, cv2.imencode(".png", grey, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())


def _changed(images: UInt8[np.ndarray, "B S S"], keys: jax.Array, config: AugmentationConfig) -> np.ndarray:
    """Returns a batch of an even number of `images` as one training step sees it, float32 [B, S, S] in 0..255."""
    changed = augment(jnp.asarray(images), keys, config)
    return np.asarray(mix_pairs(changed, keys, config.mixup)[0] if config.mixup > 0 else changed)


def _by_strength(
    images: UInt8[np.ndarray, "4 S S"], config: AugmentationConfig, seed: int, count: int
) -> list[Float[np.ndarray, "S S"]]:
    """Returns `count` of 32 draws of the second image, the mildest first."""
    # each stands beside another person's image, with which mixup mixes it
    batch = np.repeat(images[None, :2], 32, axis=0).reshape(-1, *images.shape[1:])
    drawn = _changed(batch, jax.random.split(jax.random.key(seed), len(batch)), config)[1::2]
    order = np.argsort(np.abs(drawn - images[1]).mean((1, 2)), kind="stable")
    return [drawn[place] for place in order[np.linspace(7, 31, count).round().astype(int)]]


def _grid(rows: Sequence[np.ndarray], labels: Sequence[str], titles: Sequence[str], tile: float) -> Figure:
    """Returns a figure of grey images, `rows` of [columns, S, S], each tile `tile` inches wide, with a label left
    of a row.
    """
    width, height, margin, head = len(titles) * tile, len(rows) * tile, 1.45, 0.45
    with styled():
        figure = new_figure(width + margin, height + head)
        figure.set_dpi(_RESOLUTION)
        figure.set_layout_engine("none")
        for row, (images, label) in enumerate(zip(rows, labels, strict=True)):
            upper = height - row * tile
            figure.text(0.08 / (width + margin), (upper - 0.05) / (height + head), label, va="top", fontsize=7.5)
            for column, image in enumerate(images):
                left, lower = margin + column * tile, upper - tile
                box = (left / (width + margin), lower / (height + head), tile * 0.97, tile * 0.97)
                axes = figure.add_axes((*box[:2], box[2] / (width + margin), box[3] / (height + head)))
                axes.imshow(image, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
                axes.set_axis_off()
                if row == 0:
                    axes.set_title(titles[column], fontsize=7.5, fontweight="normal", pad=2)
        figure.text(0.08 / (width + margin), 1 - 0.16 / (height + head), _CAPTION, fontsize=7.5)
    return figure
