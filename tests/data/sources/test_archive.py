"""Zips: read in place, and never further than is safe."""

import os
import struct
import zipfile

import pytest

from cxr_jax.data.encoded import MAX_BYTES
from cxr_jax.data.sources import find_source
from cxr_jax.data.sources.layout import COPY
from cxr_jax.data.sources.leftovers import SYSTEM
from cxr_jax.data.sources.recognition import ARCHIVE
from cxr_jax.errors import UserError

from .listed import listed, official_names, told


def test_the_kaggle_zip_with_its_second_copy(pack):
    members = {}
    for name in official_names():
        members[f"chest_xray/{name}"] = members[f"chest_xray/chest_xray/{name}"] = name.encode()
        members[f"chest_xray/__MACOSX/{name}"] = b"junk"
    source = find_source(pack(members))
    assert [entry.file for entry in source.listing.entries] == official_names()
    assert told(source) == {
        ("chest_xray/__MACOSX", SYSTEM): 3,
        ("chest_xray/chest_xray", COPY): 3,
    }
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
    assert told(find_source(pack(members))) == {("CellData/OCT", "beside CellData/chest_xray, which was read"): 1}


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


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_methods_than_deflate_are_not_unpacked(pack, method):
    path = pack({f"chest_xray/{name}": b"x" for name in official_names()}, method=method)
    with pytest.raises(UserError, match="is not packed by deflate"):
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


def drawn_by_windows(path, names, separator="\\", system=0):
    """A zip whose names hold backslashes, as PowerShell 5 and .NET write them."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            member = zipfile.ZipInfo("x")
            member.filename, member.create_system = name.replace("/", separator), system
            archive.writestr(member, name.encode() if not name.endswith("/") else b"")
    return path


@pytest.mark.parametrize("system", [0, 3])
def test_backslashes_between_folders_are_read(tmp_path, system):
    names = ["chest_xray/", *(f"chest_xray/{name}" for name in official_names()), "chest_xray/notes/a.txt"]
    source = find_source(drawn_by_windows(tmp_path / "win.zip", names, system=system))
    assert [entry.file for entry in source.listing.entries] == official_names()
    assert told(source) == {("chest_xray/notes", "no class folder"): 1}
    with source.opened() as reader:
        read = [reader.read(entry) for entry in source.listing.entries]
    assert read == [f"chest_xray/{name}".encode() for name in official_names()]


def test_a_backslash_in_a_name_from_unix_is_no_separator(pack):
    members = dict.fromkeys(official_names(), b"x")
    path = pack({**members, "train/NORMAL/a\\b.png": b"x"})
    assert "train/NORMAL/a\\b.png" in listed(path)


def test_deep_folders_in_a_zip(pack):
    deep = "data/" + "/".join(["train", "NORMAL", "patient", *(f"level{n}" for n in range(20)), "a.jpeg"])
    path = pack({f"data/{name}": b"x" for name in official_names()} | {deep: b"x"})
    assert deep.removeprefix("data/") in listed(path)


def test_links_archives_and_second_files_of_a_name_in_a_zip_are_told(tmp_path):
    path = tmp_path / "odd.zip"
    with zipfile.ZipFile(path, "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        for name in (*official_names(), official_names()[0]):
            archive.writestr(name, b"x")
        link = zipfile.ZipInfo("train/NORMAL/link.jpeg")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, b"IM-0001-0001.jpeg")
        archive.writestr("more.zip", b"x")
    source = find_source(path)
    assert [entry.file for entry in source.listing.entries] == official_names()
    assert told(source) == {
        ("train/NORMAL", "an older file of a name that is there twice"): 1,
        ("train/NORMAL", "a link, which a zip cannot follow"): 1,
        (".", ARCHIVE): 1,
    }


def test_a_file_without_suffix_in_a_zip_is_known_by_its_content(pack):
    members = {"NORMAL/IM000001": bytes(128) + b"DICM" + bytes(300), "PNEUMONIA/IM000002": b"\xff\xd8\xff" + bytes(99)}
    source = find_source(pack(members | {"NORMAL/notes": b"text"}))
    assert [entry.file for entry in source.listing.entries] == sorted(members)
    assert told(source) == {("NORMAL", "no JPEG, PNG or DICOM file"): 1}
