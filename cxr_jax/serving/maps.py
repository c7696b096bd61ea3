"""Heat maps of predictions, each laid over its radiograph and written as a picture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from cxr_jax.explain.case import Case, with_caption
from cxr_jax.explain.heat_maps import heat_maps
from cxr_jax.explain.overlay import overlay, place_on_original
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.models.network import stage_names_of
from cxr_jax.runs.files import write_bytes
from cxr_jax.serving.predict import FilePrediction, Threshold
from cxr_jax.vocabulary import CLASS_NAMES


def write_map(model: TrainedModel, prediction: FilePrediction, threshold: Threshold, path: Path) -> None:
    """Writes Grad-CAM of the class that was called, at the last stage, over the radiograph of `prediction`.

    The picture is a PNG of the radiograph's own size, with a caption below it.

    Raises:
        UserError: the network has no stages, or `path` cannot be written.
        ValueError: nothing was predicted on the file.
    """
    if prediction.radiograph is None or prediction.label is None or prediction.probability is None:
        raise ValueError(f"{prediction.file} was not predicted")
    stage = stage_names_of(model.model())[-1]
    classes = np.array([CLASS_NAMES.index(prediction.label)])
    found = heat_maps(model, prediction.radiograph.square[None], classes, stage)
    case = Case(
        file=prediction.file,
        label=None,
        called=prediction.label,
        probability=prediction.probability,
        threshold=threshold.value,
        explained=prediction.label,
        stage=stage,
        blank=bool(found.blank[0]),
    )
    grey = prediction.radiograph.grey
    picture = overlay(grey, place_on_original(found.heat[0], *grey.shape, model.description.resize))
    captioned = cv2.cvtColor(with_caption(picture, case.sentences()), cv2.COLOR_RGB2BGR)
    write_bytes(path, cv2.imencode(".png", captioned)[1].tobytes())
