import shlex

import pytest

from cxr_jax.commands import phantoms
from cxr_jax.errors import UserError

SMALL = ["--smallest", "32", "--largest", "40"]


def test_phantoms_are_drawn(tmp_path, capsys):
    phantoms.main([str(tmp_path / "new"), "--count", "40", *SMALL])
    counts = {split: len(list((tmp_path / "new" / split).rglob("*.jpeg"))) for split in ("train", "val", "test")}
    assert counts == {"train": 26, "val": 4, "test": 10}
    out = capsys.readouterr().out
    assert "40 phantoms in" in out
    assert "not radiographs of people" in out
    assert out.splitlines()[0] == "Starting"
    assert out.splitlines()[-1] == f"Next: cxr-jax prepare {tmp_path / 'new'}"


def test_the_next_command_can_be_copied_whatever_the_folder_is_called(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("two words [a]", "it's"):
        phantoms.main([name, "--count", "30", *SMALL])
        command = shlex.split(capsys.readouterr().out.splitlines()[-1].removeprefix("Next: "))
        assert command == ["cxr-jax", "prepare", name]


def test_the_seed_decides(tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        phantoms.main([str(tmp_path / name), "--count", "30", "--seed", seed, *SMALL])
    a, b, c = ({p.read_bytes() for p in (tmp_path / name).rglob("*.jpeg")} for name in "abc")
    assert a == b
    assert not a & c


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="is not an empty folder"):
        phantoms.main([str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_too_few(tmp_path):
    with pytest.raises(UserError, match="--count is 29, but must be at least 30"):
        phantoms.main([str(tmp_path / "new"), "--count", "29"])


def test_the_folder_is_required():
    with pytest.raises(UserError, match="FOLDER"):
        phantoms.main([])


def test_findings_have_no_masks(tmp_path):
    with pytest.raises(UserError, match="--masks and --findings exclude each other"):
        phantoms.main([str(tmp_path / "new"), "--findings", "--masks", str(tmp_path / "masks")])
