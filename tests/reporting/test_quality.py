import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter

import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.evaluation.baselines import judge_baselines
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.numbers import number_text
from cxr_jax.evaluation.quality import ImageQuality, MeasureDefinition, SplitQuality, write_quality
from cxr_jax.evaluation.quality_audit import Chance, audit_errors, compare_errors, summarise
from cxr_jax.reporting.quality import form_of, over_exposure_text, quality_of
from cxr_jax.reporting.quality_figures import baselines_figure, draw_quality, quality_figure
from cxr_jax.reporting.report import render_report
from cxr_jax.runs.files import write_json
from cxr_jax.runs.folder import RunFolder

FEW = Confidence(resamples=50)

MEASURES = {
    "mean": MeasureDefinition("Mean <b>brightness</b>", "grey levels", "mean of all pixels"),
    "bright_area": MeasureDefinition("Bright area", "share", "pixels that look washed out"),
    "pixels": MeasureDefinition("Image size", "pixels", "width times height"),
}


def columns_of(predictions, seed, exposed=0.0):
    """Measures of made-up images; `exposed` is what wrongly called NORMAL images have more of."""
    random = np.random.default_rng(seed)
    wrong = (predictions.probability >= 0.5) & (predictions.label == 0)
    return {
        "mean": 120 + 8 * predictions.label + 10 * random.normal(size=len(predictions)),
        "bright_area": np.clip(0.2 + 0.02 * random.normal(size=len(predictions)) + exposed * wrong, 0, 1),
        "pixels": np.full(len(predictions), 50_176.0),
    }


def quality_with(example, exposed=0.0, threshold=0.5):
    train = columns_of(example.validation, 1)
    tables = {"train": train, "val": columns_of(example.validation, 2), "test": columns_of(example.test, 3, exposed)}
    images = {"train": len(example.validation), "val": len(example.validation), "test": len(example.test)}
    return ImageQuality(
        measures=MEASURES,
        splits={name: SplitQuality(images[name], 7, summarise(table)) for name, table in tables.items()},
        ranges={},
        audit=audit_errors(tables["test"], example.test, threshold, FEW),
        baselines=judge_baselines(
            train, example.validation.label, (tables["val"], example.validation), (tables["test"], example.test), FEW
        ),
    )


@pytest.fixture(scope="module")
def quality(example):
    # A low threshold makes false positives enough to be tested.
    return quality_with(example, threshold=0.1)


@pytest.fixture
def run(example, quality, tmp_path):
    folder = RunFolder(tmp_path / "run")
    write_json(folder.evaluation, example.judgement)
    write_quality(folder.quality, quality)
    return folder


def test_the_report_lays_out_audit_and_baselines(run, quality, example):
    html = render_report(run)
    assert html.count('id="quality"') == html.count('href="#quality"') == 1
    assert html.count('id="baselines"') == html.count('href="#baselines"') == 1
    assert over_exposure_text(quality, "false_positives") in html
    entry = quality.audit["false_positives"].measures["bright_area"]
    assert f"{entry.error_mean:.2%}" in html
    assert f"{entry.higher.value:.3f}" in html
    assert f"{quality.audit['false_positives'].errors} false positives" in html
    assert "7 of 140 test images (5.0%)" in html
    area = quality.baselines["all_measures"].test["roc_auc"].value
    assert f"{area:.3f}" in html
    assert "All called PNEUMONIA" in html
    assert "The same for all training images, so that nothing can be told by it: Image size." in html
    assert "pixels that look washed out" in html
    assert f"{example.judged.test.metrics['roc_auc'].value:.3f}" in html


def test_what_comes_from_the_file_is_escaped(run):
    html = render_report(run)
    assert "<b>" not in html
    assert "Mean &lt;b&gt;brightness&lt;/b&gt;" in html


def test_figures_stand_in_the_report_and_name_every_measure(run, quality, example):
    paths = draw_quality(run.figures, quality, example.judged)
    assert {path.name for path in paths} == {
        f"{name}.{end}" for name in ("quality", "baselines") for end in ("png", "svg")
    }
    html = render_report(run)
    assert 'id="figure-quality"' in html and 'id="figure-baselines"' in html
    for path in paths:
        if path.suffix == ".svg":
            ElementTree.parse(path)


def test_figures_show_the_numbers(quality, example):
    axes = quality_figure(quality).axes
    entry = quality.audit["false_positives"].measures["mean"]
    points = [tuple(line.get_xydata()[0]) for line in axes[0].lines if len(line.get_xydata()) == 1]
    assert (pytest.approx(entry.higher.value), 0) in points
    assert [label.get_text() for label in axes[0].get_yticklabels()] == [
        MEASURES[name].title for name in ("mean", "bright_area")
    ]
    axes = baselines_figure(quality, example.judged).axes[0]
    titles = [label.get_text() for label in axes.get_yticklabels()]
    assert titles[0] == "This network"
    assert titles[-1] == "All called PNEUMONIA"
    assert "Image size" not in titles
    low, high = axes.get_xlim()
    drawn = [x for line in axes.lines for x in np.atleast_1d(line.get_xdata())]
    assert low < min(drawn) and max(drawn) <= high


