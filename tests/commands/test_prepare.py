import json
import os

import cv2
import numpy as np
import pytest

from cxr_jax.commands import prepare
from cxr_jax.data.download import Release
from cxr_jax.data.prepared import PreparedData
from cxr_jax.errors import EXIT_USAGE, UserError


@pytest.fixture(autouse=True)
def prepared_root(tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path / "prepared"))
    monkeypatch.setenv("COLUMNS", "150")
    return tmp_path / "prepared"


@pytest.fixture
def source(tmp_path):
    generator = np.random.default_rng(0)
    for name, files in {
        "train/NORMAL": [f"IM-{person:04d}-0001.jpeg" for person in range(12)],
        "train/PNEUMONIA": [f"person{person}_bacteria_{person}.jpeg" for person in range(15)],
        "test/NORMAL": ["IM-0100-0001.jpeg"],
        "test/PNEUMONIA": ["person100_virus_1.jpeg"],
    }.items():
        folder = tmp_path / "chest_xray" / name
        folder.mkdir(parents=True)
        for file in files:
            cv2.imwrite(str(folder / file), generator.integers(0, 256, (24, 30)).astype(np.uint8))
    return tmp_path / "chest_xray"


def test_the_card_is_printed_and_stored(source, capsys, prepared_root):
    prepare.main([str(source)])
    out = capsys.readouterr().out
    rows = [line.split() for line in out.splitlines()]
    assert ["train", "12", "15", "15", "0", "0", "27"] in rows
    assert ["test", "1", "1", "0", "1", "0", "2"] in rows
    assert ["val", "cut", "from", "it", "1", "2", "2", "0", "0", "3"] in rows
    assert "Proof: no group and no identical file is in two splits." in out
    assert "not verified patients" in out
    card = json.loads((prepared_root / "chest_xray" / "data_card.json").read_text())
    assert f"Fingerprint: {card['fingerprint']}" in out
    assert f"Prepared as 'chest_xray' in {prepared_root / 'chest_xray'}" in out
    assert "PHANTOM" not in out


def test_a_second_call_says_that_there_is_nothing_to_do(source, capsys):
    prepare.main([str(source), "--name", "mine"])
    capsys.readouterr()
    prepare.main([str(source), "--name", "mine"])
    out = capsys.readouterr().out
    assert "Nothing to do: 'mine' was prepared from this source" in out
    assert "Fingerprint" in out


def test_what_is_wrong_with_the_data_is_listed(source, capsys):
    train = source / "train" / "NORMAL"
    for number in range(13):
        (train / f"[red]bad{number:02d}.jpeg").write_text("text")
    (train / "person7_virus_1.jpeg").write_bytes((source / "test" / "NORMAL" / "IM-0100-0001.jpeg").read_bytes())
    (train / "IM-0100-0002.jpeg").write_bytes((train / "IM-0001-0001.jpeg").read_bytes())
    (source / "PHANTOM.txt").write_text("drawn")
    prepare.main([str(source)])
    out = capsys.readouterr().out
    assert "Files: 44 found, 31 taken, 13 left out." in out
    assert "13 left out that cannot be read:" in out
    assert "  train/NORMAL/[red]bad00.jpeg: is no JPEG, PNG or DICOM file" in out
    assert "and 3 more, see data_card.json" in out
    assert "Proof: FAILED, 1 groups and 1 sets of identical files are in two splits" in out
    assert "train/NORMAL/person7_virus_1.jpeg, test/NORMAL/IM-0100-0001.jpeg" in out
    assert "1 in a folder that their names contradict" in out
    assert "PHANTOMS: drawn by a program, not radiographs of people." in out
    assert "Identical files: 2 sets, 2 surplus files." in out


