import matplotlib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_jax.reporting import curves


def texts_of(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text)]


def lines_of(axes):
    return {line.get_label(): np.array(line.get_data()) for line in axes.get_lines()}


def test_every_batch_and_validation_is_drawn_over_iterations(example):
    loss, accuracy = curves.iteration_figure(example.lines).axes
    for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
        drawn = lines_of(axes)
        train = [line for line in example.lines if line["kind"] == "train"]
        validation = [line for line in example.lines if line["kind"] == "validation"]
        expected = [[line["step"] for line in train], [line[name] for line in train]]
        np.testing.assert_allclose(drawn["training, each batch"], expected)
        expected = [[line["step"] for line in validation], [line[name] for line in validation]]
        np.testing.assert_allclose(drawn["validation"], expected)
        kept = drawn["best on validation"]
        assert kept[0] == 30
        assert kept[1] == next(line[name] for line in validation if line["step"] == 30)


def test_epochs_are_means_of_their_batches(example):
    loss, _ = curves.epoch_figure(example.lines).axes
    train = np.array([line["loss"] for line in example.lines if line["kind"] == "train"])
    drawn = lines_of(loss)["training, mean of the epoch"]
    np.testing.assert_allclose(drawn, [[1, 2], [train[:20].mean(), train[20:].mean()]])


def test_phases_are_parted_and_named_and_the_end_is_told(example):
    figure = curves.iteration_figure(example.lines)
    shown = texts_of(figure)
    assert {"head", "all"} <= set(shown)
    assert "stopped early at iteration 40" in shown
    borders = [line for line in figure.axes[0].get_lines() if len(set(line.get_xdata())) == 1]
    assert any(line.get_xdata()[0] == 20 for line in borders)


def test_one_phase_is_not_named(example):
    lines = [{**line, "phase": "train"} for line in example.lines if line["kind"] == "train"]
    assert "train" not in texts_of(curves.iteration_figure(lines))


def test_values_that_were_not_finite_leave_gaps():
    lines = [
        {"kind": "train", "step": step, "epoch": step / 4, "phase": "train", "loss": loss, "accuracy": 0.5}
        for step, loss in enumerate([1.0, None, 0.5, 0.4], start=1)
    ]
    drawn = lines_of(curves.iteration_figure(lines).axes[0])["training, each batch"][1]
    assert np.isnan(drawn[1])
    means = lines_of(curves.epoch_figure(lines).axes[0])["training, mean of the epoch"]
    np.testing.assert_allclose(means, [[1], [1.9 / 3]])


def test_no_lines_give_empty_axes():
    assert [len(axes.get_lines()) for axes in curves.iteration_figure([]).axes] == [0, 0]


@given(st.lists(st.floats(-10, 10) | st.just(float("nan")), min_size=1, max_size=30), st.integers(1, 8))
def test_the_running_mean_is_the_mean_of_the_last_values(values, window):
    means = curves.running_mean(np.array(values), window)
    for i, mean in enumerate(means):
        seen = [v for v in values[max(0, i + 1 - window) : i + 1] if not np.isnan(v)]
        assert np.isnan(mean) if not seen else mean == pytest.approx(np.mean(seen), abs=1e-9)


def test_an_epoch_ends_with_its_last_batch():
    # 1/3 + 1/3 + 1/3 may not be 1 to the last bit.
    epoch = np.cumsum(np.full(6, 1 / 3))
    ends, means = curves.epoch_means(epoch, np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    assert ends.tolist() == [1, 2]
    assert means.tolist() == [2, 5]


def test_an_epoch_that_was_cut_short_ends_where_it_was_cut():
    ends, means = curves.epoch_means(np.array([0.5, 1.0, 1.25]), np.array([1.0, 3.0, 4.0]))
    assert ends.tolist() == [1, 1.25]
    assert means.tolist() == [2, 4]
