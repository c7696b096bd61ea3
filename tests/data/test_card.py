"""The data card: counts, groups, splits, leaks, and what was left out."""

import dataclasses
import hashlib
import json
import os

import cv2
import numpy as np
import pytest

from cxr_jax.data.cache import encoded_images
from cxr_jax.data.card import left_out_in_all, told_groups
from cxr_jax.data.examples import write_examples
from cxr_jax.data.preparation import prepare
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.sources import FolderSource

from .folders import class_folders, names_in

pytestmark = pytest.mark.usefixtures("prepared_root")


def test_the_official_folder(official_tree, prepared_root):
    outcome = prepare(official_tree)
    assert outcome.fresh
    prepared = outcome.prepared
    assert prepared.path == prepared_root / "chest_xray"
    assert names_in(prepared_root) == ["chest_xray"]
    card = prepared.card
    assert card["counts"] == {
        "train": {"NORMAL": 8, "PNEUMONIA": 16},
        "val": {"NORMAL": 2, "PNEUMONIA": 2},
        "test": {"NORMAL": 4, "PNEUMONIA": 4},
    }
    assert card["subtypes"]["train"] == {"normal": 8, "bacteria": 10, "virus": 6, "unknown": 0}
    assert card["groups"] == {"total": 27, "train": 16, "val": 4, "test": 7, "named": 36, "largest": 2}
    assert card["size"] == {
        "width": {"min": 56, "median": 56, "max": 56},
        "height": {"min": 40, "median": 40, "max": 40},
    }
    assert card["phantom"] is False
    assert card["proof"] == {"holds": True, "groups_in_two_splits": [], "identical_files_in_two_splits": []}
    assert card["identical_files"] == {"sets": 0, "surplus": 0, "files": []}
    assert card["left_out"] == card["passed_over"] == []
    assert left_out_in_all(card) == 0
    cut = card["validation_cut"]
    assert cut["images"]["train"] + cut["images"]["val"] == 24
    assert cut["subtypes"]["val"]["normal"] == 1
    assert cut["proof"]["holds"]
    assert "not verified patients" in card["notes"][0]


def test_unreadable_files_are_left_out_with_their_reasons(official_tree, jpeg):
    folder = official_tree / "train" / "NORMAL"
    (folder / "IM-0400-0001.jpeg").write_bytes(jpeg(1)[:-50])
    (folder / "IM-0401-0001.jpeg").write_text("not an image")
    (folder / "IM-0402-0001.jpeg").write_bytes(b"")
    (folder / "notes.txt").write_text("hello")
    (folder / "IM-0403-0001.jpeg").symlink_to(folder / "nowhere.jpeg")
    prepared = prepare(official_tree).prepared
    assert len(prepared.examples) == 36
    assert prepared.card["passed_over"] == [
        {
            "folder": "train/NORMAL",
            "reason": "no JPEG, PNG or DICOM file",
            "count": 1,
            "files": ["train/NORMAL/notes.txt"],
        }
    ]
    assert left_out_in_all(prepared.card) == 5
    assert {entry["file"]: entry["reason"] for entry in prepared.card["left_out"]} == {
        "train/NORMAL/IM-0400-0001.jpeg": (
            "train/NORMAL/IM-0400-0001.jpeg is truncated: the end of its image data is missing"
        ),
        "train/NORMAL/IM-0401-0001.jpeg": "train/NORMAL/IM-0401-0001.jpeg is no JPEG, PNG or DICOM file by its content",
        "train/NORMAL/IM-0402-0001.jpeg": "train/NORMAL/IM-0402-0001.jpeg is no JPEG, PNG or DICOM file by its content",
        "train/NORMAL/IM-0403-0001.jpeg": "train/NORMAL/IM-0403-0001.jpeg cannot be read (No such file or directory)",
    }


def test_files_beside_the_data_set_are_in_the_card(official_tree, jpeg):
    for number in range(25):
        path = official_tree / "train" / "covid" / f"{number:02d}.jpeg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(jpeg(number))
    prepared = prepare(official_tree).prepared
    (group,) = prepared.card["passed_over"]
    assert (group["folder"], group["reason"], group["count"]) == ("train/covid", "no class folder", 25)
    assert group["files"] == [f"train/covid/{number:02d}.jpeg" for number in range(20)]
    assert left_out_in_all(prepared.card) == 25


def test_images_that_look_like_masks_are_noted(official_tree, jpeg):
    mask = np.zeros((40, 56), np.uint8)
    mask[10:30, 10:20] = 255
    folder = official_tree / "train" / "NORMAL" / "outlines"
    folder.mkdir()
    assert not any("two grey levels" in note for note in prepare(official_tree).prepared.card["notes"])
    for number in range(3):
        cv2.imwrite(str(folder / f"{number}.png"), mask)
    card = prepare(official_tree, replace_old=True).prepared.card
    assert card["counts"]["train"]["NORMAL"] == 11
    assert card["notes"][1].startswith(
        "3 images hold two grey levels only, as masks do, the first in train/NORMAL/outl"
    )
    # what the note says to do
    folder.rename(folder.with_name("masks"))
    card = prepare(official_tree, replace_old=True).prepared.card
    assert card["counts"]["train"]["NORMAL"] == 8
    assert not any("two grey levels" in note for note in card["notes"])


