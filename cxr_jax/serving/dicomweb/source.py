"""A radiograph as it came from an archive: whose it is, and whether it is one to be predicted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cxr_jax.data.dicom.header import RADIOGRAPH_CLASSES, read_elements
from cxr_jax.errors import UserError

if TYPE_CHECKING:
    from pydicom import Dataset

FOR_PROCESSING = "1.2.840.10008.5.1.4.1.1.1.1.1"
"""SOP class of a detector's raw values; the same exposure is stored for presentation too."""

PATIENT_AND_STUDY = (
    "SpecificCharacterSet",
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "AccessionNumber",
    "StudyID",
    "StudyDescription",
    "ReferringPhysicianName",
)
"""Elements that an object has in common with all others of its study; they are copied byte by byte."""

_READ = (
    *PATIENT_AND_STUDY,
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "InstanceNumber",
    "BodyPartExamined",
    "ViewPosition",
    "PresentationIntentType",
    "BurnedInAnnotation",
    "PatientOrientation",
)
_CHEST = {"CHEST", "THORAX", "LUNG", "LUNGS"}
_OTHER_VIEWS = {"LL", "RL", "LLD", "RLD", "LLO", "RLO", "LAT", "LATERAL"}
"""From the side, lying on a side, and oblique (PS3.3 C.8.7.1.1.2)."""


@dataclass(frozen=True)
class Source:
    """What the header of a radiograph says, its pixels apart."""

    header: Dataset  # the elements that are read, undecoded

    def text(self, keyword: str) -> str:
        """Returns the first value of an element; empty if it is not there or cannot be read."""
        try:
            value = self.header.get(keyword)
            first = value if value is None or isinstance(value, str) else next(iter(value), "")
        except TypeError:
            first = value
        except Exception:  # a damaged value meets errors of a dozen kinds
            return ""
        return "" if first is None else str(first).strip(" \0")

    @property
    def uid(self) -> str:
        """The SOP instance UID."""
        return self.text("SOPInstanceUID")

    @property
    def study(self) -> str:
        """The study instance UID."""
        return self.text("StudyInstanceUID")

    @property
    def number(self) -> int:
        """The instance number, 1 where the file tells none."""
        told = self.text("InstanceNumber")
        return int(told) if re.fullmatch("[0-9]{1,9}", told) and int(told) else 1

    def why_not(self) -> str | None:
        """Returns why it is not one to be predicted; None if it is."""
        if self.text("PresentationIntentType").upper() == "FOR PROCESSING":
            return RAW
        return why_not(self.text("SOPClassUID"), self.text("BodyPartExamined"), self.text("ViewPosition"))


RAW = "a detector's raw values"


def why_not(sop_class: str, body_part: str = "", view: str = "") -> str | None:
    """Returns why an image is not one to be predicted, a phrase that quotes nothing of it; None if it is.

    A body part or view that is not told is taken for a frontal chest: many devices tell none.
    """
    if sop_class == FOR_PROCESSING:
        return RAW
    if sop_class and sop_class not in RADIOGRAPH_CLASSES:
        return "no radiograph"
    words = set(re.findall("[A-Z]+", body_part.upper()))
    if words and not words & _CHEST:
        return "another body part than the chest"
    if set(re.findall("[A-Z]+", view.upper())) & _OTHER_VIEWS:
        return "another view than from the front"
    return None


def read_source(data: bytes, name: str) -> Source:
    """Returns what the header of a DICOM file says; UserError as in `read_elements`, and if it tells no identifiers."""
    source = Source(read_elements(data, name, _READ).data_set)
    if not source.uid or not source.study or not source.text("SOPClassUID"):
        raise UserError(f"{name} is a damaged DICOM file: it lacks its identifiers")
    return source
