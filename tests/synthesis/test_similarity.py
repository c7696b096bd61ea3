import jax
import numpy as np
import pytest
import scipy.ndimage

from cxr_jax.synthesis.similarity import WEIGHTS, scales_of, similarity


def written_out(first, second, scales):
    """MS-SSIM in float64, window by window as the paper has it."""
    window = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(window, window) / window.sum() ** 2
    weights = np.array(WEIGHTS[:scales]) / sum(WEIGHTS[:scales])
    one, other, found = first.astype(np.float64), second.astype(np.float64), 1.0
    for scale in range(scales):

        def mean(values):
            return scipy.ndimage.correlate(values, window)[5:-5, 5:-5]

        means = mean(one), mean(other)
        variances = mean(one**2) - means[0] ** 2, mean(other**2) - means[1] ** 2
        covariance = mean(one * other) - means[0] * means[1]
        structure = (2 * covariance + 7.65**2) / (variances[0] + variances[1] + 7.65**2)
        brightness = (2 * means[0] * means[1] + 2.55**2) / (means[0] ** 2 + means[1] ** 2 + 2.55**2)
        value = np.mean(structure * brightness) if scale == scales - 1 else np.mean(structure)
        found *= max(value, 0) ** weights[scale]
        one, other = (image.reshape(len(image) // 2, 2, -1, 2).mean((1, 3)) for image in (one, other))
    return found


@pytest.mark.parametrize(("size", "scales"), [(16, 1), (32, 2), (64, 3), (128, 4), (256, 5), (512, 5)])
def test_smaller_images_have_fewer_scales(size, scales):
    assert scales_of(size) == scales


def test_it_is_the_paper_s_measure():
    generator = np.random.default_rng(0)
    first = scipy.ndimage.gaussian_filter(generator.uniform(0, 255, (4, 64, 64)), (0, 3, 3)) * 3 % 255
    second = np.clip(first + generator.normal(0, 1, first.shape) * np.array([0, 3, 30, 90])[:, None, None], 0, 255)
    first, second = first.astype(np.uint8), second.astype(np.uint8)
    found = similarity(first, second)
    expected = [written_out(one, other, 3) for one, other in zip(first, second, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found[0] == pytest.approx(1, abs=1e-5)
    assert np.all(np.diff(found) < 0)


def test_opposite_images_are_not_alike_at_all():
    image = np.zeros((1, 32, 32), np.uint8)
    image[:, ::2] = 255
    assert float(jax.device_get(similarity(image, 255 - image))[0]) == 0
