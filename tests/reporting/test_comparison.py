"""Records, tables, CSV and figure of a comparison, on runs made up for the purpose."""

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from cxr_jax.errors import UserError
from cxr_jax.evaluation.comparison import compare
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.intervals import Interval
from cxr_jax.evaluation.operating_point import choose_operating_point, write_operating_point
from cxr_jax.evaluation.pooled_audit import PooledAudit, PooledMeasure, pool_audits
from cxr_jax.evaluation.quality import ImageQuality, MeasureDefinition, read_quality, write_quality
from cxr_jax.evaluation.quality_audit import Chance, audit_errors
from cxr_jax.explain.record import MapChecks, write_checks
from cxr_jax.explain.verdict import Check, Verdict
from cxr_jax.models.size import measure
from cxr_jax.reporting import (
    comparison_cells,
    comparison_csv,
    comparison_figure,
    comparison_page,
    comparison_quality,
    comparison_table,
    recipe_records,
)
from cxr_jax.reporting.published import PUBLISHED
from cxr_jax.reporting.recipe_records import Costs, read_recipe
from cxr_jax.runs.files import write_json, write_text
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.ledger import append_look
from cxr_jax.runs.metrics_log import MetricsLog
from cxr_jax.runs.predictions import Predictions, read_predictions, write_predictions
from cxr_jax.runs.recipes import RecipeFiles, find_recipes
from cxr_jax.runs.trained_on import OFFICIAL_TEST

QUICK = Confidence(resamples=100)
ARCHITECTURE = "mobilenetv2_tiny"


def predictions(seed, *, split="test", normals=30, pneumonia=50, skill=1.0):
    random = np.random.default_rng(seed)
    label = np.r_[np.zeros(normals, int), np.ones(pneumonia, int)]
    margin = random.normal(size=len(label)) + skill * (2 * label - 1)
    return Predictions.from_logits(
        np.stack([-margin / 2, margin / 2], axis=1),
        file=[f"{split}/{i}.jpeg" for i in range(len(label))],
        split=[split] * len(label),
        group=[f"{split}-{positive}-{i // 2}" for i, positive in enumerate(label)],
        subtype=["virus" if positive else "normal" for positive in label],
        label=label,
    )


def make_run(path, seed, *, rate=0.01, skill=1.0, looks=1, rule="sensitivity", minutes=8.0, cores=2):
    """A run folder as training and evaluation leave it, as far as a comparison reads it."""
    run = RunFolder(path)
    write_text(run.config, f"[training]\nseed = {seed}\n[optimizer]\nlearning_rate = {rate}\n")
    validation = predictions(100 + seed, split="val", skill=skill)
    write_predictions(run.predictions_of("val"), validation)
    write_predictions(run.predictions_of("test"), predictions(seed, skill=skill))
    write_operating_point(run.operating_point, choose_operating_point(validation, rule=rule, target_sensitivity=0.9))
    network = {"architecture": ARCHITECTURE, "classes": ["NORMAL", "PNEUMONIA"], "image_size": 48, "parameters": 1234}
    write_json(run.network, network)
    machine = {"cores": cores, "processor": "Slow 3000"}
    write_json(run.environment, {"schema_version": 1, "machine": machine, "devices": ["gpu H900", "gpu H900"]})
    for _ in range(looks):
        append_look(run, {"threshold": 0.5})
    with MetricsLog(run.metrics) as log:
        for step, speed in enumerate((5.0, 40.0 + seed, 41.0 + seed), start=1):
            log.write("train", step=step, images_per_second=speed, seconds=float(step))
        log.write("end", reason="finished", step=3, seconds=60 * minutes)
    return run


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """A folder of two recipes with three and two seeds."""
    folder = tmp_path_factory.mktemp("studies")
    for seed in range(3):
        make_run(folder / "good" / f"seed{seed}", seed, skill=1.6, minutes=8 + seed, looks=1 + (seed == 1))
    for seed in range(3, 5):
        make_run(folder / "plain" / f"seed{seed}", seed, rate=0.1)
    return folder


@pytest.fixture(scope="module")
def records(studies):
    return [read_recipe(files) for files in find_recipes([str(studies)])]