def test_errors_too_few_for_an_interval_have_no_point(example):
    quality = quality_with(example, threshold=0.5)
    missed = quality.audit["false_negatives"]
    unknown = {
        name: entry and dataclasses.replace(entry, higher=Chance(entry.higher.value, None))
        for name, entry in missed.measures.items()
    }
    audit = {**quality.audit, "false_negatives": dataclasses.replace(missed, measures=unknown)}
    quality = dataclasses.replace(quality, audit=audit)
    axes = quality_figure(quality).axes[1]
    assert [text.get_text() for text in axes.texts] == ["too few to compare"]
    assert not [line for line in axes.lines if len(line.get_xdata()) == 1]


def audit_of(values, wrong):
    """quality.json of NORMAL images with these bright areas, called PNEUMONIA where `wrong`, beside noise measures."""
    random = np.random.default_rng(0)
    noise = {f"noise {index}": random.normal(size=len(values)) for index in range(4)}
    compared = compare_errors({"bright_area": values} | noise, wrong, None, FEW)
    return ImageQuality(MEASURES, {}, {}, {"false_positives": compared}, {})


@pytest.mark.parametrize(
    ("exposed", "said"),
    [(0.05, "are over-exposed"), (-0.05, "are less exposed, not more"), (0.0, "are not shown to be over-exposed")],
)
def test_over_exposure_is_told_by_what_was_counted(exposed, said):
    wrong = np.arange(120) % 3 == 0
    values = np.random.default_rng(0).normal(0.2, 0.04, size=120) + exposed * wrong
    quality = audit_of(values, wrong)
    entry = quality.audit["false_positives"].measures["bright_area"]
    text = over_exposure_text(quality, "false_positives")
    assert said in text
    assert f"{entry.higher.value:.1%} of pairs" in text
    assert f"take {values[wrong].mean():.1%} of the false positives" in text


def test_the_sentence_agrees_with_its_own_interval():
    """Whatever the claim, the interval that stands beside it says the same, or the sentence says why not."""
    claims = Counter()
    for seed in range(150):
        random = np.random.default_rng(seed)
        wrong = np.arange(random.integers(40, 120)) % random.integers(2, 5) == 0
        # rare bright values move a mean and leave ranks alone: here the two statistics part
        values = random.normal(0.2, 0.02, size=len(wrong)) + random.normal(0, 0.015) * wrong
        values += 0.5 * wrong * (random.random(len(wrong)) < 0.2) * random.integers(0, 2)
        text = over_exposure_text(audit_of(values, wrong), "false_positives")
        found = re.search(r"interval ([\d.]+)% to ([\d.]+)%", text)
        if found is None:
            claims["untested"] += 1
            assert "cannot be tested" in text
            continue
        low, high = map(float, found.groups())
        explained = "no more than chance among 5 measures (p" in text
        if "not shown" in text:
            claims["explained" if explained else "not shown"] += 1
            # an end at 50.0 % may lie on either side
            assert 50 in (low, high) or explained != (low <= 50 <= high)
        else:
            claims["higher" if "are over-exposed" in text else "lower"] += 1
            assert not explained
            assert low > 50 if "are over-exposed" in text else high < 50
    assert min(claims[name] for name in ("higher", "lower", "not shown", "explained", "untested")) > 0


def test_without_errors_nothing_is_said(example):
    quality = quality_with(example, threshold=1.0)
    assert quality.audit["false_positives"].errors == 0
    assert over_exposure_text(quality, "false_positives") is None
    quality_figure(quality)


def test_a_run_without_quality_has_no_section(example, tmp_path):
    run = RunFolder(tmp_path / "bare")
    write_json(run.evaluation, example.judgement)
    assert quality_of(run) is None
    assert "quality" not in render_report(run).split("<main>")[0].split("<body>")[1]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"schema_version": 99}, "another version"), ({"audit": {}}, "damaged"), ({"splits": []}, "damaged")],
)
def test_a_damaged_file_is_one_sentence(run, quality, change, sentence):
    write_json(run.quality, {**quality.as_json(), **change})
    with pytest.raises(UserError, match=sentence):
        render_report(run)


def test_values_are_written_by_their_unit():
    assert number_text(0.0791, form_of("share")) == "7.91%"
    assert number_text(1_230_449.0, form_of("pixels")) == "1,230,449"
    assert number_text(123.44, form_of("grey levels")) == "123.4"
    assert number_text(2.344, form_of("degrees")) == "2.34"
    assert number_text(0.0126, form_of("")) == "0.013"
    assert number_text(-0.00002, form_of("share")) == "0.00%"
    assert number_text(-0.2, form_of("grey levels")) == "−0.2"
    assert number_text(0.2, form_of("grey levels", signed=True)) == "+0.2"
    assert number_text(-0.00002, form_of("share", signed=True)) == "+0.00%"
