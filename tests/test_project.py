"""Facts about the project that stand in several files agree."""

import re
from pathlib import Path

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
