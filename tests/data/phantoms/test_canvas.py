import numpy as np
import pytest

from cxr_jax.data.phantoms.canvas import Canvas


def centre_of(layer, canvas):
    """Body coordinates of the middle of what is drawn."""
    x, y = canvas.positions
    return np.average(x, weights=layer), np.average(y, weights=layer)


@pytest.mark.parametrize("canvas", [Canvas(200, 260), Canvas(200, 260, angle=10.0, scale=0.8, shift=(0.1, -0.05))])
@pytest.mark.parametrize("place", [(0.0, 0.0), (0.4, -0.3), (-0.5, 0.5)])
def test_shapes_lie_where_the_positions_say(canvas, place):
    x, y = place
    square = [(x - 0.1, y - 0.1), (x + 0.1, y - 0.1), (x + 0.1, y + 0.1), (x - 0.1, y + 0.1)]
    assert centre_of(canvas.area(square, soft=0.0), canvas) == pytest.approx(place, abs=0.01)
    band = canvas.band([(x - 0.1, y - 0.1), (x + 0.1, y + 0.1)], width=0.05, soft=0.01)
    assert centre_of(band, canvas) == pytest.approx(place, abs=0.015)


def test_angle_is_counterclockwise_and_scale_enlarges():
    plain, turned, large = Canvas(200, 200), Canvas(200, 200, angle=90.0), Canvas(200, 200, scale=2.0)
    right = [(0.3, -0.05), (0.4, -0.05), (0.4, 0.05), (0.3, 0.05)]
    rows, columns = np.nonzero(turned.area(right, soft=0.0))
    assert rows.mean() < 80
    assert columns.mean() == pytest.approx(99.5, abs=2)
    assert large.area(right, soft=0.0).sum() == pytest.approx(4 * plain.area(right, soft=0.0).sum(), rel=0.15)


def test_a_curve_passes_through_its_points():
    canvas = Canvas(300, 300)
    way = [(-0.5, 0.0), (-0.2, 0.3), (0.1, -0.2), (0.5, 0.1)]
    band = canvas.band(way, width=0.02, soft=0.0)
    x, y = canvas.positions
    for point in way:
        assert band[np.hypot(x - point[0], y - point[1]) < 0.02].max() == 1


@pytest.mark.parametrize("sigma", [0.05, 0.3])
def test_blur_keeps_the_sum_and_spreads_by_sigma(sigma):
    canvas = Canvas(400, 400)
    layer = canvas.layer()
    layer[195:205, 195:205] = 1
    blurred = canvas.blurred(layer, sigma)
    assert blurred.shape == layer.shape
    if sigma == 0.05:
        assert blurred.sum() == pytest.approx(layer.sum(), rel=0.02)
        x, _ = canvas.positions
        assert np.sqrt(np.average(x**2, weights=blurred)) == pytest.approx(sigma, rel=0.15)
    assert blurred[200, 200] < layer.max() / 2


def test_a_blur_of_less_than_a_pixel_changes_nothing():
    canvas = Canvas(64, 64)
    layer = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    np.testing.assert_array_equal(canvas.blurred(layer, 0.001), layer)


@pytest.mark.parametrize("grain", [0.03, 0.3])
def test_noise_is_standardised_and_smooth(grain):
    noise = Canvas(128, 160).noise(np.random.default_rng(0), grain=grain)
    assert noise.shape == (128, 160)
    assert noise.mean() == pytest.approx(0, abs=1e-4)
    assert noise.std() == pytest.approx(1, abs=1e-4)
    # neighbours resemble each other the more the coarser the grain
    step = np.abs(np.diff(noise, axis=1)).mean()
    assert step < (0.9 if grain == 0.03 else 0.12)
