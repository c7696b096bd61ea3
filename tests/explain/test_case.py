import numpy as np
import pytest

from cxr_jax.explain.case import Case, picture_names, with_caption
from cxr_jax.vocabulary import DISCLAIMER


@pytest.fixture
def case():
    return Case("test/NORMAL/IM-1.jpeg", "NORMAL", "PNEUMONIA", 0.87654321, 0.5, "PNEUMONIA", "conv_head", False)


def test_the_caption_tells_labels_probability_and_what_the_colours_show(case):
    text = "\n".join(case.sentences())
    assert "test/NORMAL/IM-1.jpeg" in text
    assert "true NORMAL, called PNEUMONIA" in text
    assert "0.8765, threshold 0.5000" in text
    assert "Grad-CAM of PNEUMONIA at conv_head" in text
    assert DISCLAIMER in text
    assert "blank" not in text


def test_a_blank_map_is_told(case):
    assert any("blank" in line for line in Case(**{**vars(case), "blank": True}).sentences())


def test_wrong_needs_a_known_true_class(case):
    assert case.is_wrong
    assert not Case(**{**vars(case), "called": "NORMAL"}).is_wrong
    unknown = Case(**{**vars(case), "label": None})
    assert not unknown.is_wrong
    assert unknown.headline() == "true unknown, called PNEUMONIA"


@pytest.mark.parametrize("shape", [(300, 400), (60, 64), (1200, 1801)])
def test_the_picture_stays_as_it_is_above_the_caption(case, shape):
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    result = with_caption(picture, case.sentences())
    assert result.dtype == np.uint8
    assert result.shape[1:] == (shape[1], 3)
    np.testing.assert_array_equal(result[: shape[0]], picture)
    bar = result[shape[0] :]
    assert bar.max() > 200  # letters
    assert (bar == 0).mean() > 0.6  # on black
    assert bar[-1].max() == 0 and bar[:, -1].max() == 0  # none of them cut off below or to the right


def test_names_are_not_read_as_formulas():
    picture = np.zeros((50, 400, 3), np.uint8)
    assert with_caption(picture, ["a$b_{$c$.png", "$\\frac$"]).shape[0] > 50


def test_every_picture_has_a_name_of_its_own():
    assert picture_names(["b/film.png", "a/film.jpeg", "film-2.png", "other.dcm", "film.dcm"]) == [
        "film",
        "film-2",
        "film-2-2",
        "other",
        "film-3",
    ]
    assert picture_names(["1.2.840.113.5", "1.2.840.113.6"]) == ["1.2.840.113.5", "1.2.840.113.6"]
