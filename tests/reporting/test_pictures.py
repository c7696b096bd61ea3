import base64

import cv2
import matplotlib
import numpy as np
import pytest

from cxr_jax.reporting import pictures
from cxr_jax.runs.gallery import gallery_path, read_gallery


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
    return true, called, f"P(pneumonia) {100 * example.test.probability[row]:.0f} %"


def grid(example, images, count, *, phantoms=False, seed=0):
    shown = pictures.predictions_drawn(example.test, count, seed)
    return pictures.sheet_of(images, example.test, example.point.threshold, shown, phantoms=phantoms)


def failures(example, images, count=12):
    shown = pictures.failures_of(example.test, example.point.threshold, count)
    return pictures.sheet_of(images, example.test, example.point.threshold, shown, phantoms=False)


def test_the_grid_shows_images_with_their_own_labels(example, images):
    tiles = tiles_of(grid(example, images, 15))
    assert len(tiles) == 15
    assert len({row_of(axes, images) for axes in tiles}) == 15
    for axes in tiles:
        row = row_of(axes, images)
        true, called, chance = tell(example, row)
        title = f"✓ {true}" if true == called else f"✗ {true},\ncalled {called}"
        assert axes.get_title("left") == title
        told, name = axes.get_xlabel().split("\n")
        assert name == example.test.file[row].rsplit("/", 1)[1]
        if 0.01 < example.test.probability[row] < 0.99:
            assert told == chance


def test_the_grid_is_drawn_by_lot_and_repeatable(example, images):
    def rows(seed):
        return [row_of(axes, images) for axes in tiles_of(grid(example, images, 8, seed=seed))]

    assert rows(0) == rows(0)
    assert rows(0) != rows(1)


def test_the_failures_are_the_worst_errors_of_either_kind(example, images):
    figure = failures(example, images, 4)
    rows = [row_of(axes, images) for axes in tiles_of(figure)]
    told = [tell(example, row) for row in rows]
    assert all(true != called for true, called, _ in told)
    false_positives = [example.test.probability[row] for row in rows if example.test.label[row] == 0]
    assert false_positives == sorted(false_positives, reverse=True)
    normals = example.test.probability[example.test.label == 0]
    assert false_positives[0] == normals.max()
    wrong = np.sum(normals >= example.point.threshold)
    assert f"NORMAL called PNEUMONIA: {wrong}, the furthest from the threshold first" in texts_of(figure)


def test_without_errors_there_are_no_failures_and_older_ones_go(example, images, tmp_path):
    pictures.draw_pictures(tmp_path, images, example.test, example.point.threshold, phantoms=False)
    assert (tmp_path / "failure_cases.png").is_file()
    right = example.test.select(example.test.label == 1)
    assert pictures.failures_of(right, 0.0) == []
    paths = pictures.draw_pictures(tmp_path, images, right, 0.0, phantoms=False)
    assert {path.name for path in paths} == {f"predictions_grid.{kind}" for kind in ("png", "svg", "gallery.json")}
    assert set(tmp_path.iterdir()) == set(paths)


def test_phantoms_are_marked_on_every_tile_and_below(example, images):
    shown = texts_of(grid(example, images, 9, phantoms=True))
    assert shown.count("PHANTOM") == 9
    assert any("no patients" in text for text in shown)
    real = texts_of(grid(example, images, 9))
    assert not any("phantom" in text.lower() for text in real)


def test_the_files_have_the_names_that_may_not_be_published(example, images, tmp_path):
    paths = pictures.draw_pictures(tmp_path, images, example.test, example.point.threshold, phantoms=True)
    assert {path.name.partition(".")[0] for path in paths} == set(pictures.NAMES)
    assert len(paths) == 6


def test_a_gallery_holds_what_its_sheet_shows(example, images, tmp_path):
    pictures.draw_pictures(tmp_path, images, example.test, example.point.threshold, phantoms=False)
    gallery = read_gallery(tmp_path / "failure_cases.png")
    rows = [row for _, found in pictures.failures_of(example.test, example.point.threshold) for row in found]
    tiles = [tile for group in gallery.groups for tile in group.tiles]
    assert [tile.file for tile in tiles] == [example.test.file[row] for row in rows]
    for tile, row in zip(tiles, rows, strict=True):
        assert (tile.label, tile.called) == tell(example, row)[:2]
        assert tile.probability == example.test.probability[row]
        encoded = np.frombuffer(base64.b64decode(tile.pictures[0]), np.uint8)
        decoded = cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)
        assert np.abs(decoded.astype(float) - images[row]).mean() < 12
    assert gallery_path(tmp_path / "failure_cases.png").is_file()
