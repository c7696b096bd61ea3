import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from smooth_images import keys_of, smooth_images

from cxr_jax.config.schema import AugmentationConfig
from cxr_jax.preprocessing.augment import augment, draw
from cxr_jax.preprocessing.degradation import add_noise, cut_out, gaussian_blur
from cxr_jax.preprocessing.equalisation import equalise, equalise_adaptively

EVERYTHING = AugmentationConfig(
    horizontal_flip=0.5,
    vertical_flip=0.5,
    rotation=15.0,
    scale=0.2,
    translation=0.1,
    brightness=0.1,
    contrast=0.3,
    gamma=0.3,
    gain=0.3,
    crop=0.5,
    crop_aspect=0.3,
    clahe=0.5,
    equalisation=0.5,
    tone=0.5,
    blur=1.0,
    noise=0.1,
    cutout=0.3,
)
FIELDS = {
    "rotation": ["angle"],
    "translation": ["shift_x", "shift_y"],
    "crop_aspect": ["crop"],
    "cutout": ["cutout_x", "cutout_y"],
}
"""The fields of a draw that belong to a setting of another name."""
CHANGES = [entry.name for entry in dataclasses.fields(AugmentationConfig) if entry.name != "mixup"]
"""All changes of one image; a mixture is of two."""


def draws(config: AugmentationConfig, count: int):
    return jax.tree.map(np.asarray, jax.vmap(lambda key: draw(key, config))(keys_of(count)))


def test_nothing_on_returns_the_grey_levels_bit_exactly():
    images = smooth_images(3)
    result = augment(jnp.asarray(images), keys_of(3), AugmentationConfig())
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result, images)


def only(name: str) -> AugmentationConfig:
    """One change switched on, and what it needs."""
    return AugmentationConfig(**({"crop": 0.5} if name == "crop_aspect" else {}) | {name: getattr(EVERYTHING, name)})


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_alone_changes_images_and_leaves_the_others_neutral(name):
    # the program of test_every_change_keeps_its_bits_in_batches_of_any_size
    images = smooth_images(5, 41)
    result = np.asarray(augment(jnp.asarray(images), keys_of(5), only(name)))
    assert (result != images).any()
    assert result.min() >= 0 and result.max() <= 255
    neutral, drawn = draws(AugmentationConfig(), 8), draws(only(name), 8)
    fields = FIELDS.get(name, [name])
    for other in drawn._fields:
        same = jax.tree.map(np.array_equal, getattr(drawn, other), getattr(neutral, other))
        assert all(jax.tree.leaves(same)) == (other not in fields), other


@pytest.mark.parametrize("name", CHANGES)
def test_switching_a_change_on_leaves_the_other_draws_alone(name):
    alone, together = draws(only(name), 16), draws(EVERYTHING, 16)
    if name == "crop":
        together = draws(dataclasses.replace(EVERYTHING, crop_aspect=0.0), 16)
    for field in FIELDS.get(name, [name]):
        jax.tree.map(np.testing.assert_array_equal, getattr(alone, field), getattr(together, field))


def test_draws_are_those_of_stored_runs():
    """A run that goes on under a later version must see the images that it would have seen."""
    drawn = draws(EVERYTHING, 2)
    expected = {
        "horizontal_flip": [False, True],
        "vertical_flip": [True, True],
        "angle": [-0.142849, 0.0426348],
        "scale": [0.870838, 0.950868],
        "shift_x": [-0.0616373, -0.0553925],
        "shift_y": [0.044403, -0.0761423],
        "brightness": [13.5377, -19.1026],
        "contrast": [0.833333, 1.06322],
        "gamma": [1.26747, 0.808551],
        "gain": [0.906839, 1.093918],
        "clahe": [True, True],
        "equalisation": [True, True],
        "tone": [
            [1.33237, 1.48703, 1.42692, 1.43607, 1.24383, 1.31795, 0.864525, 0.812669],
            [1.25005, 0.832655, 1.43552, 1.46369, 1.00635, 1.46555, 0.738964, 1.34972],
        ],
        "blur": [0.228485, 0.751638],
        "noise": [7.20936, 14.7602],
        "cutout_x": [0.896441, 0.757876],
        "cutout_y": [0.342851, 0.152639],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(drawn, name), values, rtol=1e-5, atol=1e-6, err_msg=name)
    expected_crop = [[0.990356, 0.82447, -0.265729, 0.422146], [1.0, 0.975815, 0.023097, 0.832305]]
    np.testing.assert_allclose(np.stack(drawn.crop, axis=1), expected_crop, rtol=1e-5, atol=1e-6)


