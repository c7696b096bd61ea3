from pathlib import Path

import pytest

from cxr_jax.cli import main as cli
from cxr_jax.config.shipped import shipped_configs

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_list_names_all_with_the_folder_and_the_next_step(capsys):
    assert cli(["configs"]) == 0
    printed = capsys.readouterr().out
    for name, config in shipped_configs().items():
        assert f"\n  {config.command()} {name}\n    {config.about()}.\n    Hardware: {config.hardware()}.\n" in printed
    assert str(CONFIGS) in printed
    assert "cxr-jax configs NAME mine.toml" in printed


def test_one_is_printed_as_it_is_or_copied(tmp_path, capsys):
    text = (CONFIGS / "quickstart.toml").read_text()
    assert cli(["configs", "quickstart"]) == 0
    assert capsys.readouterr().out == text
    assert cli(["configs", "quickstart", "folder/mine.toml"]) == 0
    assert (tmp_path / "folder" / "mine.toml").read_text() == text
    assert "cxr-jax train folder/mine.toml" in capsys.readouterr().out
    assert cli(["configs", "sharpness.toml", "folder"]) == 0
    assert (tmp_path / "folder" / "sharpness.toml").read_text() == (CONFIGS / "sweeps" / "sharpness.toml").read_text()
    assert "cxr-jax sweep folder/sharpness.toml --out FOLDER" in capsys.readouterr().out
    for name, command in (("probe_mobilenetv2", "probe"), ("dcgan_normals", "synthesize")):
        assert cli(["configs", name, "folder"]) == 0
        assert f"cxr-jax {command} folder/{name}.toml" in capsys.readouterr().out


def test_nothing_is_overwritten_unasked(tmp_path, capsys):
    (tmp_path / "mine.toml").write_text("mine")
    assert cli(["configs", "quickstart", "mine.toml"]) == 1
    assert "mine.toml exists already" in capsys.readouterr().err
    assert (tmp_path / "mine.toml").read_text() == "mine"
    assert cli(["configs", "quickstart", "mine.toml", "--replace"]) == 0
    assert (tmp_path / "mine.toml").read_text() != "mine"


def test_an_unknown_name_meets_the_nearest(capsys):
    assert cli(["configs", "quikstart"]) == 1
    assert capsys.readouterr().err == (
        "cxr-jax: no config called quikstart comes with the program; did you mean quickstart?\n"
    )
