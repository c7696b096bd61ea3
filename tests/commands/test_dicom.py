"""The commands on DICOM files: same results as on the same pixels as PNG, and no patient in anything they leave."""

import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr_jax.cli import main as cli
from cxr_jax.commands.explain import find_subject
from cxr_jax.data.cache import encoded_images
from cxr_jax.data.decode import decode_grey
from cxr_jax.data.prepared import PreparedData

from ..data.dicom.drawn import SECRET, SECRET_DATE, dicom


@pytest.fixture
def films(phantom_source, tmp_path):
    """Two phantoms, each as a PNG and as a DICOM file of a patient; inverted and of 12 bits in the latter."""
    found = []
    for number, path in enumerate(sorted((phantom_source / "test").glob("*/*.jpeg"))[:2]):
        grey = decode_grey(path.read_bytes(), name="a")
        png, film = tmp_path / f"film{number}.png", tmp_path / f"film{number}.dcm"
        cv2.imwrite(str(png), grey)
        window = {"WindowCenter": "2040.5", "WindowWidth": "4081"}  # 0 to 4080, which is 16 times 255
        stored = 4080 - 16 * grey.astype("<u2")
        film.write_bytes(dicom(stored, bits=12, PhotometricInterpretation="MONOCHROME1", **window))
        np.testing.assert_array_equal(decode_grey(film.read_bytes(), name="a"), grey)
        found.append((str(png), str(film)))
    return found


def assert_nobody(*texts):
    for text in texts:
        data = text.encode() if isinstance(text, str) else text
        assert SECRET.encode() not in data and SECRET.upper().encode() not in data and SECRET_DATE.encode() not in data


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


def test_predict_says_of_a_film_what_it_says_of_its_pixels(run_path, films, tmp_path, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    pngs, films = map(list, zip(*films, strict=True))
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(Path(films[0]).read_bytes()[:-300])
    ct = tmp_path / "ct.dcm"
    ct.write_bytes(dicom(np.zeros((8, 8), "<u2"), Modality="CT"))
    assert cli(["predict", str(run_path), *pngs, *films, str(broken), str(ct), "--json"]) == 1
    output, errors = capfd.readouterr()
    entries = json.loads(output)
    assert [entry["probability"] for entry in entries[:2]] == [entry["probability"] for entry in entries[2:4]]
    assert "truncated" in entries[4]["error"] and "of modality CT" in entries[5]["error"]
    assert cli(["predict", str(run_path), *films]) == 0
    assert_nobody(output, errors, caplog.text, *capfd.readouterr())


def test_explain_draws_films_and_nobody_else(run_path, films, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    assert cli(["explain", str(run_path), *(film for _, film in films)]) == 0
    assert len(list((run_path / "explanations").glob("film*.png"))) == 2
    assert_nobody(caplog.text, *capfd.readouterr(), *contents(run_path))


def test_prepared_films_are_pixels_alone(phantom_source, tmp_path, monkeypatch, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path / "prepared"))
    grey = {}
    for path in sorted(phantom_source.glob("train/*/*.jpeg"))[::4]:
        name = f"{path.parent.name}/{path.stem}.dcm"
        grey[name] = decode_grey(path.read_bytes(), name="a")
        film = tmp_path / "ward" / name
        film.parent.mkdir(parents=True, exist_ok=True)
        film.write_bytes(dicom(grey[name], WindowCenter="128", WindowWidth="256"))
    (tmp_path / "ward" / "NORMAL" / "ct.dcm").write_bytes(dicom(np.zeros((8, 8), "<u2"), Modality="CT"))
    assert cli(["prepare", str(tmp_path / "ward")]) == 0
    prepared = PreparedData.open("ward")
    assert len(prepared.examples) == len(grey)
    assert "of modality CT" in prepared.card["left_out"][0]["reason"]
    images = list(encoded_images(prepared))
    for example, data in zip(prepared.examples, images, strict=True):
        np.testing.assert_array_equal(decode_grey(data, name="a"), grey[example.file])
    assert_nobody(caplog.text, *capfd.readouterr(), *contents(tmp_path / "prepared"), *images)
    # a film is known again as what it was prepared from
    film = prepared.examples[0]
    assert find_subject(str(tmp_path / "ward" / film.file), prepared).label == film.label
