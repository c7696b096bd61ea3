"""Every file under a source is taken, or told with its reason; and what is taken for an image."""

import os
from pathlib import Path

import pytest

from cxr_jax.data.sources import find_source
from cxr_jax.data.sources.folder import radiographs_below
from cxr_jax.data.sources.recognition import NO_IMAGE

from .listed import listed, official_names, told

DICOM = bytes(128) + b"DICM" + bytes(500)
WITHOUT_PREAMBLE = b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100\x08\x00\x08\x00CS\x04\x00A\\B " + bytes(100)


@pytest.mark.parametrize("data", [DICOM, WITHOUT_PREAMBLE])
@pytest.mark.parametrize("name", ["IM000001", "film.IMA", "1.2.840.113619.2", "film.dc3", "patient/study/0001"])
def test_dicom_files_are_known_by_content(grow, data, name):
    grow("PNEUMONIA/b.png")
    assert listed(grow(f"NORMAL/{name}", data=data)) == [f"NORMAL/{name}", "PNEUMONIA/b.png"]


def test_images_without_suffix_are_known_by_content_and_others_are_told(grow):
    grow("NORMAL/0001", data=b"\x89PNG\r\n\x1a\n" + bytes(9))
    grow("PNEUMONIA/0001", "NORMAL/a.jpeg_original", data=b"\xff\xd8\xff" + bytes(9))
    root = grow("NORMAL/0002", "PNEUMONIA/labels.csv", "PNEUMONIA/empty", data=b"")
    assert listed(root) == ["NORMAL/0001", "PNEUMONIA/0001"]
    assert told(find_source(root)) == {("NORMAL", NO_IMAGE): 2, ("PNEUMONIA", NO_IMAGE): 2}


def test_only_the_first_bytes_of_a_file_are_read_to_know_it(grow, monkeypatch):
    root = grow(*official_names())
    with (root / "train/NORMAL/huge").open("wb") as file:
        file.write(DICOM)
        file.truncate(2**40)
    assert "train/NORMAL/huge" in listed(root)


def test_radiographs_below_a_folder_are_known_by_content_too(grow):
    grow("IM000001", "patient/study/film.IMA", data=DICOM)
    root = grow("a.png", "@eaDir/a.png/SYNOFILE_THUMB_M.jpg", "masks/a.png", "Thumbs.db")
    os.mkfifo(root / "pipe.png")
    images, left_out = radiographs_below(root)
    assert {str(path.relative_to(root)) for path in images} == {"IM000001", "a.png", "patient/study/film.IMA"}
    assert {str(Path(entry.file).relative_to(root)): entry.reason for entry in left_out} == {
        "@eaDir/a.png/SYNOFILE_THUMB_M.jpg": "thumbnails",
        "masks/a.png": "masks, not radiographs",
        "pipe.png": "no regular file, but a named pipe",
    }


def everything_below(root):
    """Number of files and links below a folder, as anybody would count them."""
    return sum(len(names) for _, _, names in os.walk(root))


def test_every_file_is_taken_or_told(grow):
    root = grow(
        *(f"chest_xray/{name}" for name in official_names()),
        *(f"chest_xray/chest_xray/{name}" for name in official_names()),
        *(f"chest_xray/train/{name}" for name in ("covid/a.jpeg", "covid/p1/b.jpeg", "NORMAL/Thumbs.db", "a.csv")),
        *(f"chest_xray/train/NORMAL/@eaDir/x.jpeg/{name}" for name in ("SYNOFILE_THUMB_M.jpg", "SYNOINDEX")),
        *(f"chest_xray/test/NORMAL/masks/{name}" for name in ("IM-0002-0001.png", "2/c.png")),
        "chest_xray/train/PNEUMONIA/scan.tif",
        "chest_xray/train/PNEUMONIA/volume.nii.gz",
        "chest_xray/train/PNEUMONIA/more.zip",
        "chest_xray/holdout/NORMAL/d.jpeg",
        "lost+found/train/NORMAL/e.jpeg",
        "#recycle/NORMAL/f.jpeg",
        "lung_masks/train/NORMAL/IM-0001-0001.png",
        "OCT/train/NORMAL/g.jpeg",
        "a.pdf",
    )
    os.mkfifo(root / "chest_xray/train/NORMAL/pipe.jpeg")
    source = find_source(root)
    assert [entry.file for entry in source.listing.entries] == official_names()
    assert told(source) == {
        ("chest_xray/chest_xray", "a second copy of what was read"): 3,
        ("chest_xray/train/covid", "no class folder"): 2,
        ("chest_xray/train", "no class folder"): 1,
        ("chest_xray/train/NORMAL", "left behind by an operating system or another program"): 1,
        ("chest_xray/train/NORMAL/@eaDir", "thumbnails"): 2,
        ("chest_xray/test/NORMAL/masks", "masks, not radiographs"): 2,
        ("chest_xray/train/PNEUMONIA", ".tif files are not read: convert them to PNG"): 1,
        ("chest_xray/train/PNEUMONIA", ".nii.gz files are not read: convert them to PNG"): 1,
        (
            "chest_xray/train/PNEUMONIA",
            "an archive, which is not looked into: unpack it, or prepare it by itself",
        ): 1,
        ("chest_xray/holdout", "no split folder (train, val, test), though the data set has them"): 1,
        ("lost+found", "left behind by an operating system or another program"): 1,
        ("#recycle", "thrown away, in a recycle bin or a snapshot"): 1,
        ("lung_masks", "masks, not radiographs"): 1,
        ("OCT", "beside chest_xray, which was read"): 1,
        ("chest_xray/train/NORMAL", "no regular file, but a named pipe"): 1,
        (".", "no class folder"): 1,
    }
    assert len(source.listing.entries) + sum(told(source).values()) == everything_below(root)