def test_names_that_are_no_utf8_can_be_passed_over(official_tree):
    try:
        with open(os.fsencode(official_tree) + b"/\xff.txt", "wb"):  # noqa: PTH123 (pathlib takes no bytes)
            pass
    except OSError:
        pytest.skip("this file system refuses names that are no UTF-8")
    assert prepare(official_tree).prepared.card["passed_over"][0]["files"] == ["\\udcff.txt"]


def test_cards_of_earlier_versions_are_read(official_tree):
    outcome = prepare(official_tree)
    path = outcome.prepared.path / "data_card.json"
    card = {key: value for key, value in outcome.prepared.card.items() if key != "passed_over"}
    card["left_out"] = [{"file": "train/NORMAL/notes.txt", "reason": "no JPEG, PNG or DICOM file by its name"}]
    path.write_text(json.dumps(card))
    (official_tree / "covid.jpeg").write_bytes(b"later")
    again = prepare(official_tree)
    assert not again.fresh
    assert again.prepared.card == card
    assert left_out_in_all(again.prepared.card) == 1
    assert [group.files for group in again.passed_over] == [("covid.jpeg",)]


def test_identical_files_and_leaks_are_told(official_tree, jpeg):
    train, test = official_tree / "train" / "NORMAL", official_tree / "test" / "NORMAL"
    (train / "IM-0500-0001.jpeg").write_bytes(jpeg(0))  # as IM-0001-0001 in train
    (test / "IM-0501-0001.jpeg").write_bytes(jpeg(1))  # as IM-0002-0001 in train
    (test / "IM-0003-0009.jpeg").write_bytes(jpeg(999))  # the group of IM-0003-0001 in train
    card = prepare(official_tree).prepared.card
    assert card["identical_files"] == {
        "sets": 2,
        "surplus": 2,
        "files": [
            ["train/NORMAL/IM-0001-0001.jpeg", "train/NORMAL/IM-0500-0001.jpeg"],
            ["train/NORMAL/IM-0002-0001.jpeg", "test/NORMAL/IM-0501-0001.jpeg"],
        ],
    }
    assert card["proof"] == {
        "holds": False,
        # of IM-0002 the copy is under another name
        "groups_in_two_splits": ["IM-0002", "IM-0003"],
        "identical_files_in_two_splits": [["train/NORMAL/IM-0002-0001.jpeg", "test/NORMAL/IM-0501-0001.jpeg"]],
    }


def test_a_name_that_contradicts_its_folder(official_tree, jpeg):
    (official_tree / "train" / "NORMAL" / "person900_virus_1.jpeg").write_bytes(jpeg(900))
    prepared = prepare(official_tree).prepared
    assert prepared.card["contradicting_names"] == ["train/NORMAL/person900_virus_1.jpeg"]
    example = next(e for e in prepared.examples if "person900" in e.file)
    assert (example.label, example.subtype, example.group) == ("NORMAL", "normal", example.file)


def test_class_folders_are_cut_and_what_cannot_be_proven_is_said(tmp_path, jpeg):
    root = class_folders(tmp_path / "my images!", 30, jpeg)
    (root / "Normal" / "copy.jpeg").write_bytes(jpeg(0))
    prepared = prepare(root).prepared
    assert prepared.path.name == "my-images"
    assert prepared.card["counts"]["test"] == {"NORMAL": 6, "PNEUMONIA": 6}
    assert set(prepared.card["counts"]) == {"train", "test"}
    same = {e.split for e in prepared.examples if e.file in ("NORMAL/0.jpeg", "NORMAL/copy.jpeg")}
    assert len(same) == 1
    assert {e.subtype for e in prepared.examples} == {"normal", "unknown"}
    notes = " ".join(prepared.card["notes"])
    assert "leakage between images of one patient cannot be excluded" in notes
    assert "The source has no splits: 20% of the groups were cut for test" in notes
    assert [e.split for e in prepared.examples] == sorted((e.split for e in prepared.examples), reverse=True)
    hashes = [hashlib.sha256(data).hexdigest() for data in encoded_images(prepared)]
    assert hashes == [example.sha256 for example in prepared.examples]


