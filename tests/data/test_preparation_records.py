"""What is stored: records and their table, the same for the same images whatever they came in."""

import hashlib
import os
import sys
import tracemalloc
import zipfile

import cv2
import numpy as np
import pytest

from cxr_jax.data.cache import encoded_images
from cxr_jax.data.preparation import prepare

from .dicom.drawn import dicom
from .folders import names_in, snapshot

pytestmark = pytest.mark.usefixtures("prepared_root")


def test_the_table_tells_every_file(official_tree):
    examples = prepare(official_tree).prepared.examples
    assert [e.split for e in examples] == ["train"] * 24 + ["val"] * 4 + ["test"] * 8
    by_file = {e.file: e for e in examples}
    example = by_file["test/PNEUMONIA/person447_virus_921_1.jpeg"]
    data = (official_tree / example.file).read_bytes()
    assert example.sha256 == hashlib.sha256(data).hexdigest()
    assert (example.width, example.height) == (56, 40)
    assert (example.subtype, example.label, example.group) == ("virus", "PNEUMONIA", "virus-person447")
    assert by_file["train/NORMAL/NORMAL2-IM-0001-0001.jpeg"].group != by_file["train/NORMAL/IM-0001-0001.jpeg"].group


def test_records_are_a_tfds_data_set_without_tensorflow(official_tree):

    import tensorflow_datasets as tfds

    prepared = prepare(official_tree).prepared
    builder = tfds.builder_from_directory(prepared.records / "chest_xray" / "1.0.0")
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        "train": 24,
        "val": 4,
        "test": 8,
    }
    assert set(builder.info.features) == {
        "image", "label", "subtype", "split", "group", "file_name", "width", "height",
    }  # fmt: skip
    source = builder.as_data_source("test", decoders={"image": tfds.decode.SkipDecoding()})
    record, example = source[7], prepared.examples[-1]
    assert record["file_name"].decode() == example.file
    assert record["image"] == (official_tree / example.file).read_bytes()
    assert builder.info.features["label"].int2str(int(record["label"])) == example.label
    assert builder.info.features["subtype"].int2str(int(record["subtype"])) == example.subtype
    assert record["group"].decode() == example.group
    assert (int(record["width"]), int(record["height"])) == (example.width, example.height)
    assert "tensorflow" not in sys.modules
    assert names_in(prepared.records) == ["chest_xray"]


def test_records_are_in_the_order_of_the_table_over_several_shards(official_tree, monkeypatch):
    monkeypatch.setattr("cxr_jax.data.chest_xray.builder.EXAMPLES_PER_SHARD", 5)
    prepared = prepare(official_tree).prepared
    assert len(list(prepared.records.rglob("*train.array_record*"))) == 5
    hashes = [hashlib.sha256(data).hexdigest() for data in encoded_images(prepared)]
    assert hashes == [example.sha256 for example in prepared.examples]


def test_two_preparations_give_the_same_bytes(official_tree):
    first = snapshot(prepare(official_tree).prepared.path)
    second = snapshot(prepare(official_tree, replace_old=True).prepared.path)
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} <= {"records/chest_xray/1.0.0/dataset_info.json"}


def test_fingerprint_knows_content_not_place(official_tree, tmp_path):
    folder = prepare(official_tree).prepared
    path = tmp_path / "archive.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(official_tree.rglob("*.jpeg"), reverse=True):
            archive.write(file, f"chest_xray/{file.relative_to(official_tree)}")
    zipped = prepare(path, name="zipped").prepared
    assert zipped.fingerprint == folder.fingerprint
    assert zipped.examples == folder.examples
    assert zipped.card["source"]["kind"] == "zip"
    assert list(encoded_images(zipped)) == list(encoded_images(folder))


def test_medmnist_is_stored_as_png(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = generator.integers(0, 256, (10, 28, 28)).astype(np.uint8)
        arrays[f"{split}_labels"] = (np.arange(10) % 2)[:, None].astype(np.uint8)
    np.savez_compressed(tmp_path / "pneumoniamnist.npz", **arrays)
    prepared = prepare(tmp_path / "pneumoniamnist.npz").prepared
    assert prepared.path.name == "pneumoniamnist"
    assert prepared.card["counts"]["val"] == {"NORMAL": 5, "PNEUMONIA": 5}
    for example, data in zip(prepared.examples, encoded_images(prepared), strict=True):
        row = int(example.file[-9:-4])
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(image, arrays[f"{example.split}_images"][row])
    notes = " ".join(prepared.card["notes"])
    assert "cannot be excluded" in notes
    assert "MedMNIST files have no names" in notes


@pytest.mark.parametrize("name", ["IM{:06d}", "film{}.IMA", "patient{}/study/series/1.2.840.{}"])
def test_dicom_files_are_prepared_whatever_they_are_called(tmp_path, picture, name):
    for source, called in (("named", "{}.dcm"), ("otherwise", name)):
        for number in range(1, 9):
            folder = tmp_path / source / ("NORMAL" if number % 2 else "PNEUMONIA")
            path = folder / called.format(number, number)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(dicom(picture(number).astype("<u2"), bits=8))
    named, otherwise = (prepare(tmp_path / source).prepared for source in ("named", "otherwise"))
    assert sorted(example.sha256 for example in named.examples) == sorted(e.sha256 for e in otherwise.examples)
    assert otherwise.card["left_out"] == otherwise.card["passed_over"] == []
    assert {example.label for example in otherwise.examples} == {"NORMAL", "PNEUMONIA"}


def test_memory_stays_flat(official_tree, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    # 40 images of 1.5 MB: far more than may be held at once. One content, so that little has to be made.
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1250)).astype(np.uint8)
    data = cv2.imencode(".png", noise, [cv2.IMWRITE_PNG_COMPRESSION, 0])[1].tobytes()
    assert len(data) > 1_400_000
    for name in ("NORMAL", "PNEUMONIA"):
        (tmp_path / "big" / "train" / name).mkdir(parents=True)
        for number in range(20):
            (tmp_path / "big" / "train" / name / f"{number}.png").write_bytes(data)
    prepare(official_tree)  # imports TFDS
    tracemalloc.start()
    try:
        prepare(tmp_path / "big", name="big")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 25e6
