"""Arrays of MedMNIST: rows as images, headers that are not believed."""

import io
import zipfile

import cv2
import numpy as np
import pytest

from cxr_jax.data.decode import decode_grey
from cxr_jax.data.sources import find_source
from cxr_jax.data.sources.medmnist import NO_NAMES
from cxr_jax.errors import UserError


def npz(path, compressed=True, **arrays):
    (np.savez_compressed if compressed else np.savez)(path, **arrays)
    return path


def medmnist(count=12, size=28, splits=("train", "val", "test")):
    generator = np.random.default_rng(0)
    arrays = {}
    for split in splits:
        arrays[f"{split}_images"] = generator.integers(0, 256, (count, size, size)).astype(np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 3 > 0).astype(np.uint8)[:, None]
    return arrays


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("channels", [False, True])
def test_medmnist(tmp_path, compressed, channels):
    arrays = medmnist()
    stored = {k: v[..., None] if channels and v.ndim == 3 else v for k, v in arrays.items()}
    source = find_source(npz(tmp_path / "pneumoniamnist.npz", compressed, **stored))
    entries = source.listing.entries
    assert len(entries) == 36
    assert [entry.split for entry in entries[::12]] == ["train", "val", "test"]
    assert [entry.label for entry in entries[:12]] == [0] * 4 + [1] * 8
    assert entries[1].file == "train/NORMAL/00003.png"
    with source.opened() as reader:
        for entry in (*entries, *entries[::-5]):  # backwards too
            split, row = entry.place.split()
            decoded = decode_grey(reader.read(entry), name="x")
            np.testing.assert_array_equal(decoded, arrays[f"{split}_images"][int(row)])
            assert arrays[f"{split}_labels"][int(row)] == entry.label