@pytest.fixture(scope="module")
def result(records):
    return compare([record.recipe for record in records], QUICK)


def files_of(*paths, name="recipe"):
    return RecipeFiles(name, paths)


def cells(markdown, title):
    """The rows of the table below a heading."""
    block = markdown.split(f"## {title}\n\n")[1].split("\n\n")[0].strip()
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in block.splitlines()]


def test_the_work_of_a_denoiser_is_counted(tmp_path):
    run = make_run(tmp_path / "denoised", 0)
    write_json(run.network, {**json.loads(run.network.read_text()), "denoiser": 4})
    found = read_recipe(files_of(run.path)).costs.multiply_adds
    assert found == measure(ARCHITECTURE, classes=2, image_size=48, denoiser=4).multiply_adds
    assert found > measure(ARCHITECTURE, classes=2, image_size=48).multiply_adds


def test_a_record_holds_what_the_runs_say(studies, records):
    good, plain = records
    assert (good.recipe.name, plain.recipe.name) == ("good", "plain")
    assert good.paths == tuple(studies / "good" / f"seed{seed}" for seed in range(3))
    assert good.looks == (1, 2, 1)
    assert good.rule == "sensitivity 90 % on validation"
    assert not good.chosen_anew
    stored = [json.loads((path / "operating_point.json").read_text())["threshold"] for path in good.paths]
    assert good.recipe.thresholds == tuple(stored)
    assert good.costs == Costs(
        parameters=1234,
        multiply_adds=measure(ARCHITECTURE, classes=2, image_size=48).multiply_adds,
        images_per_second=41.0,
        minutes=9.0,
        machine="2 x H900, 2 cores of Slow 3000",
    )


def test_a_rule_for_all_chooses_on_validation_alone(studies):
    (files,) = find_recipes([str(studies / "good")])
    record = read_recipe(files, {"rule": "youden"})
    assert (record.rule, record.chosen_anew) == ("Youden on validation", True)
    for path, threshold in zip(record.paths, record.recipe.thresholds, strict=True):
        validation = read_predictions(path / "predictions" / "val.csv")
        assert threshold == choose_operating_point(validation, rule="youden").threshold
    costly = read_recipe(files, {"rule": "cost_ratio", "cost_ratio": 3.0, "target_sensitivity": 0.5})
    assert costly.rule == "cost ratio 3 on validation"


def test_a_bare_table_has_neither_costs_nor_looks_nor_an_operating_point(tmp_path):
    write_predictions(tmp_path / "keras.csv", predictions(1))
    record = read_recipe(files_of(tmp_path / "keras.csv"), {"rule": "youden"})
    assert (record.recipe.thresholds, record.rule, record.looks, record.costs) == (None, None, None, Costs())
    judged = RunFolder(tmp_path / "judged")
    write_predictions(judged.predictions_of("test"), predictions(1))
    assert read_recipe(files_of(judged.path)).costs == Costs()
    assert read_recipe(files_of(judged.path), {"rule": "youden"}).recipe.thresholds is None


def test_costs_that_a_run_does_not_state_are_unknown(tmp_path):
    run = make_run(tmp_path / "run", 0)
    write_json(run.network, {"architecture": "of another version", "classes": ["a", "b"], "image_size": 48})
    write_json(run.environment, {"schema_version": 1, "devices": ["cpu cpu"]})
    run.metrics.unlink()
    assert read_recipe(files_of(run.path)).costs == Costs()
    for path in (run.network, run.environment, run.ledger, run.operating_point):
        path.unlink()
    record = read_recipe(files_of(run.path))
    assert (record.costs, record.looks, record.recipe.thresholds) == (Costs(), None, None)


def test_a_run_that_was_not_evaluated_is_one_sentence(tmp_path):
    run = make_run(tmp_path / "run", 0)
    run.predictions_of("test").unlink()
    with pytest.raises(UserError, match=r"has not been evaluated; run cxr-jax evaluate .*run first"):
        read_recipe(files_of(run.path))


