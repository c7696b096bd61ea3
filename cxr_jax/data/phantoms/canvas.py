"""Drawing shapes of a body, given in coordinates of the body, onto layers of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

_FRACTION_BITS = 4  # cv2 draws at a sixteenth of a pixel
_WIDE_BLUR = 8.0  # pixels


@dataclass(frozen=True)
class Canvas:
    """An image of `height` x `width` pixels and the pose of the body in it.

    Body coordinates: x points to the right of the image (the left of the person), y points down. The middle of the
    chest is at (0, 0). The image is 2 high at scale 1.
    """

    height: int
    width: int
    angle: float = 0.0  # degrees, counterclockwise
    scale: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    @property
    def unit(self) -> float:
        """Pixels of one unit of body coordinates."""
        return self.scale * self.height / 2

    @cached_property
    def positions(self) -> tuple[np.ndarray, np.ndarray]:
        """Body coordinates (x, y) of every pixel, each float32 [H, W]."""
        rows, columns = np.mgrid[: self.height, : self.width].astype(np.float32)
        x = (columns + 0.5 - self.width / 2) / self.unit - self.shift[0]
        y = (rows + 0.5 - self.height / 2) / self.unit - self.shift[1]
        cosine, sine = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        return x * cosine - y * sine, x * sine + y * cosine

    def layer(self) -> np.ndarray:
        """Returns an empty layer, float32 [H, W]."""
        return np.zeros((self.height, self.width), np.float32)

    def area(self, outline: Sequence[tuple[float, float]], *, soft: float) -> np.ndarray:
        """Returns a layer that is 1 inside a smooth closed outline through the given points; `soft` is its edge."""
        layer = self.layer()
        cv2.fillPoly(layer, [self._pixels(_smoothed(outline, closed=True))], 1.0, cv2.LINE_8, _FRACTION_BITS)
        return self.blurred(layer, soft)

    def band(self, way: Sequence[tuple[float, float]], *, width: float, soft: float) -> np.ndarray:
        """Returns a layer that is 1 on a smooth band along the given points."""
        layer = self.layer()
        self.add_band(layer, way, width=width, value=1.0)
        return self.blurred(layer, soft)

    def add_band(self, layer: np.ndarray, way: Sequence[tuple[float, float]], *, width: float, value: float) -> None:
        """Draws a smooth band of `value` into `layer`, in place, over what is there."""
        thickness = max(1, round(width * self.unit))
        points = self._pixels(_smoothed(way, closed=False))
        cv2.polylines(layer, [points], False, value, thickness, cv2.LINE_8, _FRACTION_BITS)

    def blurred(self, layer: np.ndarray, sigma: float) -> np.ndarray:
        """Returns `layer` blurred by a Gaussian of `sigma` body units."""
        pixels = sigma * self.unit
        if pixels <= 0.3:
            return layer
        if pixels < _WIDE_BLUR:
            return cv2.GaussianBlur(layer, (0, 0), pixels)
        # A wide blur looks the same on a small copy, and takes a fraction of the time.
        factor = _WIDE_BLUR / 2 / pixels
        small = cv2.resize(layer, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
        return cv2.resize(cv2.GaussianBlur(small, (0, 0), _WIDE_BLUR / 2), (self.width, self.height))

    def noise(self, generator: np.random.Generator, *, grain: float) -> np.ndarray:
        """Returns smooth noise of mean 0 and deviation 1 with spots of about `grain` body units, float32 [H, W]."""
        rows, columns = (max(4, math.ceil(side / (grain * self.unit)) + 3) for side in (self.height, self.width))
        coarse = generator.standard_normal((rows, columns)).astype(np.float32)
        fine = cv2.resize(coarse, (self.width, self.height), interpolation=cv2.INTER_CUBIC)
        return (fine - fine.mean()) / max(float(fine.std()), 1e-6)

    def _pixels(self, points: np.ndarray) -> np.ndarray:
        """Returns body coordinates [N, 2] as the fixed-point pixel coordinates of cv2."""
        cosine, sine = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        x, y = points[:, 0], points[:, 1]
        columns = (x * cosine + y * sine + self.shift[0]) * self.unit + self.width / 2 - 0.5
        rows = (y * cosine - x * sine + self.shift[1]) * self.unit + self.height / 2 - 0.5
        return np.rint(np.stack([columns, rows], 1) * 2**_FRACTION_BITS).astype(np.int32)


def _smoothed(points: Sequence[tuple[float, float]], *, closed: bool, steps: int = 8) -> np.ndarray:
    """Returns a Catmull-Rom curve through `points`, float64 [M, 2]; two points stay a straight line."""
    given = np.asarray(points, float)
    if len(given) == 2:
        return given
    if closed:
        padded = np.concatenate([given[-1:], given, given[:2]])
    else:
        padded = np.concatenate([given[:1], given, given[-1:]])
    before, start, end, after = padded[:-3], padded[1:-2], padded[2:-1], padded[3:]
    t = np.linspace(0, 1, steps, endpoint=False)[:, None, None]
    curve = 0.5 * (
        2 * start
        + (end - before) * t
        + (2 * before - 5 * start + 4 * end - after) * t**2
        + (3 * start - before - 3 * end + after) * t**3
    )
    curve = curve.transpose(1, 0, 2).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, given[-1:]])
