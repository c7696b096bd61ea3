import cv2
import numpy as np
import pytest

from cxr_jax.images.degraded import KINDS, SEVERITIES, degrade

SIDE = 224


@pytest.fixture(scope="module")
def films():
    """Four images with soft structure, fine detail and a border, as films have."""
    random = np.random.default_rng(0)
    made = []
    for _ in range(4):
        soft = cv2.GaussianBlur(random.normal(size=(SIDE, SIDE)), (0, 0), 8)
        fine = cv2.GaussianBlur(random.normal(size=(SIDE, SIDE)), (0, 0), 1)
        image = 120 + 45 * soft / soft.std() + 8 * fine / fine.std()
        made.append(np.clip(image, 5, 245).astype(np.uint8))
    return np.stack(made)


def difference(kind, severity, films, **options):
    made = degrade(films, kind, severity, range(len(films)), **options)
    return np.abs(made.astype(int) - films.astype(int)).mean(axis=(1, 2))


@pytest.mark.parametrize("kind", KINDS)
def test_images_get_worse_with_severity_and_are_changed_in_a_copy(kind, films):
    before = films.copy()
    changes = np.array([difference(kind, severity, films) for severity in SEVERITIES])
    np.testing.assert_array_equal(films, before)
    assert (changes[0] > 0.05).all(), "the lowest severity is seen"
    # a longer motion need not change every image more, but all together more
    assert (np.diff(changes.mean(axis=1)) > 0).all()
    assert (changes[-1] > changes[0]).all()


@pytest.mark.parametrize("kind", KINDS)
def test_chance_depends_on_seed_kind_and_number_alone(kind, films):
    whole = degrade(films, kind, 3, [7, 8, 9, 10])
    again = degrade(films[2:], kind, 3, [9, 10])
    np.testing.assert_array_equal(whole[2:], again)
    same = degrade(np.stack([films[0]] * 12), kind, 3, range(12))
    varied = len({image.tobytes() for image in same}) > 1
    assert varied == (kind not in {"blur", "contrast", "downscaling", "jpeg"})
    if varied:
        assert not np.array_equal(same, degrade(np.stack([films[0]] * 12), kind, 3, range(12), seed=1))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [8, 31])
def test_small_and_flat_images_are_taken(kind, side):
    flat = np.full((1, side, side), 255, np.uint8)
    for severity in SEVERITIES:
        made = degrade(flat, kind, severity, [0])
        assert (made.dtype, made.shape) == (np.uint8, flat.shape)


def test_what_each_kind_does_to_a_known_image():
    side = 224
    grey = np.full((1, side, side), 100, np.uint8)
    dot = np.zeros((1, side, side), np.uint8)
    dot[0, 112, 112] = 255
    noise = degrade(grey, "noise", 3, [0]).astype(float)
    assert noise.std() == pytest.approx(16, rel=0.02) and noise.mean() == pytest.approx(100, abs=0.3)
    moved = degrade(np.where(dot > 0, 255, 0).astype(np.uint8), "motion", 1, [0])
    assert 3 <= np.count_nonzero(moved) <= 12  # a path of three pixels
    brighter = {int(degrade(grey, "exposure", 3, [number])[0, 0, 0]) for number in range(8)}
    assert brighter == {round(255 * (100 / 255) ** 1.9), round(255 * (100 / 255) ** (1 / 1.9))}
    half = np.concatenate([np.full((1, 112, side), 60), np.full((1, 112, side), 160)], axis=1).astype(np.uint8)
    np.testing.assert_array_equal(np.unique(degrade(half, "contrast", 5, [0])), [100, 120])
    turned = degrade(np.full((1, side, side), 255, np.uint8), "rotation", 5, [0])
    assert turned[0, 0, 0] == 0 and turned[0, 112, 112] == 255
    for kind in ("letters", "tubes"):
        drawn = degrade(grey, kind, 2, [0])
        assert drawn.min() == 100 and drawn.max() > 190 and 0 < np.mean(drawn > 100) < 0.2


@pytest.mark.parametrize(
    ("kind", "severity", "dtype", "shape"),
    [
        ("fog", 1, np.uint8, (1, 8, 8)),
        ("blur", 0, np.uint8, (1, 8, 8)),
        ("blur", 6, np.uint8, (1, 8, 8)),
        ("blur", 1, np.float32, (1, 8, 8)),
        ("blur", 1, np.uint8, (1, 8, 9)),
    ],
)
def test_another_kind_severity_or_image_is_refused(kind, severity, dtype, shape):
    with pytest.raises(ValueError, match=r"must be|none of"):
        degrade(np.zeros(shape, dtype), kind, severity, [0])
