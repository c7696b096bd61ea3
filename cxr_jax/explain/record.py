"""What the checks of a run's heat maps found, as the run keeps it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cxr_jax.errors import UserError
from cxr_jax.runs.files import write_json
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.terminal import as_typed

SCHEMA_VERSION = 1
"""Version of checks.json; raised when an older reader would misread it."""


def write_checks(run: RunFolder, findings: dict[str, Any]) -> Path:
    """Stores findings, as `checks.Findings.as_dict` gives them, in place of older ones; returns where.

    Raises:
        UserError: they cannot be written.
    """
    write_json(run.explanation_checks, findings)
    return run.explanation_checks


def read_checks(run: RunFolder) -> dict[str, Any] | None:
    """Returns the findings of a run, or None if its maps were not checked.

    Raises:
        UserError: they are damaged, or another version wrote them.
    """
    if not run.explanation_checks.is_file():
        return None
    findings = read_json(run.explanation_checks)
    if findings.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{run.explanation_checks} was written by another version of cxr_jax: "
            f"run {as_typed('cxr-jax', 'explain', run.path, '--check')}"
        )
    return findings
