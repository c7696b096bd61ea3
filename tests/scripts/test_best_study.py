"""The page of the study of the best accuracy says what its records say, and concludes what is registered."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import pytest

from cxr_jax.errors import UserError
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.intervals import Interval
from tests.scripts.script_module import module_of

ROOT = Path(__file__).parents[2]
NETWORKS = ROOT / "results/networks/networks"
SEEDS = ROOT / "results/moderate_crops"


@pytest.fixture(scope="module")
def script():
    return module_of("write_best_study")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Published runs of other recipes, laid out as those of the study: two arms, and two variants of the ablation, of
    which one has one seed."""
    root = tmp_path_factory.mktemp("best_study")
    leave = shutil.ignore_patterns("figures", "quality.json", "metrics.jsonl")
    for arm, name in (("a", "mobilenetv1"), ("c", "lite0")):
        shutil.copytree(NETWORKS / name / "seed0", root / arm / "ensemble", ignore=leave)
        for fold in range(5):
            shutil.copytree(SEEDS / f"seed{fold}", root / arm / f"fold{fold}/seed0", ignore=leave)
    for variant, name in (("base", "mobilenetv1"), ("no_jitter", "lite0")):
        shutil.copytree(NETWORKS / name, root / "factors" / variant, ignore=leave)
    shutil.copytree(NETWORKS / "lite0" / "seed0", root / "factors" / "one_rate" / "seed0", ignore=leave)
    shutil.copy(ROOT / "results/best_study/README.md", root)
    return root


@pytest.fixture(scope="module")
def study(script, folder):
    return script.read_study(folder, Confidence(resamples=100))


def tables(text: str) -> dict[str, list[list[str]]]:
    """Returns the rows of cells of every block, by its name."""
    blocks = re.findall(r"<!-- ([^>]*): begin -->(.*?)<!-- \1: end -->", text, re.DOTALL)
    return {
        name: [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines() if line.startswith("|")]
        for name, block in blocks
    }


def test_every_table_has_the_figures_of_the_records(script, folder, capsys):
    before = (folder / "README.md").read_text()
    script.main([str(folder), "100"])
    assert len(capsys.readouterr().out.splitlines()) == 1
    page = (folder / "README.md").read_text()
    outside = [re.sub(r"begin -->.*?<!--", "begin --><!--", text, flags=re.DOTALL) for text in (before, page)]
    assert outside[0] == outside[1]
    found = tables(page)
    metrics = json.loads((folder / "a/ensemble/evaluation.json").read_text())["test"]["metrics"]
    header, _, first, second = found["ensembles"]
    cells = dict(zip(header, first, strict=True))
    assert cells["ROC-AUC"].startswith(f"{metrics['roc_auc']['value']:.3f} (")
    assert cells["accuracy, %"].startswith(f"{100 * metrics['accuracy']['value']:.1f} (")
    # that of the rule, which is wider than at this threshold
    wider = json.loads((folder / "a/ensemble/evaluation.json").read_text())["for_rule"]["metrics"]["accuracy"]
    low = wider["intervals"][0]["low"]
    assert f"({100 * low:.1f} to " in cells["accuracy, %"] and low < metrics["accuracy"]["intervals"][0]["low"]
    assert first[0].startswith("`a`") and second[0].startswith("`c`")
    (difference,) = found["differences"][2:]
    assert difference[0].startswith("`a`") and ", p " in difference[1]
    assert [row[1] for row in found["thresholds"][2:6]] == [
        "out of fold",
        "aligned to 62.5 %",
        "aligned to 50.0 %",
        "aligned to 74.2 %",
    ]
    assert [row[0] for row in found["ablation"][2:]] == ["`base` itself", "`no_jitter`", "`one_rate`"]
    assert len(found["uncertain"]) == len(found["networks alone"]) == len(found["held-out images"]) == 4
    aligned = json.loads((folder / "alignment.json").read_text())
    assert [calls["prevalence"] for calls in aligned["a"]] == [0.625, 0.5, 0.742]
    told = json.loads((folder / "comparison.json").read_text())
    assert told["pairs"][0]["second"] == "c" and told["correction"]["comparisons"] == 1
    told = json.loads((folder / "factors" / "comparison.json").read_text())
    assert {pair["first"] for pair in told["pairs"]} == {"no_jitter", "one_rate"}
    short = "moderate_crop, class_weights, one_rate: 1 of 2 seeds, no_average"
    assert f"Not measured yet: arm `b`, arm `d`, arm `e`, arm `a_lite0`, the ablation ({short})." in page


def test_the_conclusion_is_the_registered_one(script, study):
    (pair,) = study.compared.pairs
    found = pair.endpoints["balanced_accuracy@rule"]

    def concluded(low: float, high: float) -> str:
        answer = dataclasses.replace(found, interval=Interval(low, high, "drawn"), over_seeds=None)
        changed = dataclasses.replace(pair, endpoints={**pair.endpoints, "balanced_accuracy@rule": answer})
        return script.conclusion(
            dataclasses.replace(study, compared=dataclasses.replace(study.compared, pairs=(changed,)))
        )

    assert concluded(0.01, 0.05).endswith("So it is better than the recipe before.")
    assert concluded(-0.05, -0.01).endswith("So it is worse than the recipe before.")
    assert concluded(-0.01, 0.05).endswith("So by this endpoint nobody can tell the two apart.")
    alone = dataclasses.replace(study, compared=None)
    assert script.conclusion(alone).endswith("It cannot be compared with arm `c` yet.")


def test_the_targets_are_the_registered_ones(script):
    registered = (ROOT / "docs/registered/best.md").read_text()
    for name, words in (
        ("accuracy", "accuracy at the threshold"),
        ("roc_auc", "ROC-AUC"),
        ("specificity", "specificity"),
    ):
        (line,) = re.findall(rf"^\| {words}[^|]*\| (.*) \|$", registered, re.MULTILINE)
        told = [float(cell.strip(" %")) / (100 if "%" in cell else 1) for cell in line.split("|")]
        assert script.TARGETS[name] == pytest.approx(told)
        for target, level, below in zip(told, script.LEVELS, ("none", *script.LEVELS), strict=False):
            assert script.reached(name, target + 1e-9, 0.97) == level
            assert script.reached(name, target - 1e-9, 0.97) == below
    assert script.reached("specificity", 0.99, 0.95).startswith("none: sensitivity is below 96%")


def test_an_arm_without_all_its_networks_is_refused(script, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "less")
    shutil.rmtree(tmp_path / "less/a/fold3")
    with pytest.raises(UserError, match="holds 4 of 5 networks: publish all of them"):
        script.read_study(tmp_path / "less", Confidence(resamples=100))
    with pytest.raises(UserError, match="holds no arm of the study"):
        script.read_study(tmp_path, Confidence(resamples=100))