def test_runs_that_differ_in_more_than_the_seed_are_no_recipe(tmp_path):
    one, other = make_run(tmp_path / "seed0", 0), make_run(tmp_path / "seed1", 1, rate=0.5)
    with pytest.raises(UserError, match=r"are not seeds of one recipe, they differ in optimizer\.learning_rate: put"):
        read_recipe(files_of(one.path, other.path))
    # what an older version had no field for, and the seed of the split, make no other recipe
    text = "[training]\nseed = 1\n[optimizer]\nlearning_rate = 0.01\nnesterov = true\n[data]\nsplit_seed = 1\n"
    write_text(other.config, text)
    assert len(read_recipe(files_of(one.path, other.path)).recipe.tables) == 2


def test_a_copy_is_no_second_seed(tmp_path):
    one, other = make_run(tmp_path / "seed0", 0), make_run(tmp_path / "seed1", 1)
    write_predictions(other.predictions_of("test"), predictions(0))
    with pytest.raises(UserError, match=r"seed0 and .*seed1 hold the same predictions: a copy is no second seed"):
        read_recipe(files_of(one.path, other.path))


def test_a_run_of_a_newer_version_is_one_sentence(tmp_path):
    run = make_run(tmp_path / "run", 0)
    write_json(run.environment, {"schema_version": 99})
    with pytest.raises(UserError, match="newer cxr_jax"):
        read_recipe(files_of(run.path))


def test_the_markdown_has_every_value_of_the_comparison(records, result):
    text = comparison_page.comparison_markdown(result, records, links={"good": "there/good"}, figure="a/b.png")
    assert text.startswith("80 images, 50 of them PNEUMONIA, in 40 groups")
    assert "](a/b.png)" in text
    endpoints = result.recipes["good"].endpoints
    header, _, good, plain = cells(text, "Probabilities")
    assert header == ["Recipe", "Seeds", "ROC-AUC", "PR-AUC", "Brier", "Looks at test"]
    auc = endpoints["roc_auc"]
    ends = f"({auc.interval.low:.3f}–{auc.interval.high:.3f})"
    assert good[:3] == ["[good](there/good)", "3", f"{auc.mean:.3f} ± {auc.deviation:.3f} {ends}"]
    assert (good[-1], plain[0], plain[-1]) == ("1, 2, 1", "plain", "1")
    for title, at, first in (
        ("Calls at threshold 0.5", "half", 1),
        ("Calls at the operating point", "operating_point", 2),
    ):
        header, _, good, _ = cells(text, title)
        names = ["Accuracy, %", "Balanced accuracy, %", "Sensitivity, %", "Specificity, %", "MCC"]
        assert header[first:] == names
        value = endpoints[f"specificity@{at}"]
        assert good[header.index("Specificity, %")].startswith(f"{100 * value.mean:.1f} ± {100 * value.deviation:.1f}")
    assert cells(text, "Calls at the operating point")[2][1].count("<br>") == 2
    assert "that each run fixed before it was evaluated on test (sensitivity 90 % on validation)" in text
    assert cells(text, "Costs")[2][1:] == ["0.00 M", "0.00 G", "41.0", "9.0"]
    assert "Machine: 2 x H900, 2 cores of Slow 3000." in text
    _, _, pair = cells(text, "Differences at threshold 0.5")
    answer = result.pairs[0].endpoints["roc_auc"]
    low, high = (getattr(answer.over_seeds.interval, end) for end in ("low", "high"))
    expected = f"{answer.difference:+.3f} ({low:+.3f} to {high:+.3f})".replace("-", "−")
    assert pair[:2] == ["good<br>− plain", expected + pair[1][len(expected) :]]
    assert pair[1].count("<br>p ") == 2
    assert "(ROC-AUC: Obuchowski; accuracy: McNemar, clustered, group bootstrap; sensitivity and specificity: " in text
    assert "Retrained: other patients and other seeds" in text
    assert "corrected for" not in text  # one pair needs no correction
    assert "published" not in text


