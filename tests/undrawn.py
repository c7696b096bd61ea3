"""Figures that are stored without being drawn: that takes most of an evaluation, and other tests look at figures."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.figure import Figure

from cxr_jax.reporting import pictures

SMALLEST_SVG = b'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1 1"/>'
SMALLEST_PNG = cv2.imencode(".png", np.zeros((1, 1), np.uint8))[1].tobytes()


def leave_undrawn(patch: pytest.MonkeyPatch) -> None:
    """Has every figure stored as one grey pixel."""

    def store(figure: Figure, path: Path, *, format: str, **options: object) -> None:
        Path(path).write_bytes(SMALLEST_SVG if format == "svg" else SMALLEST_PNG)

    # to put sheets of many pictures together takes longer than all the rest
    patch.setattr(pictures, "sheet_of", lambda *shown, **how: Figure())
    patch.setattr(Figure, "draw_without_rendering", lambda figure: None)
    patch.setattr(Figure, "savefig", store)
