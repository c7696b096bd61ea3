import base64
import dataclasses
import io
import shlex
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cxr_jax.explain.record import CascadeRecord, CurvesRecord, MapChecks, write_checks
from cxr_jax.explain.verdict import Check, Line, Mean, Verdict
from cxr_jax.reporting.explanations import (
    CAPTIONS,
    checks_table,
    curves_figure,
    draw_checks,
    explanations_of,
    heading,
    randomisation_figure,
)
from cxr_jax.reporting.report import render_report
from cxr_jax.runs.files import write_json
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.ledger import append_look
from cxr_jax.runs.publication import CHECK_FIGURES

PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")


def check(name, passes, value, measure="share"):
    made = Check(name, f"Title of {name}", "Paper 2020", measure, "lower end above 0")
    means = {} if passes is None else {"NORMAL": Mean(value, value - 0.1, value + 0.1)}
    return Verdict(made, passes, f"What {name} found <b>.", means)


@pytest.fixture
def findings():
    line = Line((0.4, 0.1, 0.0), (0.3, 0.0, -0.1), (0.5, 0.2, 0.1))
    curves = {"map": (0.0, 0.8, 1.0), "random maps": (0.0, 0.5, 1.0), "map of another image": (0.0, 0.6, 1.0)}
    return MapChecks(
        step=70,
        stage="conv_head",
        explained={"NORMAL": 9, "PNEUMONIA": 0},
        images=9,
        groups=7,
        blank=2,
        checks=(
            check("randomisation", True, 0.2),
            check("insertion", False, 0.05, "area, less that of random maps"),
            check("deletion", True, -0.2, "area, less that of random maps"),
            check("seeds", None, 0),
        ),
        cascade=CascadeRecord(("classifier", "conv_head", "conv_stem"), line, line, (0.0, 0.0, 0.0), 0.3),
        curves=CurvesRecord((0.0, 0.5, 1.0), {"NORMAL": {"insertion": curves, "deletion": curves}}),
    )


@pytest.fixture
def run(example, tmp_path):
    """A judged run with one page of pictures."""
    made = RunFolder(tmp_path / "a_run")
    write_json(made.evaluation, example.judgement)
    made.explanations.mkdir()
    (made.explanations / "panel.png").write_bytes(PIXEL)
    return made


def test_figures_are_drawn_under_the_names_of_their_captions(findings, tmp_path):
    maps = np.random.default_rng(0).random((2, 4, 7, 7))
    paths = draw_checks(tmp_path, findings, maps[:, 0], maps[:, 1:])
    assert sorted(path.name for path in paths) == sorted(
        f"{name}.{kind}" for name, _ in CAPTIONS for kind in ("png", "svg")
    )


def test_the_cascade_shows_every_level_and_map(findings):
    maps = np.random.default_rng(0).random((2, 4, 7, 7))
    lines, *pictures = randomisation_figure(findings, maps[:, 0], maps[:, 1:]).axes
    assert [label.get_text() for label in lines.get_yticklabels()] == [
        "trained",
        "classifier",
        "conv_head",
        "conv_stem",
    ]
    shown = [axes.images[0].get_array() for axes in pictures]
    np.testing.assert_array_equal(np.array(shown), maps.reshape(8, 7, 7))
    places = [axes.get_subplotspec() for axes in pictures]
    assert [(place.colspan.start - 1, place.rowspan.start) for place in places] == list(np.ndindex(2, 4))
    values = {line.get_label(): line.get_xdata() for line in lines.get_lines()}
    np.testing.assert_array_equal(values["rank correlation"], [0.4, 0.1, 0.0])


def test_curves_state_their_areas_and_the_difference(findings):
    figure = curves_figure(findings)
    insertion, deletion = figure.axes
    assert insertion.get_title(loc="left") == "NORMAL, insertion\n+0.050 (−0.050 to +0.150) beside random"
    assert deletion.get_title(loc="left").startswith("NORMAL, deletion\n−0.200")
    labels = [text.get_text() for text in insertion.get_legend().get_texts()]
    assert labels == ["map, area 0.650", "random maps, area 0.500", "map of another image, area 0.550"]


def test_the_terminal_table_has_a_verdict_for_every_check(findings):
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(checks_table(findings))
    text = console.export_text()
    rows = [line for line in text.splitlines() if "Title of" in line]
    assert [next(word for word in ("passes", "fails", "no verdict") if word in row) for row in rows] == [
        "passes",
        "fails",
        "passes",
        "no verdict",
    ]
    assert "NORMAL +0.050 (−0.050 to +0.150)" in text
    assert heading(findings) == (
        "Grad-CAM at conv_head, iteration 70, 9 validation images of 7 groups (9 for NORMAL); "
        "2 more were blank and left out"
    )


def test_maps_that_were_not_checked_say_so_and_name_the_command(run):
    html = render_report(run)
    assert "These maps were not checked." in html
    assert f"<code>cxr-jax explain {run.path} --check</code>" in html
    assert "Grad-CAM of panel" in html


@pytest.mark.parametrize("name", ["a run", "it's [copy]", "-out", "a;b"])
def test_the_command_that_checks_the_maps_finds_the_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (Path(name), tmp_path / name):
        program, verb, run, *options = shlex.split(explanations_of(RunFolder(path)).command)
        assert (program, verb, options) == ("cxr-jax", "explain", ["--check"])
        assert not run.startswith("-")
        assert Path(run).resolve() == (tmp_path / name).resolve()


def test_maps_that_fail_are_shown_with_the_warning_above_them(run, findings):
    write_checks(run, findings)
    html = render_report(run)
    warning = html.index("These maps fail 1 of 3 checks")
    assert "title of insertion" in html[warning : warning + 300]
    assert warning < html.index("Grad-CAM of panel")
    assert "<strong>fails</strong>" in html and "<strong>no verdict</strong>" in html
    assert "NORMAL +0.050 (−0.050 to +0.150)" in html
    assert "What insertion found &lt;b&gt;." in html
    assert "not checked" not in html


def test_maps_that_pass_have_no_warning(run, findings):
    write_checks(run, dataclasses.replace(findings, checks=tuple(one for one in findings.checks if one.passes)))
    assert explanations_of(run).warnings == ()


def test_checks_of_an_older_network_are_told(run, findings):
    write_checks(run, dataclasses.replace(findings, checks=()))
    append_look(run, {"step": 70})
    assert explanations_of(run).warnings == ()
    append_look(run, {"step": 90})
    assert "made at iteration 70, and the run now stands at iteration 90" in explanations_of(run).warnings[0]


def test_checks_without_pictures_are_told_too(run, findings):
    (run.explanations / "panel.png").unlink()
    assert 'id="explanations"' not in render_report(run)
    write_checks(run, findings)
    assert "Title of insertion" in render_report(run)


def test_figures_show_no_radiograph_and_may_be_published():
    assert {name for name, _ in CAPTIONS} == set(CHECK_FIGURES)