def test_the_operating_point_is_told_for_the_rule_first_and_then_for_these_thresholds(records, result):
    text = comparison_page.comparison_markdown(result, records)
    given, ruled = (result.recipes["plain"].endpoints[f"specificity@{at}"] for at in ("operating_point", "rule"))
    ends = [f"({100 * one.interval.low:.1f}–{100 * one.interval.high:.1f})" for one in (ruled, given)]
    mean = f"{100 * given.mean:.1f} ± {100 * given.deviation:.1f}"
    assert cells(text, "Calls at the operating point")[3][5] == f"{mean}<br>rule {ends[0]}<br>threshold {ends[1]}"
    cell = cells(text, "Differences at the operating point")[2][3]
    first, second = (part.strip("<br>") for part in cell.split("these thresholds"))
    for part, at in ((first, "rule"), (second, "operating_point")):
        answer = result.pairs[0].endpoints[f"specificity@{at}"]
        assert f"({100 * answer.over_seeds.interval.low:+.1f} to".replace("-", "−") in part
        assert part.count("p ") == 2
    assert "not simultaneous" not in text  # one pair
    # the figure draws the interval of the rule
    axes = next(a for a in comparison_figure.comparison_figure(result).axes if a.get_title(loc="left") == "Specificity")
    drawn_ends = [tuple(line.get_xdata()) for line in axes.lines if len(line.get_xdata()) == 2]
    assert (ruled.interval.low, ruled.interval.high) in drawn_ends
    assert (given.interval.low, given.interval.high) not in drawn_ends


def test_a_p_value_that_is_only_bounded_is_told_as_such():
    assert comparison_cells.p_text(0.0279, bounded=True) == "< 0.028"
    assert comparison_cells.p_text(0.0279) == "0.028"
    assert comparison_cells.p_text(0.0004) == comparison_cells.p_text(0.0004, bounded=True) == "< 0.001"


def test_thresholds_just_below_one_do_not_look_like_one_and_rules_are_told_apart(records, result):
    recipe = dataclasses.replace(records[0].recipe, thresholds=(0.99997, 1.0, 0.25))
    other = dataclasses.replace(records[1], rule="Youden on validation", chosen_anew=True)
    changed = [dataclasses.replace(records[0], recipe=recipe), other]
    text = comparison_page.comparison_markdown(result, changed)
    assert cells(text, "Calls at the operating point")[2][1] == "0.99997<br>1<br>0.25"
    assert "(good: sensitivity 90 % on validation; plain: Youden on validation)" in text
    assert "chosen for this comparison on the validation predictions" in text


def test_a_correction_counts_the_comparisons_that_were_made_over_seeds_by_themselves(tmp_path):
    for seed in range(3):
        write_predictions(tmp_path / f"good/seed{seed}.csv", predictions(seed, skill=2))
        write_predictions(tmp_path / f"plain/seed{seed}.csv", predictions(3 + seed, skill=1))
    write_predictions(tmp_path / "once.csv", predictions(6, skill=1))
    recipes = find_recipes([str(tmp_path / name) for name in ("good", "plain", "once.csv")])
    records = [read_recipe(entry) for entry in recipes]
    result = compare([record.recipe for record in records], QUICK)
    over_seeds = [pair.endpoints["roc_auc"].over_seeds for pair in result.pairs]
    alone = next(answer for answer in over_seeds if answer is not None)
    assert alone.adjusted_p_value == alone.p_value and over_seeds.count(None) == 2
    text = comparison_page.comparison_markdown(result, records)
    assert "corrected for 3 comparisons a column (1 retrained) by Holm (1979)" in text


def test_single_seeds_say_what_cannot_be_said_and_several_pairs_how_they_were_corrected(tmp_path):
    for seed in range(3):
        write_predictions(tmp_path / f"{seed}.csv", predictions(seed, skill=1 + seed))
    records = [read_recipe(files_of(tmp_path / f"{seed}.csv", name=f"r|{seed}")) for seed in range(3)]
    result = compare([record.recipe for record in records], QUICK)
    text = comparison_page.comparison_markdown(result, records)
    assert "another seed may turn the difference round" in text
    assert "Retrained:" not in text
    assert "corrected for 3 comparisons a column by Holm (1979)" in text
    assert "They are not simultaneous" in text
    assert "## Costs" not in text
    assert "operating point" not in text
    assert r"| r\|0 | 1 |" in text
    answer = result.pairs[0].endpoints["accuracy@half"]
    told = "< 0.001" if answer.adjusted_p_value < 0.001 else f"{answer.adjusted_p_value:.3f}"
    assert cells(text.replace(r"r\|", "r"), "Differences at threshold 0.5")[2][2].endswith(f"<br>p {told} as trained")


