"""Phantoms with several findings each, in the layout of NIH ChestX-ray14, marked as drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from cxr_jax.data.box_list import SYNONYMS, write_boxes
from cxr_jax.data.findings import finding_cell
from cxr_jax.data.phantoms.exposure import MARK, expose
from cxr_jax.data.phantoms.folder import draw_posed, require_drawable
from cxr_jax.data.phantoms.opacities import diffuse_opacity, effusion, focal_opacity, nodules
from cxr_jax.data.pool import map_in_order
from cxr_jax.data.progress import Track, silently
from cxr_jax.data.sources.layout import PHANTOM_MARK
from cxr_jax.data.sources.nih import BOX_LIST, TEST_LIST, TRAIN_LIST
from cxr_jax.images.boxes import Box
from cxr_jax.runs import files

CARDIOMEGALY = "Cardiomegaly"

DRAWN = {"Effusion": effusion, "Infiltration": diffuse_opacity, "Nodule": nodules, "Consolidation": focal_opacity}
"""What each finding but an enlarged heart adds to the lungs."""

PHANTOM_FINDINGS = (CARDIOMEGALY, *DRAWN)

SHARE = 0.25
"""Of the images that show a finding; each is drawn by itself, so that about a quarter shows none."""

HEART = 1.4
"""By how much an enlarged heart is larger."""

GAP, SPECK = 0.12, 0.1
"""Of what was drawn: the distance in body units at which two parts are one, and the share of the largest part's area
that a part needs to have a box.
"""

BOXED_AS = {finding: name.capitalize() for name, finding in SYNONYMS.items()}
"""What NIH's list of boxes calls otherwise than its table of labels."""

TABLE = "Data_Entry_2017_phantoms.csv"
HEADER = (
    "Image Index",
    "Finding Labels",
    "Follow-up #",
    "Patient ID",
    "Patient Age",
    "Patient Gender",
    "View Position",
)

NOTICE = f"""The images in this folder are {MARK}S: a program drew them. No person was ever X-rayed for them.

They look like chest radiographs so that software can be tried without patient data. They carry the word {MARK} in the
lower left corner. The layout is that of NIH ChestX-ray14. Never mix them with radiographs of people, and draw no
medical conclusion from them.
"""


@dataclass(frozen=True)
class _Order:
    """One image to be drawn."""

    file: str
    cells: tuple[str, ...]  # of the table
    findings: tuple[str, ...]
    person: int
    number: int
    split: str


def write_phantom_findings(
    folder: Path,
    *,
    train: int,
    test: int,
    seed: int = 0,
    image_size_range: tuple[int, int] = (200, 400),
    track: Track = silently,
) -> None:
    """Writes phantoms with findings into a new folder, as 8-bit grey PNGs with a table of labels, lists of splits, and
    boxes around all that was drawn.

    A person has one to four images, and no person is in two splits. The same seed and counts give the same images.
    Arguments and errors are as in `write_phantoms`.
    """
    require_drawable(folder, seed, image_size_range)
    orders = list(_orders({"train": train, "test": test}, seed))
    with files.atomic_path(folder) as unfinished, track("Drawing", len(orders)) as advance:
        images = unfinished / "images_001" / "images"
        images.mkdir(parents=True)
        (unfinished / PHANTOM_MARK).write_text(NOTICE, encoding="utf-8")
        table = files.csv_text([HEADER, *(order.cells for order in orders)])
        (unfinished / TABLE).write_text(table, encoding="utf-8")
        for name, split in ((TRAIN_LIST, "train"), (TEST_LIST, "test")):
            listed = "".join(f"{order.file}\n" for order in orders if order.split == split)
            (unfinished / name).write_text(listed, encoding="utf-8")

        def drawn(order: _Order) -> tuple[bytes, list[tuple[str, str, Box]]]:
            """Returns the encoded image, and file, finding and box of everything in it."""
            image, boxes = _draw(order, seed, image_size_range)
            data = cv2.imencode(".png", image)[1].tobytes()
            return data, [(order.file, BOXED_AS.get(name, name), box) for name, found in boxes for box in found]

        listed = []
        for order, (data, boxes) in zip(orders, map_in_order(drawn, orders), strict=True):
            (images / order.file).write_bytes(data)
            listed += boxes
            advance(1)
        write_boxes(unfinished / BOX_LIST, listed)


def _draw(
    order: _Order, seed: int, image_size_range: tuple[int, int]
) -> tuple[np.ndarray, list[tuple[str, tuple[Box, ...]]]]:
    """Returns one phantom, uint8 [H, W], and the boxes of each of its findings."""
    heart = HEART if CARDIOMEGALY in order.findings else 1.0
    canvas, chest, generator = draw_posed(
        order.person, order.number, seed=seed, image_size_range=image_size_range, heart=heart
    )
    density, boxes = chest.density, []
    for name in order.findings:
        layer = chest.heart
        if name in DRAWN:
            layer = DRAWN[name](canvas, chest, generator.uniform(0.4, 1.0), generator)
            density = density + layer
        boxes.append((name, _boxes_around(layer, round(GAP * canvas.unit))))
    return expose(canvas, density, generator), boxes


def _boxes_around(layer: np.ndarray, gap: int) -> tuple[Box, ...]:
    """Returns a box around each part of what was drawn in `layer` [H, W], from half its peak on; specks have none.

    Parts that are no more than `gap` pixels apart are one.
    """
    mask = (layer >= layer.max() / 2).astype(np.uint8)
    joined = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((gap + 1, gap + 1), np.uint8))
    # the first part is what is left of the image
    parts = cv2.connectedComponentsWithStats(joined)[2][1:]
    smallest = SPECK * parts[:, cv2.CC_STAT_AREA].max()
    return tuple(Box(*map(float, part[:4])) for part in parts if part[cv2.CC_STAT_AREA] >= smallest)


def _orders(counts: dict[str, int], seed: int) -> Iterator[_Order]:
    """Yields what is to be drawn, person by person."""
    generator = np.random.default_rng([seed, 3])
    person = number = 0
    for split, count in counts.items():
        left = count
        while left:
            person += 1
            images = min(left, int(generator.choice([1, 2, 3, 4], p=[0.6, 0.2, 0.15, 0.05])))
            left -= images
            age, sex = int(generator.integers(5, 90)), str(generator.choice(["F", "M"]))
            for follow_up in range(images):
                number += 1
                shown = generator.random(len(PHANTOM_FINDINGS)) < SHARE
                cell = finding_cell(shown.astype(float).tolist(), PHANTOM_FINDINGS)
                findings = tuple(name for name, there in zip(PHANTOM_FINDINGS, shown, strict=True) if there)
                file, view = f"{person:08d}_{follow_up:03d}.png", str(generator.choice(["AP", "PA"]))
                cells = (file, cell, str(follow_up), str(person), str(age), sex, view)
                yield _Order(file, cells, findings, person, number, split)
