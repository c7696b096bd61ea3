"""onnxruntime tells nobody of the networks that it runs: it then leaves no trace in the folder of temporary files."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cxr_jax.export import standalone

PROGRAM = Path(standalone.__file__)


@pytest.mark.parametrize(
    ("code", "traces"),
    [
        ("import cxr_jax, onnxruntime", 0),
        (f"import runpy; runpy.run_path({str(PROGRAM)!r})", 0),
        # that it would otherwise shows that the others are held to something
        ("import os; os.environ['ORT_DISABLE_TELEMETRY'] = ''; import onnxruntime", 1),
    ],
)
def test_onnxruntime_keeps_to_itself(code, traces, tmp_path):
    folder = tmp_path / "temporary"
    folder.mkdir()
    # it also keeps to itself where the environment looks like that of automated tests
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    environment |= {"TMPDIR": str(folder), "HOME": str(tmp_path), "HTTPS_PROXY": "http://127.0.0.1:1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment, timeout=120)
    assert len(list(folder.iterdir())) == traces
