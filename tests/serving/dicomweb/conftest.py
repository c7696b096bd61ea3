"""An exported network, and radiographs as a detector would have sent them to an archive."""

from __future__ import annotations

import contextlib
import io
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cxr_jax.bundle.record import Call, UsualRange
from cxr_jax.data.phantoms.folder import draw_phantom
from cxr_jax.serving.dicomweb.archive import Archive
from cxr_jax.serving.dicomweb.connection import Access, Connection
from cxr_jax.serving.dicomweb.journal import Journal
from cxr_jax.serving.dicomweb.network import Network, load_network
from cxr_jax.serving.dicomweb.watch import Pass, Since, Watch
from tests.serving.dicomweb.archive_server import ArchiveServer, running
from tests.serving.onnx_bundles import write_onnx_bundle

pytest.importorskip("highdicom", reason="highdicom is not installed")
import onnx
import pydicom
from onnx import helper
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


SIDE = 32

FILMS = "This network learned from drawn chests, and is for chests like those."

FIRST, SECOND = "1.2.840.99.1", "1.2.840.99.2"
"""Studies."""


@pytest.fixture
def archive() -> Iterator[ArchiveServer]:
    """A small archive that can be told to misbehave."""
    with running() as server:
        yield server


def write_drawn_bundle(folder: Path, *, threshold: float = 0.4) -> Path:
    """Writes an exported network that finds bright patches: evidence of each patch, and logits that are its mean."""
    constants = {
        "scale": np.float32(1 / 255),
        "middle": np.float32(0.45),
        "gain": np.array([-30, 30], np.float32).reshape(1, 2, 1, 1),
        "channel": np.array([1], np.int64),
        "plane": np.array([2, 3], np.int64),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["whole"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Mul", ["whole", "scale"], ["scaled"]),
        helper.make_node("Unsqueeze", ["scaled", "channel"], ["image"]),
        helper.make_node("AveragePool", ["image"], ["patches"], kernel_shape=[8, 8], strides=[8, 8]),
        helper.make_node("Sub", ["patches", "middle"], ["contrast"]),
        helper.make_node("Mul", ["contrast", "gain"], ["evidence"]),
        helper.make_node("GlobalAveragePool", ["evidence"], ["pooled"]),
        helper.make_node("Squeeze", ["pooled", "plane"], ["logits"]),
    ]
    return write_onnx_bundle(
        folder,
        "patches",
        nodes,
        constants,
        {"logits": [2], "evidence": [2, 4, 4]},
        side=SIDE,
        resize="pad",
        name="drawn-1",
        calls=(Call("PNEUMONIA", threshold, "youden"),),
        temperature=None,
        quality=(UsualRange("sharpness", "Sharpness", None, 1e-9),),
        training_images=900,
        step=7,
        date="2026-11-26T05:00:00+00:00",
        films=FILMS,
    )


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an exported network with a threshold of 0.4; every image is less sharp than its training images."""
    return write_drawn_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def network(bundle: Path) -> Network:
    """The same network at work."""
    return load_network(bundle)


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
        meta.TransferSyntaxUID = elements.pop("syntax", ExplicitVRLittleEndian)
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


@pytest.fixture
def unwritten_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are stored without their text, which takes most of their time; other tests look at them."""
    monkeypatch.setattr("cxr_jax.serving.dicomweb.capture.with_caption", lambda picture, lines: picture)


@pytest.fixture
def looking(
    archive: ArchiveServer, network: Network, tmp_path: Path, unwritten_captions: None
) -> Iterator[Callable[..., Pass]]:
    """Passes over the archive, each as after a new start; `said` holds the lines of all."""
    said = []

    def once(*, journal="journal.jsonl", **access):
        with opened(journal, **access) as watch:
            return watch.once()

    @contextlib.contextmanager
    def opened(journal="journal.jsonl", *, stop=None, waits=(0.01, 0.01, 0.01), **access):
        stop = stop or threading.Event()
        connection = Connection(Access(archive.url, **{"timeout": 60, **access}), stop=stop, waits=waits)
        with Journal.open(tmp_path / journal, network.digest) as held:
            yield Watch(Archive(connection), network, held, since=Since.read("2026-11-01"), stop=stop, say=said.append)

    once.said, once.opened = said, opened
    yield once
    kept = "".join(path.read_text() for path in tmp_path.glob("*.jsonl*"))
    told = "".join(said) + kept
    assert SECRET not in told and not re.search(r"1\.2\.840|19411207|20261120", told)
