"""Small radiograph-like files and folders for the tests of the data room."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr_jax.data.preparation import prepare
from cxr_jax.data.prepared import PreparedData
from tests.made_once import made_once


def smooth_picture(seed: int, height: int = 40, width: int = 56) -> np.ndarray:
    """A grey picture without sharp edges, uint8 [H, W], different for every seed."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 5)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


@pytest.fixture
def picture() -> Callable[..., np.ndarray]:
    return smooth_picture


def encoded(seed: int, height: int = 40, width: int = 56) -> bytes:
    """The same as JPEG."""
    return cv2.imencode(".jpg", smooth_picture(seed, height, width))[1].tobytes()


@pytest.fixture
def jpeg() -> Callable[..., bytes]:
    return encoded


def official_names() -> list[str]:
    """Files of a small data set in the official layout and grammar: 24 + 4 + 8 images."""
    names = [f"train/NORMAL/IM-{person:04d}-0001.jpeg" for person in range(1, 7)]
    names += [f"train/NORMAL/NORMAL2-IM-{person:04d}-0001.jpeg" for person in (1, 2)]
    names += [f"train/PNEUMONIA/person{1 + n // 2}_bacteria_{n}.jpeg" for n in range(10)]
    names += [f"train/PNEUMONIA/person{1 + n // 2}_virus_{n}.jpeg" for n in range(6)]
    names += ["val/NORMAL/IM-0101-0001.jpeg", "val/NORMAL/IM-0102-0001.jpeg"]
    names += ["val/PNEUMONIA/person101_bacteria_1.jpeg", "val/PNEUMONIA/person102_bacteria_1.jpeg"]
    names += [f"test/NORMAL/IM-{person:04d}-0001.jpeg" for person in range(201, 205)]
    names += ["test/PNEUMONIA/person201_bacteria_1.jpeg", "test/PNEUMONIA/person201_bacteria_2.jpeg"]
    names += ["test/PNEUMONIA/person201_virus_1.jpeg", "test/PNEUMONIA/person447_virus_921_1.jpeg"]
    return names


def write_official(root: Path) -> Path:
    """Writes that data set to `root`, and returns it."""
    for seed, name in enumerate(official_names()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(seed))
    return root


@pytest.fixture
def official_tree(tmp_path: Path) -> Path:
    """That data set as a folder chest_xray."""
    return write_official(tmp_path / "chest_xray")


@pytest.fixture
def prepared_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder for prepared data."""
    root = tmp_path / "prepared root"
    monkeypatch.setenv("CXR_PREPARED_DIR", str(root))
    return root


@pytest.fixture(scope="session")
def prepared_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for prepared data with that data set in it; tests work on copies of it."""

    def store(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CXR_PREPARED_DIR", str(folder))
            prepare(write_official(tmp_path_factory.mktemp("official") / "chest_xray"))

    return made_once(tmp_path_factory, "official", store)


@pytest.fixture
def prepared(prepared_once: Path, prepared_root: Path) -> PreparedData:
    """That data set, prepared in a fresh folder."""
    shutil.copytree(prepared_once, prepared_root)
    return PreparedData.open("chest_xray")


@pytest.fixture(scope="session")
def real_prepared(real_radiographs: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """The real radiographs, prepared once for all tests; skipped where they are absent."""

    def store(root: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CXR_PREPARED_DIR", str(root))
            assert prepare(real_radiographs).prepared.path == root / "chest_xray"
            # The parent holds other folders too; the official one is found in it, and known again.
            assert not prepare(real_radiographs.parent).fresh

    return PreparedData.open(made_once(tmp_path_factory, "real", store) / "chest_xray")
