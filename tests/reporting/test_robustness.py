"""What is told of a network on degraded images, in the figure, in the terminal and in the report."""

from dataclasses import replace

import numpy as np
import pytest

from cxr_jax.evaluation.conformal import ConformalSets
from cxr_jax.evaluation.robustness import Robustness, level_of, mean_error, told_kinds, write_robustness
from cxr_jax.reporting.report import render_report
from cxr_jax.reporting.robustness import robustness_rows
from cxr_jax.reporting.robustness_figure import robustness_figure
from cxr_jax.runs.files import write_json
from cxr_jax.runs.folder import RunFolder

KINDS = ("noise", "blur", "letters")


@pytest.fixture(scope="module")
def measured(example):
    """A record of three kinds, of which blur costs most."""
    sets, table = ConformalSets.of(example.validation).rule(), example.validation

    def level(kind, severity):
        loss = severity * {"clean": 0, "noise": 0.02, "blur": 0.16, "letters": 0.05}[kind]
        worse = replace(table, logits=None, probability=(1 - loss) * table.probability)
        return level_of(kind, severity, worse, 0.4, sets, np.arange(len(table)) < 10 * severity)

    levels = tuple(level(kind, severity) for kind in KINDS for severity in range(1, 6))
    return Robustness("val", len(table), 0.4, 0, "abc", level("clean", 0), levels, mean_error(levels))


def test_the_figure_has_a_panel_for_each_kind_that_begins_with_the_images_as_they_are(measured):
    figure = robustness_figure(measured)
    panels = figure.axes[: len(KINDS)]
    assert [panel.get_title(loc="left") or panel.get_title() for panel in panels] == list(KINDS)
    for panel, kind in zip(panels, KINDS, strict=True):
        lines = {line.get_label(): line.get_ydata() for line in panel.get_lines()}
        assert set(lines) == {"ROC-AUC", "sensitivity", "specificity", "uncertain", "unlike training"}
        expected = [level.sensitivity.value for level in (measured.clean, *measured.of(kind))]
        assert list(lines["sensitivity"]) == expected


def test_kinds_are_told_from_the_one_that_costs_most_and_relative_to_a_reference_where_there_is_one(measured):
    assert told_kinds(measured)[0].name == "blur"
    rows = robustness_rows(measured)
    assert [row.split()[0] for row in rows[2:6]] == ["clean", *(told.name for told in told_kinds(measured))]
    assert f"{measured.mean_error:.1%}" in rows[-1] and "relative" not in rows[-1]
    told = robustness_rows(replace(measured, reference="plain", mean_corruption_error=0.87))
    assert "relative to plain: 87.0%" in told[-1]


def test_the_report_shows_the_record_of_validation_and_that_of_test_where_there_is_one(measured, example, tmp_path):
    run = RunFolder(tmp_path / "run")
    write_json(run.evaluation, example.judgement)
    assert "Degraded images" not in render_report(run)
    write_robustness(run.robustness_of("val"), replace(measured, reference="plain", mean_corruption_error=0.87))
    page = render_report(run)
    told = page[page.index('<section id="robustness">') :]
    told = told[: told.index("</section>")]
    assert f"<strong>{measured.mean_error:.1%}</strong>" in told and "Relative to plain" in told and "87.0%" in told
    assert told.count('<th scope="row">') == 1 + len(KINDS)
    assert told.index(">blur<") < told.index(">noise<")
    assert "validation images made worse" in told and "the threshold that was fixed on them as they are" in told
    write_robustness(run.robustness_of("test"), replace(measured, split="test", wrong={}))
    page = render_report(run)
    assert "test images made worse" in page and "the threshold that was fixed on validation." in page
    assert "Relative to plain" not in page
