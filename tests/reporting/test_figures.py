import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor

import matplotlib
import numpy as np
import pytest

from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.judge import judge
from cxr_jax.reporting import figures
from cxr_jax.reporting.style import WIDTH, new_figure, save, styled

ALL = {
    "confusion_matrix",
    "confusion_matrix_validation",
    "roc",
    "precision_recall",
    "reliability",
    "score_distributions",
    "decision_curve",
    "training_iterations",
    "training_epochs",
}


def texts_of(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def line_labelled(axes, start):
    return next(line for line in axes.get_lines() if str(line.get_label()).startswith(start))


def test_every_figure_is_written_as_png_and_svg(drawn):
    paths = list(drawn.iterdir())
    assert {path.name for path in paths} == {f"{name}.{suffix}" for name in ALL for suffix in ("png", "svg")}
    for path in paths:
        if path.suffix == ".png":
            image = matplotlib.image.imread(path)
            assert image.shape[1] >= 700
            assert len(np.unique(image[..., 0])) > 20
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")


def test_the_paths_of_what_was_drawn_are_returned_and_equal_numbers_give_equal_files(example, drawn, tmp_path):
    before = dict(matplotlib.rcParams)
    paths = figures.draw_evaluation(tmp_path, example.judged, example.test, example.validation)
    assert dict(matplotlib.rcParams) == before
    assert set(paths) == set(tmp_path.iterdir())
    assert {path.stem for path in paths} == ALL - {"training_iterations", "training_epochs"}
    for path in paths:
        assert path.read_bytes() == (drawn / path.name).read_bytes()


def test_figures_do_not_import_pyplot():
    code = (
        "import sys, cxr_jax.reporting.figures, cxr_jax.reporting.pictures; print('matplotlib.pyplot' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_a_persons_own_settings_do_not_change_a_figure(example, tmp_path):
    plain = save(figures.confusion_figure(example.judged.test, "Test"), tmp_path, "plain")[0]
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        other = save(figures.confusion_figure(example.judged.test, "Test"), tmp_path, "other")[0]
    assert plain.read_bytes() == other.read_bytes()


def test_the_roc_passes_through_its_operating_point_and_states_the_judged_area(example, metric_values):
    figure = figures.roc_figure(example.judged, example.test, example.validation)
    axes = figure.axes[0]
    values = metric_values(example.test.label, example.test.probability, example.point.threshold)
    curve = line_labelled(axes, "test, AUC")
    point = (1 - values["specificity"], values["sensitivity"])
    assert np.min(np.hypot(*(np.array(curve.get_data()).T - point).T)) < 1e-12
    markers = [tuple(line.get_data()) for line in axes.get_lines() if line.get_marker() == "o"]
    assert any(np.allclose(np.ravel(marker), point) for marker in markers if np.size(marker) == 2)
    interval = example.judged.test.metrics["roc_auc"].interval
    legend = f"test, AUC {values['roc_auc']:.3f} ({interval.low:.3f}–{interval.high:.3f})"
    assert legend in texts_of(figure)


def test_the_precision_recall_curve_ends_at_the_share_of_pneumonia(example):
    curve = line_labelled(figures.precision_recall_figure(example.judged, example.test).axes[0], "test, AUC")
    assert curve.get_xdata()[-1] == 1
    assert curve.get_ydata()[-1] == pytest.approx(80 / 140)


def test_the_confusion_figure_shows_counts_and_shares(example):
    shown = texts_of(figures.confusion_figure(example.judged.test, "Test"))
    for row in example.judged.test.confusion:
        assert {str(count) for count in row} <= set(shown)
    misses = example.judged.test.confusion[1][0]
    assert f"{misses / 80:.1%}\nof pneumonia" in shown


def test_the_reliability_figure_has_both_moments_where_there_is_a_temperature(example):
    figure = figures.reliability_figure(example.judged)
    titles = [axes.get_title("left") for axes in figure.axes]
    assert titles == ["As predicted", f"Temperature {example.point.temperature:.2f}"]
    error = example.judged.test.calibration.after.error("mass", 10)
    assert f"test, ECE {error.value:.3f}" in texts_of(figure)
    alone = judge(None, example.test, 0.5, confidence=Confidence(resamples=20))
    assert len(figures.reliability_figure(alone).axes) == 1


def test_the_distributions_count_every_image_and_show_the_threshold(example):
    figure = figures.distribution_figure(example.judged, example.test, example.validation)
    assert [axes.get_title("left") for axes in figure.axes] == ["Validation", "Test"]
    shown = texts_of(figure)
    assert "PNEUMONIA (80)" in shown
    assert "NORMAL (50)" in shown
    assert shown.count(f"threshold {example.point.threshold:.3g}") == 2
    stairs = [patch for patch in figure.axes[1].patches if patch.get_label().startswith("NORMAL")]
    assert stairs[0].get_data().values.sum() == pytest.approx(1)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_draws_what_it_can(example, tmp_path, label):
    only = example.test.select(example.test.label == label)
    judgement = judge(None, only, 0.5, confidence=Confidence(resamples=20))
    paths = figures.draw_evaluation(tmp_path, judgement, only)
    assert {path.stem for path in paths} == {"confusion_matrix", "reliability", "score_distributions", "decision_curve"}


def test_a_perfect_ranking_is_drawn_without_interval(example, tmp_path):
    order = np.r_[np.zeros(60, int), np.ones(80, int)]
    perfect = example.test.select(np.argsort(example.test.label, kind="stable"))
    perfect = type(perfect)(**{**vars(perfect), "probability": 0.1 + 0.8 * order, "logits": None})
    judgement = judge(perfect, perfect, 0.5, confidence=Confidence(resamples=20))
    assert "test, AUC 1.000" in texts_of(figures.roc_figure(judgement, perfect))
    assert figures.draw_evaluation(tmp_path, judgement, perfect, perfect)


def test_the_decision_curve_has_the_network_beside_all_and_none(example):
    axes = figures.decision_figure(example.judged).axes[0]
    curves = example.judged.test.decision_curve
    drawn = {line.get_label(): line.get_ydata() for line in axes.get_lines()}
    np.testing.assert_array_equal(drawn["network, as predicted"], curves.before)
    np.testing.assert_array_equal(drawn["network, after temperature"], curves.after)
    np.testing.assert_array_equal(drawn["all called PNEUMONIA"], curves.all)
    assert set(drawn["none called PNEUMONIA"]) == {0}


def test_no_figure_is_wider_than_a_phone_shows_or_has_smaller_text(drawn, complete):
    checked = 0
    for path in (*drawn.glob("*.svg"), *complete.figures.glob("*.svg")):
        width = float(ElementTree.parse(path).getroot().get("width").removesuffix("pt"))
        assert width == 72 * WIDTH, path.name
        checked += 1
    assert checked > 2 * len(ALL)


def test_figures_can_be_saved_from_threads(tmp_path):
    def draw(number):
        with styled():
            figure = new_figure(2, 2)
            figure.subplots().plot((0, number))
        return save(figure, tmp_path, str(number))

    with ThreadPoolExecutor(1) as pool:
        assert all(path.is_file() for paths in pool.map(draw, range(2)) for path in paths)
