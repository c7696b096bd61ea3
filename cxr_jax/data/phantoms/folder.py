"""Phantoms as a folder: the layout and the file names of the official release, marked as drawn."""

from __future__ import annotations

import contextlib
import dataclasses
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from cxr_jax.data.phantoms.anatomy import Chest, draw_chest, draw_person
from cxr_jax.data.phantoms.canvas import Canvas
from cxr_jax.data.phantoms.exposure import MARK, expose
from cxr_jax.data.phantoms.opacities import diffuse_opacity, focal_opacity
from cxr_jax.data.pool import map_in_order
from cxr_jax.data.progress import Track, silently
from cxr_jax.data.sources.layout import PHANTOM_MARK
from cxr_jax.errors import UserError
from cxr_jax.runs import files
from cxr_jax.vocabulary import CLASS_NAMES, NORMAL, PNEUMONIA, SPLIT_NAMES

STATEMENT = "PHANTOM: drawn by a program. No person was X-rayed; not for diagnosis."
"""In the comment of every JPEG."""

NOTICE = f"""The images in this folder are {MARK}S: a program drew them. No person was ever X-rayed for them.

They look like chest radiographs of children so that software can be tried without patient data. They carry the word
{MARK} in the lower left corner and in the comment of the JPEG. Never mix them with radiographs of people, and draw no
medical conclusion from them.
"""

NORMAL_SHARE = {"train": 0.26, "val": 0.5, "test": 0.375}
"""Share of normals in each split, as in the official release."""

BACTERIA_SHARE = 0.65
"""Of the images with pneumonia."""

SMALLEST_SPLIT = 3
"""Images that a split needs to hold normals, bacteria and virus."""

SIDE_LIMITS = (32, 4096)
"""Heights that can be asked for, in pixels."""

JPEG_QUALITY = 92


@dataclass(frozen=True)
class _Order:
    """One image to be drawn."""

    file: str  # split/CLASS/name
    kind: str  # normal, bacteria or virus
    person: int  # equal for all images of one person; unique over kinds and splits
    number: int  # of the image; unique


def write_phantoms(
    folder: Path,
    *,
    train: int,
    val: int,
    test: int,
    seed: int = 0,
    image_size_range: tuple[int, int] = (200, 400),
    masks: Path | None = None,
    track: Track = silently,
) -> None:
    """Writes phantoms into a new folder, as 8-bit grey JPEGs in {train,val,test}/{NORMAL,PNEUMONIA}.

    The classes are as unequal as in the official release, a person has one to four images, and no person is in two
    splits. The same seed and counts give the same images.

    Args:
        folder: where to write; it must not exist or be empty.
        train: images of that split; `val` and `test` likewise. 0 leaves a split out, else at least 3.
        seed: of everything that is random.
        image_size_range: smallest and largest height, in pixels; images are up to half as wide again.
        masks: a new folder for the lungs that were drawn, as PNG under the names of the images; None writes none.
        track: shows progress.

    Raises:
        UserError: the folder holds something, a number is out of range, no space or no permission.
    """
    counts = {"train": train, "val": val, "test": test}
    for split, count in counts.items():
        if count < 0 or 0 < count < SMALLEST_SPLIT:
            raise UserError(f"{count} images of split {split} cannot be drawn: 0 or at least {SMALLEST_SPLIT} can")
    require_drawable(folder, seed, image_size_range)
    if masks is not None:
        _require_free(masks, "masks")
        if masks.resolve().is_relative_to(folder.resolve()):
            raise UserError(f"{masks} is inside {folder}: choose a folder for the masks beside it")
    orders = list(_orders(counts, seed))
    with (
        files.atomic_path(folder) as unfinished,
        files.atomic_path(masks) if masks else contextlib.nullcontext() as unfinished_masks,
        track("Drawing", len(orders)) as advance,
    ):
        for split, count in counts.items():
            for name in CLASS_NAMES if count else ():
                for root in filter(None, (unfinished, unfinished_masks)):
                    (root / split / name).mkdir(parents=True)
        if not orders:
            unfinished.mkdir()
        (unfinished / PHANTOM_MARK).write_text(NOTICE, encoding="utf-8")

        def drawn(order: _Order) -> tuple[bytes, bytes]:
            """Returns image and mask, encoded."""
            image, lungs = draw_phantom_with_lungs(
                order.kind, order.person, order.number, seed=seed, image_size_range=image_size_range
            )
            return _jpeg(image), cv2.imencode(".png", lungs)[1].tobytes() if masks else b""

        for order, (data, mask) in zip(orders, map_in_order(drawn, orders), strict=True):
            (unfinished / order.file).write_bytes(data)
            if unfinished_masks is not None:
                (unfinished_masks / order.file).with_suffix(".png").write_bytes(mask)
            advance(1)


