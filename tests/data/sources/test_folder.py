"""Folders: where the data set is in them, and what is told of all else."""

import os
import socket
from pathlib import Path

import pytest

from cxr_jax.data.sources import find_source
from cxr_jax.data.sources.folder import radiographs_below
from cxr_jax.data.sources.layout import NO_CLASS
from cxr_jax.data.sources.leftovers import HIDDEN, SYSTEM
from cxr_jax.data.sources.recognition import MAX_DEPTH, NO_IMAGE
from cxr_jax.errors import UserError

from .listed import listed, official_names, told


def test_the_official_folder_itself_and_its_parents(grow):
    root = grow(*(f"data/chest_xray/{name}" for name in official_names()))
    expected = [
        "train/NORMAL/IM-0001-0001.jpeg",
        "train/PNEUMONIA/person1_virus_1.jpeg",
        "test/NORMAL/IM-0002-0001.jpeg",
    ]
    assert listed(root / "data" / "chest_xray") == expected
    assert listed(root / "data") == expected
    assert listed(root) == expected


def test_order_is_split_class_and_natural_file_order(grow):
    names = ["person10_virus_2", "person2_virus_10", "person2_virus_9"]
    root = grow(
        *(f"train/PNEUMONIA/{name}.jpeg" for name in names),
        "val/NORMAL/a.png",
        "train/NORMAL/b.jpg",
        "test/NORMAL/c.png",
    )
    assert listed(root) == [
        "train/NORMAL/b.jpg",
        "train/PNEUMONIA/person2_virus_9.jpeg",
        "train/PNEUMONIA/person2_virus_10.jpeg",
        "train/PNEUMONIA/person10_virus_2.jpeg",
        "val/NORMAL/a.png",
        "test/NORMAL/c.png",
    ]


def test_leftovers_of_operating_systems_are_ignored_and_told(grow):
    root = grow(*official_names(), "train/NORMAL/.DS_Store", "__MACOSX/train/NORMAL/x.jpeg", ".git/train/NORMAL/y.jpeg")
    source = find_source(root)
    assert len(source.listing.entries) == 3
    assert told(source) == {("train/NORMAL", HIDDEN): 1, ("__MACOSX", SYSTEM): 1, (".git", HIDDEN): 1}


def test_class_folders_in_any_case_with_and_without_splits(grow):
    root = grow("one/normal/a.png", "one/Pneumonia/b.JPG", "two/Training/Normal/a.png", "two/TRAIN/pneumonia/b.png")
    assert listed(root / "one") == ["NORMAL/a.png", "PNEUMONIA/b.JPG"]
    assert listed(root / "two") == ["train/NORMAL/a.png", "train/PNEUMONIA/b.png"]
    assert all(entry.split is None for entry in find_source(root / "one").listing.entries)


def test_folders_inside_class_folders_are_read(grow):
    root = grow("NORMAL/ward 1/a.png", "NORMAL/ward 2/a.png", "PNEUMONIA/b.png")
    assert listed(root) == ["NORMAL/ward 1/a.png", "NORMAL/ward 2/a.png", "PNEUMONIA/b.png"]


def test_other_files_in_class_folders_are_left_out_and_told(grow):
    root = grow(*official_names(), "train/NORMAL/notes.txt", "readme.txt")
    assert [(group.files, group.reason) for group in find_source(root).listing.passed_over] == [
        (("readme.txt",), NO_CLASS),
        (("train/NORMAL/notes.txt",), NO_IMAGE),
    ]


def test_phantoms_are_recognised(grow):
    assert not find_source(grow(*official_names())).listing.phantom
    assert find_source(grow("PHANTOM.txt")).listing.phantom


def test_links_are_followed_but_not_in_circles(grow):
    root = grow(*(f"real/{name}" for name in official_names()))
    (root / "linked").mkdir()
    for split in ("train", "test"):
        (root / "linked" / split).symlink_to(root / "real" / split)
    (root / "real" / "train" / "back").symlink_to(root / "real")
    assert len(listed(root / "linked")) == 3
    assert len(listed(root / "real")) == 3


