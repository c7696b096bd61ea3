"""What is told of a network that is shown regions of images alone: in the terminal, and in the report."""

from __future__ import annotations

from cxr_jax.evaluation.measures import Measured
from cxr_jax.evaluation.numbers import TO, measured_text
from cxr_jax.evaluation.occlusion import Occlusion, read_occlusion
from cxr_jax.runs.folder import RunFolder

REGION_TITLES = {
    "mask": "the mask itself",
    "lungs": "lungs alone",
    "outside_lungs": "all but the lungs",
    "outside_box": "all but the box around the lungs",
    "border": "the border alone",
}
"""What every region is called in a table."""


def occlusion_of(run: RunFolder) -> Occlusion | None:
    """Returns the run's record on validation; None if there is none."""
    path = run.occlusion_of("val")
    return read_occlusion(path) if path.is_file() else None


def occlusion_rows(occlusion: Occlusion) -> list[str]:
    """Returns a table of lines: every region with its figures, and its ROC-AUC less that of whole images."""
    left_out = f" ({occlusion.without_mask} more have no lung mask)" if occlusion.without_mask else ""
    lines = [f"{occlusion.images:,} images of {occlusion.split}{left_out}, shown whole and by regions:"]
    lines.append(f"{'':32} {'ROC-AUC':>8} {'sensitivity':>12} {'specificity':>12}  ROC-AUC less that of whole images")
    if occlusion.classes:
        lines.append(f"Means over {', '.join(occlusion.classes)}:")
    lines += _rows(occlusion)
    for name, found in occlusion.classes.items():
        lines += [f"{name}:", *_rows(found)]
    lines.append(
        "The outline of the lungs is no secret in any region but the border: hold each against the mask itself."
    )
    return lines


def _rows(occlusion: Occlusion) -> list[str]:
    whole = occlusion.whole
    lines = [_row("whole", whole.roc_auc, whole.sensitivity, whole.specificity)]
    for entry in occlusion.regions:
        level = entry.level
        figures = _row(REGION_TITLES[entry.region], level.roc_auc, level.sensitivity, level.specificity)
        lines.append(f"{figures}  {measured_text(entry.roc_auc, '+.3f', word=TO)}")
    return lines


def _row(title: str, *figures: Measured) -> str:
    area, sensitivity, specificity = ("–" if each.value is None else f"{each.value:.3f}" for each in figures)
    return f"{title:32} {area:>8} {sensitivity:>12} {specificity:>12}"
