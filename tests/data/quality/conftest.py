"""Drawn chests as arrays."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr_jax.data.phantoms.folder import write_phantoms


@pytest.fixture(scope="session")
def chests(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """Twenty phantoms, uint8 [H, W] each."""
    folder = tmp_path_factory.mktemp("chests") / "phantoms"
    write_phantoms(folder, train=20, val=0, test=0, seed=3, image_size_range=(224, 300))
    return [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(Path(folder).glob("train/*/*.jpeg"))]


@pytest.fixture(scope="session")
def hand() -> np.ndarray:
    """A drawn hand on black, uint8 [600, 500]: a radiograph, but not of a chest."""
    image = np.zeros((600, 500), np.uint8)
    cv2.ellipse(image, (250, 420), (110, 130), 0, 0, 360, 150, -1)
    for angle in (-40, -18, 0, 18, 45):
        turn = np.deg2rad(angle - 90)
        tip = (int(250 + 300 * np.cos(turn)), int(400 + 300 * np.sin(turn)))
        cv2.line(image, (250, 400), tip, 140, 48)
        cv2.line(image, (250, 400), tip, 220, 18)
    return cv2.GaussianBlur(image, (0, 0), 4)


@pytest.fixture(scope="session")
def page() -> np.ndarray:
    """A page of text, uint8 [800, 600]."""
    image = np.full((800, 600), 255, np.uint8)
    for line in range(20):
        cv2.putText(image, "the report of a radiograph", (30, 40 + 37 * line), cv2.FONT_HERSHEY_SIMPLEX, 1, 0, 2)
    return image


@pytest.fixture(scope="session")
def noise() -> np.ndarray:
    """Noise, uint8 [300, 400]."""
    return np.random.default_rng(0).integers(0, 256, (300, 400)).astype(np.uint8)