def test_machines_that_differ_are_named(records, result):
    other = dataclasses.replace(records[1], costs=Costs(minutes=1.0, machine="8 cores of Fast"))
    text = comparison_page.comparison_markdown(result, [records[0], other])
    assert "Machines differ, so speeds do not compare (good: 2 x H900" in text
    assert cells(text, "Costs")[3] == ["plain", "–", "–", "–", "1.0"]


def test_values_that_do_not_exist_are_a_dash(tmp_path):
    for seed in range(2):
        table = predictions(seed)
        write_predictions(tmp_path / f"{seed}.csv", table.select(table.label == 1))
    records = [read_recipe(files_of(tmp_path / f"{seed}.csv", name=str(seed))) for seed in range(2)]
    result = compare([record.recipe for record in records], QUICK)
    text = comparison_page.comparison_markdown(result, records)
    assert cells(text, "Probabilities")[2][2] == "–"
    assert cells(text, "Differences at threshold 0.5")[2][1] == "–"
    assert "ROC-AUC: not testable" in text
    comparison_figure.comparison_figure(result)


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """Two recipes: one whose runs keep audits and one check of heat maps, and one that keeps neither."""
    folder = tmp_path_factory.mktemp("audited")
    for seed in range(3):
        run = make_run(folder / "seen" / f"seed{seed}", seed, skill=0.7)
        make_run(folder / "bare" / f"seed{seed}", 5 + seed)
        table = read_predictions(run.predictions_of("test"))
        random = np.random.default_rng(0)
        threshold = json.loads(run.operating_point.read_text())["threshold"]
        wrong = (table.probability >= threshold) & (table.label == 0)
        columns = {"mean": 120 + 10 * random.normal(size=len(table)) + 3 * wrong, "pixels": random.random(len(table))}
        titles = {"mean": ("Mean brightness", "grey levels"), "pixels": ("Image size", "pixels")}
        measures = {name: MeasureDefinition(*told, "") for name, told in titles.items()}
        audit = audit_errors(columns, table, threshold, QUICK)
        write_quality(run.quality, ImageQuality(measures, {}, {}, audit, {}))
        if seed < 2:
            check = Check("border", "Lies at the border less than chance", "", "", "")
            verdicts = (Verdict(check, seed == 0, "", {}), check.no_verdict("few"))
            write_checks(run, MapChecks(1, "head", {}, 0, 0, 0, verdicts[: 1 + seed], None, None))
    return [read_recipe(files) for files in find_recipes([str(folder)])]


def test_errors_and_checks_are_pooled_over_the_seeds_of_a_recipe(audited):
    bare, seen = audited
    entry = seen.audits["false_positives"].measures["mean"]
    runs = [read_quality(path / "quality.json").audit["false_positives"] for path in seen.paths]
    assert entry == pool_audits(runs).measures["mean"]
    assert (bare.audits, bare.checks) == ({}, ())
    text = comparison_page.comparison_markdown(compare([bare.recipe, seen.recipe], QUICK), audited)
    rows = cells(text, "Errors and image quality")
    assert [row[0] for row in rows[2:]] == ["seen<br>false positives", "seen<br>false negatives"]
    counts = ", ".join(str(run.errors) for run in runs)
    difference = f"{entry.difference:+.1f} ({entry.interval.low:+.1f} to {entry.interval.high:+.1f})".replace("-", "−")
    assert rows[2][1:3] == [
        counts,
        f"{difference}<br>higher in {entry.higher_in} of 3 seeds" + rows[2][2].split("seeds")[1],
    ]
    assert comparison_quality.brightness_text("seen", seen.audits["false_positives"]) in text
    # of two checked seeds one passes
    assert cells(text, "Checks of heat maps")[2] == ["seen", "2 of 3", "passes in 1 of 2"]
    assert "Not checked (cxr-jax explain RUN --check): bare." in text
    kept = read(comparison_csv.errors_csv(audited))
    first = next(row for row in kept if (row["errors"], row["measure"]) == ("false_positives", "mean"))
    assert (first["recipe"], first["verdict"], first["seeds"]) == ("seen", entry.verdict, "3")
    assert float(first["difference"]) == entry.difference
    second = next(row for row in kept if (row["errors"], row["measure"]) == ("false_positives", "pixels"))
    chance = seen.audits["false_positives"].measures["pixels"].higher
    assert float(second["chance_high"]) == chance.interval.high


