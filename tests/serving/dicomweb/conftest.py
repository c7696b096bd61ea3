"""A tiny exported network, and radiographs as a detector would have sent them to an archive."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cxr_jax.bundle.record import ONNX_FILE, Bundle, Call, content_of, write_bundle
from cxr_jax.data.phantoms.folder import draw_phantom

pytest.importorskip("highdicom", reason="highdicom is not installed")
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

DX = "1.2.840.10008.5.1.4.1.1.1.1"
CR = "1.2.840.10008.5.1.4.1.1.1"

SECRET = "Quirinus"
"""Part of every text that tells of the patient; a word that stands nowhere else."""

PATIENT = {
    "SpecificCharacterSet": "ISO_IR 100",
    "PatientName": f"{SECRET}^Zacharié",
    "PatientID": f"{SECRET}-0815",
    "PatientBirthDate": "19411207",
    "PatientSex": "O",
    "AccessionNumber": f"{SECRET}7",
    "StudyID": f"{SECRET}8",
    "StudyDescription": f"{SECRET} chest",
    "ReferringPhysicianName": f"{SECRET}^Doctor",
}


@pytest.fixture(scope="session")
def bundle(tiny_trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an exported network with a threshold of 0.4."""
    from cxr_jax.export.answers import answers_of, images_of
    from cxr_jax.export.from_jaxpr import to_onnx

    model = tiny_trained(loud=True, step=7, threshold=0.4, threshold_rule="youden")
    folder = tmp_path_factory.mktemp("bundle")
    (folder / ONNX_FILE).write_bytes(to_onnx(answers_of(model), images_of(model)).SerializeToString())
    told = Bundle(
        name="quickstart-1",
        kind="exclusive",
        network=model.description,
        calls=(Call("PNEUMONIA", 0.4, "youden"),),
        temperature=None,
        quality=(),
        training_images=0,
        step=7,
        checkpoint="best",
        checkpoint_sha256="",
        data_fingerprint="",
        software={},
        date="2026-11-26T05:00:00+00:00",
        files=(content_of(folder / ONNX_FILE),),
    )
    write_bundle(folder, told)
    return folder


@pytest.fixture(scope="session")
def phantoms() -> list[np.ndarray]:
    """Two drawn chests, uint8."""
    return [
        draw_phantom(kind, 1, number, image_size_range=(300, 400)) for number, kind in enumerate(("bacteria", "normal"))
    ]


Radiograph = Callable[..., bytes]


@pytest.fixture(scope="session")
def radiograph(phantoms: list[np.ndarray]) -> Radiograph:
    """Makes a radiograph of a study as a DICOM file; further elements are set, or left out if None."""

    def make(study: str, number: int = 1, *, chest: int = 0, **elements: object) -> bytes:
        pixels = phantoms[chest].astype(np.uint16) * 16
        meta = FileMetaDataset()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        made = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
        modality = elements.get("Modality", "DX")
        values = {
            **PATIENT,
            "SOPClassUID": CR if modality == "CR" else DX,
            "SOPInstanceUID": f"{study}.{1 + (modality == 'CR')}.{number}",
            "SeriesInstanceUID": f"{study}.{1 + (modality == 'CR')}",
            "StudyInstanceUID": study,
            "StudyDate": "20261120",
            "StudyTime": "101500",
            "SeriesNumber": 1,
            "InstanceNumber": number,
            "Modality": "DX",
            "BodyPartExamined": "CHEST",
            "ViewPosition": "PA",
            "PatientOrientation": ["L", "F"],
            "Rows": pixels.shape[0],
            "Columns": pixels.shape[1],
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": 16,
            "BitsStored": 12,
            "HighBit": 11,
            "PixelRepresentation": 0,
            "PixelData": pixels.tobytes(),
            **elements,
        }
        for keyword, value in values.items():
            if value is not None:
                setattr(made, keyword, value)
        if "PixelData" in made:
            made["PixelData"].VR = "OW"
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = made.SOPClassUID, made.SOPInstanceUID
        stream = io.BytesIO()
        pydicom.dcmwrite(stream, made, enforce_file_format=True)
        return stream.getvalue()

    return make