def test_a_dangling_link_is_listed_and_told_when_read(grow):
    root = grow(*official_names())
    (root / "train" / "NORMAL" / "gone.jpeg").symlink_to(root / "nowhere")
    source = find_source(root)
    entry = next(entry for entry in source.listing.entries if entry.file.endswith("gone.jpeg"))
    with source.opened() as reader, pytest.raises(UserError, match=r"gone\.jpeg cannot be read"):
        reader.read(entry)


def test_names_that_are_no_utf8_are_shown_escaped(tmp_path, grow):
    root = grow(*official_names())
    odd = os.fsencode(root / "train" / "NORMAL") + b"/\xff\xfe.jpeg"
    try:
        with open(odd, "wb") as file:  # noqa: PTH123 (pathlib takes no bytes)
            file.write(b"odd")
    except OSError:
        pytest.skip("this file system refuses names that are no UTF-8")
    source = find_source(root)
    entry = next(entry for entry in source.listing.entries if "\\" in entry.file)
    assert entry.file == "train/NORMAL/\\udcff\\udcfe.jpeg"
    with source.opened() as reader:
        assert reader.read(entry) == b"odd"


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ((), "is empty"),
        (
            ("a.jpeg", "b/c.png"),
            "holds no radiographs: expected JPEG, PNG or DICOM files in folders named NORMAL and PNEUMONIA",
        ),
        (("NORMAL/a.png",), "no training images of class PNEUMONIA"),
        (("train/PNEUMONIA/a.png", "test/NORMAL/a.png"), "no training images of class NORMAL"),
        (("test/PNEUMONIA/a.png", "test/NORMAL/a.png"), "no training images: its folder train is missing or empty"),
        (("NORMAL/a.txt", "PNEUMONIA/b.txt"), "holds no radiographs"),
        (("x/NORMAL/a.png", "x/PNEUMONIA/a.png", "y/NORMAL/b.png", "y/PNEUMONIA/b.png"), "several data sets .x and y"),
        (("train/NORMAL/a.png", "train/PNEUMONIA/a.png", "NORMAL/b.png"), "mixes class folders"),
        (("train/NORMAL/a.png", "train/PNEUMONIA/a.png", "hold out/NORMAL/b.png"), "in hold out, which is no split"),
        (("train/x/NORMAL/a.png", "test/x/PNEUMONIA/a.png"), "train, val, test belong directly above NORMAL and"),
        (("data.zip", "notes.txt"), r"found data\.zip, notes\.txt$"),
        (("healthy/a.png", "ill/b.png", "ill/c.png"), r"found ill .2 files., healthy/a\.png$"),
        (("NORMAL/a.png", "ill/b.png", "ill/c.png"), "found ill .2 files.: move those that show PNEUMONIA into one"),
        (("NORMAL/a.png", "NORMAL/pneumonia/b.png"), "NORMAL/pneumonia lies in NORMAL, so that it is not clear"),
        (("NORMAL/masks/a.png", "PNEUMONIA/masks/a.png"), "holds no radiographs.*found NORMAL/masks"),
        (("Normal/a.png", "NORMAL/a.png", "PNEUMONIA/b.png"), "NORMAL/a.png twice .NORMAL/a.png and Normal/a.png"),
    ],
)
def test_folders_without_a_data_set(tmp_path, grow, names, words):
    root = tmp_path / "source"
    root.mkdir()
    grow(*(f"source/{name}" for name in names))
    with pytest.raises(UserError, match=words) as caught:
        find_source(root)
    assert str(root) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ill", ["Viral Pneumonia", "Pneumonia-Bacterial"])