def test_audits_at_another_threshold_are_no_audits_of_this_comparison(audited):
    files = RecipeFiles("seen", audited[1].paths)
    assert read_recipe(files, {"rule": "youden"}).audits == {}


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("higher", "false positives are brighter than right calls of NORMAL (p < 0.001 corrected for 1 measures)"),
        ("lower", "false positives are darker than right calls of NORMAL"),
        ("not shown", "false positives are not shown to be brighter or darker than right calls of NORMAL"),
        ("not tested", "whether false positives are brighter than right calls of NORMAL cannot be tested"),
    ],
)
def test_what_is_not_shown_is_never_said_not_to_be(verdict, said):
    tested = verdict != "not tested"
    entry = PooledMeasure(
        differences=(7.0, 4.0, -0.5),
        difference=3.5,
        interval=Interval(-1.0, 8.0, "") if tested else None,
        higher=Chance(0.6, Interval(0.4, 0.8, "")),
        p_value=1e-5 if tested else None,
        adjusted_p_value=1e-5 if tested else None,
        verdict=verdict,
    )
    text = comparison_quality.brightness_text("best", PooledAudit((9,), (9,), {"mean": entry}))
    assert text.startswith(f"best: {said}")
    ends = " (95 % interval of the difference −1.0 to +8.0)" if tested else ""
    assert text.endswith(f"differ by +3.5 grey levels, and are brighter in 2 of 3 seeds{ends}.")
    assert comparison_quality.brightness_text("best", PooledAudit((0,), (9,), {"mean": None})) is None


def official(tmp_path):
    counts = {"normals": OFFICIAL_TEST["NORMAL"], "pneumonia": OFFICIAL_TEST["PNEUMONIA"]}
    write_predictions(tmp_path / "mine.csv", predictions(1, **counts))
    record = read_recipe(files_of(tmp_path / "mine.csv", name="mine"))
    return compare([record.recipe], QUICK), [record]


def test_published_results_stand_beside_the_official_test_split_alone(tmp_path, result):
    mine, records = official(tmp_path)
    assert comparison_table.published_beside(mine) == PUBLISHED
    assert comparison_table.published_beside(result) == ()
    assert comparison_table.published_beside(dataclasses.replace(mine, pneumonia=391)) == ()
    text = comparison_page.comparison_markdown(mine, records)
    rows = {row[0]: row for row in cells(text, "Calls at threshold 0.5")}
    assert rows["Barnett 2023, scratch (published)"][1:] == ["78.4", "–", "–", "–", "–"]
    assert rows["Barnett 2023, transfer (published)"][1] == "79.5"
    assert rows["Lee 2024, EfficientNetV2-S (published)"][1:] == ["85.7", "–", "90.0", "78.6", "–"]
    assert cells(text, "Probabilities")[2][:3] == ["Lee 2024, EfficientNetV2-S (published)", "1", "0.905"]
    assert "Differences" not in text


def test_no_figure_of_the_terminal_tables_is_cut_off(records, result):
    text = io.StringIO()
    console = Console(file=text, width=100)
    for table in comparison_page.terminal_tables(result, records):
        console.print(table)
    printed = text.getvalue()
    assert "…" not in printed
    value = result.recipes["plain"].endpoints["roc_auc"]
    assert f"{value.mean:.3f} ± {value.deviation:.3f}" in printed
    assert "Differences at the operating point" in printed


def read(text):
    return list(csv.DictReader(io.StringIO(text)))


