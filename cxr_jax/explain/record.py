"""Where a run keeps what the checks of its heat maps found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cxr_jax.errors import UserError
from cxr_jax.runs.files import write_json
from cxr_jax.runs.folder import RunFolder, read_json

SCHEMA_VERSION = 1
"""Version of checks.json; raised when an older reader would misread it."""


def checks_path(run: RunFolder) -> Path:
    """Return where the findings of a run lie, JSON; there is none before the maps were checked."""
    return run.explanations / "checks.json"


def write_checks(run: RunFolder, findings: dict[str, Any]) -> Path:
    """Store findings, as `checks.Findings.as_dict` gives them, in place of older ones; return where.

    Raises:
        UserError: they cannot be written.
    """
    write_json(checks_path(run), findings)
    return checks_path(run)


def read_checks(run: RunFolder) -> dict[str, Any] | None:
    """Return the findings of a run, or None if its maps were not checked.

    Raises:
        UserError: they are damaged, or another version wrote them.
    """
    if not checks_path(run).is_file():
        return None
    findings = read_json(checks_path(run))
    if findings.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{checks_path(run)} was written by another version of cxr_jax: run cxr-jax explain {run.path} --check"
        )
    return findings
