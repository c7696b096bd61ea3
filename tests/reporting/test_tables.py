import io
import json
import subprocess
import sys

import numpy as np
import pytest
from rich.console import Console

from cxr_jax.errors import UserError
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.judge import judge
from cxr_jax.evaluation.judgement import write_judgement
from cxr_jax.evaluation.numbers import interval_text
from cxr_jax.evaluation.seeds import interval_over_seeds, mean_auc_interval
from cxr_jax.reporting import tables
from cxr_jax.reporting.published import Published
from cxr_jax.runs.files import write_text
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.ledger import append_look
from cxr_jax.runs.metrics_log import MetricsLog
from cxr_jax.runs.predictions import Predictions, write_predictions


def printed(table, width=120):
    text = io.StringIO()
    Console(file=text, width=width).print(table)
    return text.getvalue()


def cells(markdown):
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in markdown.splitlines()]


def test_the_terminal_table_has_every_metric_beside_validation(example):
    text = printed(tables.judgement_table(example.judged))
    for name, measured in example.judgement["test"]["metrics"].items():
        line = next(line for line in text.splitlines() if measured["title"] in line)
        for split in ("test", "validation"):
            judged = example.judgement[split]["metrics"][name]
            ends = judged["intervals"][0]
            assert f"{judged['value']:.3f} ({ends['low']:.3f}–{ends['high']:.3f})" in line
    assert "140 test images" in text
    assert f"threshold {example.point.threshold:.4g}, 95 % intervals" in text


def test_warnings_stand_below_the_terminal_table(example):
    alone = judge(None, example.test, 0.5, confidence=Confidence(resamples=20))
    text = printed(tables.judgement_table(alone), width=200)
    assert "There are no validation predictions" in text
    assert "Validation" not in text.splitlines()[2]


def rows_of(judgement):
    """The rows of the terminal table by their title, and the header."""
    header, *columns = ([column.header, *column.cells] for column in tables.judgement_table(judgement).columns)
    return {title: list(values) for title, *values in zip(header, *columns, strict=True)}


def test_the_terminal_table_has_every_metric_and_the_counts(example):
    titles = [entry.title for entry in example.judged.test.metrics.values()]
    further = ["TN / FP / FN / TP", "Accuracy at 0.5", "Sensitivity at 0.5", "Specificity at 0.5"]
    rows = rows_of(example.judged)
    assert list(rows) == ["Metric", *titles, *further, "TN / FP / FN / TP at 0.5"]
    assert rows["Metric"] == ["Test, this threshold", "this rule", "Validation"]
    for name, measured in example.judged.test.metrics.items():
        told = example.judged.for_rule.metrics.get(name)
        assert rows[measured.title][1] == ("" if told is None else interval_text(told.interval))
    assert rows["Accuracy"][1] not in rows["Accuracy"][0]


def test_a_threshold_that_no_rule_chose_has_no_column_for_its_rule(example):
    fixed = judge(example.validation, example.test, 0.4, confidence=Confidence(resamples=20))
    assert rows_of(fixed)["Metric"] == ["Test", "Validation"]


def test_counts_and_rates_are_told_at_both_thresholds(example):
    rows = rows_of(example.judged)
    for column, judged in zip((0, 2), example.judged.splits.values(), strict=True):
        for title, counted in (("TN / FP / FN / TP", judged), ("TN / FP / FN / TP at 0.5", judged.at_one_half)):
            (tn, fp), (fn, tp) = counted.confusion
            assert rows[title][column] == f"{tn} / {fp} / {fn} / {tp}"
        assert rows["Accuracy at 0.5"][column].startswith(f"{judged.at_one_half.metrics['accuracy'].value:.3f} (")
    at_half = judge(None, example.test, 0.5, confidence=Confidence(resamples=20))
    assert not any("at 0.5" in title for title in rows_of(at_half))
    assert "TN / FP / FN / TP" in rows_of(at_half)


def make_run(path, example, *, seed, rate=0.01, looks=1, minutes=8.0):
    """An evaluated run whose scores are those of the example with noise of its own."""
    run = RunFolder(path)
    write_text(run.config, f"[training]\nseed = {seed}\n[optimizer]\nlearning_rate = {rate}\n")
    noise = np.random.default_rng(seed).normal(size=example.test.logits.shape)
    logits = example.test.logits + noise
    names = ("file", "split", "group", "subtype", "label")
    test = Predictions.from_logits(logits, **{name: getattr(example.test, name) for name in names})
    write_predictions(run.predictions_of("test"), test)
    write_judgement(run.evaluation, judge(None, test, 0.5, confidence=Confidence(resamples=20)))
    for _ in range(looks):
        append_look(run, {"threshold": 0.5})
    with MetricsLog(run.metrics) as log:
        log.write("end", reason="finished", step=9, seconds=60 * minutes)
    return run, test


