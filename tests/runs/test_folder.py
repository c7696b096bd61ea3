import json
import os
from pathlib import Path

import pytest

from cxr_jax.errors import UserError
from cxr_jax.runs.files import is_begun
from cxr_jax.runs.folder import SCHEMA_VERSION, RunFolder, read_json


def test_a_new_run_gets_its_folder_and_parents(tmp_path):
    run = RunFolder.create(tmp_path / "deep" / "run")
    assert run.path.is_dir()
    assert run.name == "run"


def test_an_empty_folder_can_become_a_run(tmp_path):
    assert RunFolder.create(tmp_path).path == tmp_path


def test_create_refuses_what_is_there_and_leaves_it(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(UserError, match="not empty"):
        RunFolder.create(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        RunFolder.create(tmp_path / "precious.txt")
    assert (tmp_path / "precious.txt").read_text() == "mine"
    assert [entry.name for entry in tmp_path.iterdir()] == ["precious.txt"]


def test_the_current_folder_cannot_become_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for named in (".", tmp_path):
        with pytest.raises(UserError, match="is the current folder, which cannot become the run: name a new folder in"):
            RunFolder.unused(named)
    # what is written into a folder, and not renamed to it, may go there
    assert not is_begun(Path(), "bundle", "bundle.json")
    assert RunFolder.create(".").path == Path()


def test_a_mounted_folder_cannot_become_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path)
    with pytest.raises(UserError, match=rf"{tmp_path} is a mounted folder, which cannot become the run"):
        RunFolder.unused(tmp_path)


def test_create_below_a_file_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another place"):
        RunFolder.create(tmp_path / "file" / "run")


def test_open_refuses_what_is_no_run(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        RunFolder.open(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds no config\.toml"):
        RunFolder.open(tmp_path)
    (tmp_path / "config.toml").write_text("")
    with pytest.raises(UserError, match="is a file"):
        RunFolder.open(tmp_path / "config.toml")
    assert RunFolder.open(str(tmp_path)) == RunFolder(tmp_path)


def test_open_refuses_the_run_of_a_newer_version(tmp_path):
    (tmp_path / "config.toml").write_text("")
    (tmp_path / "environment.json").write_text(json.dumps({"schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(UserError, match="newer cxr_jax"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize("version", ["one", None, [1], 1e400])
def test_open_refuses_a_version_that_is_no_number(tmp_path, version):
    (tmp_path / "config.toml").write_text("")
    (tmp_path / "environment.json").write_text(json.dumps({"schema_version": version}))
    with pytest.raises(UserError, match=r"environment\.json is damaged, its schema_version is"):
        RunFolder.open(tmp_path)


def test_every_path_lies_in_the_folder_and_no_two_are_equal(tmp_path):
    run = RunFolder(tmp_path)
    names = [name for name, value in vars(RunFolder).items() if isinstance(value, property) and name != "name"]
    of_splits = [path(split) for path in (run.predictions_of, run.robustness_of) for split in ("val", "test")]
    paths = [getattr(run, name) for name in names] + of_splits
    assert len(set(paths)) == len(paths) == 29
    assert all(path.is_relative_to(tmp_path) for path in paths)
    assert run.predictions_of("test") == tmp_path / "predictions" / "test.csv"


@pytest.mark.parametrize("content", ["{", "[1]", "\ud800"])
def test_damaged_json_is_one_sentence(tmp_path, content):
    path = tmp_path / "environment.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(UserError, match=r"environment\.json"):
        read_json(path)


def test_missing_json_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_json(tmp_path / "environment.json")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_create_without_permission_is_one_sentence(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(UserError, match="no permission"):
        RunFolder.create(tmp_path / "run")


def test_the_config_is_read_whole_or_by_value(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    run.config.write_text('[data]\ndataset = "chest"\n[training]\nseed = 3\n')
    assert run.read_config() == {"data": {"dataset": "chest"}, "training": {"seed": 3}}
    assert run.configured("training", "seed") == 3
    for section, name in (("training", "epochs"), ("model", "name")):
        with pytest.raises(UserError, match=rf"not the config of a run \(no {name} in \[{section}\]\)"):
            run.configured(section, name)


@pytest.mark.parametrize("content", [None, b"[data\n", b"\xff\xfe"])
def test_a_missing_or_broken_config_is_one_sentence(tmp_path, content):
    run = RunFolder.create(tmp_path / "run")
    if content is not None:
        run.config.write_bytes(content)
    with pytest.raises(UserError, match=r"config\.toml is not the config of a run .*: restore it or train again"):
        run.configured("data", "dataset")


def test_a_value_where_a_section_should_be_is_one_sentence(tmp_path):
    run = RunFolder.create(tmp_path / "run")
    run.config.write_text("data = 1\n")
    with pytest.raises(UserError, match=r"no dataset in \[data\]"):
        run.configured("data", "dataset")
