"""The notebook in docs runs from top to bottom, and shows what its text says; it is kept without outputs."""

import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from cxr_jax.vocabulary import DISCLAIMER

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "python.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_kept_without_outputs(notebook):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)
    assert NOTEBOOK.stat().st_size < 20_000
    assert DISCLAIMER in notebook.cells[0].source


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch):
    places = {"PATH": Path(sys.executable).parent, "PYTHONPATH": ROOT}
    for name, place in places.items():
        monkeypatch.setenv(name, f"{place}{os.pathsep}{os.environ.get(name, '')}")
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path / "prepared"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    texts = "".join(output.get("text", output.get("data", {}).get("text/plain", "")) for output in shown)
    assert "starter network of cxr_jax" in texts and DISCLAIMER in texts
    assert "detail is missing" in texts
    assert "not chosen: evaluate the run" in texts
    assert "ended='finished'" in texts
    assert "ROC-AUC 0." in texts and "\n18 images" in texts
    assert "missing.png does not exist" in texts and "Unreadable(file='missing.png'" in texts
    assert [output for output in shown if "image/png" in output.get("data", {})]
    assert (tmp_path / "runs" / "notebook" / "config.toml").is_file()