def test_draws_fill_their_documented_ranges():
    config = AugmentationConfig(
        *(0.3, 0.7, 10.0, 0.1, 0.05, 0.2, 0.4, 0.5),
        gain=0.3,
        clahe=0.2,
        equalisation=0.6,
        tone=1.0,
        blur=3.0,
        noise=0.1,
        cutout=0.5,
    )
    drawn = draws(config, 4000)
    assert abs(drawn.horizontal_flip.mean() - 0.3) < 0.03  # four standard errors
    assert abs(drawn.vertical_flip.mean() - 0.7) < 0.03
    assert abs(drawn.clahe.mean() - 0.2) < 0.03
    assert abs(drawn.equalisation.mean() - 0.6) < 0.031
    ranges = {
        "angle": (-np.deg2rad(10), np.deg2rad(10)),
        "scale": (1 / 1.1, 1.1),
        "shift_x": (-0.05, 0.05),
        "shift_y": (-0.05, 0.05),
        "brightness": (-51, 51),
        "contrast": (1 / 1.4, 1.4),
        "gamma": (1 / 1.5, 1.5),
        "gain": (1 / 1.3, 1.3),
        "tone": (1 / 2, 2),
        "blur": (0, 3),
        "noise": (0, 25.5),
        "cutout_x": (0, 1),
        "cutout_y": (0, 1),
    }
    for name, (low, high) in ranges.items():
        values = getattr(drawn, name)
        slack = 1e-6 * abs(high)
        assert low - slack <= values.min() < low + 0.01 * (high - low), name
        assert high - 0.01 * (high - low) < values.max() <= high + slack, name
    for name in ("scale", "contrast", "gamma", "gain", "tone"):  # enlarging is as likely as shrinking
        assert abs((getattr(drawn, name) > 1).mean() - 0.5) < 0.035, name
    pairs = [(drawn.shift_x, drawn.shift_y), (drawn.cutout_x, drawn.cutout_y), (drawn.tone[:, 0], drawn.tone[:, 1])]
    assert all(abs(np.corrcoef(one, other)[0, 1]) < 0.07 for one, other in pairs)
    uniform = [drawn.shift_x, drawn.blur, drawn.noise, drawn.cutout_x, drawn.cutout_y, drawn.clahe, drawn.tone[:, 0]]
    assert np.abs(np.corrcoef(uniform) - np.eye(len(uniform))).max() < 0.07  # changes are drawn apart from each other


# the last is what torchvision's RandomResizedCrop does by default: areas from 0.08 to 1, aspects from 3/4 to 4/3
@pytest.mark.parametrize(("smallest", "aspect"), [(0.4, 0.0), (0.4, 0.3), (0.4, 4.0), (0.08, 1 / 3)])
def test_crops_have_the_area_and_aspect_that_are_asked_for(smallest, aspect):
    crop = draws(AugmentationConfig(crop=smallest, crop_aspect=aspect), 4000).crop
    area, ratio = crop.width * crop.height, crop.width / crop.height
    assert smallest - 1e-5 <= area.min() < smallest + 0.005 and 0.995 < area.max() <= 1 + 1e-5
    assert abs(area.mean() - (1 + smallest) / 2) < 0.02 * (1 - smallest)  # four standard errors
    assert max(crop.width.max(), crop.height.max()) <= 1
    largest = np.minimum(1 + aspect, 1 / area)  # longer parts than the picture there are none
    assert (ratio <= largest * (1 + 1e-5)).all() and (ratio >= (1 - 1e-5) / largest).all()
    assert (ratio > 0.99 * largest).any() and (ratio < 1.01 / largest).any()
    assert abs((ratio > 1).mean() - 0.5) < 0.035 or aspect == 0
    for place in (crop.x, crop.y):
        assert -1 <= place.min() < -0.99 and 0.99 < place.max() <= 1


@pytest.mark.parametrize(
    "wrong", [{"crop": 1.0}, {"crop": 0.01}, {"crop_aspect": 0.3}, {"clahe": 1.1}, {"cutout": -0.1}, {"blur": 11.0}]
)
def test_impossible_strengths_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        AugmentationConfig(**wrong)


@pytest.mark.parametrize(("name", "axis"), [("horizontal_flip", 2), ("vertical_flip", 1)])
def test_flips_reverse_the_right_axis(name, axis):
    images = smooth_images(16)
    config = AugmentationConfig(**{name: 0.5})
    flipped = getattr(draws(config, 16), name)
    assert 0 < flipped.sum() < 16
    expected = np.where(flipped[:, None, None], np.flip(images, axis), images)
    np.testing.assert_array_equal(augment(jnp.asarray(images), keys_of(16), config), expected)


def test_flips_alone_compute_no_resampling():
    images, keys = jnp.asarray(smooth_images(2)), keys_of(2)

    def work_of(config: AugmentationConfig) -> tuple[float, float]:
        """Operations for each pixel, and sines, cosines and their like."""
        costs = augment.lower(images, keys, config).compile().cost_analysis()
        return costs["flops"] / images.size, costs.get("transcendentals", 0)

    operations, of_angles = work_of(AugmentationConfig(horizontal_flip=0.5, vertical_flip=0.5))
    assert operations < 5 and of_angles == 0
    operations, of_angles = work_of(AugmentationConfig(rotation=1.0))
    assert operations > 20 and of_angles > 0


