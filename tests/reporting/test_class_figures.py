"""Figures of K classes: everything has its place, however many classes there are."""

import numpy as np
import pytest

from cxr_jax.evaluation.class_points import fixed_class_points
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.judge_classes import judge_classes
from cxr_jax.reporting.class_figures import confusion_of_classes, reliability_of_classes, roc_of_classes
from cxr_jax.runs.class_predictions import ClassPredictions


def predictions(classes):
    random = np.random.default_rng(0)
    label = np.arange(60) % classes
    return ClassPredictions.from_logits(
        random.normal(size=(60, classes)) + np.eye(classes)[label],
        file=[f"{i}.png" for i in range(60)],
        split=["test"] * 60,
        group=[""] * 60,
        classes=[f"Finding {i}" for i in range(classes)],
        label=label,
    )


@pytest.mark.parametrize("classes", [2, 3, 12])
def test_titles_labels_and_legends_do_not_cover_each_other(classes):
    test = predictions(classes)
    judgement = judge_classes(None, test, fixed_class_points(test.classes, 0.5), confidence=Confidence(resamples=2))
    for figure in (roc_of_classes(judgement, test), reliability_of_classes(judgement)):
        figure.canvas.draw()
        (axes,), (legend,) = figure.axes, figure.legends
        places = [axes.title.get_window_extent(), axes.xaxis.label.get_window_extent(), legend.get_window_extent()]
        page = figure.bbox
        assert all(page.y0 <= place.y0 and place.y1 <= page.y1 for place in places)
        assert not places[2].overlaps(places[1])
        assert len(legend.get_texts()) == classes
    confusion = confusion_of_classes(judgement.test, judgement.classes, "Test")
    told = [text.get_text() for text in confusion.axes[0].texts]
    assert len(told) == classes**2
    assert [int(text.split("\n")[0]) for text in told] == np.array(judgement.test.confusion).ravel().tolist()
