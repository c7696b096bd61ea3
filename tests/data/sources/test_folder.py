"""Folders: where the data set is in them, and what is told of all else."""

import os

import pytest

from cxr_jax.data.sources import find_source
from cxr_jax.data.sources.folder import radiographs_below
from cxr_jax.errors import UserError

from .listed import listed, official_names


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


def test_leftovers_of_operating_systems_are_ignored(grow):
    root = grow(*official_names(), "train/NORMAL/.DS_Store", "__MACOSX/train/NORMAL/x.jpeg", ".git/train/NORMAL/y.jpeg")
    source = find_source(root)
    assert len(source.listing.entries) == 3
    assert source.listing.left_out == ()


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
    left_out = find_source(root).listing.left_out
    assert [(file.file, file.reason) for file in left_out] == [
        ("train/NORMAL/notes.txt", "no JPEG, PNG or DICOM file by its name")
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


def test_missing_and_strange_sources(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        find_source(tmp_path / "nowhere")
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
    assert {entry.reason for entry in left_out} == {"no JPEG, PNG or DICOM file by its name"}
