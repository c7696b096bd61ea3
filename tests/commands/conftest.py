"""A tiny network trained on phantoms, once for all tests of the commands that need a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cxr_jax.commands import evaluate, train
from cxr_jax.data.phantoms.folder import write_phantoms
from cxr_jax.data.preparation import prepare

CONFIG = """
[data]
dataset = "phantoms"
image_size = 48
validation_fraction = 0.2
[model]
name = "mobilenetv2_tiny"
[augmentation]
horizontal_flip = 0.5
[optimizer]
learning_rate = 0.05
[training]
epochs = 2
batch_size = 16
evaluation_batch_size = 16
[validation]
monitor = "roc_auc"
"""


@pytest.fixture(scope="session")
def phantom_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of phantoms in the official layout."""
    folder = tmp_path_factory.mktemp("source") / "phantoms"
    write_phantoms(folder, train=64, val=4, test=24, seed=0, image_size_range=(96, 128))
    return folder


@pytest.fixture(scope="session")
def prepared_folder(phantom_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for CXR_PREPARED_DIR that holds the prepared phantoms."""
    root = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_PREPARED_DIR", str(root))
        prepare(phantom_source)
    return root


@pytest.fixture
def prepared_phantoms(prepared_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, and this test's environment points to it."""
    monkeypatch.setenv("CXR_PREPARED_DIR", str(prepared_folder))
    return prepared_folder


@pytest.fixture(scope="session")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config that trains in a few seconds."""
    path = tmp_path_factory.mktemp("config") / "tiny.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture(scope="session")
def trained(prepared_folder: Path, config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained run; tests work on copies of it."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_PREPARED_DIR", str(prepared_folder))
        train.main([str(config_file), "--out", str(out)])
    return out


@pytest.fixture
def run_path(trained: Path, prepared_phantoms: Path, tmp_path: Path) -> Path:
    """A copy of the trained run, to be changed at will, with its data in reach."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="session")
def evaluated_run(trained: Path, prepared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained and evaluated run; tests work on copies of it."""
    path = Path(shutil.copytree(trained, tmp_path_factory.mktemp("evaluated") / "run"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_PREPARED_DIR", str(prepared_folder))
        evaluate.main([str(path)])
    return path
