"""A program that configures its process first, as the command line does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cxr_jax import process

ON_GLIBC = process.glibc_version() is not None and process.glibc_version() >= (2, 35)
needs_glibc = pytest.mark.skipif(not ON_GLIBC, reason="needs glibc 2.35 or later")

PROGRAM = """
import os, sys
from cxr_jax.process import configure_process
configure_process()
print(repr((sys.argv[1:], os.environ.get("GLIBC_TUNABLES"), os.environ.get("JAX_COMPILATION_CACHE_DIR"))))
"""


def run_program(tmp_path, command, arguments, **environment):
    """Run PROGRAM, saved as module `program`, and return its arguments, tunables and cache folder."""
    (tmp_path / "program.py").write_text(PROGRAM)
    inherited = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    root = str(Path(process.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, *command, *arguments],
        env={**inherited, "PYTHONPATH": root, "HOME": str(tmp_path), "JAX_PLATFORMS": "cpu", **environment},
        cwd=tmp_path,
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert done.stderr == b""
    return eval(done.stdout)
