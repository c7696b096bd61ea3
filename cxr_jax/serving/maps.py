"""Heat maps of predictions, each laid over its radiograph and written as a picture."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cxr_jax.data.decode import Resize
from cxr_jax.explain.case import Case, with_caption
from cxr_jax.explain.overlay import overlay, place_on_original
from cxr_jax.runs.files import write_bytes
from cxr_jax.serving.predict import FilePrediction, Threshold
from cxr_jax.vocabulary import CLASS_NAMES

if TYPE_CHECKING:
    from cxr_jax.bundle.runtime import BundledModel
    from cxr_jax.inference.restore import TrainedModel


Explain = Callable[[np.ndarray, int], tuple[np.ndarray, bool]]
"""Gives heat [h, w] in 0..1, and whether it is blank, of one square [S, S] and the class that is explained."""


def grad_cam_of(model: TrainedModel) -> tuple[Explain, str]:
    """Returns Grad-CAM at the last stage of a restored network, and the stage's name.

    Raises:
        UserError: the network has no stages.
    """
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
    """

    def explain(square: np.ndarray, label: int) -> tuple[np.ndarray, bool]:
        heat = np.maximum(model.evidence(square[None])[0, label], 0)
        hottest = float(heat.max())
        return (heat / hottest if hottest > 0 else heat), hottest <= 0

    return explain, "the last feature map"


def write_map(
    explain: Explain, stage: str, prediction: FilePrediction, threshold: Threshold, resize: Resize, path: Path
) -> None:
    """Writes what speaks for the class that was called over the radiograph of `prediction`.

    The picture is a PNG of the radiograph's own size, with a caption below it.

    Args:
        explain: from `grad_cam_of` or `evidence_of`.
        stage: where in the network the map is from.
        prediction: what was predicted on the file.
        threshold: from which PNEUMONIA is called.
        resize: how the radiograph became the network's square.
        path: of the picture.

    Raises:
        UserError: `path` cannot be written.
        ValueError: nothing was predicted on the file.
    """
    if prediction.radiograph is None or prediction.label is None or prediction.probability is None:
        raise ValueError(f"{prediction.file} was not predicted")
    heat, blank = explain(prediction.radiograph.square, CLASS_NAMES.index(prediction.label))
    case = Case(
        file=prediction.file,
        label=None,
        called=prediction.label,
        probability=prediction.probability,
        threshold=threshold.value,
        explained=prediction.label,
        stage=stage,
        blank=blank,
    )
    grey = prediction.radiograph.grey
    picture = overlay(grey, place_on_original(heat, *grey.shape, resize))
    captioned = cv2.cvtColor(with_caption(picture, case.sentences()), cv2.COLOR_RGB2BGR)
    write_bytes(path, cv2.imencode(".png", captioned)[1].tobytes())
