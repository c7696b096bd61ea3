"""DICOM files for the tests, written by pydicom from drawn pixels, with a person who must never be heard of again."""

from __future__ import annotations

import io

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

DX_STORAGE = "1.2.840.10008.5.1.4.1.1.1.1"

SECRET = "Quirinus"
"""Part of every text that is planted; a word that stands nowhere else."""

SECRET_DATE = "19411207"

PLANTED = {
    "PatientName": f"{SECRET}^Zacharias",
    "PatientID": f"{SECRET}-0815",
    "OtherPatientNames": f"{SECRET}^Other",
    "ReferringPhysicianName": f"{SECRET}^Doctor",
    "OperatorsName": f"{SECRET}^Operator",
    "InstitutionName": f"{SECRET} Hospital",
    "InstitutionAddress": f"{SECRET} Street 1",
    "StationName": f"{SECRET}",
    "StudyDescription": f"{SECRET} study",
    "SeriesDescription": f"{SECRET} series",
    "ProtocolName": f"{SECRET} protocol",
    "PatientComments": f"{SECRET} comments",
    "AccessionNumber": f"{SECRET}7",
    "StudyID": f"{SECRET}8",
    "ImageComments": f"{SECRET} image",
    "PatientBirthDate": SECRET_DATE,
    "StudyDate": SECRET_DATE,
    "SeriesDate": SECRET_DATE,
    "AcquisitionDate": SECRET_DATE,
    "ContentDate": SECRET_DATE,
}
"""Elements of PN, LO, SH, ST, LT and DA that tell a patient."""


def dataset(pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, *, bits: int | None = None, **elements: object):
    """A DX image of `pixels`, (u)int8 or (u)int16 [H, W], with a patient; `elements` are added, or left out if None.

    Keywords that pydicom would refuse are checked nowhere, so that `elements` may be nonsense.
    """
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = DX_STORAGE, "1.2.3.4"
    meta.TransferSyntaxUID = syntax
    made = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    made.SOPClassUID, made.SOPInstanceUID = DX_STORAGE, "1.2.3.4"
    for keyword, value in PLANTED.items():
        setattr(made, keyword, value)
    made.Modality = "DX"
    made.Rows, made.Columns = pixels.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated = 8 * pixels.dtype.itemsize
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(pixels.dtype.kind == "i")
    made.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    made["PixelData"].VR = "OW" if made.BitsAllocated == 16 else "OB"
    for keyword, value in elements.items():
        if value is None:
            delattr(made, keyword)
        else:
            setattr(made, keyword, value)
    return made


def encode(made: Dataset) -> bytes:
    """The dataset as a file."""
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, made, enforce_file_format=False)
    return stream.getvalue()


def dicom(pixels: np.ndarray, syntax: str = ExplicitVRLittleEndian, **options: object) -> bytes:
    """`dataset` as a file."""
    return encode(dataset(pixels, syntax, **options))


def compressed(pixels: np.ndarray, frame: bytes, syntax: str, **options: object) -> bytes:
    """`dataset` as a file that holds `frame` in place of the pixels."""
    made = dataset(pixels, syntax, **options)
    made.PixelData = encapsulate([frame])
    made["PixelData"].VR = "OB"
    made["PixelData"].is_undefined_length = True
    return encode(made)


def lut(entries: list[int], first: int, bits: int, vr: str = "US") -> Sequence:
    """A sequence of one look-up table."""
    item = Dataset()
    item.add_new("LUTDescriptor", vr, [len(entries) % 2**16, first, bits])
    item.add_new("LUTData", "OW", np.array(entries, "<u2").tobytes())
    item.LUTExplanation = SECRET
    return Sequence([item])
