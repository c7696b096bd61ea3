"""Class folders of any names, in the layouts in which data sets come."""

import pytest

from cxr_jax.data.sources import find_source
from cxr_jax.data.sources.leftovers import MASKS
from cxr_jax.data.sources.recognition import NO_IMAGE
from cxr_jax.errors import UserError

from .listed import told

COVID = ("Normal", "COVID", "Lung_Opacity", "Viral Pneumonia")


def test_the_layout_of_the_covid_19_radiography_database(grow, pack):
    top = "COVID-19_Radiography_Dataset"
    names = [
        f"{top}/{name}/{part}/{name}-{i}.png" for name in COVID for part in ("images", "masks") for i in (1, 10, 2)
    ]
    others = [f"{top}/{name}.metadata.xlsx" for name in COVID] + [f"{top}/README.md.txt"]
    archive = pack(dict.fromkeys((*names, *others), b"image"), name="../covid.zip")
    for path in (grow(*names, *others), archive):
        source = find_source(path, COVID)
        listing = source.listing
        assert listing.classes == COVID
        assert [entry.file for entry in listing.entries[:3]] == [f"Normal/images/Normal-{i}.png" for i in (1, 2, 10)]
        assert [entry.label for entry in listing.entries] == [label for label in range(4) for _ in range(3)]
        assert all(entry.split is None for entry in listing.entries)
        assert {folder: count for (folder, reason), count in told(source).items() if reason == MASKS} == {
            f"{top}/{name}/masks": 3 for name in COVID
        }
        assert sum(told(source).values()) == 12 + len(others)


def test_the_order_of_the_names_is_that_of_the_labels_whatever_their_capitals(grow):
    root = grow("train/c/1.png", "train/B/1.png", "train/a/1.png", "test/b/2.png", "train/a/notes.doc")
    listing = find_source(root, ("b", "A", "C")).listing
    assert [entry.file for entry in listing.entries] == [
        "train/b/1.png",
        "train/A/1.png",
        "train/C/1.png",
        "test/b/2.png",
    ]
    assert [(group.files, group.reason) for group in listing.passed_over] == [(("train/a/notes.doc",), NO_IMAGE)]


def test_classes_that_are_not_named_are_passed_over_and_told(grow):
    root = grow("a/1.png", "b/1.png", "c/1.png", "d/1.png")
    source = find_source(root, ("a", "b", "c"))
    assert len(source.listing.entries) == 3
    assert told(source) == {("d", "no class folder"): 1}


def test_a_data_set_in_a_folder_with_the_name_of_a_class(grow):
    root = grow("covid/normal/1.png", "covid/pneumonia/1.png", "covid/covid/1.png")
    listing = find_source(root, ("normal", "pneumonia", "covid")).listing
    assert [entry.place for entry in listing.entries] == [
        "covid/normal/1.png",
        "covid/pneumonia/1.png",
        "covid/covid/1.png",
    ]


def test_a_class_folder_in_one_of_another_class(grow):
    root = grow("a/b/1.png", "a/2.png", "b/1.png", "c/1.png")
    with pytest.raises(UserError, match="the folder a/b lies in a, so that it is not clear"):
        find_source(root, ("a", "b", "c"))


def test_an_array_has_no_class_folders(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"")
    with pytest.raises(UserError, match="has no class folders: --classes names those of a folder or a zip"):
        find_source(tmp_path / "x.npz", ("a", "b"))
