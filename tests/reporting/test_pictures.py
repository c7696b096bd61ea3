import matplotlib
import numpy as np
import pytest

from cxr_jax.reporting import pictures


@pytest.fixture(scope="module")
def images(example):
    return np.random.default_rng(0).integers(0, 256, (len(example.test), 16, 16)).astype(np.uint8)


def texts_of(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def tiles_of(figure):
    return [axes for axes in figure.get_axes() if axes.images]


def row_of(axes, images):
    shown = axes.images[0].get_array()
    return next(i for i, image in enumerate(images) if np.array_equal(image, shown))


def tell(example, row):
    called = "PNEUMONIA" if example.test.probability[row] >= example.point.threshold else "NORMAL"
    true = ["NORMAL", "PNEUMONIA"][example.test.label[row]]
    return true, called, f"{example.test.probability[row]:.2f}"


def test_the_grid_shows_images_with_their_own_labels(example, images):
    figure = pictures.predictions_figure(images, example.test, example.point.threshold, phantoms=False, count=15)
    tiles = tiles_of(figure)
    assert len(tiles) == 15
    assert len({row_of(axes, images) for axes in tiles}) == 15
    for axes in tiles:
        true, called, probability = tell(example, row_of(axes, images))
        mark = "✓" if true == called else "✗"
        assert axes.get_title("left") == f"{mark} true {true}\ncalled {called} {probability}"


def test_the_grid_is_drawn_by_lot_and_repeatable(example, images):
    def rows(seed):
        figure = pictures.predictions_figure(images, example.test, 0.5, phantoms=False, count=8, seed=seed)
        return [row_of(axes, images) for axes in tiles_of(figure)]

    assert rows(0) == rows(0)
    assert rows(0) != rows(1)


def test_the_failures_are_the_worst_errors_of_either_kind(example, images):
    figure = pictures.failures_figure(images, example.test, example.point.threshold, phantoms=False, count=4)
    rows = [row_of(axes, images) for axes in tiles_of(figure)]
    told = [tell(example, row) for row in rows]
    assert all(true != called for true, called, _ in told)
    false_positives = [float(p) for true, _, p in told if true == "NORMAL"]
    assert false_positives == sorted(false_positives, reverse=True)
    normals = example.test.probability[example.test.label == 0]
    assert false_positives[0] == pytest.approx(normals.max(), abs=0.005)
    wrong = np.sum(normals >= example.point.threshold)
    assert f"NORMAL called PNEUMONIA: {wrong}, the furthest from the threshold first" in texts_of(figure)


def test_without_errors_there_are_no_failures(example, images, tmp_path):
    right = example.test.select(example.test.label == 1)
    assert pictures.failures_figure(images, right, 0.0, phantoms=False) is None
    paths = pictures.draw_pictures(tmp_path, images, right, 0.0, phantoms=False)
    assert {path.name for path in paths} == {"predictions_grid.png", "predictions_grid.svg"}


def test_phantoms_are_marked_on_every_tile_and_below(example, images):
    figure = pictures.predictions_figure(images, example.test, 0.5, phantoms=True, count=9)
    shown = texts_of(figure)
    assert shown.count("PHANTOM") == 9
    assert any("no patients" in text for text in shown)
    real = texts_of(pictures.predictions_figure(images, example.test, 0.5, phantoms=False, count=9))
    assert not any("phantom" in text.lower() for text in real)


def test_the_files_have_the_names_that_may_not_be_published(example, images, tmp_path):
    paths = pictures.draw_pictures(tmp_path, images, example.test, example.point.threshold, phantoms=True)
    assert {path.stem for path in paths} == set(pictures.NAMES)
    assert len(paths) == 4
