import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.runs import files


def names_in(folder):
    return [path.name for path in folder.iterdir()]


def test_write_text_creates_parents_and_replaces(tmp_path):
    path = tmp_path / "a" / "b" / "note.txt"
    files.write_text(path, "first\n")
    files.write_text(path, "second, Kümmel\n")
    assert path.read_bytes() == "second, Kümmel\n".encode()
    assert names_in(path.parent) == ["note.txt"]


def test_write_json_is_readable_and_refuses_nan(tmp_path):
    path = tmp_path / "value.json"
    files.write_json(path, {"name": "Größe", "list": [1, 2.5, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"name": "Größe", "list": [1, 2.5, None]}
    before = path.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"loss": float("nan")})
    assert path.read_bytes() == before


def test_a_failure_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), files.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["table.csv"]


def test_temporary_path_is_a_sibling_with_the_same_suffix(tmp_path):
    path = tmp_path / "images.npy"
    with files.atomic_path(path) as temporary:
        assert temporary.parent == path.parent
        # numpy appends .npy to a name without it, and the move would miss the file
        np.save(temporary, np.arange(3))
        assert not path.exists()
    np.testing.assert_array_equal(np.load(path), np.arange(3))


def test_folders_are_moved_whole_and_removed_on_failure(tmp_path):
    with files.atomic_path(tmp_path / "whole") as temporary:
        temporary.mkdir()
        (temporary / "part").write_text("x")
    with pytest.raises(RuntimeError), files.atomic_path(tmp_path / "broken") as temporary:
        temporary.mkdir()
        (temporary / "part").write_text("x")
        raise RuntimeError
    assert names_in(tmp_path) == ["whole"]
    assert (tmp_path / "whole" / "part").read_text() == "x"


def test_a_full_folder_is_never_replaced(tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "theirs").write_text("precious")
    with pytest.raises(UserError, match="could not be written"), files.atomic_path(tmp_path / "taken") as temporary:
        temporary.mkdir()
    assert (tmp_path / "taken" / "theirs").read_text() == "precious"
    assert names_in(tmp_path) == ["taken"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EACCES, "no permission to write"),
        (errno.EROFS, "no permission to write"),
    ],
)
def test_disk_and_permission_errors_become_one_sentence(tmp_path, monkeypatch, number, words):
    path = tmp_path / "metrics.json"
    path.write_text("old")

    def refuse(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(UserError, match=words) as caught:
        files.write_json(path, {})
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["metrics.json"]


def test_a_parent_that_is_a_file_is_told(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="choose another place"):
        files.write_text(tmp_path / "file" / "below.txt", "y")


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(OSError, match="broken pipe") as caught, files.writing(tmp_path):
        raise OSError(errno.EPIPE, "broken pipe")
    assert not isinstance(caught.value, UserError)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, on which every write fails")
def test_a_device_without_space_is_told_as_a_full_disk():
    full = Path("/dev/full")
    with pytest.raises(UserError, match="the disk is full"), files.writing(full), full.open("wb") as file:
        file.write(b"x" * 100_000)
