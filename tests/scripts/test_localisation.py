"""The page of the demonstration of localisation says what its records say."""

import shutil
from pathlib import Path

import pytest

from cxr_jax.errors import UserError
from cxr_jax.evaluation.localisation import read_localisation
from tests.scripts.script_module import module_of

FOLDER = Path(__file__).parents[2] / "results" / "localisation"


@pytest.fixture(scope="module")
def script():
    return module_of("write_localisation")


def test_the_page_is_what_the_script_makes_of_the_records(script, tmp_path, capsys):
    shutil.copytree(FOLDER, tmp_path / "localisation")
    script.main([str(tmp_path / "localisation")])
    assert (tmp_path / "localisation" / "README.md").read_text() == (FOLDER / "README.md").read_text()
    assert "Written: " in capsys.readouterr().out


def test_every_network_is_told_with_counts_beside_its_shares(script):
    text = (FOLDER / "README.md").read_text()
    for name, title in script.NETWORKS.items():
        record = read_localisation(FOLDER / name / "localisation.json")
        assert f"### {title}" in text
        assert record.checkpoint_sha256[:12] in text
        pointing = record.parts[-1].score("pointing").network
        assert f"| pointing | {pointing.found} of {pointing.of} |" in text


def test_a_damaged_record_is_one_sentence(script, tmp_path, capsys):
    (tmp_path / "findings").mkdir()
    (tmp_path / "findings" / "localisation.json").write_text("{}")
    with pytest.raises(UserError, match="was written by another version"):
        script.main([str(tmp_path)])
