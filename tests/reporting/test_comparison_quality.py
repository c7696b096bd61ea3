"""Errors, image quality and checks of heat maps in a comparison, on runs made up for the purpose."""

import json

import numpy as np
import pytest

from cxr_jax.evaluation.comparison import compare
from cxr_jax.evaluation.intervals import Interval
from cxr_jax.evaluation.pooled_audit import PooledAudit, PooledMeasure, pool_audits
from cxr_jax.evaluation.quality import ImageQuality, MeasureDefinition, read_quality, write_quality
from cxr_jax.evaluation.quality_audit import Chance, audit_errors
from cxr_jax.explain.record import MapChecks, write_checks
from cxr_jax.explain.verdict import Check, Verdict
from cxr_jax.reporting import comparison_csv, comparison_page, comparison_quality
from cxr_jax.reporting.recipe_records import read_recipe
from cxr_jax.runs.predictions import read_predictions
from cxr_jax.runs.recipes import RecipeFiles, find_recipes
from tests.reporting.compared_runs import QUICK, cells, make_run, read


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