def test_seeds_of_a_recipe_share_a_row_with_mean_and_spread(example, tmp_path):
    made = [make_run(tmp_path / f"scratch_seed{s}", example, seed=s, looks=1 + s, minutes=8 + s) for s in range(3)]
    other, _ = make_run(tmp_path / "transfer", example, seed=0, rate=0.02)
    published = Published("Barnett 2023, scratch", accuracy=0.7837)
    text = tables.results_table([*(run.path for run, _ in made), other.path], [published])
    header, _, literature, scratch, transfer = cells(text)
    assert header[0] == "Recipe"
    assert literature[:3] == ["Barnett 2023, scratch (published)", "–", "78.4 %"]
    assert literature[3:] == ["–"] * 5
    judged = [json.loads(run.evaluation.read_text())["test"]["metrics"] for run, _ in made]
    accuracy = [100 * metrics["accuracy"]["value"] for metrics in judged]
    auc = [metrics["roc_auc"]["value"] for metrics in judged]
    interval = interval_over_seeds(auc, mean_auc_interval([test for _, test in made]))
    assert scratch[:3] == ["scratch", "3", f"{np.mean(accuracy):.1f} ± {np.std(accuracy, ddof=1):.1f} %"]
    assert scratch[5] == (f"{np.mean(auc):.3f} ± {np.std(auc, ddof=1):.3f} ({interval.low:.3f}–{interval.high:.3f})")
    assert scratch[6:] == ["1–3", "9.0"]
    assert transfer[0] == "transfer"
    assert transfer[1] == "1"
    assert "±" not in " ".join(transfer)
    assert transfer[6] == "1"


def test_two_recipes_of_one_name_are_told_apart(example, tmp_path):
    make_run(tmp_path / "tuned" / "lite0" / "seed0", example, seed=0)
    make_run(tmp_path / "probes" / "lite0" / "seed0", example, seed=0, rate=0.02)
    text = tables.results_table([tmp_path / name / "lite0" / "seed0" for name in ("tuned", "probes")])
    assert [row[0] for row in cells(text)[2:]] == ["tuned/lite0", "probes/lite0"]


def test_a_recipe_in_folders_named_after_seeds_is_named_after_the_folder_above(example, tmp_path):
    make_run(tmp_path / "honest" / "seed0", example, seed=0)
    assert cells(tables.results_table([tmp_path / "honest" / "seed0"]))[2][0] == "honest"


def test_a_run_without_metrics_has_no_minutes(example, tmp_path):
    run, _ = make_run(tmp_path / "run", example, seed=0)
    run.metrics.unlink()
    assert cells(tables.results_table([run.path]))[2][-1] == "–"


def test_a_run_that_was_not_evaluated_is_one_sentence(example, tmp_path):
    run, _ = make_run(tmp_path / "run", example, seed=0)
    run.evaluation.unlink()
    with pytest.raises(UserError, match=r"evaluation\.json does not exist"):
        tables.results_table([run.path])


def test_runs_on_other_images_do_not_share_a_row(example, tmp_path):
    first, _ = make_run(tmp_path / "a_seed0", example, seed=0)
    second, test = make_run(tmp_path / "a_seed1", example, seed=1)
    write_predictions(second.predictions_of("test"), test.select(np.arange(1, len(test))))
    with pytest.raises(UserError, match="not over the same images"):
        tables.results_table([first.path, second.path])


def test_what_has_no_value_is_a_dash(example, tmp_path):
    made = [make_run(tmp_path / f"sick_seed{seed}", example, seed=seed) for seed in range(2)]
    for run, test in made:
        sick = test.select(np.flatnonzero(test.label == 1))
        write_predictions(run.predictions_of("test"), sick)
        write_judgement(run.evaluation, judge(None, sick, 0.5, confidence=Confidence(resamples=20)))
    for runs in (made, made[:1]):
        row = cells(tables.results_table([run.path for run, _ in runs]))[2]
        assert row[3] != "–" and row[4:6] == ["–", "–"]  # sensitivity; specificity and ROC-AUC


def test_a_block_is_written_between_its_marks_and_the_rest_stays():
    text = tables.with_block("# Mine\n\nmy words\n", "table", "first")
    assert text.startswith("# Mine\n\nmy words\n\n<!-- table: begin -->\n\nfirst\n")
    again = tables.with_block(f"{text}more of my words\n", "table", "second")
    assert again == f"{text}more of my words\n".replace("first", "second")


@pytest.mark.parametrize(
    "marks",
    [
        "<!-- t: begin -->",
        "<!-- t: end -->",
        "<!-- t: end --> <!-- t: begin -->",
        "<!-- t: begin --> <!-- t: begin --> <!-- t: end -->",
    ],
)
def test_marks_that_do_not_pair_are_told_and_nothing_is_replaced(marks):
    with pytest.raises(UserError, match="must have <!-- t: begin --> once, and after it <!-- t: end --> once"):
        tables.with_block(f"before {marks} after", "t", "block")


def test_a_bar_in_a_name_does_not_end_its_cell():
    text = tables.results_table([], [Published("a|b", roc_auc=0.9)])
    assert r"a\|b (published)" in text
    assert "0.900" in text


def test_text_tables_load_no_figures():
    code = "import sys, cxr_jax.reporting.tables; print('matplotlib' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
