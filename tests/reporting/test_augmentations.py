import dataclasses

import jax
import matplotlib
import numpy as np
import pytest

from cxr_jax.config.schema import AugmentationConfig, DataConfig, PhaseConfig
from cxr_jax.preprocessing.augment import augment
from cxr_jax.reporting import augmentations
from cxr_jax.reporting.augmentations import SHOWN, changes_figure, describe, phantoms, training_figure

DATA = DataConfig(image_size=40)


def rows_of(figure, columns):
    """The images shown, a list for each row."""
    shown = [np.asarray(axes.images[0].get_array()) for axes in figure.get_axes()]
    return [shown[start : start + columns] for start in range(0, len(shown), columns)]


def texts_of(figure):
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def test_every_change_is_shown_by_a_config_that_has_it_on():
    assert set(SHOWN) == {entry.name for entry in dataclasses.fields(AugmentationConfig)}
    for name, config in SHOWN.items():
        assert getattr(config, name) > 0
        assert set(describe(config).split(", ")) >= {f"{name} = {getattr(config, name):g}"}


def test_a_row_begins_with_the_phantom_and_goes_from_mild_to_strong(monkeypatch):
    shown = {name: SHOWN[name] for name in ("horizontal_flip", "brightness", "mixup")}
    monkeypatch.setattr(augmentations, "SHOWN", shown)
    figure = changes_figure(columns=5)
    flips, brighter, mixed = rows_of(figure, 6)
    for unchanged, *drawn in (flips, brighter, mixed):
        difference = [np.abs(image - unchanged).mean() for image in drawn]
        assert difference == sorted(difference)
        assert difference[-1] > 10
    assert np.array_equal(flips[0], flips[1]) and np.array_equal(flips[-1], flips[0][:, ::-1])
    most = np.abs(brighter[-1] - brighter[0]).max()
    assert 0.8 * 0.3 * 255 < most <= 0.3 * 255 + 1e-3
    assert {"brightness = 0.3", "mildest", "strongest"} <= set(texts_of(figure))
    assert any("no patients" in text for text in texts_of(figure))


def test_training_images_are_those_that_the_config_augments():
    config = AugmentationConfig(rotation=10.0, noise=0.1)
    phases = [PhaseConfig("head", augmentation=AugmentationConfig()), PhaseConfig("all", augmentation=config)]
    figure = training_figure(DATA, phases, seed=3, columns=2)
    images = phantoms(DATA, seed=3)
    shown = [image for row in rows_of(figure, 1) for image in row]
    np.testing.assert_array_equal(shown[0], images[0])  # nothing changes in the head's phase
    keys = jax.random.split(jax.random.fold_in(jax.random.key(3), 1), (2, 4))
    drawn = [np.asarray(augment(images, of_column, config)) for of_column in keys]
    for place in range(4):
        unchanged, first, second = shown[1 + 3 * place : 4 + 3 * place]
        np.testing.assert_array_equal(unchanged, images[place])
        np.testing.assert_array_equal(first, drawn[0][place])
        np.testing.assert_array_equal(second, drawn[1][place])
    assert any("all" in text and "rotation = 10\nnoise = 0.1" in text for text in texts_of(figure))
    assert any("head" in text and "nothing changes" in text for text in texts_of(figure))


@pytest.mark.parametrize("seed", [0, 1])
def test_phantoms_are_of_the_size_asked_for_and_of_the_seed(seed):
    images = phantoms(DATA, seed=seed)
    assert images.shape == (4, 40, 40) and images.dtype == np.uint8
    assert np.array_equal(images, phantoms(DATA, seed=0)) == (seed == 0)
    assert len({image.tobytes() for image in images}) == 4