@given(
    contrast=st.floats(0, 1, exclude_min=True),
    gain=st.floats(0, 1, exclude_min=True),
    brightness=st.floats(0, 1, exclude_min=True),
    gamma=st.floats(0, 1, exclude_min=True),
)
@settings(max_examples=5, deadline=None)
def test_grey_level_changes_equal_numpy(contrast, gain, brightness, gamma):
    config = AugmentationConfig(contrast=contrast, gain=gain, brightness=brightness, gamma=gamma)
    images = smooth_images(4)
    drawn = jax.tree.map(lambda value: np.asarray(value, np.float64)[:, None, None], draws(config, 4))
    mean = images.mean((1, 2), keepdims=True)
    stretched = (images - mean) * drawn.contrast + mean
    expected = np.clip(stretched * drawn.gain + drawn.brightness, 0, 255)
    expected = 255 * (expected / 255) ** drawn.gamma
    result = augment(jnp.asarray(images), keys_of(4), config)
    # float32 near 0 under an exponent as low as 1/2: sqrt(1e-5 / 255) * 255 = 0.05
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=0.1)


def test_an_example_depends_on_its_own_key_only():
    images, keys = smooth_images(24), keys_of(24)
    whole = np.asarray(augment(jnp.asarray(images), keys, EVERYTHING))
    order = np.random.default_rng(0).permutation(24)
    np.testing.assert_array_equal(augment(jnp.asarray(images[order]), keys[order], EVERYTHING), whole[order])
    part = augment(jnp.asarray(images[5:12]), keys[5:12], EVERYTHING)
    np.testing.assert_array_equal(part, whole[5:12])
    other_keys = augment(jnp.asarray(images), keys_of(24, seed=1), EVERYTHING)
    assert (np.asarray(other_keys) != whole).any((1, 2)).all()


@pytest.mark.parametrize("parts", [1, 2])
def test_sharded_over_devices_gives_the_same_bits_without_gathering_the_batch(parts):
    devices = jax.devices()
    if len(devices) < 2:
        pytest.skip("needs several devices (tests/conftest.py makes 8 CPU devices)")
    count = 2 * len(devices)
    images, keys = jnp.asarray(smooth_images(count)), keys_of(count)
    sharding = NamedSharding(Mesh(np.array(devices), ("data",)), PartitionSpec("data"))
    arguments = jax.device_put(images, sharding), jax.device_put(keys, sharding)
    sharded = augment(*arguments, EVERYTHING, parts)
    assert sharded.sharding.is_equivalent_to(sharding, sharded.ndim)
    np.testing.assert_array_equal(sharded, augment(images, keys, EVERYTHING))
    program = augment.lower(*arguments, EVERYTHING, parts).compile().as_text()
    assert "all-gather" not in program and "all-reduce" not in program


def test_changes_are_applied_in_the_documented_order():
    """Noise and blur before the cutout, equalisation before them: seen from the functions themselves."""
    config = AugmentationConfig(clahe=1.0, equalisation=1.0, blur=1.5, noise=0.1, cutout=0.4)
    images, keys = smooth_images(4), keys_of(4)
    for image, key, result in zip(images, keys, augment(jnp.asarray(images), keys, config), strict=True):
        drawn = draw(key, config)
        expected = equalise(equalise_adaptively(jnp.asarray(image))).astype(jnp.float32)
        expected = gaussian_blur(expected, drawn.blur, config.blur)
        expected = add_noise(expected, jax.random.fold_in(key, 1), drawn.noise)
        expected = cut_out(expected, drawn.cutout_x, drawn.cutout_y, config.cutout)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-3)


@pytest.mark.parametrize("name", ["clahe", "equalisation"])
def test_equalisation_happens_to_the_images_it_is_drawn_for(name):
    config = AugmentationConfig(**{name: 0.5})
    images = smooth_images(8)
    chosen = getattr(draws(config, 8), name)
    assert 0 < chosen.sum() < 8
    change = {"clahe": equalise_adaptively, "equalisation": equalise}[name]
    expected = np.where(chosen[:, None, None], jax.vmap(change)(jnp.asarray(images)), images)
    np.testing.assert_array_equal(augment(jnp.asarray(images), keys_of(8), config), expected)


@pytest.mark.parametrize("size", [41, pytest.param(224, marks=pytest.mark.slow)])
def test_every_change_keeps_its_bits_in_batches_of_any_size(size):
    images, keys = smooth_images(5, size), keys_of(5)
    for name in CHANGES:
        whole = np.asarray(augment(jnp.asarray(images), keys, only(name)))
        single = np.asarray(augment(jnp.asarray(images[3:4]), keys[3:4], only(name)))
        np.testing.assert_array_equal(single[0], whole[3], err_msg=name)


@pytest.mark.parametrize("parts", [2, 3, 6])
def test_a_batch_in_parts_gives_the_same_bits(parts):
    images, keys = jnp.asarray(smooth_images(6)), keys_of(6)
    for config in (EVERYTHING, AugmentationConfig()):
        np.testing.assert_array_equal(augment(images, keys, config, parts), augment(images, keys, config))


def test_inside_another_jit_gives_the_same_bits():
    images, keys = jnp.asarray(smooth_images(4)), keys_of(4)
    outer = jax.jit(lambda i, k: augment(i, k, EVERYTHING) / 255)
    np.testing.assert_allclose(outer(images, keys), augment(images, keys, EVERYTHING) / 255, rtol=0, atol=1e-6)
