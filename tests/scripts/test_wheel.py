"""Wheel and sdist as somebody installs them: away from the checkout, with nothing of it in reach."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest

from cxr_jax.commands import GROUPS
from cxr_jax.page.write import VENDORED as VENDORED_FILES
from cxr_jax.vocabulary import DISCLAIMER
from tests.page.conftest import NOT_VENDORED, VENDORED

pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

vendored = pytest.mark.skipif(not VENDORED, reason=NOT_VENDORED)


def built(source: Path, out: Path) -> tuple[Path, Path]:
    """The wheel and the sdist of a source tree."""
    build = [sys.executable, "-m", "hatchling", "build", "--directory", str(out)]
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=300)
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, sdist


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    return built(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def installed(distributions, tmp_path_factory):
    """Runs programs of an environment that holds the wheel, and this one's packages but for the checkout, elsewhere."""
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False)
    (site,) = environment.glob("lib/python*/site-packages")
    # what stands in other .pth files, such as that of an editable installation, is not followed from here
    (site / "packages.pth").write_text(sysconfig.get_path("purelib") + "\n")
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--ignore-installed", str(distributions[0])], check=True, capture_output=True, timeout=300)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "CXR_WEIGHTS_DIR")}

    def run(*arguments: str | Path, code: int = 0) -> str:
        done = subprocess.run(
            [environment / "bin" / arguments[0], *map(str, arguments[1:])],
            cwd=elsewhere,
            env=kept | {"CXR_PREPARED_DIR": str(elsewhere / "prepared"), "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    run.folder = elsewhere
    return run


def test_the_wheel_carries_all_that_is_no_program(distributions):
    names = set(contents(distributions[0]))
    tracked = subprocess.run(
        ["git", "ls-files", "cxr_jax", "configs"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    expected = {name if name.startswith("cxr_jax/") else f"cxr_jax/{name}" for name in tracked}
    assert len(expected) > 300 and expected <= names
    for part in ("starter/model.onnx", "configs/quickstart.toml", "py.typed", "page/static/index.html"):
        assert f"cxr_jax/{part}" in names
    assert any(name.startswith("cxr_jax/models/kernels/native/source/") for name in names)
    assert not [name for name in names if name.startswith(("tests/", "results/", "docs/"))]


@vendored
def test_wheel_and_sdist_carry_what_the_page_takes_from_npm(distributions):
    """scripts/vendor_page made it, and git does not know it."""
    wheel, sdist = distributions
    parts = [f"cxr_jax/page/vendor/{name}" for name in VENDORED_FILES]
    assert [part for part in parts if part not in contents(wheel)] == []
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert [part for part in parts if part not in names] == []


@vendored
def test_the_page_is_written_right_after_installation(installed):
    told = installed("cxr-jax", "page", "site", "--phantoms", "0")
    assert "Images stay in the browser" in told and DISCLAIMER in told
    assert all((installed.folder / "site" / "vendor" / name).is_file() for name in VENDORED_FILES)
    assert (installed.folder / "site" / "network" / "model.onnx").is_file()


def test_the_sdist_builds_the_same_wheel(distributions, tmp_path):
    wheel, sdist = distributions
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (source,) = (tmp_path / "source").iterdir()
    again, _ = built(source, tmp_path / "dist")
    assert contents(again) == contents(wheel)


def test_what_is_installed_is_found(installed):
    place = installed("python", "-c", "import cxr_jax; print(cxr_jax.__file__)")
    assert str(ROOT / "cxr_jax") not in place and "site-packages" in place
    assert installed("cxr-jax", "--version").startswith("cxr-jax ")
    listed = installed("cxr-jax", "configs")
    assert "quickstart" in listed and "mobilenetv2_best" in listed
    told = installed("cxr-jax", "--help")
    assert all(name in told for commands in GROUPS.values() for name in commands)


def test_a_film_is_predicted_right_after_installation(installed):
    import cv2

    film = installed.folder / "film.png"
    cv2.imwrite(str(film), np.random.default_rng(0).integers(0, 256, (300, 400), dtype=np.uint8))
    told = installed("cxr-jax", "predict", "film.png", "--maps", "maps")
    assert "film.png" in told and "Model: the starter network of cxr_jax" in told and DISCLAIMER in told
    assert (installed.folder / "maps" / "film.png").is_file()


def test_the_whole_path_away_from_any_checkout(installed):
    installed("cxr-jax", "phantoms", "drawn", "--count", "72", "--smallest", "96", "--largest", "112")
    told = installed("cxr-jax", "quickstart", "drawn")
    run = Path("runs") / "quickstart-1"
    assert "> cxr-jax train quickstart" in told and f"Heat maps: {run / 'explanations'}" in told
    for name in ("evaluation.json", "report.html", "explanations"):
        assert (installed.folder / run / name).exists()