def test_files_beside_the_data_set_are_told_every_time(source, capsys):
    prepare.main([str(source)])
    out = capsys.readouterr().out
    assert "Files: all 29 were taken." in out
    for number in range(1500):
        path = source / "train" / "[covid]" / f"{number}.jpeg"
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    (source / "val").symlink_to("test")
    (source / "notes.txt").write_text("x")
    for kind in range(12):
        path = source / "train" / "NORMAL" / f"x.{kind}"
        os.mkfifo(path) if kind else path.write_text("x")
    prepare.main([str(source)])
    out = capsys.readouterr().out
    assert "Nothing to do" in out
    assert "Files: 1,544 found, 29 taken, 1,515 left out." in out
    lines = out.splitlines()
    assert "  train/[covid] (1,500 files): no class folder" in lines
    assert "  train/NORMAL (11 files): no regular file, but a named pipe" in lines
    assert "  val (2 files): the same folder as test, which is read there" in lines
    assert "  notes.txt: no class folder" in lines
    assert "  train/NORMAL/x.0: no JPEG, PNG or DICOM file" in lines


def test_the_next_step_is_printed_last_and_begins_with_something_at_once(source, capsys):
    prepare.main([str(source), "--name", "mine"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Starting"
    assert lines[1] == f"Looking through {source}"
    assert lines[-1] == "Next: cxr-jax train quickstart --data.dataset mine"


def test_no_home_folder_is_one_sentence_before_a_source_is_listed(source, monkeypatch):
    monkeypatch.setenv("CXR_PREPARED_DIR", "~nobody-here/x")
    monkeypatch.setattr("cxr_jax.data.preparation.find_source", lambda path: pytest.fail("it was listed"))
    with pytest.raises(UserError, match="set CXR_PREPARED_DIR"):
        prepare.main([str(source)])
    with pytest.raises(UserError, match="~nobody-here means a home folder, and there is none: write the path in full"):
        prepare.main(["~nobody-here"])


def test_other_data_under_the_name(source, capsys):
    prepare.main([str(source), "--name", "mine"])
    (source / "train" / "NORMAL" / "IM-0000-0001.jpeg").unlink()
    with pytest.raises(UserError, match="--replace"):
        prepare.main([str(source), "--name", "mine"])
    prepare.main([str(source), "--name", "mine", "--replace"])
    assert len(PreparedData.open("mine").examples) == 28


@pytest.mark.parametrize("arguments", [[], ["source", "--download"]])
def test_source_or_download(arguments):
    with pytest.raises(UserError, match="give either a SOURCE or --download") as caught:
        prepare.main(arguments)
    assert caught.value.code == EXIT_USAGE


def test_a_missing_source(tmp_path):
    with pytest.raises(UserError, match="nowhere does not exist"):
        prepare.main([str(tmp_path / "nowhere")])


@pytest.mark.parametrize("option", [[], ["--download-folder"]])
def test_download_prepares_what_it_fetched(source, monkeypatch, capsys, tmp_path, option):
    asked = []

    def download(release, folder, *, track):
        asked.append((release, folder))
        return source

    monkeypatch.setattr("cxr_jax.data.download.download", download)
    prepare.main(["--download", *option, *([str(tmp_path / "kept")] if option else [])])
    ((release, folder),) = asked
    assert isinstance(release, Release)
    assert release.file == "ChestXRay2017.zip"
    assert folder == (tmp_path / "kept" if option else tmp_path / "downloads")
    assert "Prepared as 'chest_xray'" in capsys.readouterr().out


def test_the_help_names_the_options(capsys):
    with pytest.raises(SystemExit) as stop:
        prepare.main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for word in ("SOURCE", "--name", "--replace", "--download", "--download-folder"):
        assert word in out


def test_groups_that_hold_identical_files_are_told_and_joined(source, capsys):
    folder = source / "test" / "NORMAL"
    data = (folder / "IM-0100-0001.jpeg").read_bytes()
    (folder / "NORMAL2-IM-0095-0001.jpeg").write_bytes(data)
    for _ in range(2):
        prepare.main([str(source)])
        out = " ".join(capsys.readouterr().out.split())
        assert "sets of groups that hold identical files and were joined: IM-0100 and NORMAL2-IM-0095" in out
        assert "(test/NORMAL/IM-0100-0001.jpeg, test/NORMAL/NORMAL2-IM-0095-0001.jpeg)" in out
        assert "Proof: no group and no identical file is in two splits." in out
