import io
import os
import struct
import zipfile

import cv2
import numpy as np
import pytest

from cxr_jax.data.decode import decode_grey
from cxr_jax.data.encoded import MAX_BYTES
from cxr_jax.data.sources import find_source
from cxr_jax.errors import UserError


def official_names():
    return ["train/NORMAL/IM-0001-0001.jpeg", "train/PNEUMONIA/person1_virus_1.jpeg", "test/NORMAL/IM-0002-0001.jpeg"]


@pytest.fixture
def grow(tmp_path):
    """Write files below tmp_path; contents default to a few bytes, because listing reads no image."""

    def write(*names, data=b"image"):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return tmp_path

    return write


@pytest.fixture
def pack(tmp_path):
    """Write a zip of the given members."""

    def write(members, name="archive.zip", method=zipfile.ZIP_STORED):
        path = tmp_path / name
        with zipfile.ZipFile(path, "w", method) as archive:
            for member, data in members.items():
                archive.writestr(member, data)
        return path

    return write


def listed(path):
    return [entry.file for entry in find_source(path).listing.entries]


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


def test_the_kaggle_zip_with_its_second_copy(pack):
    members = {}
    for name in official_names():
        members[f"chest_xray/{name}"] = members[f"chest_xray/chest_xray/{name}"] = name.encode()
        members[f"chest_xray/__MACOSX/{name}"] = b"junk"
    source = find_source(pack(members))
    assert [entry.file for entry in source.listing.entries] == official_names()
    assert source.listing.notes == ("A second copy in chest_xray/chest_xray (3 files) was not read.",)
    with source.opened() as reader:
        assert [reader.read(entry) for entry in source.listing.entries] == [name.encode() for name in official_names()]


def test_the_mendeley_zip(pack):
    names = [
        "train/NORMAL/NORMAL-1-0001.jpeg",
        "train/PNEUMONIA/VIRUS-2-0001.jpeg",
        "test/PNEUMONIA/BACTERIA-3-0001.jpeg",
    ]
    source = find_source(pack({f"CellData/chest_xray/{name}": b"x" for name in names}))
    assert [entry.file for entry in source.listing.entries] == names
    assert {entry.split for entry in source.listing.entries} == {"train", "test"}


def test_other_images_beside_chest_xray_are_told(pack):
    members = {f"CellData/chest_xray/{name}": b"x" for name in official_names()}
    members |= {"CellData/OCT/train/NORMAL/NORMAL-1.jpeg": b"x"}
    assert find_source(pack(members)).listing.notes == (
        "CellData/OCT (1 files) beside CellData/chest_xray was not read.",
    )


@pytest.mark.parametrize(
    "name", ["../evil.jpeg", "a/../../evil.jpeg", "/etc/evil.jpeg", "..\\evil.jpeg", "C:\\evil.jpeg"]
)
def test_members_that_leave_the_zip_are_refused(pack, name, tmp_path):
    path = pack({**{f"chest_xray/{name}": b"x" for name in official_names()}, name: b"evil"})
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UserError, match="whose path leaves the archive"):
        find_source(path)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_bomb_is_refused(pack):
    members = {f"chest_xray/{name}": b"x" for name in official_names()}
    members["chest_xray/train/NORMAL/bomb.jpeg"] = bytes(5_000_000)
    path = pack(members, method=zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="more than 100-fold"):
        find_source(path)


def test_many_small_bombs_are_refused_by_their_sum(pack):
    members = {f"chest_xray/{name}": b"x" for name in official_names()}
    members |= {f"chest_xray/train/NORMAL/{number}.jpeg": bytes(900_000) for number in range(20)}
    with pytest.raises(UserError, match="more than 100-fold"):
        find_source(pack(members, method=zipfile.ZIP_DEFLATED))


def test_a_lying_index_is_not_believed(pack):
    # The index says 10 bytes; the data unpack to 2,000,000.
    members = {f"chest_xray/{name}": b"x" for name in official_names()}
    lying = "chest_xray/train/NORMAL/lying.jpeg"
    members[lying] = bytes(2_000_000)
    path = pack(members, method=zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    at = data.index(b"PK\x01\x02")
    while bytes(data[at + 46 : at + 46 + len(lying)]) != lying.encode():
        at = data.index(b"PK\x01\x02", at + 4)
    struct.pack_into("<I", data, at + 24, 10)
    path.write_bytes(bytes(data))
    source = find_source(path)
    entry = next(entry for entry in source.listing.entries if "lying" in entry.file)
    with source.opened() as reader, pytest.raises(UserError, match=r"lying\.jpeg cannot be read from the zip"):
        reader.read(entry)


def test_a_member_is_read_up_to_the_limit_only(tmp_path, pack, monkeypatch):
    path = pack({f"chest_xray/{name}": os.urandom(5000) for name in official_names()})
    monkeypatch.setattr("cxr_jax.data.sources.archive.MAX_BYTES", 1000)
    source = find_source(path)
    with source.opened() as reader:
        assert len(reader.read(source.listing.entries[0])) == 1001
    assert MAX_BYTES == 64 * 2**20


def test_damaged_zips(pack, tmp_path):
    path = pack({f"chest_xray/{name}": os.urandom(300) for name in official_names()})
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is not a readable zip"):
        find_source(path)
    path.write_bytes(b"this is text")
    with pytest.raises(UserError, match="is not a readable zip"):
        find_source(path)
    damaged = bytearray(whole)
    damaged[len(f"chest_xray/{official_names()[0]}") + 30 + 10] ^= 255
    path.write_bytes(bytes(damaged))
    source = find_source(path)
    with source.opened() as reader:
        with pytest.raises(UserError, match=r"cannot be read from the zip .*CRC"):
            reader.read(source.listing.entries[0])
        assert len(reader.read(source.listing.entries[1])) == 300


def test_an_encrypted_member_is_told(pack):
    path = pack({f"chest_xray/{name}": b"secret" for name in official_names()})
    data = bytearray(path.read_bytes())
    for signature, flag in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(signature) + flag] |= 1
    path.write_bytes(bytes(data))
    source = find_source(path)
    with source.opened() as reader, pytest.raises(UserError, match="encrypted"):
        reader.read(source.listing.entries[0])


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
