"""The tables of a sweep whose runs were written by hand."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import ttest_rel

from cxr_jax.config.loading import write_config
from cxr_jax.runs.description import NetworkDescription, write_description
from cxr_jax.runs.files import write_json
from cxr_jax.runs.metrics_log import MetricsLog
from cxr_jax.runs.predictions import Predictions, write_predictions
from cxr_jax.runs.records import to_json
from cxr_jax.sweeps.runs import sweep_runs
from cxr_jax.sweeps.summary import VariantSummary, read_result, summarise
from cxr_jax.sweeps.sweep import read_sweep
from cxr_jax.sweeps.table import sweep_csv, sweep_markdown, terminal_table, write_tables

BASE = """
[validation]
monitor = "{monitor}"
checkpoint = "{checkpoint}"
"""
SWEEP = """
config = "base.toml"
seeds = [0, 1, 2]
[variants.dropout]
model.dropout = 0.5
[variants.gamma]
augmentation.gamma = 0.3
"""
AREAS = {"base": (0.90, 0.92, 0.91), "dropout": (0.85, 0.80, 0.90), "gamma": (0.93, 0.94, 0.96)}


@pytest.fixture
def sweep(tmp_path):
    def make(monitor="roc_auc", checkpoint="best"):
        (tmp_path / "base.toml").write_text(BASE.format(monitor=monitor, checkpoint=checkpoint))
        (tmp_path / "s.toml").write_text(SWEEP)
        return read_sweep(tmp_path / "s.toml")

    return make


def write_run(run, area, *, finished=True, fingerprint="f", **further):
    """A run whose second of three validations is the best."""
    write_config(run.config, run.run.config)
    write_json(run.run.environment, {"data_fingerprint": fingerprint})
    with MetricsLog(run.run.metrics) as log:
        for step, (value, best) in enumerate([(area - 0.2, True), (area, True), (area - 0.1, False)], start=1):
            place = {"step": step, "epoch": step / 2, "phase": "train", "seconds": 60.0 * step}
            log.write("train", **place, loss=9.0)
            log.write("validation", **place, loss=1 - value, roc_auc=value, best=best, **further)
        if finished:
            log.write("end", step=3, reason="finished", seconds=240.0)


@pytest.fixture
def swept(sweep, tmp_path):
    """A sweep with all runs finished, its runs, and its folder."""
    found = sweep()
    runs = sweep_runs(found, tmp_path / "out")
    for run in runs:
        write_run(run, AREAS[run.variant][run.seed], brier=0.1 + run.seed)
    return found, runs, tmp_path / "out"


def variant_of(summary, name):
    return next(variant for variant in summary.variants if variant.name == name)


@pytest.mark.parametrize(("checkpoint", "step", "area"), [("best", 2, 0.9), ("last", 3, 0.8)])
def test_figures_are_those_of_the_checkpoint_that_the_run_stands_for(sweep, tmp_path, checkpoint, step, area):
    run = sweep_runs(sweep(checkpoint=checkpoint), tmp_path)[0]
    write_run(run, 0.9, youden=0.7, count=3, note="text", missing=None)
    result = read_result(run)
    assert result.step == step
    # every number of the line, whatever it is called, and nothing else
    assert result.figures == pytest.approx({"loss": 1 - area, "roc_auc": area, "youden": 0.7, "count": 3.0})
    assert (result.minutes, result.data_fingerprint) == (4, "f")


def test_a_run_that_was_never_the_best_has_no_figures(sweep, tmp_path):
    run = sweep_runs(sweep(), tmp_path)[0]
    with MetricsLog(run.run.metrics) as log:
        log.write("validation", step=1, loss=float("nan"), best=False)
        log.write("end", step=1, reason="finished", seconds=60.0)
    assert read_result(run).figures == {}
    summary = summarise(sweep(), sweep_runs(sweep(), tmp_path), tmp_path)
    base = variant_of(summary, "base")
    assert (base.seeds, base.figures) == ((0,), {})


def test_stored_predictions_add_the_specificity_at_the_target_sensitivity(sweep, tmp_path):
    run = sweep_runs(sweep(), tmp_path)[0]
    write_run(run, 0.9)
    # 40 PNEUMONIA images: at 97.5 % one may be missed, the one at 0.1; 3 of 4 NORMAL images lie below the next, 0.5
    score = np.r_[0.1, np.linspace(0.5, 0.9, 39), 0.05, 0.2, 0.3, 0.6]
    label = np.r_[np.ones(40, int), np.zeros(4, int)]
    names = [str(number) for number in range(44)]
    logits = np.stack([np.zeros(44), np.log(score / (1 - score))], axis=1)
    subtype = ["bacteria" if entry else "normal" for entry in label]
    table = Predictions.from_logits(logits, file=names, split=["val"] * 44, group=names, subtype=subtype, label=label)
    write_predictions(run.run.predictions_of("val"), table)
    assert read_result(run).figures["specificity_at_sensitivity_0.975"] == 0.75
    one_class = table.select(np.flatnonzero(label == 0))
    write_predictions(run.run.predictions_of("val"), one_class)
    assert "specificity_at_sensitivity_0.975" not in read_result(run).figures


def test_a_summary_holds_spread_and_paired_difference_of_every_figure(swept):
    summary = summarise(*swept)
    gamma = variant_of(summary, "gamma").figures["roc_auc"]
    assert gamma.mean == pytest.approx(np.mean(AREAS["gamma"]))
    assert gamma.deviation == pytest.approx(np.std(AREAS["gamma"], ddof=1))
    assert gamma.values == pytest.approx({"0": 0.93, "1": 0.94, "2": 0.96})
    expected = ttest_rel(AREAS["gamma"], AREAS["base"])
    interval = expected.confidence_interval(0.95)
    difference = gamma.difference
    assert difference.value == pytest.approx(np.mean(AREAS["gamma"]) - np.mean(AREAS["base"]))
    assert (difference.interval.low, difference.interval.high) == pytest.approx((interval.low, interval.high))
    assert difference.seeds == (0, 1, 2)
    assert variant_of(summary, "base").figures["roc_auc"].difference is None
    assert variant_of(summary, "gamma").figures["brier"].difference.interval is None
    assert variant_of(summary, "gamma").changes == {"augmentation.gamma": 0.3}
    assert summary.split == "validation"


@pytest.mark.parametrize("monitor", ["roc_auc", "loss"])
def test_the_best_of_the_monitored_figure_comes_first(swept, sweep, monitor):
    _, runs, folder = swept
    # the loss is lowest where the area is highest
    summary = summarise(sweep(monitor), runs, folder)
    assert [variant.name for variant in summary.variants] == ["gamma", "base", "dropout"]
    summary = summarise(sweep("accuracy"), runs, folder)
    assert [variant.name for variant in summary.variants] == ["base", "dropout", "gamma"]


def test_differences_are_over_the_seeds_that_both_have(sweep, tmp_path):
    found = sweep()
    runs = sweep_runs(found, tmp_path)
    for run in runs:
        if (run.variant, run.seed) in {("base", 0), ("base", 1), ("gamma", 1), ("gamma", 2)}:
            write_run(run, AREAS[run.variant][run.seed])
    write_run(runs[0], 0.5, finished=False)
    summary = summarise(found, runs, tmp_path)
    assert (summary.planned, summary.finished) == (9, 3)
    assert "base seed0" in summary.unfinished
    gamma = variant_of(summary, "gamma")
    assert gamma.seeds == (1, 2)
    difference = gamma.figures["roc_auc"].difference
    assert (difference.seeds, difference.interval) == ((1,), None)
    assert difference.value == pytest.approx(0.94 - 0.92)
    assert variant_of(summary, "dropout") == VariantSummary("dropout", {"model.dropout": 0.5}, (), None, {}, {})
    assert [variant.name for variant in summary.variants] == ["gamma", "base", "dropout"]
    text = sweep_markdown(summary)
    assert "| dropout | 0 | – | – | – |" in text
    assert "3 of 9 runs of 3 variants stand behind this table. Not finished: base seed0, " in text


def test_markdown_says_what_it_shows(swept):
    text = sweep_markdown(summarise(*swept))
    header = next(line for line in text.splitlines() if line.startswith("| variant"))
    assert header == "| variant | seeds | roc_auc | loss | brier | minutes |"
    assert "| gamma | 3 | 0.9433 ± 0.0153<br>+0.0333 (−0.0046 to +0.0713) |" in text
    assert "| base | 3 | 0.9100 ± 0.0100 |" in text
    assert "Validation only: nothing here has seen the test split." in text
    assert "9 of 9 runs of 3 variants stand behind this table.\n" in text
    assert "2 variants are compared with base, which the intervals are not corrected for" in text
    assert "no longer" not in text and "does not name" not in text and "different versions" not in text


def test_what_the_sweep_no_longer_names_and_other_data_are_told(swept):
    found, runs, folder = swept
    write_config(runs[0].config, folder / "dropped" / "seed0" / "config.toml")
    write_config(runs[0].config, folder / "base" / "seed8" / "config.toml")
    write_json(runs[0].run.environment, {"data_fingerprint": "other"})
    text = sweep_markdown(summarise(found, runs, folder))
    assert "holds runs that s.toml does not name, by variant: base (1), dropped (1)." in text
    assert "The runs saw different versions of the data (chest_xray): their figures do not compare." in text


@pytest.mark.parametrize("change", ["split_seed = 1", "validation_fraction = 0.2", 'validation = "official"'])
def test_variants_that_are_validated_on_other_images_are_told(sweep, tmp_path, change):
    found = sweep()
    assert "other images" not in sweep_markdown(summarise(found, [], tmp_path))
    (tmp_path / "s.toml").write_text(f"{SWEEP}[variants.elsewhere]\ndata.{change}\n")
    text = sweep_markdown(summarise(read_sweep(found.path), [], tmp_path))
    assert "Validated on other images than the base, with which they do not compare: elsewhere." in text


def test_another_fold_is_told_and_another_seed_that_cuts_nothing_is_not(sweep, tmp_path):
    found = sweep()
    for cut, change, told in (("fold", "data.fold = 1", True), ("official", "data.split_seed = 1", False)):
        base = f'[base]\ndata.validation = "{cut}"\n'
        (tmp_path / "s.toml").write_text(f"{SWEEP}{base}[variants.other]\n{change}\nmodel.dropout = 0.1\n")
        text = sweep_markdown(summarise(read_sweep(found.path), [], tmp_path))
        assert ("Validated on other images than the base, with which they do not compare: other." in text) == told


def test_a_figure_that_some_seeds_lack_says_so(swept):
    found, runs, folder = swept
    run = next(run for run in runs if run.name == "gamma seed1")
    run.run.metrics.unlink()
    write_run(run, 0.94)
    text = sweep_markdown(summarise(found, runs, folder))
    assert "| 1.1000 ± 1.4142 (2 of 3)<br>+0.0000 |" in text


def test_csv_holds_every_value(swept):
    rows = list(csv.DictReader(io.StringIO(sweep_csv(summarise(*swept)))))
    assert len(rows) == 3 * 3
    row = next(row for row in rows if (row["variant"], row["figure"]) == ("gamma", "roc_auc"))
    assert [float(row[f"seed{seed}"]) for seed in range(3)] == pytest.approx(AREAS["gamma"])
    assert float(row["difference"]) == pytest.approx(float(row["mean"]) - 0.91)
    assert float(row["low"]) < float(row["difference"]) < float(row["high"])
    assert (row["seeds"], row["paired_seeds"], float(row["minutes"])) == ("3", "3", 4)


def test_tables_are_written_and_fit_a_terminal(swept):
    summary = summarise(*swept)
    folder = swept[2]
    paths = write_tables(summary, folder)
    assert sorted(path.name for path in paths) == ["sweep.csv", "sweep.json", "sweep.md"]
    stored = json.loads((folder / "sweep.json").read_text())
    assert stored == {"schema_version": 1, **json.loads(json.dumps(to_json(summary)))}
    gamma = stored["variants"][0]
    assert (gamma["name"], gamma["changes"], gamma["seeds"]) == ("gamma", {"augmentation.gamma": 0.3}, [0, 1, 2])
    assert gamma["minutes"]["mean"] == 4 and gamma["runs"]["1"] == {"step": 2, "minutes": 4.0}
    figure = gamma["figures"]["roc_auc"]
    assert figure["values"] == {"0": 0.93, "1": 0.94, "2": 0.96} and figure["difference"]["seeds"] == [0, 1, 2]
    console = Console(width=100, file=io.StringIO())
    console.print(terminal_table(summary))
    printed = console.file.getvalue()
    assert "0.9433 ± 0.0153" in printed
    assert max(map(len, printed.splitlines())) <= 100


def test_runs_are_read_without_their_training_lines(swept, monkeypatch):
    found, runs, folder = swept
    before = summarise(found, runs, folder)
    run = runs[0]
    lines = run.run.metrics.read_text().splitlines()
    run.run.metrics.write_text("\n".join(line[:20] if '"train", "step"' in line else line for line in lines) + "\n")
    assert summarise(found, [dataclasses.replace(run) for run in runs], folder) == before


@pytest.mark.parametrize(
    ("kind", "told"), [("findings", "mean over the findings"), ("exclusive", "mean over the classes")]
)
def test_the_area_of_other_classes_is_told_as_a_mean(sweep, tmp_path, kind, told):
    read = sweep()
    runs = sweep_runs(read, tmp_path)
    for run in runs:
        write_run(run, 0.8)
        classes = ("Effusion", "Mass", "Nodule")
        write_description(
            run.run, NetworkDescription("n", classes, 8, "squash", "area", (0.5,), (0.5,), "", "", 0, kind=kind)
        )
        run.run.predictions_of("val").parent.mkdir(exist_ok=True)
        run.run.predictions_of("val").write_text("file,label_Mass,probability_Mass\na,1,0.5\n")
    text = sweep_markdown(summarise(read, runs, tmp_path))
    assert told in text and "0.8000" in text and "specificity" not in text
