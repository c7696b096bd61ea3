"""The page of the study of degraded films says what its records say."""

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.evaluation.measures import Measured
from cxr_jax.evaluation.robustness import (
    Robustness,
    level_of,
    mean_corruption_error,
    mean_error,
    with_wrong_calls,
    write_robustness,
    wrongly_called,
)
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.predictions import read_predictions
from tests.scripts.script_module import module_of

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def script():
    """The script as a module."""
    return module_of("write_degraded")


def drawn_record(run, noise, reference=None):
    """A record of degraded films: the run's own predictions, disturbed the more the more severe."""
    clean = read_predictions(run.predictions_of("test"))
    levels, wrong, draw = [level_of("clean", 0, clean, 0.5)], [], np.random.default_rng(0)
    for kind in ("blur", "noise"):
        for severity in (1, 2):
            shift = noise * severity * draw.standard_normal(len(clean))
            table = dataclasses.replace(clean, probability=np.clip(clean.probability + shift, 0, 1), logits=None)
            levels.append(level_of(kind, severity, table, 0.5, unlike=np.abs(shift) > 0.6))
            wrong.append(wrongly_called(table, 0.5)[""][1])
    looks = [json.loads(line) for line in run.ledger.read_text().splitlines()]
    degraded = tuple(levels[1:])
    record = Robustness("test", len(clean), 0.5, 0, looks[0]["checkpoint_sha256"], levels[0], degraded, None)
    relative = mean_corruption_error(degraded, reference) if reference else None
    record = dataclasses.replace(record, mean_error=mean_error(degraded), mean_corruption_error=relative)
    return with_wrong_calls(record, clean, np.mean(wrong, axis=0), reference)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Published runs with drawn records of degraded films, of which the second is the worse."""
    root = tmp_path_factory.mktemp("degraded")
    leave = shutil.ignore_patterns("figures", "seed2")
    for name in ("mobilenetv1", "squeezenet"):
        shutil.copytree(ROOT / "results/networks/networks" / name, root / "networks" / name, ignore=leave)
    shutil.copytree(ROOT / "results/continued/origin", root / "networks/base", ignore=leave)
    shutil.copytree(root / "networks/base/seed0", root / "base_again")
    base = RunFolder(root / "base_again")
    reference = drawn_record(base, 0.05)
    write_robustness(base.robustness_of("test"), reference)
    for name, noise in (("mobilenetv1", 0.05), ("squeezenet", 0.6)):
        run = RunFolder(root / "networks" / name / "seed0")
        write_robustness(run.robustness_of("test"), drawn_record(run, noise, reference))
    (root / "README.md").write_text("# Mine\n\nA sentence.\n")
    return root


def test_every_network_is_a_row_and_what_is_shown_is_said(script, folder, capsys):
    script.main([str(folder), "200"])
    assert len(capsys.readouterr().out.splitlines()) == 5
    page = (folder / "README.md").read_text()
    assert page.startswith("# Mine\n\nA sentence.\n") and "Not a medical device" in page
    assert "It is the same network as the published one" in page
    assert "**squeezenet1_1 makes more errors than mobilenetv2_100**" in page
    assert "tf_mobilenetv1_100: no difference to mobilenetv2_100 is shown" in page
    levels = list(csv.DictReader((folder / "degraded.csv").open()))
    assert [row["arm"] for row in levels] == ["base"] * 5 + ["mobilenetv1"] * 5 + ["squeezenet"] * 5
    worst = [float(row["error"]) for row in levels if row["arm"] == "squeezenet"]
    assert f"| {100 * np.mean(worst[1:3]):.1f} |" in page and f"| {100 * worst[0]:.1f} |" in page
    script.main([str(folder), "200"])
    assert (folder / "README.md").read_text() == page


def test_the_runs_of_the_reference_may_be_those_of_another_study(script, folder, tmp_path):
    without = tmp_path / "study"
    shutil.copytree(folder, without, ignore=shutil.ignore_patterns("base"))
    told = script.read_study(without, 100)
    assert told.degraded[0].arm == "base" and len(told.uncertain["base"]) == 3
    assert told.degraded[0].record == script.read_study(folder, 100).degraded[0].record


def test_coverage_is_the_mean_over_the_seeds_that_are_published(script, folder):
    script.main([str(folder), "200"])
    stored = [
        json.loads((folder / f"networks/squeezenet/seed{seed}/uncertainty.json").read_text())["test"] for seed in (0, 1)
    ]
    rows = [next(entry for entry in judged if entry["error_rate"] == 0.05)["rows"] for judged in stored]
    covered = [next(row for row in found if row["name"] == "NORMAL")["covered"]["value"] for found in rows]
    low, high = sorted(f"{100 * value:.1f}" for value in covered)
    cell = f"| squeezenet | NORMAL | {100 * np.mean(covered):.1f} ({low} to {high}) |"
    assert cell in (folder / "README.md").read_text()
    table = list(csv.DictReader((folder / "uncertain.csv").open()))
    mine = [row for row in table if (row["arm"], row["error_rate"], row["of"]) == ("squeezenet", "0.05", "NORMAL")]
    assert [float(row["covered"]) for row in mine] == covered


def test_a_promise_is_broken_only_where_every_seed_shows_it(script, folder):
    found = script.read_study(folder, 200).uncertain["squeezenet"][0].at(0.05).of("NORMAL")

    def covered(value, high):
        interval = dataclasses.replace(found.covered.interval, low=value - 0.05, high=high)
        return dataclasses.replace(found, covered=Measured("covered", value, None, (interval,)))

    assert script.is_broken([covered(0.8, 0.85), covered(0.9, 0.94)])
    assert not script.is_broken([covered(0.8, 0.85), covered(0.93, 0.96)])
    assert not script.is_broken([covered(0.97, 0.99)])


def test_without_the_reference_it_is_one_sentence(script, tmp_path):
    with pytest.raises(UserError, match="has no record of degraded films of test"):
        script.main([str(tmp_path)])
