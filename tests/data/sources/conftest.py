"""Folders and zips for the tests of the sources."""

import zipfile

import pytest


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
