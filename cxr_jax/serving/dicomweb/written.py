"""What all objects that a network writes into an archive have in common: the patient, the study, and whose they are."""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cxr_jax.serving.dicomweb.network import SOFTWARE, Network
from cxr_jax.serving.dicomweb.source import PATIENT_AND_STUDY, Source

if TYPE_CHECKING:
    from pydicom import Dataset

RESEARCH = "RESEARCH ONLY, not for diagnosis"

_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)


@dataclass(frozen=True)
class Written:
    """An object that is about to be stored."""

    uid: str
    series: str  # UID
    data: bytes  # a DICOM file


def evidence_of(source: Source) -> Dataset:
    """Returns the radiograph as highdicom refers to it: by its identifiers, without the patient.

    highdicom checks and may quote what a header says of the patient, which is often not what the standard asks for:
    it is given nothing of it, and `finish` copies it.
    """
    from pydicom import Dataset

    logging.getLogger("highdicom").setLevel(logging.CRITICAL)
    evidence = Dataset()
    for keyword in _EMPTY:
        setattr(evidence, keyword, "")
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        setattr(evidence, keyword, source.text(keyword))
    return evidence


def description(network: Network, source: Source, kind: str, series_number: int) -> dict[str, Any]:
    """Returns what highdicom is told of each object: its series, identifiers, and what it was made by."""
    return {
        "series_instance_uid": network.uid(f"{kind} series", source.study),
        "series_number": series_number,
        "series_description": f"{RESEARCH}: cxr_jax {kind}",
        "sop_instance_uid": network.uid(kind, source.uid),
        "instance_number": source.number,
        "manufacturer": "cxr_jax",
        "manufacturer_model_name": network.title,
        "software_versions": SOFTWARE,
        "device_serial_number": network.version,
        "content_qualification": "RESEARCH",
    }


def finish(made: Dataset, source: Source) -> Written:
    """Returns an object of highdicom as a file, with the patient and the study of the radiograph byte by byte."""
    from pydicom import dcmwrite
    from pydicom.datadict import dictionary_VR, tag_for_keyword
    from pydicom.dataelem import RawDataElement

    for keyword in PATIENT_AND_STUDY:
        tag = tag_for_keyword(keyword)
        element = source.header.get_item(tag)
        if element is None:
            continue
        if isinstance(element, RawDataElement):
            vr = element.VR if element.VR not in (None, "UN") else dictionary_VR(tag)
            element = element._replace(VR=vr, is_implicit_VR=False, is_little_endian=True)
        made[tag] = element
    stream = io.BytesIO()
    dcmwrite(stream, made, enforce_file_format=True)
    return Written(made.SOPInstanceUID, made.SeriesInstanceUID, stream.getvalue())
