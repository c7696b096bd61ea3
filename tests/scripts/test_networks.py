"""The page of the study of networks says what its records say, and what is not measured yet."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from cxr_jax.errors import UserError
from tests.scripts.script_module import module_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    """The script as a module."""
    return module_of("write_networks")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Published runs of other recipes, laid out as those of the study, and a measured speed of their network."""
    root = tmp_path_factory.mktemp("networks")
    leave = shutil.ignore_patterns("figures", "*.md", "sweep", "seed3", "seed4")
    for name, place in (
        ("moderate_crops", "networks/base"),
        ("flips", "networks/mobilenetv1"),
        ("lee/efficientnetv2_s_scratch", "networks_scratch/efficientnetv2_s"),
        ("barnett/transfer_honest/seed0", "networks_probes/base/seed0"),
    ):
        shutil.copytree(ROOT / "results" / name, root / place, ignore=leave)
    (root / "costs").mkdir()
    shutil.copy(ROOT / "results/bench/threads.json", root / "costs")
    (root / "README.md").write_text("# Mine\n\nA sentence.\n")
    return root


def test_every_arm_is_a_row_beside_the_reference_and_the_rest_is_named(script, folder, capsys):
    script.main([str(folder), "100"])
    assert len(capsys.readouterr().out.splitlines()) == 4
    rows = {(row["kind"], row["arm"]): row for row in csv.DictReader((folder / "networks.csv").open())}
    assert list(rows) == [
        *(("fine-tuned", name) for name in ("base", "mobilenetv1")),
        *(("from scratch", "efficientnetv2_s"), ("probe", "base")),
    ]
    base = rows["fine-tuned", "base"]
    comparison = json.loads((ROOT / "results/comparison/comparison.json").read_text())
    seeds = comparison["recipes"]["moderate_crops"]["endpoints"]["roc_auc"]["values"][:3]
    assert float(base["roc_auc"]) == pytest.approx(sum(seeds) / 3)
    speeds = {
        entry["case"]["threads"]: entry["images_per_second"]
        for entry in json.loads((folder / "costs/threads.json").read_text())["measurements"]
    }
    assert float(base["train_1"]) == speeds[1] and float(base["train_2"]) == speeds[2] and base["inference_1"] == ""
    page = (folder / "README.md").read_text()
    assert page.startswith("# Mine\n\nA sentence.\n")
    assert "cannot be answered yet" in page and "densenet121 (from scratch)" in page and "lite2 (fine-tuned)" in page
    assert "mobilenetv1 (probe)" in page and "mobilenetv1 (fine-tuned" not in page
    assert "Not a medical device" in page
    assert "([records](costs): AMD EPYC, 2026-" in page
    assert base["machine"] in page and "AMD" in base["machine"]
    before = page
    script.main([str(folder), "100"])
    assert (folder / "README.md").read_text() == before


def test_the_fastest_of_those_near_the_best_is_recommended(script, folder):
    arms = [arm for arm in script.read_arms(folder, 100) if arm.kind == "fine-tuned"]
    best = dataclasses.replace(arms[0], speeds={("inference", 2): 100.0})

    def other(name, lower, speed):
        summary = dataclasses.replace(best.roc_auc, mean=best.roc_auc.mean - lower)
        speeds = {("inference", 2): speed} if speed else {}
        return dataclasses.replace(best, name=name, network=name, roc_auc=summary, speeds=speeds)

    near, far = other("near", 0.004, 200.0), other("far", 0.006, 400.0)
    assert script.answer([best, near, far], []).startswith("Take **near**")
    assert "speed of inference is missing for slow" in script.answer([best, other("slow", 0.001, None)], [])
    assert "arms of the fine-tuned networks are missing" in script.answer([best, near], ["lite0 (fine-tuned)"])


def test_without_the_reference_it_is_one_sentence(script, tmp_path, capsys):
    with pytest.raises(UserError, match="holds no runs of networks/base"):
        script.main([str(tmp_path)])


def test_the_reference_can_be_taken_over_from_another_study(script, folder, tmp_path):
    shutil.copytree(folder / "networks" / "mobilenetv1", tmp_path / "networks" / "mobilenetv1")
    arms = script.read_arms(tmp_path, 100, taken_over=folder / "networks" / "base")
    assert {(arm.kind, arm.name) for arm in arms} == {("fine-tuned", "base"), ("fine-tuned", "mobilenetv1")}
    assert [arm.name for arm in arms if arm.difference is None] == ["base"]
