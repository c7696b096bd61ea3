"""Heat maps of predictions, each laid over its radiograph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cxr_jax.data.decode import Resize
from cxr_jax.data.findings import BETWEEN
from cxr_jax.explain.case import Case, with_caption
from cxr_jax.explain.overlay import OPACITY, overlay, place_on_original
from cxr_jax.runs.description import require_uncropped
from cxr_jax.runs.files import write_bytes
from cxr_jax.serving.predict import FilePrediction, Threshold
from cxr_jax.vocabulary import CLASS_NAMES, PNEUMONIA

if TYPE_CHECKING:
    from cxr_jax.bundle.runtime import BundledModel
    from cxr_jax.inference.restore import TrainedModel


Explain = Callable[[np.ndarray, int], tuple[np.ndarray, bool]]
"""Gives heat [h, w] in 0..1, and whether it is blank, of one square [S, S] and the class that is explained."""


def grad_cam_of(model: TrainedModel) -> tuple[Explain, str]:
    """Returns Grad-CAM at the last stage of a restored network, and the stage's name.

    Raises:
        UserError: the network has no stages, or sees crops.
    """
    require_uncropped(model.descriptions, "a heat map")
    from cxr_jax.explain.heat_maps import heat_maps
    from cxr_jax.models.network import stage_names_of

    stage = stage_names_of(model.model())[-1]

    def explain(square: np.ndarray, label: int) -> tuple[np.ndarray, bool]:
        found = heat_maps(model, square[None], np.array([label]), stage)
        return found.heat[0], bool(found.blank[0])

    return explain, stage


def evidence_of(model: BundledModel) -> tuple[Explain, str]:
    """Returns the evidence that an exported network gives beside its logits, and what it is called.

    For a network that averages its last feature map before one linear layer, as all of these do, this is Grad-CAM at
    the last stage (Selvaraju et al. 2017), without a gradient.

    Raises:
        UserError: the network sees crops.
    """
    require_uncropped(model.descriptions, "a heat map")

    def explain(square: np.ndarray, label: int) -> tuple[np.ndarray, bool]:
        heat = np.maximum(model.evidence(square[None])[0, label], 0)
        hottest = float(heat.max())
        return (heat / hottest if hottest > 0 else heat), hottest <= 0

    return explain, "the last feature map"


@dataclass(frozen=True)
class HeatMap:
    """Where a network saw evidence for a class in a radiograph.

    Attributes:
        case: what was called, and which class is explained, in words.
        cells: float32 [h, w] in 0..1, the map over the square that the network was given; all 0 if nothing there
            speaks for the class.
        heat: float32 [H, W] in 0..1, the same over the radiograph.
        radiograph: uint8 [H, W], its grey levels.
        films: whose films the network learned from, in a sentence; empty where nobody said.
    """

    case: Case
    cells: np.ndarray
    heat: np.ndarray
    radiograph: np.ndarray
    films: str = ""

    def overlay(self, opacity: float = OPACITY) -> np.ndarray:
        """Returns the radiograph coloured by the map, RGB uint8 [H, W, 3]; `opacity` is that of the hottest place."""
        return overlay(self.radiograph, self.heat, opacity)

    def png(self) -> bytes:
        """Returns `overlay` with a caption below it, which says what the colours show, as a PNG file."""
        *told, disclaimer = self.case.sentences()
        lines = [*told, *([self.films] if self.films else []), disclaimer]
        picture = cv2.cvtColor(with_caption(self.overlay(), lines), cv2.COLOR_RGB2BGR)
        return cv2.imencode(".png", picture)[1].tobytes()

    def save(self, path: str | Path) -> None:
        """Writes `png` to `path`; UserError if that cannot be written."""
        write_bytes(path, self.png())

    def _repr_png_(self) -> bytes:
        """Returns what a notebook shows."""
        return self.png()


def map_of(
    explain: tuple[Explain, str],
    prediction: FilePrediction,
    threshold: Threshold,
    resize: Resize,
    explained: str | None = None,
    classes: tuple[str, ...] = CLASS_NAMES,
    films: str = "",
) -> HeatMap:
    """Returns what speaks for a class, or for a finding, in the radiograph of `prediction`.

    Args:
        explain: from `grad_cam_of` or `evidence_of`.
        prediction: what was predicted on the file.
        threshold: how calls are made.
        resize: how the radiograph became the network's square.
        explained: the class; by default the one that was called, and of findings the likeliest one that was called, or
            the likeliest where none was.
        classes: of the network, in its order.
        films: whose films it learned from, in a sentence.

    Raises:
        ValueError: nothing was predicted on the file.
    """
    if prediction.radiograph is None or prediction.label is None:
        raise ValueError(f"{prediction.file} was not predicted")
    explained = explained or prediction.likeliest
    maker, stage = explain
    cells, blank = maker(prediction.radiograph.square, classes.index(explained))
    # of NORMAL and PNEUMONIA the threshold is about the second, whichever is explained
    told = prediction.probabilities
    scored = CLASS_NAMES[PNEUMONIA] if told is None else explained
    case = Case(
        file=prediction.file,
        label=None,
        called=prediction.label.replace(BETWEEN, ", "),
        probability=prediction.probability if told is None else told[explained],
        threshold=threshold.value if threshold.of_findings is None else threshold.of_findings[explained],
        explained=explained,
        stage=stage,
        blank=blank,
        scored=scored,
    )
    grey = prediction.radiograph.grey
    return HeatMap(case, cells, place_on_original(cells, *grey.shape, resize), grey, films)
