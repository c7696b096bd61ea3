"""The heat map of a radiograph as a Secondary Capture, with what it is burned into the picture."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np

from cxr_jax.explain.case import with_caption
from cxr_jax.serving import maps
from cxr_jax.serving.dicomweb.network import SOFTWARE, Network, plain
from cxr_jax.serving.dicomweb.report import Scored, remarks, scored
from cxr_jax.serving.dicomweb.source import Source
from cxr_jax.serving.dicomweb.written import Written, description, evidence_of, finish
from cxr_jax.serving.predict import FilePrediction
from cxr_jax.vocabulary import DISCLAIMER

KIND = "heat map"
SERIES_NUMBER = 9902
HEADLINE = "RESEARCH ONLY - NOT FOR DIAGNOSIS"

SMALLEST_SIDE, LARGEST_SIDE = 640, 1024
"""Between these is the longer side of the radiograph in the picture: large enough to read, small enough to store."""


def capture_of(network: Network, source: Source, prediction: FilePrediction) -> Written:
    """Returns the picture of one radiograph, in colour and uncompressed, which every viewer shows.

    It has no pixel spacing: nothing is to be measured in it. Whether a person can be told from burned-in text is as in
    the radiograph; what is burned in here names nobody.
    """
    from highdicom.sc import SCImage
    from pydicom import Dataset

    evidence = evidence_of(source)
    made = SCImage.from_ref_dataset(
        evidence,
        pixel_array=picture_of(network, prediction),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        **description(network, source, KIND, SERIES_NUMBER),
    )
    # required, and empty where nothing is known
    made.PatientOrientation = made.Laterality = None
    for keyword in ("PatientOrientation", "BurnedInAnnotation"):
        if source.text(keyword):
            made[keyword] = source.header[keyword]
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = evidence.SOPClassUID, evidence.SOPInstanceUID
    made.SourceImageSequence = [reference]
    made.DerivationDescription = f"Heat map of a network laid over the radiograph. {DISCLAIMER}"
    made.ImageComments = " ".join(filter(None, (DISCLAIMER, network.films)))
    return finish(made, source)


def picture_of(network: Network, prediction: FilePrediction) -> np.ndarray:
    """Returns the radiograph with its heat map, a headline above and a caption below, uint8 [H, W, 3] RGB."""
    sized = replace(prediction.radiograph, grey=_sized(prediction.radiograph.grey))
    drawn = maps.map_of(
        maps.evidence_of(network.model),
        replace(prediction, radiograph=sized),
        network.threshold,
        network.model.description.resize,
        classes=network.model.description.classes,
    )
    coloured = drawn.overlay()
    headline = with_caption(np.zeros((0, coloured.shape[1], 3), np.uint8), [HEADLINE])
    lines = caption(network, prediction, drawn.case.explained, blank=drawn.case.blank)
    return with_caption(np.concatenate([headline, coloured]), lines)


def caption(network: Network, prediction: FilePrediction, explained: str, *, blank: bool) -> list[str]:
    """Returns the lines below the picture, none of which names a person; `explained` is the class of the colours."""
    label = plain(explained)
    colours = f"Colours: what spoke to the network for class {label}, from none (grey) to most (yellow)."
    return [
        *(_told(network, one) for one in scored(network, prediction)),
        f"No colours: nothing spoke for class {label}." if blank else colours,
        *remarks(prediction),
        f"Network: {network.title}, {network.version}. {SOFTWARE}.",
        *([network.films] if network.films else []),
        DISCLAIMER,
    ]


def _told(network: Network, one: Scored) -> str:
    """Returns the score of a class, and whether that calls it."""
    score = f"Research score for class {plain(one.label)}: {one.score:.4f}."
    if one.threshold is None:
        return f"{score} It is the highest of all classes." if one.called else score
    reached = "reaches" if one.called else "is below"
    return f"{score} It {reached} the research threshold {one.threshold:.4f} (rule: {plain(network.threshold.rule)})."


def _sized(grey: np.ndarray) -> np.ndarray:
    """Returns an image [H, W] whose longer side lies within the bounds."""
    longer = max(grey.shape)
    factor = min(max(longer, SMALLEST_SIDE), LARGEST_SIDE) / longer
    if factor == 1:
        return grey
    size = tuple(max(round(side * factor), 1) for side in reversed(grey.shape))
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
