#!/usr/bin/env python
"""Store a run of today's checkpoint format under tests/stored_runs, for every later version to restore and resume.

To be run once for each format; archives of older formats stay. A minute on two CPU cores.

    .venv/bin/python scripts/make_stored_run.py
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cxr_jax.errors import UserError, run_script

sys.path.append(str(Path(__file__).parents[1] / "tests" / "training"))


def main(_: Sequence[str]) -> int:
    """Write the archive; UserError if there is one."""
    import stored_run

    path = stored_run.stored_file()
    if path.exists():
        raise UserError(f"{path} is stored already: a format does not change, raise FORMAT_VERSION in cxr_jax")
    with tempfile.TemporaryDirectory() as folder:
        stored_run.make(Path(folder) / "run")
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    run_script(main)
