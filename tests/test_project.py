"""Facts about the project that stand in several files agree."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import cxr_jax

ROOT = Path(__file__).parents[1]


def test_the_version_is_the_same_everywhere():
    (cited,) = re.findall(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), flags=re.MULTILINE)
    assert cited == cxr_jax.__version__
    assert re.search(
        rf"^## \[(Unreleased|{re.escape(cited)})\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE
    )


def test_the_licence_is_whole():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_the_wheel_carries_the_configs(tmp_path):
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as content:
        shipped = {name.removeprefix("cxr_jax/"): name for name in content.namelist() if name.endswith(".toml")}
        found = {name: content.read(inside) for name, inside in shipped.items()}
    assert found == {str(path.relative_to(ROOT)): path.read_bytes() for path in ROOT.glob("configs/**/*.toml")}
