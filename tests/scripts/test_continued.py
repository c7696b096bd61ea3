"""The scripts of the study of learning on: its table of two classes, and its page."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.evaluation.comparison_record import read_comparison
from cxr_jax.runs.predictions import Predictions, write_predictions
from tests.scripts.script_module import module_of

ROOT = Path(__file__).parents[2]

FINDINGS = """Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position
00000001_000.png,Atelectasis|Pneumonia,0,1,57,F,AP
00000002_000.png,No Finding,0,2,058Y,M,PA
00000002_001.png,Effusion,1,2,58,M,PA
00000003_000.png,Pneumonia,0,3,7,F,PA
"""


def run_script(name, *arguments):
    module_of(name).main([*map(str, arguments)])


def test_nih_s_table_becomes_one_of_two_classes(tmp_path, monkeypatch, capsys):
    (tmp_path / "findings.csv").write_text(FINDINGS)
    (tmp_path / "images").mkdir()
    for name in ("00000001_000.png", "00000002_000.png"):
        (tmp_path / "images" / name).touch()
    paths = tmp_path / "findings.csv", tmp_path / "table.csv"
    run_script("nih_pneumonia_table", *paths)
    rows = list(csv.DictReader(paths[1].open()))
    assert [(row["file"][:12], row["label"], row["split"]) for row in rows] == [
        ("00000001_000", "PNEUMONIA", "test"),
        ("00000002_000", "NORMAL", "train"),
        ("00000003_000", "PNEUMONIA", "test"),
    ]
    assert (rows[1]["patient"], rows[1]["age"], rows[1]["sex"], rows[1]["view"]) == ("2", "058Y", "M", "PA")
    run_script("nih_pneumonia_table", *paths, "--images", tmp_path / "images")
    assert "2 films of 2 patients" in capsys.readouterr().out


def table(seed, skill):
    random = np.random.default_rng(seed)
    label = np.arange(60) % 2
    chance = 1 / (1 + np.exp(-(skill * (2.0 * label - 1) + random.normal(size=60))))
    files, groups = ([f"{word}{i // part}" for i in range(60)] for word, part in (("file", 1), ("group", 2)))
    return Predictions(files, ["test"] * 60, groups, ["normal", "unknown"] * 30, label, None, chance)


def test_the_page_tells_both_arms_beside_the_networks_before(tmp_path, monkeypatch):
    skills = {"origin": (0.0, 3.0), "replay": (1.5, 3.0), "plain": (2.0, 1.0), "averaged": (1.2, 3.0)}
    for arm, (new, old) in skills.items():
        for seed in range(2):
            run = tmp_path / arm / f"seed{seed}"
            (run / "predictions").mkdir(parents=True)
            (run / "config.toml").touch()
            (run / "operating_point.json").write_text(json.dumps({"threshold": 0.4}))
            write_predictions(run / "predictions/test.csv", table(seed, new))
            write_predictions(run / "change/new_before.csv", table(10 + seed, 0.0))
            write_predictions(run / "change/old_before.csv", table(20 + seed, 3.0))
            write_predictions(run / "change/old_after.csv", table(30 + seed, old))
    (tmp_path / "warned").mkdir()
    for arm in ("origin", "replay"):
        unlike = ["unlike the radiographs that this network learned from: far", "too dark" if arm == "replay" else ""]
        rows = [f"a{i},{unlike[0] if i < (3 if arm == 'origin' else 1) else unlike[1]}" for i in range(4)]
        (tmp_path / f"warned/{arm}_seed0.csv").write_text("\n".join(["file,warnings", *rows]))
    ages = [f"file{i},{30 + i},{'FM'[i // 2 % 2]},{'AP' if i < 20 else 'PA'}" for i in range(62)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,age,sex,view", *ages]))
    run_script("write_continued", tmp_path, tmp_path / "labels.csv")
    new, old = (read_comparison(tmp_path / f"{which}.json") for which in ("new", "old"))
    assert [(pair.first, pair.second) for pair in new.pairs] == [
        ("replay", "before"),
        ("plain", "before"),
        ("averaged", "before"),
    ]
    assert all(pair.endpoints["roc_auc"].difference > 0.2 for pair in new.pairs)
    assert old.pairs[1].endpoints["roc_auc"].difference < -0.05 < old.pairs[0].endpoints["roc_auc"].difference
    page = (tmp_path / "README.md").read_text()
    assert "## On the new test images" in page and "## On the old test images" in page
    differences = " | ".join(f"{arm} − before" for arm in ("replay", "plain", "averaged"))
    assert f"| metric | before | replay | plain | averaged | {differences} |" in page
    assert f"| {new.recipes['replay'].endpoints['roc_auc'].mean:.3f} |" in page
    assert "Not a medical device" in page
    for arm, way in (("replay", "learning on with replay"), ("averaged", "averaging with the networks before")):
        (line,) = (line for line in page.splitlines() if line.startswith(f"- **After {way}**"))
        reached = new.recipes[arm].endpoints["roc_auc"].mean
        assert f"The target of 0.7 {'is met' if reached >= 0.7 else 'is missed by'}" in line
        assert "at most 0.01, is " in line
    assert "| view AP | 20 | 10 |" in page and "| view PA | 40 | 20 |" in page and "| age 60 and older |" in page
    assert "before 75.0 to 75.0 %, replay 25.0 to 25.0 % of them" in page
    assert len((tmp_path / "films.csv").read_text().splitlines()) == 61
    # written again from what is kept, with words around the block, which stay
    (tmp_path / "README.md").write_text(page + "My words.")
    run_script("write_continued", tmp_path)
    assert (tmp_path / "README.md").read_text().strip() == page + "My words."


def test_a_study_that_is_not_finished_is_told(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="not the same number of runs of each arm"):
        run_script("write_continued", tmp_path)
