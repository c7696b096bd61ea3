import errno
import hashlib
import json
import os
import tracemalloc
import zipfile

import cv2
import numpy as np
import pytest

from cxr_jax.data import preparation
from cxr_jax.data.cache import encoded_images
from cxr_jax.data.preparation import prepare
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.sources import FolderSource
from cxr_jax.errors import UserError

pytestmark = pytest.mark.usefixtures("prepared_root")


def names_in(folder):
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def snapshot(folder):
    """Content of every file below `folder`."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


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
    assert card["left_out"] == []
    cut = card["validation_cut"]
    assert cut["images"]["train"] + cut["images"]["val"] == 24
    assert cut["subtypes"]["val"]["normal"] == 1
    assert cut["proof"]["holds"]
    assert "not verified patients" in card["notes"][0]


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
    import sys

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


def test_a_second_call_does_nothing(official_tree, monkeypatch):
    first = prepare(official_tree)
    before = snapshot(first.prepared.path)
    monkeypatch.setattr(preparation, "inspect", lambda *arguments: pytest.fail("the images were read again"))
    second = prepare(official_tree.parent)
    assert not second.fresh
    assert second.prepared.path == first.prepared.path
    assert snapshot(first.prepared.path) == before


def test_two_preparations_give_the_same_bytes(official_tree):
    first = snapshot(prepare(official_tree).prepared.path)
    second = snapshot(prepare(official_tree, replace_old=True).prepared.path)
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} <= {"records/chest_xray/1.0.0/dataset_info.json"}


def test_other_data_under_the_same_name_is_refused_unless_asked(official_tree, prepared_root, jpeg):
    before = prepare(official_tree).prepared
    (official_tree / "train" / "NORMAL" / "IM-0300-0001.jpeg").write_bytes(jpeg(300))
    with pytest.raises(UserError, match=r"'chest_xray' was prepared from .* --name.* --replace"):
        prepare(official_tree)
    assert PreparedData.open("chest_xray").fingerprint == before.fingerprint
    other = prepare(official_tree, name="other").prepared
    assert other.fingerprint != before.fingerprint
    replaced = prepare(official_tree, replace_old=True).prepared
    assert replaced.fingerprint == other.fingerprint
    assert len(replaced.examples) == 37
    assert names_in(prepared_root) == ["chest_xray", "other"]


def test_something_else_in_the_way_is_never_touched(official_tree, prepared_root):
    (prepared_root / "chest_xray").mkdir(parents=True)
    (prepared_root / "chest_xray" / "thesis.txt").write_text("precious")
    for replace_old in (False, True):
        with pytest.raises(UserError, match="is in the way and is not prepared data"):
            prepare(official_tree, replace_old=replace_old)
    assert (prepared_root / "chest_xray" / "thesis.txt").read_text() == "precious"
    assert names_in(prepared_root) == ["chest_xray"]


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


def test_unreadable_files_are_left_out_with_their_reasons(official_tree, jpeg):
    folder = official_tree / "train" / "NORMAL"
    (folder / "IM-0400-0001.jpeg").write_bytes(jpeg(1)[:-50])
    (folder / "IM-0401-0001.jpeg").write_text("not an image")
    (folder / "IM-0402-0001.jpeg").write_bytes(b"")
    (folder / "notes.txt").write_text("hello")
    (folder / "IM-0403-0001.jpeg").symlink_to(folder / "nowhere.jpeg")
    prepared = prepare(official_tree).prepared
    assert len(prepared.examples) == 36
    assert {entry["file"]: entry["reason"] for entry in prepared.card["left_out"]} == {
        "train/NORMAL/notes.txt": "no JPEG, PNG or DICOM file by its name",
        "train/NORMAL/IM-0400-0001.jpeg": (
            "train/NORMAL/IM-0400-0001.jpeg is truncated: the end of its image data is missing"
        ),
        "train/NORMAL/IM-0401-0001.jpeg": "train/NORMAL/IM-0401-0001.jpeg is no JPEG, PNG or DICOM file by its content",
        "train/NORMAL/IM-0402-0001.jpeg": "train/NORMAL/IM-0402-0001.jpeg is no JPEG, PNG or DICOM file by its content",
        "train/NORMAL/IM-0403-0001.jpeg": "train/NORMAL/IM-0403-0001.jpeg cannot be read (No such file or directory)",
    }


def test_a_source_with_nothing_readable_is_refused(tmp_path, prepared_root):
    for name in ("NORMAL", "PNEUMONIA"):
        (tmp_path / "bad" / name).mkdir(parents=True)
        (tmp_path / "bad" / name / "a.jpeg").write_text("text")
    with pytest.raises(UserError, match=r"holds no readable image; the first one: NORMAL/a\.jpeg is no JPEG"):
        prepare(tmp_path / "bad")
    assert names_in(prepared_root) == []


def test_a_class_of_which_nothing_can_be_read_is_missing(tmp_path, jpeg, prepared_root):
    for name, data in (("NORMAL", jpeg(1)), ("PNEUMONIA", b"text")):
        (tmp_path / "bad" / name).mkdir(parents=True)
        (tmp_path / "bad" / name / "a.jpeg").write_bytes(data)
    with pytest.raises(UserError, match="no training images of class PNEUMONIA"):
        prepare(tmp_path / "bad")
    assert names_in(prepared_root) == []


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
        "groups_in_two_splits": ["IM-0003"],
        "identical_files_in_two_splits": [["train/NORMAL/IM-0002-0001.jpeg", "test/NORMAL/IM-0501-0001.jpeg"]],
    }


def test_a_name_that_contradicts_its_folder(official_tree, jpeg):
    (official_tree / "train" / "NORMAL" / "person900_virus_1.jpeg").write_bytes(jpeg(900))
    prepared = prepare(official_tree).prepared
    assert prepared.card["contradicting_names"] == ["train/NORMAL/person900_virus_1.jpeg"]
    example = next(e for e in prepared.examples if "person900" in e.file)
    assert (example.label, example.subtype, example.group) == ("NORMAL", "normal", example.file)


def class_folders(root, count, jpeg):
    for label, name in enumerate(("Normal", "PNEUMONIA")):
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number}.jpeg").write_bytes(jpeg(number + 1000 * label))
    return root


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


def test_default_names(official_tree, tmp_path, jpeg):
    (official_tree / "PHANTOM.txt").write_text("drawn")
    prepared = prepare(official_tree).prepared
    assert prepared.path.name == "phantoms"
    assert prepared.card["phantom"] is True
    with pytest.raises(UserError, match="give one with --name"):
        prepare(class_folders(tmp_path / "???", 3, jpeg))
    with pytest.raises(UserError, match="cannot name prepared data"):
        prepare(official_tree, name="../evil")


def test_the_slower_of_two_preparations_does_not_overwrite_the_faster(official_tree, prepared_root, monkeypatch):
    real = preparation.build_card

    def build_card(*arguments, **options):
        (prepared_root / "chest_xray").mkdir()
        (prepared_root / "chest_xray" / "data_card.json").write_text("theirs")
        return real(*arguments, **options)

    monkeypatch.setattr(preparation, "build_card", build_card)
    with pytest.raises(UserError, match="could not be written"):
        prepare(official_tree)
    assert (prepared_root / "chest_xray" / "data_card.json").read_text() == "theirs"
    assert names_in(prepared_root) == ["chest_xray"]


def test_damaged_data_can_be_replaced(official_tree):
    prepared = prepare(official_tree).prepared
    (prepared.path / "data_card.json").write_text("{")
    with pytest.raises(UserError, match="--replace"):
        prepare(official_tree)
    assert len(prepare(official_tree, replace_old=True).prepared.examples) == 36


@pytest.mark.parametrize("moment", ["inspect", "_write_records", "build_card"])
@pytest.mark.parametrize("replace_old", [False, True])
def test_an_interruption_leaves_nothing_half_written(
    official_tree, prepared_root, monkeypatch, moment, replace_old, jpeg
):
    before = None
    if replace_old:
        before = snapshot(prepare(official_tree).prepared.path)
        (official_tree / "train" / "NORMAL" / "IM-0300-0001.jpeg").write_bytes(jpeg(300))
    real = getattr(preparation, moment)

    def interrupted(*arguments, **options):
        real(*arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(preparation, moment, interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(official_tree, replace_old=replace_old)
    assert names_in(prepared_root) == (["chest_xray"] if replace_old else [])
    if replace_old:
        assert snapshot(prepared_root / "chest_xray") == before


def test_a_file_that_changes_meanwhile_is_noticed(official_tree, prepared_root, monkeypatch, jpeg):
    real = preparation.inspect

    def inspect(*arguments):
        found = real(*arguments)
        (official_tree / "train" / "NORMAL" / "IM-0004-0001.jpeg").write_bytes(jpeg(4444))
        return found

    monkeypatch.setattr(preparation, "inspect", inspect)
    with pytest.raises(UserError, match=r"^train/NORMAL/IM-0004-0001.jpeg changed while it was being prepared"):
        prepare(official_tree)
    assert names_in(prepared_root) == []


def test_a_file_that_vanishes_meanwhile_is_told(official_tree, prepared_root, monkeypatch):
    real = preparation.inspect

    def inspect(*arguments):
        found = real(*arguments)
        (official_tree / "train" / "NORMAL" / "IM-0004-0001.jpeg").unlink()
        return found

    monkeypatch.setattr(preparation, "inspect", inspect)
    with pytest.raises(UserError, match=r"^train/NORMAL/IM-0004-0001.jpeg cannot be read"):
        prepare(official_tree)
    assert names_in(prepared_root) == []


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "no permission to write")]
)
def test_disk_and_permission_errors_are_one_sentence(official_tree, prepared_root, monkeypatch, number, words):
    def refuse(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tensorflow_datasets.core.features.Image.encode_example", refuse)
    with pytest.raises(UserError, match=words) as caught:
        prepare(official_tree)
    assert "\n" not in str(caught.value)
    assert names_in(prepared_root) == []


def test_a_full_disk_under_the_record_writer_is_one_sentence(official_tree, prepared_root):
    # A limit on the size of files makes the real writer fail in its own way, as a full disk does.
    import resource
    import signal

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        with pytest.raises(UserError, match=r"the disk is full: .*chest_xray could not be written"):
            prepare(official_tree)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert names_in(prepared_root) == []


def test_other_errors_of_the_record_writer_pass_unchanged(official_tree, prepared_root, monkeypatch):
    def refuse(*arguments, **options):
        raise RuntimeError("something else")

    monkeypatch.setattr("tensorflow_datasets.core.features.Image.encode_example", refuse)
    with pytest.raises(RuntimeError, match="something else"):
        prepare(official_tree)
    assert names_in(prepared_root) == []


def test_no_place_for_prepared_data_is_one_sentence(official_tree, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path / "file"))
    with pytest.raises(UserError, match="could not be written"):
        prepare(official_tree)


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


def test_progress_is_reported_to_the_end(official_tree):
    import contextlib

    done = {}

    @contextlib.contextmanager
    def track(description, total):
        done[description] = [0, total]

        def advance(steps):
            done[description][0] += steps

        yield advance

    prepare(official_tree, track=track)
    assert done == {"Reading": [36, 36], "Storing": [36, 36]}


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
        4097,
        3654,
        15,
        428,
        30,
        5856,
    ]
    assert (card["identical_files"]["sets"], card["identical_files"]["surplus"]) == (30, 32)
    assert card["proof"]["holds"]
    assert card["validation_cut"]["proof"]["holds"]
    assert card["left_out"] == card["contradicting_names"] == []
    assert FolderSource(real_radiographs).listing.entries[0].file == "train/NORMAL/IM-0115-0001.jpeg"
