"""What is noticed of a source while each of its images is decoded once."""

import cv2
import numpy as np
import pytest

from cxr_jax.data.inspection import inspect
from cxr_jax.data.preparation import prepare
from cxr_jax.data.progress import silently
from cxr_jax.data.sources import find_source

from .dicom.drawn import dicom


def deep(highest, seed):
    """A 16-bit picture whose brightest pixel is `highest`, different for every seed."""
    image = np.random.default_rng(seed).integers(0, highest, (40, 50)).astype(np.uint16)
    image[0, 0] = highest
    return image


@pytest.fixture
def notes_of(tmp_path, prepared_root):
    """Prepare PNGs with these highest values, half of each class; the notes of their data card."""

    def prepared(*highest):
        for number, value in enumerate(highest):
            path = tmp_path / "set" / ("NORMAL", "PNEUMONIA")[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            assert cv2.imwrite(str(path), deep(value, number) if value > 255 else deep(value, number).astype(np.uint8))
        card = prepare(tmp_path / "set").prepared.card
        assert set(card["image_notes"]) <= set(card["notes"])
        return card["image_notes"]

    return prepared


def test_a_set_of_12_bits_is_noted(notes_of):
    (note,) = notes_of(*range(4000, 4012))
    assert note.startswith("12 of 12 16-bit images hold no value above 4,095: they were read as images of 12 bits")


def test_a_set_of_two_ranges_is_noted(notes_of):
    guessed, others = notes_of(*[4000] * 8, *[60_000] * 4, *[200] * 4)
    assert guessed.startswith("8 of 12 16-bit images hold no value above 4,095")
    assert others.startswith("The other 4 have 65,535 as white")


def test_a_dark_set_is_noted(notes_of):
    (note,) = notes_of(*[16_000] * 10, *[15_000] * 2)
    assert note.startswith("12 16-bit images hold no value above 16,000, a quarter of their range at most")


@pytest.mark.parametrize("highest", [200, 60_000])
def test_usual_sets_are_not_noted(notes_of, highest):
    assert notes_of(*[highest] * 12) == []


def test_each_file_is_decoded_once(tmp_path, monkeypatch):
    for number, label in enumerate(["NORMAL", "PNEUMONIA"] * 2):
        folder = tmp_path / "set" / label
        folder.mkdir(parents=True, exist_ok=True)
        image = deep(250, number).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number}.jpeg"), image)
        cv2.imwrite(str(folder / f"{number}.png"), image)
        (folder / f"{number}.dcm").write_bytes(dicom(image))
    source = find_source(tmp_path / "set")
    decoded, imdecode = [], cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: decoded.append(flags) or imdecode(data, flags))
    with source.opened() as reader:
        found = inspect(reader, source.listing.entries, silently)
    assert len(found.examples) == 12
    assert len(decoded) == 8  # JPEG and PNG once, the pixels of DICOM files never