def test_folders_that_may_hold_the_missing_class_are_named(grow, ill):
    root = grow("Normal/a.png", f"{ill}/b.png", f"{ill}/p1/c.png", "covid/d.png", "readme.txt")
    words = rf"found {ill} .2 files.: move these folders into one folder called PNEUMONIA$"
    with pytest.raises(UserError, match=words) as caught:
        find_source(root)
    assert "covid" not in str(caught.value)
    # what the sentence says to do
    (root / "PNEUMONIA").mkdir()
    (root / ill).rename(root / "PNEUMONIA" / ill)
    assert listed(root) == ["NORMAL/a.png", f"PNEUMONIA/{ill}/b.png", f"PNEUMONIA/{ill}/p1/c.png"]


def test_missing_and_strange_sources(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        find_source(tmp_path / "nowhere")
    (tmp_path / "film.PNG").write_bytes(b"x")
    with pytest.raises(UserError, match="but a single image: give the folder of all; cxr-jax predict"):
        find_source(tmp_path / "film.PNG")
    os.mkfifo(tmp_path / "pipe.zip")
    with pytest.raises(UserError, match=r"pipe\.zip is no regular file"):
        find_source(tmp_path / "pipe.zip")
    (tmp_path / "a.tar").write_bytes(b"x")
    with pytest.raises(UserError, match=r"a\.tar is neither a folder nor a \.zip nor a \.npz"):
        find_source(tmp_path / "a.tar")


def test_a_folder_that_cannot_be_listed_is_told(grow, monkeypatch):
    root = grow(*official_names())
    real = os.scandir

    def scandir(path):
        if str(path).endswith("NORMAL"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=r"NORMAL cannot be read .Permission denied.: check its permissions"):
        find_source(root)


def test_the_stamp_changes_with_any_file(grow):
    root = grow(*official_names())
    first = find_source(root).listing.stamp
    assert find_source(root).listing.stamp == first
    path = root / official_names()[0]
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    second = find_source(root).listing.stamp
    (root / "train/NORMAL/new.jpeg").write_bytes(b"")
    third = find_source(root).listing.stamp
    assert len({first, second, third}) == 3


def test_radiographs_below_a_folder_without_any_layout(grow):
    root = grow("b10.png", "b2.JPEG", "a/c.dcm", "notes.txt", "a/table.csv", ".hidden/d.png")
    images, left_out = radiographs_below(root)
    assert [str(path.relative_to(root)) for path in images] == ["a/c.dcm", "b2.JPEG", "b10.png"]
    assert [entry.file for entry in left_out] == [str(root / "a/table.csv"), str(root / "notes.txt")]
    assert {entry.reason for entry in left_out} == {"no JPEG, PNG or DICOM file"}


@pytest.mark.parametrize("depth", [6, 7, 20, MAX_DEPTH - 2])
def test_deep_folders_of_patients_studies_and_series(grow, depth):
    below = "/".join(["patient", *(f"{n}" for n in range(depth - 1))])
    names = [f"train/NORMAL/{below}/a.png", f"train/PNEUMONIA/{below}/b.png"]
    assert listed(grow(*names)) == names


def test_what_lies_too_deep_is_told(grow):
    root = grow(*official_names(), "train/NORMAL/" + "d/" * MAX_DEPTH + "a.png")
    assert listed(root) == official_names()
    assert list(told(find_source(root)).values()) == [1]
    assert find_source(root).listing.passed_over[0].reason == "more than 64 folders deep"


@pytest.mark.parametrize("above", ["pneumonia", "Pneumonia/chest_xray", "normal/data", "pneumonia/pneumonia"])
def test_a_class_word_above_the_data_set_decides_nothing(grow, above):
    root = grow(*(f"{above}/{name}" for name in official_names()), f"{above}/logo.png")
    assert listed(root) == official_names()
    assert list(told(find_source(root)).values()) == [1]


def test_the_same_class_folder_twice_is_one(grow):
    root = grow("NORMAL/NORMAL/a.png", "PNEUMONIA/PNEUMONIA/b.png")
    assert listed(root) == ["NORMAL/NORMAL/a.png", "PNEUMONIA/PNEUMONIA/b.png"]


@pytest.mark.parametrize("name", ["valid", "Valid", "validation", "val"])
@pytest.mark.parametrize("top", ["", "x/chest_xray/"])
def test_names_of_validation_folders(grow, name, top):
    root = grow(*(f"{top}{name}" for name in official_names()), f"{top}{name}/NORMAL/v.png")
    assert [entry.split for entry in find_source(root).listing.entries] == ["train", "train", "val", "test"]
    assert find_source(root).listing.passed_over == ()


def test_splits_inside_class_folders_are_splits(grow):
    root = grow("NORMAL/train/a.png", "PNEUMONIA/training/b.png", "NORMAL/test/c.png", "PNEUMONIA/valid/p1/d.png")
    assert listed(root) == [
        "train/NORMAL/a.png", "train/PNEUMONIA/b.png", "val/PNEUMONIA/p1/d.png", "test/NORMAL/c.png",
    ]  # fmt: skip


def test_folders_that_are_read_as_one_are_told(grow):
    root = grow(
        "train/NORMAL/a.png", "Train/normal/b.png", "TRAIN/PNEUMONIA/c.png", "valid/NORMAL/d.png", "val/NORMAL/e.png"
    )
    if len({path.name for path in root.iterdir()}) < 5:
        pytest.skip("this file system does not tell train from Train")
    listing = find_source(root).listing
    assert len(listing.entries) == 5
    assert listing.notes == (
        "The folders NORMAL and normal were read as one, NORMAL.",
        "The folders TRAIN and Train and train were read as one, train.",
        "The folders val and valid were read as one, val.",
    )


def test_a_linked_split_is_told(grow):
    root = grow(*official_names(), "test/NORMAL/second.png")
    (root / "val").symlink_to("test")
    (root / "a train").symlink_to("train")
    assert len(listed(root)) == 4
    assert told(find_source(root)) == {
        ("val", "the same folder as test, which is read there"): 2,
        ("a train", "the same folder as train, which is read there"): 2,
    }


def test_two_links_to_one_folder_outside_are_read_once(grow):
    root = grow(*(f"data/{name}" for name in official_names()), "elsewhere/v.png")
    for label in ("a", "b"):
        (root / "data" / "train" / "NORMAL" / label).symlink_to(root / "elsewhere")
    assert [name for name in listed(root / "data") if "v.png" in name] == ["train/NORMAL/a/v.png"]
    assert told(find_source(root / "data")) == {
        ("train/NORMAL/b", "the same folder as train/NORMAL/a, which is read there"): 1
    }


def test_a_folder_of_the_system_that_cannot_be_listed_is_told(grow, monkeypatch):
    root = grow(*official_names(), "lost+found/x")
    real = os.scandir

    def scandir(path):
        if str(path).endswith("lost+found"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert told(find_source(root)) == {("lost+found", "cannot be read (Permission denied)"): 1}


def test_what_is_no_regular_file_is_told_and_never_opened(grow):
    root = grow(*official_names())
    os.mkfifo(root / "train/NORMAL/pipe.png")
    os.mkfifo(root / "train/NORMAL/IM000001")
    (root / "train/NORMAL/zero").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as bound:
        # a longer path than a socket may have is bound from its folder
        monkey = Path.cwd()
        os.chdir(root / "train" / "NORMAL")
        try:
            bound.bind("socket.png")
        finally:
            os.chdir(monkey)
        source = find_source(root)
    assert [entry.file for entry in source.listing.entries] == official_names()
    assert told(source) == {
        ("train/NORMAL", "no regular file, but a named pipe"): 2,
        ("train/NORMAL", "no regular file, but a device"): 1,
        ("train/NORMAL", "no regular file, but a socket"): 1,
    }


def test_a_pipe_that_takes_the_place_of_a_file_is_told_when_read(grow):
    root = grow(*official_names())
    source = find_source(root)
    path = root / official_names()[0]
    path.unlink()
    os.mkfifo(path)
    with source.opened() as reader, pytest.raises(UserError, match=r"cannot be read .it is no regular file"):
        reader.read(source.listing.entries[0])
