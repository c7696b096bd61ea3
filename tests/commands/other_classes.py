"""Small evaluated runs of classes other than NORMAL and PNEUMONIA: three exclusive ones, and findings of phantoms."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr_jax.commands import evaluate, export, phantoms, prepare, train
from tests.undrawn import leave_undrawn

NAMES = ("clear", "Lung Opacity", "covid")

LOSS = """
[loss]
class_weights = "balanced"
focal_gamma = 1.0
"""

RULE = """
[operating_point]
rule = "sensitivity"
target_sensitivity = 0.9
"""


def draw_squares(folder: Path) -> None:
    """Draws squares of three shapes, in folders of their classes with splits above them."""
    random = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 8)):
        for label, name in enumerate(NAMES):
            place = folder / split / name
            place.mkdir(parents=True)
            for number in range(count):
                image = random.integers(60, 90, (64, 64)).astype(np.uint8)
                row, column = random.integers(4, 30, 2)
                if label:
                    image[row : row + 24, column : column + (24 if label == 1 else 6)] += 120
                assert cv2.imwrite(str(place / f"{number}.png"), image)


def make_three(folder: Path, config: str) -> None:
    """Fills a folder with images of three classes, their prepared data, an evaluated run, and its bundle."""
    draw_squares(folder / "films")
    loss = f"{LOSS}label_smoothing = 0.1\n"
    _make(folder, [str(folder / "films"), "--classes", *NAMES], config.replace('"phantoms"', '"films"') + loss + RULE)


def make_findings(folder: Path, config: str) -> None:
    """Fills a folder with phantoms of findings, their prepared data, an evaluated run, and its bundle."""
    films = str(folder / "films")
    phantoms.main([films, "--findings", "--count", "80", "--smallest", "48", "--largest", "64"])
    loss = f"{LOSS}label_smoothing = 0.05\n"
    _make(folder, [films], config.replace('"phantoms"', '"phantom_findings"') + loss + RULE)


def _make(folder: Path, prepared: list[str], config: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_PREPARED_DIR", str(folder / "prepared"))
        leave_undrawn(patch)
        prepare.main(prepared)
        (folder / "films.toml").write_text(config)
        train.main([str(folder / "films.toml"), "--out", str(folder / "run")])
        evaluate.main([str(folder / "run")])
        export.main([str(folder / "run"), str(folder / "bundle")])
