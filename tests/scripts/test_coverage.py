"""The table of coverage in the docs comes from intervals that hold the truth as often as it says."""

import csv
from pathlib import Path

import numpy as np
import pytest

from cxr_jax.runs.predictions import Predictions, write_predictions
from tests.scripts.script_module import module_of

ROOT = Path(__file__).parents[2]
STORED = ROOT / "results/coverage/coverage.csv"


@pytest.fixture(scope="module")
def script():
    return module_of("measure_coverage")


def rows():
    with STORED.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_stored_table_tells_every_case(script):
    assert {(row["measure"], row["images"]) for row in rows()} == {
        ("share", "NORMAL"),
        ("share", "PNEUMONIA"),
        ("roc_auc", "both classes"),
    }
    shares, areas = (2 * len(script.SHARES), len(script.AREAS))
    assert len(rows()) == (shares + areas) * len(script.CORRELATIONS)
    high = [float(row["shown"]) for row in rows() if row["measure"] == "share" and float(row["truth"]) == 0.99]
    assert min(high) >= 94


def test_a_small_measurement_writes_the_table(script, tmp_path, monkeypatch):
    label = np.arange(60) % 2
    table = Predictions(
        [f"{i}" for i in range(60)],
        ["test"] * 60,
        [f"{label[i]} {i // 6}" for i in range(60)],
        ["virus" if ill else "normal" for ill in label],
        label,
        None,
        np.linspace(0, 1, 60),
    )
    write_predictions(tmp_path / "table.csv", table)
    found = script.measure(tmp_path / "table.csv", 8)
    assert len(found) == len(rows())
    assert all(0 <= entry.shown <= 100 and 0 <= entry.bootstrap <= 100 for entry in found)
    assert {entry.samples for entry in found} == {8, 2}


@pytest.mark.slow
def test_intervals_hold_the_truth_as_often_as_the_stored_table_says(script):
    table = ROOT / "results/moderate_crops/seed0/predictions/test.csv"
    found = {(e.measure, e.images, e.truth, e.correlation): e for e in script.measure(table, 800, seed=1)}
    for row in rows():
        entry = found[row["measure"], row["images"], float(row["truth"]), float(row["correlation"])]
        for column in ("shown", "bootstrap"):
            stored = float(row[column]) / 100
            # four standard errors of both together
            error = np.sqrt(max(stored * (1 - stored), 0.01) * (1 / entry.samples + 1 / int(row["samples"])))
            assert getattr(entry, column) / 100 == pytest.approx(stored, abs=4 * error), row