def test_csv_holds_every_number_in_full(records, result):
    recipes = read(comparison_csv.recipes_csv(result))
    assert len(recipes) == 2 * len(result.endpoints)
    for row in recipes:
        at = {"": "", "0.5": "@half", "operating point": "@operating_point", "rule": "@rule"}[row["threshold"]]
        summary = result.recipes[row["recipe"]].endpoints[row["metric"] + at]
        assert float(row["mean"]) == summary.mean
        assert [float(value) for value in row["values"].split()] == pytest.approx(summary.values, rel=1e-5)
        assert row["low"] == ("" if summary.interval is None else str(summary.interval.low))
    pairs = read(comparison_csv.pairs_csv(result))
    assert len(pairs) == len(result.endpoints)
    accuracy = next(row for row in pairs if (row["metric"], row["threshold"]) == ("accuracy", "0.5"))
    answer = result.pairs[0].endpoints["accuracy@half"]
    assert (accuracy["first"], accuracy["second"], accuracy["test"]) == ("good", "plain", "McNemar, clustered")
    for name in ("difference", "p_value", "adjusted_p_value", "only_first_right"):
        assert float(accuracy[name]) == getattr(answer, name)
    assert float(accuracy["low"]) == answer.interval.low
    assert float(accuracy["retrained_high"]) == answer.over_seeds.interval.high
    assert float(accuracy["retrained_p_value"]) == answer.over_seeds.p_value
    costs = read(comparison_csv.costs_csv(records))
    assert (costs[0]["recipe"], costs[0]["looks"], costs[0]["parameters"]) == ("good", "1 2 1", "1234")


def test_csv_leaves_out_what_does_not_exist(tmp_path):
    write_predictions(tmp_path / "a.csv", predictions(1).select(np.arange(30, 80)))
    record = read_recipe(files_of(tmp_path / "a.csv"))
    result = compare([record.recipe], QUICK)
    names = {row["metric"] for row in read(comparison_csv.recipes_csv(result))}
    assert "sensitivity" in names
    assert "roc_auc" not in names
    assert read(comparison_csv.pairs_csv(result)) == []
    assert read(comparison_csv.costs_csv([record]))[0]["minutes"] == ""


def drawn(axes):
    """The points of every line of a panel that has some, by marker."""
    points = {}
    for line in axes.lines:
        if len(line.get_xdata()) and line.get_marker() not in ("None", ""):
            points.setdefault(line.get_marker(), []).extend(float(x) for x in line.get_xdata())
    return points


def test_the_figure_shows_means_and_seeds_of_four_metrics(result):
    figure = comparison_figure.comparison_figure(result)
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert list(panels) == ["ROC-AUC", "Accuracy", "Sensitivity", "Specificity"]
    recipes = result.recipes.values()
    means = [recipe.endpoints["roc_auc"].mean for recipe in recipes]
    seeds = [value for recipe in recipes for value in recipe.endpoints["roc_auc"].values]
    assert drawn(panels["ROC-AUC"]) == {"D": pytest.approx(means), "o": pytest.approx(seeds)}
    squares = [recipe.endpoints["specificity@operating_point"].mean for recipe in recipes]
    assert drawn(panels["Specificity"])["s"] == pytest.approx(squares)
    labels = [label.get_text() for label in panels["ROC-AUC"].get_yticklabels()]
    assert labels == ["good", "plain"]
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told == [
        "mean, 95 % interval for other patients and seeds",
        "at threshold 0.5",
        "at the operating point, by its rule",
        "one seed",
    ]


def test_the_figure_marks_published_results(tmp_path):
    mine, _ = official(tmp_path)
    figure = comparison_figure.comparison_figure(mine)
    assert drawn(figure.axes[1])["x"] == pytest.approx([489 / 624, 496 / 624, 535 / 624])
    assert drawn(figure.axes[0])["x"] == [0.905]
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told == ["mean, 95 % interval for other patients", "at threshold 0.5", "published"]


def test_a_fixed_rule_and_an_unknown_one_are_told(tmp_path):
    run = make_run(tmp_path / "run", 0, rule="fixed")
    assert read_recipe(files_of(run.path)).rule == "0.5 fixed beforehand"
    point = json.loads(run.operating_point.read_text())
    write_json(run.operating_point, {**point, "rule": "coin"})
    assert recipe_records.read_recipe(files_of(run.path)).rule == "coin"
