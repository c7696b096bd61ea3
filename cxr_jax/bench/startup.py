"""How long `cxr-jax train` takes from its start to its first step, with and without compiled programs at hand."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cxr_jax.bench.cases import StartupCase
from cxr_jax.errors import UserError
from cxr_jax.process import CACHE_SWITCH, KERNELS_SWITCH, before_restart


def measure_startup(
    case: StartupCase, rounds: int, tell: Callable[[str], None], environment: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """Start `rounds` times with nothing compiled, neither programs nor kernels, and after each with what it left.

    Returns, under `cold` and `cached`, the list `rounds` of what each start told (`launch` says what), the median
    `seconds`, and medians by phase. The kernel's cache of files is left as it is. Raises UserError, with the last line
    of what it wrote, if a start ends before its first step.
    """
    starts: dict[str, list[dict[str, Any]]] = {"cold": [], "cached": []}
    for number in range(rounds):
        with tempfile.TemporaryDirectory(prefix="cxr-jax-bench-") as folder:
            for kind, told in starts.items():
                tell(f"starting {case.task}: {kind}, {number + 1} of {rounds}")
                told.append(_start(case, Path(folder), kind, environment))
    return {kind: _summary(told) for kind, told in starts.items()}


def _start(case: StartupCase, folder: Path, kind: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """One start; `folder` keeps the compiled programs and the native kernels."""
    result, config = folder / f"{kind}.json", folder / "config.toml"
    config.write_text(_config(case), encoding="utf-8")
    chosen = before_restart(environment) | {CACHE_SWITCH: str(folder / "compiled")}
    chosen.pop("JAX_COMPILATION_CACHE_DIR", None)
    if environment.get(KERNELS_SWITCH) != "off":
        chosen[KERNELS_SWITCH] = str(folder / "native")
    task = {
        "began": time.time(),
        "threads": case.threads,
        "arguments": ["train", str(config), "--out", str(folder / kind)],
        "result": str(result),
    }
    command = [sys.executable, "-m", "cxr_jax.bench.launch", json.dumps(task)]
    done = subprocess.run(command, env=chosen, capture_output=True, encoding="utf-8", errors="replace")
    if not result.is_file():
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it wrote nothing"]
        raise UserError(lines[-1].removeprefix("cxr-jax: "))
    return json.loads(result.read_text(encoding="utf-8"))


def _config(case: StartupCase) -> str:
    """A config of the case, everything else as it is by default."""
    quoted = {name: json.dumps(getattr(case, name)) for name in ("dataset", "model", "weights")}
    return (
        f"[data]\ndataset = {quoted['dataset']}\nimage_size = {case.image_size}\n"
        f"[model]\nname = {quoted['model']}\nweights = {quoted['weights']}\n"
        f"[training]\nbatch_size = {case.batch_size}\n"
    )


def _summary(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    phases = rounds[0]["phases"]
    return {
        "seconds": statistics.median(told["seconds"] for told in rounds),
        "phases": {phase: statistics.median(told["phases"][phase] for told in rounds) for phase in phases},
        "rounds": rounds,
    }
