import cv2
import jax
import numpy as np
import pytest

from cxr_jax.config.schema import DataConfig
from cxr_jax.images.clarity import clarified
from cxr_jax.preprocessing.equalisation import equalise_adaptively


@pytest.fixture
def image():
    coarse = np.random.default_rng(0).integers(90, 160, (6, 6)).astype(np.uint8)
    return cv2.resize(coarse, (50, 50), interpolation=cv2.INTER_CUBIC)


def test_none_leaves_an_image_as_it_is(image):
    assert clarified(image, "none") is image


def test_clahe_is_the_one_by_which_images_are_augmented(image):
    clear = clarified(image, "clahe")
    np.testing.assert_array_equal(clear, jax.jit(equalise_adaptively)(image))
    assert clear.std() > image.std()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"crop": "lungs"}, "clarify is 'clahe', but must be \"none\" where region, crop or replay"),
        ({"region": "lungs"}, "clarify is 'clahe', but must be \"none\" where region, crop or replay"),
        ({"balancing": "reduced"}, 'balancing is \'reduced\', but must be "none" or "oversampling" where clarify'),
    ],
)
def test_what_does_not_go_together_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        DataConfig(clarify="clahe", **changes)