@pytest.mark.parametrize(
    "name",
    [
        "@eaDir/a.png/SYNOFILE_THUMB_XL.jpg",
        ".@__thumb/a.png",
        ".thumbnails/a.png",
        "thumbnails/a.png",
        "@Recycle/a.png",
        "$RECYCLE.BIN/a.png",
        "#recycle/a.png",
        "#snapshot/daily/a.png",
        "System Volume Information/a.png",
        "lost+found/a.png",
        ".ipynb_checkpoints/a-checkpoint.png",
        ".Trash-1000/files/a.png",
        "__MACOSX/._a.png",
        "_MACOSX/a.png",
        "._a.png",
        "SYNOFILE_THUMB_M.jpg",
        "a.png~",
        "a.png.part",
        "desktop.ini",
        "DICOMDIR",
        "lung masks/a.png",
        "Lung_Mask/a.png",
        "Ground-truths/a.png",
        "segmentation/a.png",
        "a_mask.png",
    ],
)
def test_what_is_no_radiograph_by_its_name(grow, name):
    dicom = bytes(128) + b"DICM" + bytes(200)
    grow("NORMAL/a.png", "PNEUMONIA/b.png")
    root = grow(f"NORMAL/{name}", data=dicom)
    assert listed(root) == ["NORMAL/a.png", "PNEUMONIA/b.png"]
    assert sum(told(find_source(root)).values()) == 1


@pytest.mark.parametrize(
    "name", ["masked man/a.png", "patient #3/a.png", "a mask.png", "unmasked.png", "study.tmp/a.png"]
)
def test_what_only_looks_like_it(grow, name):
    root = grow(f"NORMAL/{name}", "PNEUMONIA/b.png")
    assert listed(root) == [f"NORMAL/{name}", "PNEUMONIA/b.png"]


def test_masks_beside_images_in_class_folders(grow):
    names = [f"COVID set/{label}/{kind}/{n}.png" for label in ("Normal", "Pneumonia") for kind in ("images", "masks")
             for n in range(3)]  # fmt: skip
    root = grow(*names, *(f"COVID set/COVID/{kind}/{n}.png" for kind in ("images", "masks") for n in range(2)))
    assert listed(root) == [f"{label}/images/{n}.png" for label in ("NORMAL", "PNEUMONIA") for n in range(3)]
    assert told(find_source(root)) == {
        ("COVID set/Normal/masks", "masks, not radiographs"): 3,
        ("COVID set/Pneumonia/masks", "masks, not radiographs"): 3,
        ("COVID set/COVID", "no class folder"): 4,
    }


def test_a_tree_of_masks_beside_a_tree_of_images(grow):
    root = grow(*(f"{tree}/{name}" for tree in ("images", "lung masks") for name in official_names()))
    assert listed(root) == official_names()
    grow(*(f"images/{name}" for name in ()), "lung masks/train/NORMAL/more.png")
    assert told(find_source(root)) == {("lung masks", "masks, not radiographs"): 4}
    # asked for by name, they are the data set
    assert len(listed(root / "lung masks")) == 4


def test_the_real_masks_beside_the_real_radiographs(real_radiographs):
    if not (real_radiographs.parent / "lung_masks").is_dir():
        pytest.skip("CXR_DATA_DIR has no lung_masks")
    source = find_source(real_radiographs.parent)
    assert len(source.listing.entries) == 5856
    assert told(source)["lung_masks", "masks, not radiographs"] == 5849


def test_lists_of_what_is_passed_over_are_bounded_and_counts_are_not(grow):
    root = grow(*official_names(), *(f"covid/p{person}/{n}.png" for person in range(30) for n in range(2)),
                *(f"{kind}/a.png" for kind in map(str, range(30))))  # fmt: skip
    groups = find_source(root).listing.passed_over
    assert sum(group.count for group in groups) == 90
    assert len(groups) <= 10
    assert all(len(group.files) <= 20 for group in groups)


def test_the_stamp_does_not_change_with_what_is_passed_over(grow):
    root = grow(*official_names())
    first = find_source(root).listing.stamp
    assert find_source(grow(".DS_Store", "covid/a.png")).listing.stamp == first