def test_a_cut_keeps_groups_where_names_tell_them(tmp_path, jpeg):
    root = tmp_path / "plain"
    for name in ("NORMAL", "PNEUMONIA"):
        (root / name).mkdir(parents=True)
    for person in range(20):
        for number in range(3):
            (root / "NORMAL" / f"IM-{person:04d}-{number:04d}.jpeg").write_bytes(jpeg(person * 10 + number))
            (root / "PNEUMONIA" / f"person{person}_virus_{number}.jpeg").write_bytes(jpeg(5000 + person * 10 + number))
    (root / "NORMAL" / "unnamed.jpeg").write_bytes(jpeg(9999))
    card = prepare(root).prepared.card
    assert card["proof"]["holds"]
    assert card["groups"]["test"] == 8
    assert card["counts"]["test"] == {"NORMAL": 12, "PNEUMONIA": 12}
    assert "1 file names tell no group" in card["notes"][0]


def test_the_card_is_plain_json(official_tree):
    path = prepare(official_tree).prepared.path
    text = (path / "data_card.json").read_text(encoding="utf-8")
    assert json.loads(text)["source"]["path"] == str(official_tree)
    assert "unfinished" not in text


def test_the_real_data(real_prepared, real_radiographs):
    card = real_prepared.card
    assert card["subtypes"] == {
        "train": {"normal": 1341, "bacteria": 2530, "virus": 1345, "unknown": 0},
        "val": {"normal": 8, "bacteria": 8, "virus": 0, "unknown": 0},
        "test": {"normal": 234, "bacteria": 242, "virus": 148, "unknown": 0},
    }
    groups = card["groups"]
    assert [groups[key] for key in ("total", "train", "val", "test", "largest", "named")] == [
        4096,
        3654,
        15,
        427,
        30,
        5856,
    ]
    assert (card["identical_files"]["sets"], card["identical_files"]["surplus"]) == (30, 32)
    assert card["proof"]["holds"]
    assert card["validation_cut"]["proof"]["holds"]
    assert card["left_out"] == card["passed_over"] == card["contradicting_names"] == []
    # stored runs know their data by it
    assert card["fingerprint"] == "9c7c6999f742acefd84589817512d774fc5330d75094f715d50e93eb3f32cbd1"
    assert FolderSource(real_radiographs).listing.entries[0].file == "train/NORMAL/IM-0115-0001.jpeg"


@pytest.fixture
def with_a_copy(official_tree):
    """The official folder with one test image under the names of two groups."""
    folder = official_tree / "test" / "NORMAL"
    data = (folder / sorted(names_in(folder))[0]).read_bytes()
    (folder / "NORMAL2-IM-0095-0001.jpeg").write_bytes(data)
    (folder / "NORMAL2-IM-0096-0001.jpeg").write_bytes(data)
    return official_tree


def test_groups_with_identical_files_are_one_in_card_and_table(with_a_copy):
    first = sorted(names_in(with_a_copy / "test" / "NORMAL"))[0]
    prepared = prepare(with_a_copy).prepared
    (joined,) = prepared.card["joined_groups"]
    assert joined["groups"][1:] == ["NORMAL2-IM-0095", "NORMAL2-IM-0096"]
    copies = [f"test/NORMAL/{name}" for name in (first, "NORMAL2-IM-0095-0001.jpeg", "NORMAL2-IM-0096-0001.jpeg")]
    assert sorted(joined["files"]) == sorted(copies)
    assert prepared.card["groups"]["test"] == 7
    assert len({example.group for example in prepared.examples if example.split == "test"}) == 7
    assert {example.group for example in prepared.examples if example.file in copies} == {joined["groups"][0]}


def test_data_of_an_earlier_version_are_joined_when_they_are_read(with_a_copy):
    prepared = prepare(with_a_copy).prepared
    told = {name: prepared.card[name] for name in ("groups", "joined_groups")}
    apart = [
        dataclasses.replace(e, group=e.file.rpartition("/")[2][:15]) if "NORMAL2-IM-009" in e.file else e
        for e in prepared.examples
    ]
    write_examples(prepared.path / "examples.csv", apart)
    card = {name: value for name, value in prepared.card.items() if name != "joined_groups"}
    card["groups"] = card["groups"] | {"total": 29, "test": 9}
    (prepared.path / "data_card.json").write_text(json.dumps(card))
    older = PreparedData.open("chest_xray")
    assert len({example.group for example in older.stored_examples() if example.split == "test"}) == 9
    assert older.examples == prepared.examples
    assert older.fingerprint == prepared.fingerprint
    assert told_groups(older.card, older.stored_examples()) == told


def test_two_groups_of_the_real_test_split_are_one(real_prepared):
    assert real_prepared.card["joined_groups"] == [
        {
            "groups": ["NORMAL2-IM-0095", "NORMAL2-IM-0096"],
            "files": ["test/NORMAL/NORMAL2-IM-0095-0001.jpeg", "test/NORMAL/NORMAL2-IM-0096-0001.jpeg"],
        }
    ]
