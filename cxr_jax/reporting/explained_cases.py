"""What `cxr-jax explain` leaves of the cases that it explains: an overlay for each, and a page with all of them."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from cxr_jax.explain.case import Case, with_caption
from cxr_jax.explain.overlay import overlay, place_on_original
from cxr_jax.explain.panel import Group, draw_groups, gallery_of
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.reporting.report import write_report_anew
from cxr_jax.runs.files import atomic_path, write_bytes
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.gallery import write_gallery
from cxr_jax.terminal import Terminal
from cxr_jax.vocabulary import DISCLAIMER


def write_overlay(
    terminal: Terminal,
    run: RunFolder,
    trained: TrainedModel,
    name: str,
    grey: np.ndarray,
    case: Case,
    heat: np.ndarray,
) -> np.ndarray:
    """Writes the captioned overlay of one case, says so, and returns the overlay without its caption."""
    picture = overlay(grey, place_on_original(heat, *grey.shape, trained.description.resize))
    encoded = cv2.imencode(".png", cv2.cvtColor(with_caption(picture, case.sentences()), cv2.COLOR_RGB2BGR))[1]
    path = run.explanations / f"{name}-{case.explained}-{case.stage}.png"
    write_bytes(path, encoded.tobytes())
    blank = f"; blank: nothing at {case.stage} speaks for {case.explained}" if case.blank else ""
    terminal.say(f"{path}: {case.headline()} ({case.probability:.4f}){blank}")
    return picture


def draw_page(
    terminal: Terminal,
    run: RunFolder,
    trained: TrainedModel,
    groups: Sequence[Group],
    stage: str,
    called: str,
    title: str,
    page: str,
) -> None:
    """Writes the page of all cases; a report that exists already is written again, to show it.

    `called` says whose probability is in brackets, and from which one on it is called.
    """
    notes = [
        f"{trained.description.title} of {run.name}, step {trained.step}. In brackets the probability of {called}.",
        "Grad-CAM shows where evidence for a class was found, not why, and not where disease is.",
        DISCLAIMER,
    ]
    if run.data_card.is_file() and read_json(run.data_card).get("phantom"):
        notes.insert(0, "Trained on phantoms: images drawn by a program, no patients.")
    title = f"Grad-CAM at {stage}: {title}"
    figure = draw_groups(groups, title, notes)
    with atomic_path(run.explanations / page) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    write_gallery(run.explanations / page, gallery_of(groups, title))
    terminal.say(f"Page: {run.explanations / page}")
    if report := write_report_anew(run):
        terminal.say(f"Report: {report}")
