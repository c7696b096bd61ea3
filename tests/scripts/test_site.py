"""The documentation is built as a site, without a warning, and its generated pages say what the program says."""

import dataclasses
import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cxr_jax.commands import GROUPS
from cxr_jax.config.schema import Config, PhaseConfig
from cxr_jax.vocabulary import DISCLAIMER

ROOT = Path(__file__).parents[2]
pytest.importorskip("material", reason="mkdocs-material, which builds the site, is not installed")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr and "not included in the" not in done.stderr, done.stderr
    return folder


def text_of(site, place):
    return (site / place / "index.html").read_text()


def test_every_document_is_a_page(site):
    documents = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").glob("**/*.md")}
    for document in documents:
        assert "<h1" in text_of(site, document), document
    assert "cxr_jax" in text_of(site, ".") and "quickstart" in text_of(site, ".")


def test_every_page_says_that_it_is_no_medical_device(site):
    pages = list(site.rglob("index.html"))
    assert len(pages) > 12
    assert [page for page in pages if DISCLAIMER not in page.read_text()] == []


def test_the_reference_has_every_command_and_function(site):
    commands = text_of(site, "reference/commands")
    assert [name for names in GROUPS.values() for name in names if f'id="{name}"' not in commands] == []
    python = text_of(site, "reference/python")
    assert all(f'id="cxr_jax.api.{name}"' in python for name in ("load", "judge", "train"))
    assert all(f'id="cxr_jax.serving.model.{name}"' in python for name in ("Model", "Model.predict", "Prediction"))
    assert 'id="cxr_jax.serving.maps.HeatMap.overlay"' in python


def test_every_field_of_a_config_has_its_row(site):
    page = text_of(site, "reference/config")
    cells = {
        tuple(
            html.unescape(re.sub("<[^>]+>", "", cell)).strip() for cell in re.findall("<td>(.*?)</td>", row, re.DOTALL)
        )
        for row in re.findall("<tr>(.*?)</tr>", page, re.DOTALL)
    }
    rows = {row[0]: row[1:] for row in cells if row}
    sections = [field.default_factory for field in dataclasses.fields(Config) if field.name != "phases"]
    for kind in (*sections, PhaseConfig):
        for field in dataclasses.fields(kind):
            assert all(rows[field.name]), field.name
    assert ("momentum", "number", "0.9", "share of the last update that is added to the next; 0: off") in cells
    assert rows["nesterov"] == ("true or false", "false", "Nesterov's form of momentum")
    assert rows["interpolation"][:2] == ('"area", "linear", "cubic"', '"area"')
    assert rows["strengths"][0] == "list of number" and rows["trainable"][:2] == ("list of text", "[]")
    assert rows["batch_size"][:2] == ("whole number", "128")
    assert all(f"<code>[{field.name}]</code>" in page for field in dataclasses.fields(Config) if field.name != "phases")


def test_the_notebook_is_a_page(site):
    assert "heat_map" in text_of(site, "python") and "Mistakes" in text_of(site, "python")


def test_nothing_is_fetched_from_elsewhere(site):
    loaded = r"""<(?:script|link|img)[^>]+(?:src|href)=["']?(https?:)?//"""
    for page in site.rglob("index.html"):
        found = [match for match in re.finditer(loaded, page.read_text()) if "canonical" not in match[0]]
        assert found == [], page
