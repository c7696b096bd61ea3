"""The figures of a report: which there are, their captions, and their content as data addresses."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.gallery import read_gallery

Captions = tuple[tuple[str, str], ...]

TRAINING: Captions = (
    ("training_iterations", "Loss and accuracy of every training batch, with validation laid over them."),
    ("training_epochs", "The same by epoch: the mean over the batches of an epoch, and validation."),
)
RESULTS: Captions = (
    ("confusion_matrix", "Calls on test at the threshold fixed on validation; shares are of the true class."),
    ("roc", "ROC of test and validation; the dots are the operating point."),
    ("precision_recall", "Precision over recall; dotted, what calling every image PNEUMONIA gives."),
    ("score_distributions", "Probabilities by class: validation, where the threshold was fixed, over test."),
)
CALIBRATION: Captions = (
    ("reliability", "Share of PNEUMONIA over predicted probability, ten bins of equal size, 95 % Wilson intervals."),
)
RESULTS_OF_CLASSES: Captions = (
    ("confusion_matrix", "Calls on test, the class of the highest probability; shares are of the true class."),
    ("confusion_matrix_validation", "The same on validation."),
    ("roc", "ROC of each class against the rest on test."),
)
CALIBRATION_OF_CLASSES: Captions = (
    ("reliability", "Share that is of a class over its probability on test, ten bins of equal size."),
)
RESULTS_OF_FINDINGS: Captions = (("roc", "ROC of each finding on the test images of which it is known."),)
CALIBRATION_OF_FINDINGS: Captions = (
    ("reliability", "Share that shows a finding over its probability on test, ten bins of equal size."),
)
DECISION: Captions = (
    ("decision_curve", "Net benefit on test for somebody who would act at that probability of PNEUMONIA."),
)

_SHEETS = {
    "failure_cases": "The errors made with most confidence.",
    "predictions_grid": "Test images drawn by lot, right and wrong as they come.",
}
"""Captions of the figures with radiographs."""

_DARK_SHEETS = ("explanation_randomisation",)
"""Figures drawn on a dark sheet. The dark turns the colours of all others round, which would falsify heat maps."""


def figures_of(run: RunFolder, captions: Captions) -> list[dict[str, Any]]:
    """Returns the figures that the run has, each with its caption and its content as a data address."""
    figures = []
    for name, caption in captions:
        path = run.figures / f"{name}.svg"
        if path.is_file():
            kind = "dark-sheet" if name in _DARK_SHEETS else "chart"
            figures.append({"name": name, "caption": caption, "source": inlined(path), "kind": kind})
    return figures


def sheets_of(run: RunFolder) -> list[dict[str, Any]]:
    """Returns the figures with radiographs that the run has, each with its caption, and its gallery or content."""
    return [sheet for name in _SHEETS if (sheet := _sheet(run, name)) is not None]


def _sheet(run: RunFolder, name: str) -> dict[str, Any] | None:
    """Returns a figure with radiographs: its gallery, or from a run that has none the figure itself."""
    path = run.figures / f"{name}.png"
    if not path.is_file():
        return None
    gallery = read_gallery(path)
    source = inlined(path) if gallery is None else None
    return {"name": name, "caption": _SHEETS[name], "gallery": gallery, "source": source}


def inlined(path: Path) -> str:
    """Returns a PNG or SVG file as a data address, which no script can run in as an image."""
    kind = {".png": "image/png", ".svg": "image/svg+xml"}[path.suffix]
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