class Evil:
    """Ends the test if it is ever unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was run",))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a.pop("train_labels"), "images but no labels for train"),
        (lambda a: a.update(train_labels=a["train_labels"][:5]), "12 images but 5 labels"),
        (lambda a: a.update(train_labels=a["train_labels"] + 1), "other labels than 0"),
        (lambda a: a.update(train_labels=np.array([Evil()] * 12, object)), "other labels than 0"),
        (lambda a: a.update(train_labels=np.zeros(12)), "other labels than 0"),
        (lambda a: a.update(train_labels=np.zeros((12, 1), int)), "no training images of class PNEUMONIA"),
        (lambda a: a.update(train_images=np.zeros((12, 28, 28, 3), np.uint8)), "does not hold grey 8-bit images"),
        (lambda a: a.update(train_images=np.zeros((12, 28, 28))), "does not hold grey 8-bit images"),
        (lambda a: a.update(train_images=np.array([Evil()] * 12, object)), "does not hold grey 8-bit images"),
        (lambda a: a.update(train_images=np.zeros((12, 0, 28), np.uint8)), "does not hold grey 8-bit images"),
        (lambda a: a.update(train_images=np.zeros((500, 100, 100), np.uint8)), "more than 100-fold"),
        (lambda a: a.clear(), "it has no array train_images"),
        (lambda a: [a.pop(k) for k in list(a) if "train" in k], "no training images"),
    ],
)
def test_arrays_that_are_not_pneumoniamnist(tmp_path, change, words):
    arrays = medmnist()
    change(arrays)
    path = npz(tmp_path / "odd.npz", **arrays)
    with pytest.raises(UserError, match=words) as caught:
        find_source(path)
    assert "odd.npz" in str(caught.value)


@pytest.mark.parametrize("compressed", [True, False])
def test_a_damaged_array_is_told_before_any_row_is_read(tmp_path, compressed):
    arrays = medmnist(count=200, splits=("train",))
    arrays["train_images"] //= 8  # so that it can be compressed
    path = npz(tmp_path / "pneumoniamnist.npz", compressed, **arrays)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 20] = bytes(20)
    path.write_bytes(bytes(data))
    source = find_source(path)
    with pytest.raises(UserError, match=r"pneumoniamnist\.npz is damaged"), source.opened():
        pass


def test_an_array_that_ends_early_is_told(tmp_path):
    arrays = medmnist(count=9, splits=("train",))
    stream = io.BytesIO()
    np.lib.format.write_array(stream, arrays["train_images"])
    with zipfile.ZipFile(tmp_path / "short.npz", "w") as archive:
        archive.writestr("train_images.npy", stream.getvalue()[:-100])
        stream = io.BytesIO()
        np.lib.format.write_array(stream, arrays["train_labels"])
        archive.writestr("train_labels.npy", stream.getvalue())
    source = find_source(tmp_path / "short.npz")
    with source.opened() as reader:
        for entry in source.listing.entries:
            if entry.place == "train 8":
                with pytest.raises(UserError, match="ends early"):
                    reader.read(entry)
            else:
                reader.read(entry)


def test_headers_that_are_no_arrays(tmp_path):
    for version in (b"\x93NUMPY\x03\x00", b"not an array"):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w") as archive:
            archive.writestr("train_images.npy", version + bytes(100))
        (tmp_path / "odd.npz").write_bytes(stream.getvalue())
        with pytest.raises(UserError, match="is damaged"):
            find_source(tmp_path / "odd.npz")


def test_an_array_that_nobody_asked_for_is_no_bomb_either(tmp_path):
    path = npz(tmp_path / "odd.npz", **medmnist(), other=np.zeros(5_000_000, np.uint8))
    with pytest.raises(UserError, match=r"other\.npy in .*more than 100-fold"):
        find_source(path)


def test_array_header_of_version_two(tmp_path):
    arrays = medmnist(splits=("train",))
    with zipfile.ZipFile(tmp_path / "two.npz", "w") as archive:
        for name, array in arrays.items():
            stream = io.BytesIO()
            np.lib.format.write_array(stream, array, version=(2, 0))
            archive.writestr(f"{name}.npy", stream.getvalue())
    source = find_source(tmp_path / "two.npz")
    with source.opened() as reader:
        data = reader.read(source.listing.entries[0])
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), 0), arrays["train_images"][0])


def counted_arrays(counts):
    """Arrays of 28 x 28 pixels with so many images in train, val and test, and labels 0 and 1."""
    arrays = {}
    for split, count in zip(("train", "val", "test"), counts, strict=True):
        arrays[f"{split}_images"] = np.random.default_rng(0).integers(0, 256, (count, 28, 28)).astype(np.uint8)
        arrays[f"{split}_labels"] = (np.arange(count) % 4 > 0).astype(np.uint8)[:, None]
    return arrays


@pytest.mark.parametrize("name", ["breastmnist", "breastmnist_224", "ChestMNIST", "my-dermamnist_64", "nodulemnist3d"])
def test_other_sets_of_medmnist_are_refused_by_their_names(tmp_path, name):
    path = npz(tmp_path / f"{name}.npz", **medmnist())
    with pytest.raises(
        UserError, match=r"has the name of [a-z0-9]+mnist\w*, whose labels do not mean NORMAL and PNEUMON"
    ):
        find_source(path)


@pytest.mark.parametrize("name", ["pneumoniamnist", "hospital"])
def test_breastmnist_under_another_name_is_refused_by_its_counts(tmp_path, name):
    path = npz(tmp_path / f"{name}.npz", **counted_arrays((546, 78, 156)))
    with pytest.raises(UserError, match="as many images in every split as breastmnist, whose labels do not mean"):
        find_source(path)


def test_what_the_labels_were_taken_for_is_said_unless_the_counts_are_the_published_ones(tmp_path):
    notes = find_source(npz(tmp_path / "hospital.npz", **medmnist())).listing.notes
    assert notes[0].startswith("The file does not say what its labels mean: 0 was read as NORMAL and 1 as PNEUMONIA")
    assert "4,708, 524 and 624" in notes[0]
    arrays = counted_arrays((4708, 524, 624))
    for name in ("pneumoniamnist_28", "renamed"):
        assert find_source(npz(tmp_path / f"{name}.npz", **arrays)).listing.notes == (NO_NAMES,)


def test_other_arrays_in_the_file_are_told(tmp_path):
    source = find_source(npz(tmp_path / "pneumoniamnist.npz", **medmnist(), masks=np.zeros(3), ages=np.ones(3)))
    (group,) = source.listing.passed_over
    assert (group.count, group.files, group.reason) == (2, ("ages.npy", "masks.npy"), "no array of MedMNIST")