def require_drawable(folder: Path, seed: int, image_size_range: tuple[int, int]) -> None:
    """Raises UserError unless phantoms of these heights can be drawn into a new or empty folder."""
    low, high = image_size_range
    if not SIDE_LIMITS[0] <= low <= high <= SIDE_LIMITS[1]:
        raise UserError(
            f"image sizes from {low} to {high} cannot be drawn: sizes go from {SIDE_LIMITS[0]} to {SIDE_LIMITS[1]}"
        )
    if seed < 0:
        raise UserError(f"the seed is {seed}, but must be 0 or more")
    _require_free(folder, "phantoms")


def _require_free(folder: Path, content: str) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is not an empty folder: choose a new one for the {content}")


def draw_phantom(
    kind: str, person: int, number: int, *, seed: int = 0, image_size_range: tuple[int, int] = (200, 400)
) -> np.ndarray:
    """Returns one phantom, uint8 [H, W].

    Args:
        kind: `normal`, `bacteria` (focal opacity) or `virus` (diffuse opacity).
        person: whose chest it is.
        number: of the image; pose, exposure and opacity depend on it.
        seed: of everything.
        image_size_range: smallest and largest height, in pixels.
    """
    return draw_phantom_with_lungs(kind, person, number, seed=seed, image_size_range=image_size_range)[0]


def draw_phantom_with_lungs(
    kind: str, person: int, number: int, *, seed: int = 0, image_size_range: tuple[int, int] = (200, 400)
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the phantom of `draw_phantom`, and its lungs, 255 inside and 0 outside: both uint8 [H, W]."""
    canvas, chest, generator = draw_posed(person, number, seed=seed, image_size_range=image_size_range)
    density = chest.density
    # Mild cases overlap with the plain vessels of some normals.
    severity = generator.uniform(0.2, 1.0)
    if kind == "bacteria":
        density = density + focal_opacity(canvas, chest, severity, generator)
    elif kind == "virus":
        density = density + diffuse_opacity(canvas, chest, severity, generator)
    return expose(canvas, density, generator), np.where(chest.lungs > 0.5, np.uint8(255), np.uint8(0))


def draw_posed(
    person: int, number: int, *, seed: int, image_size_range: tuple[int, int], heart: float = 1.0
) -> tuple[Canvas, Chest, np.random.Generator]:
    """Returns the canvas and the chest of one image, and the generator of what is still to be drawn in it.

    `heart` multiplies the size of the person's heart; the others are as in `draw_phantom`.
    """
    body = draw_person(np.random.default_rng([seed, 0, person]))
    body = dataclasses.replace(body, heart=heart * body.heart)
    generator = np.random.default_rng([seed, 1, number])
    height = int(generator.integers(image_size_range[0], image_size_range[1] + 1))
    canvas = Canvas(
        height,
        round(height * generator.uniform(0.95, 1.45)),
        angle=generator.normal(0, 3),
        scale=generator.uniform(0.98, 1.25),
        shift=(generator.normal(0, 0.04), generator.normal(0, 0.04)),
    )
    return canvas, draw_chest(canvas, body, generator), generator


def _orders(counts: dict[str, int], seed: int) -> Iterator[_Order]:
    """Yields what is to be drawn: the official grammar numbers persons within bacteria, virus and each prefix."""
    generator = np.random.default_rng([seed, 2])
    person = number = 0
    for split in SPLIT_NAMES:
        count = counts[split]
        if not count:
            continue
        normals = min(max(1, round(NORMAL_SHARE[split] * count)), count - 2)
        bacteria = min(max(1, round(BACTERIA_SHARE * (count - normals))), count - normals - 1)
        for kind, images in (("normal", normals), ("bacteria", bacteria), ("virus", count - normals - bacteria)):
            left = images
            while left:
                person += 1
                prefix = "IM" if generator.random() < 0.5 else "NORMAL2-IM"
                # Most persons have one image, some two or three, few four.
                for image in range(min(left, int(generator.choice([1, 2, 3, 4], p=[0.6, 0.2, 0.15, 0.05])))):
                    number += 1
                    left -= 1
                    if kind == "normal":
                        name = f"{CLASS_NAMES[NORMAL]}/{prefix}-{person:04d}-{image + 1:04d}.jpeg"
                    else:
                        name = f"{CLASS_NAMES[PNEUMONIA]}/person{person}_{kind}_{number}.jpeg"
                    yield _Order(f"{split}/{name}", kind, person, number)


def _jpeg(image: np.ndarray) -> bytes:
    """Returns uint8 [H, W] as a JPEG that says in a comment that it is a phantom."""
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()
    text = STATEMENT.encode("ascii")
    # After the start marker and the JFIF segment, which has to come first.
    first = 4 + struct.unpack_from(">H", data, 4)[0]
    return data[:first] + b"\xff\xfe" + struct.pack(">H", len(text) + 2) + text + data[first:]
