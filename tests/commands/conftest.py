"""A tiny network trained on phantoms, once for all tests of the commands that need a run."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr_jax.commands import evaluate, export, train
from cxr_jax.data.phantoms.folder import write_phantoms
from cxr_jax.data.preparation import prepare
from cxr_jax.runs.folder import RunFolder
from tests.made_once import made_once
from tests.offline import refused_connections
from tests.shared_programs import share_programs
from tests.undrawn import leave_undrawn

sys.path.append(str(Path(__file__).parent))

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


@pytest.fixture(scope="module", autouse=True)
def _shared_programs() -> Iterator[None]:
    """Commands in this process take the same program for the same plan and network."""
    with pytest.MonkeyPatch.context() as patch:
        share_programs(patch)
        yield


@pytest.fixture
def undrawn_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are stored as one grey pixel in this test."""
    leave_undrawn(monkeypatch)


@pytest.fixture
def attempted_connections(tmp_path: Path) -> Iterator[Callable[[], list[str]]]:
    """Lists the connections that were tried: every way out of this process and of its children raises in this test."""
    with refused_connections(tmp_path / "no way out") as attempted:
        yield attempted


@pytest.fixture(scope="session")
def phantom_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of phantoms in the official layout."""

    def draw(folder: Path) -> None:
        write_phantoms(folder / "phantoms", train=64, val=4, test=24, seed=0, image_size_range=(96, 128))

    return made_once(tmp_path_factory, "source", draw) / "phantoms"


@pytest.fixture(scope="session")
def prepared_folder(phantom_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for CXR_PREPARED_DIR that holds the prepared phantoms."""

    def store(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CXR_PREPARED_DIR", str(folder))
            prepare(phantom_source)

    return made_once(tmp_path_factory, "prepared-phantoms", store)


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

    def train_there(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CXR_PREPARED_DIR", str(prepared_folder))
            train.main([str(config_file), "--out", str(folder)])

    return made_once(tmp_path_factory, "trained", train_there)


@pytest.fixture
def run_path(trained: Path, prepared_phantoms: Path, tmp_path: Path) -> Path:
    """A copy of the trained run, to be changed at will, with its data in reach."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture(scope="session")
def evaluated_run(trained: Path, prepared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained and evaluated run, with all its figures; tests work on copies of it."""

    def evaluate_there(folder: Path) -> None:
        shutil.copytree(trained, folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CXR_PREPARED_DIR", str(prepared_folder))
            evaluate.main([str(folder)])

    return made_once(tmp_path_factory, "evaluated", evaluate_there)


@pytest.fixture(scope="session")
def bundle(evaluated_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The evaluated run, exported; it is not to be changed."""
    return made_once(tmp_path_factory, "bundle", lambda folder: export.main([str(evaluated_run), str(folder)]))


@pytest.fixture(scope="session")
def films(phantom_source: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A phantom as JPEG, large JPEG, grey and colour PNG, 16 bits and 12 bits in 16."""
    folder = tmp_path_factory.mktemp("films")
    jpeg = next((phantom_source / "test").glob("*/*.jpeg"))
    grey = cv2.imread(str(jpeg), cv2.IMREAD_GRAYSCALE)
    shutil.copy(jpeg, folder / "small.jpeg")
    cv2.imwrite(str(folder / "large.jpeg"), cv2.resize(grey, (1400, 1100), interpolation=cv2.INTER_CUBIC))
    cv2.imwrite(str(folder / "grey.png"), grey)
    cv2.imwrite(str(folder / "colour.png"), cv2.merge([grey, grey, np.roll(grey, 3, axis=1)]))
    cv2.imwrite(str(folder / "deep.png"), grey.astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "twelve_bits.png"), grey.astype(np.uint16) * 16)
    return sorted(map(str, folder.iterdir()))


@pytest.fixture(scope="session")
def findings_folder(config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with phantoms of findings, the prepared data of them, an evaluated run on these, and its bundle."""
    from other_classes import make_findings

    return made_once(tmp_path_factory, "findings", lambda folder: make_findings(folder, config_file.read_text()))


@pytest.fixture
def several(findings_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with its data in reach."""
    monkeypatch.setenv("CXR_PREPARED_DIR", str(findings_folder / "prepared"))
    return findings_folder


@pytest.fixture(scope="session")
def classes_folder(config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images of three exclusive classes, the prepared data of them, an evaluated run, and its bundle."""
    from other_classes import make_three

    return made_once(tmp_path_factory, "three-classes", lambda folder: make_three(folder, config_file.read_text()))


@pytest.fixture
def three(classes_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, with its data in reach."""
    monkeypatch.setenv("CXR_PREPARED_DIR", str(classes_folder / "prepared"))
    return classes_folder


@pytest.fixture(params=["three", "several"])
def run_of_classes(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A copy of an evaluated run of three classes, or of findings, with a copy of its data in reach."""
    folder = request.getfixturevalue(request.param)
    monkeypatch.setenv("CXR_PREPARED_DIR", str(shutil.copytree(folder / "prepared", tmp_path / "prepared")))
    return RunFolder(Path(shutil.copytree(folder / "run", tmp_path / "run")))
