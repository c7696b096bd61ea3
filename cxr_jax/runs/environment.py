"""What a run ran on: versions, machine, commit and data, written once at its start."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cxr_jax
from cxr_jax.process import available_cores
from cxr_jax.runs.files import write_json
from cxr_jax.runs.folder import SCHEMA_VERSION, RunFolder, read_json

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scipy", "scikit-learn")
"""Packages whose version can change a result."""


def describe_environment(*, devices: Sequence[str], data_fingerprint: str) -> dict[str, Any]:
    """Returns everything about this process that a reader needs to repeat it, ready for JSON.

    Args:
        devices: one description a device, such as `"cpu:0 (Zen 4)"`; told by the caller, who has jax.
        data_fingerprint: fingerprint of the prepared data; empty if there is none.

    Returns:
        `schema_version`, `date` (ISO, with time zone), `versions` by package (`python` and `cxr_jax` included; None
        for one that is not installed), `machine` (platform, processor, cores, memory_bytes), `commit` and
        `commit_is_clean` (None outside a checkout), `devices`, `data_fingerprint`.
    """
    commit, clean = _commit()
    return {
        "schema_version": SCHEMA_VERSION,
        "date": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "versions": {
            "python": platform.python_version(),
            "cxr_jax": cxr_jax.__version__,
            **{name: _version(name) for name in PACKAGES},
        },
        "machine": {
            "platform": platform.platform(),
            "processor": processor_name(),
            "cores": available_cores(),
            "memory_bytes": _memory_bytes(),
        },
        "commit": commit,
        "commit_is_clean": clean,
        "devices": list(devices),
        "data_fingerprint": data_fingerprint,
    }


def write_environment(run: RunFolder, *, devices: Sequence[str], data_fingerprint: str) -> dict[str, Any]:
    """Writes `describe_environment` to the run's environment.json and return it; UserError as in `write_json`."""
    environment = describe_environment(devices=devices, data_fingerprint=data_fingerprint)
    write_json(run.environment, environment)
    return environment


def record_activations(run: RunFolder, precision: str, kernels: str, why: str) -> None:
    """Adds to environment.json what activations are computed in from now on, unless it is what the record ends with.

    `kernels` says by what, and `why` as a clause why it was chosen. UserError as in `write_json`.
    """
    environment = read_json(run.environment)
    before = environment.get("activations") or []
    now = {"precision": precision, "kernels": kernels, "why": why}
    if not before or any(before[-1].get(name) != now[name] for name in ("precision", "kernels")):
        now["date"] = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        write_json(run.environment, environment | {"activations": [*before, now]})


def recorded_precision(run: RunFolder) -> str | None:
    """Returns the precision in which the run was trained last; None if environment.json does not say, as of old."""
    activations = read_json(run.environment).get("activations")
    return activations[-1]["precision"] if activations else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor_name() -> str:
    """Returns the processor's name; Linux keeps it in a file that the platform module does not read."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _commit() -> tuple[str | None, bool | None]:
    """Returns the commit of the checkout that this package runs from, and whether nothing in it is changed."""
    checkout = Path(cxr_jax.__file__).resolve().parents[1]
    # Installed into an environment, the package may lie inside somebody else's checkout.
    if not (checkout / ".git").exists():
        return None, None
    commit = _git(checkout, "rev-parse", "HEAD")
    changes = _git(checkout, "status", "--porcelain")
    return commit, None if changes is None else changes == ""


def _git(checkout: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(checkout), *arguments]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()
