"""Images made worse on purpose: eleven kinds of degradation, each at five severities (Hendrycks & Dietterich 2019).

What chance decides for an image depends on the seed, the kind and the image's number alone, and not on the severity: a
rotation turns the same way at all of them, and a tube lies where it lies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np

SEVERITIES = (1, 2, 3, 4, 5)

_AT = 224
"""Side of the image in pixels at which lengths are told; they grow with the side."""

_LETTERS = ("R", "L", "AP", "PORTABLE", "SUPINE", "ERECT")

Change = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
"""Makes one image [S, S] uint8 in 0..255 worse by an amount."""


def degrade(images: np.ndarray, kind: str, severity: int, numbers: Sequence[int], *, seed: int = 0) -> np.ndarray:
    """Returns `images` [B, S, S] uint8 in 0..255 degraded, uint8 [B, S, S]; these are left as they are.

    Args:
        images: grey images.
        kind: one of `KINDS`.
        severity: one of `SEVERITIES`.
        numbers: of each image, from which its randomness comes; whole numbers from 0 on.
        seed: of the draw, from 0 on.

    Raises:
        ValueError: there is no such kind or severity, or the images are no squares of uint8.
    """
    if kind not in KINDS or severity not in SEVERITIES:
        raise ValueError(f"{kind!r} at severity {severity} is none of {', '.join(KINDS)} at {SEVERITIES}")
    if images.dtype != np.uint8 or images.ndim != 3 or images.shape[1] != images.shape[2]:
        raise ValueError(f"images are {images.dtype} {images.shape}, but must be uint8 [B, S, S]")
    change, amounts = _CHANGES[kind]
    made = np.empty_like(images)
    for row, (image, number) in enumerate(zip(images, numbers, strict=True)):
        random = np.random.default_rng([seed, KINDS.index(kind), int(number)])
        made[row] = change(np.ascontiguousarray(image), amounts[severity - 1], random)
    return made


def _noise(image: np.ndarray, deviation: float, random: np.random.Generator) -> np.ndarray:
    return _grey(image + deviation * random.standard_normal(image.shape))


def _blur(image: np.ndarray, sigma: float, random: np.random.Generator) -> np.ndarray:
    return _grey(cv2.GaussianBlur(image.astype(np.float32), (0, 0), _length(sigma, image)))


def _motion(image: np.ndarray, length: float, random: np.random.Generator) -> np.ndarray:
    angle, reach = random.uniform(0, np.pi), _length(length, image) / 2
    half = int(np.ceil(reach)) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    # many points of a line between pixels, each shared out among its four neighbours
    for step in np.linspace(-reach, reach, 8 * half + 1):
        x, y = half + step * np.cos(angle), half + step * np.sin(angle)
        left, top = int(x), int(y)
        for column, row in ((left, top), (left + 1, top), (left, top + 1), (left + 1, top + 1)):
            kernel[row, column] += max(0, 1 - abs(x - column)) * max(0, 1 - abs(y - row))
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT_101)


def _exposure(image: np.ndarray, exponent: float, random: np.random.Generator) -> np.ndarray:
    chosen = exponent if random.uniform() < 0.5 else 1 / exponent
    return _grey(255 * (image / 255) ** chosen)


def _contrast(image: np.ndarray, factor: float, random: np.random.Generator) -> np.ndarray:
    return _grey(image.mean() + factor * (image - image.mean()))


def _rotation(image: np.ndarray, degrees: float, random: np.random.Generator) -> np.ndarray:
    side, chosen = len(image), degrees if random.uniform() < 0.5 else -degrees
    turn = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), chosen, 1)
    return cv2.warpAffine(image, turn, (side, side), flags=cv2.INTER_LINEAR, borderValue=0)


def _cropping(image: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    side = len(image)
    kept = max(1, round(share * side))
    left, top = (int(place * (side - kept)) for place in random.uniform(size=2))
    return cv2.resize(image[top : top + kept, left : left + kept], (side, side), interpolation=cv2.INTER_LINEAR)


def _downscaling(image: np.ndarray, factor: float, random: np.random.Generator) -> np.ndarray:
    side = len(image)
    small = max(1, round(min(_AT, side) / factor))
    reduced = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
    return cv2.resize(reduced, (side, side), interpolation=cv2.INTER_LINEAR)


def _jpeg(image: np.ndarray, quality: float, random: np.random.Generator) -> np.ndarray:
    encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(quality)])[1]
    return cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE)


def _letters(image: np.ndarray, count: float, random: np.random.Generator) -> np.ndarray:
    made, side = image.copy(), len(image)
    for _ in range(int(count)):
        text, (x, y) = _LETTERS[random.integers(len(_LETTERS))], random.uniform(0.02, 0.9, 2) * side
        size = _length(random.uniform(0.5, 0.9), image)
        thick = max(1, round(_length(2, image)))
        place = (int(min(x, 0.6 * side)), int(max(y, 0.1 * side)))
        cv2.putText(made, text, place, cv2.FONT_HERSHEY_SIMPLEX, size, 255, thick, cv2.LINE_AA)
    return made


def _tubes(image: np.ndarray, count: float, random: np.random.Generator) -> np.ndarray:
    """Draws curved tubes from the upper edge into the chest, bright and half transparent, as lines and drains are."""
    laid, side = np.zeros_like(image), len(image)
    along = np.linspace(0, 1, 40)[:, None]
    for _ in range(int(count)):
        start = np.array([random.uniform(0.2, 0.8), 0.0])
        bend, end = random.uniform((0.2, 0.2), (0.8, 0.6)), random.uniform((0.25, 0.5), (0.75, 0.9))
        curve = (1 - along) ** 2 * start + 2 * along * (1 - along) * bend + along**2 * end
        thick = max(1, round(_length(random.uniform(2, 4), image)))
        cv2.polylines(laid, [np.rint(curve * side).astype(np.int32)], False, 255, thick, cv2.LINE_AA)
    return _grey(image + (255.0 - image) * 0.6 * (laid / 255))


def _length(pixels: float, image: np.ndarray) -> float:
    return pixels * len(image) / _AT


def _grey(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


_CHANGES: dict[str, tuple[Change, tuple[float, float, float, float, float]]] = {
    "noise": (_noise, (4, 8, 16, 24, 36)),  # standard deviation, grey levels
    "blur": (_blur, (0.7, 1.2, 2, 3, 4.5)),  # sigma, pixels
    "motion": (_motion, (3, 5, 9, 13, 19)),  # length of the path, pixels
    "exposure": (_exposure, (1.25, 1.5, 1.9, 2.4, 3)),  # exponent of grey levels, or its inverse
    "contrast": (_contrast, (0.8, 0.6, 0.45, 0.3, 0.2)),  # factor about the mean
    "rotation": (_rotation, (5, 10, 15, 22, 30)),  # degrees, black outside
    "cropping": (_cropping, (0.95, 0.9, 0.8, 0.7, 0.6)),  # share of the side that is kept and enlarged
    "downscaling": (_downscaling, (1.5, 2, 3, 4, 6)),  # factor
    "jpeg": (_jpeg, (60, 40, 25, 15, 8)),  # quality
    "letters": (_letters, (1, 2, 3, 4, 6)),  # words drawn in
    "tubes": (_tubes, (1, 2, 3, 4, 6)),  # how many
}

KINDS = tuple(_CHANGES)
"""Names of the degradations, in the order in which they are told."""
