"""From density to film: scatter, exposure, blur, noise, collimation and the marks on the image."""

from __future__ import annotations

import cv2
import numpy as np

from cxr_jax.data.phantoms.canvas import Canvas

MARK = "PHANTOM"
"""Written into the corner of every image."""


def expose(canvas: Canvas, density: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns the film of a chest, uint8 [H, W]: bright where much radiation was taken away."""
    scatter = canvas.blurred(density, 0.35)
    tilt = canvas.positions[0] * generator.normal(0, 0.035) + canvas.positions[1] * generator.normal(0, 0.035)
    seen = 0.86 * density + 0.14 * scatter + tilt
    film = 1.0 - np.exp(-generator.uniform(0.95, 1.55) * np.maximum(seen, 0.0))
    film = np.clip(film * generator.uniform(0.98, 1.14), 0, 1) ** generator.uniform(0.85, 1.25)
    film = cv2.GaussianBlur(film, (0, 0), generator.uniform(0.35, 1.1) * canvas.height / 256)
    grain = generator.standard_normal(film.shape).astype(np.float32)
    film += grain * generator.uniform(0.006, 0.028) * np.sqrt(0.25 + film)
    film = _collimated(canvas, film, generator)
    image = np.clip(np.rint(255 * film), 0, 255).astype(np.uint8)
    _mark_side(canvas, image, generator)
    _mark_phantom(image)
    return image


def _collimated(canvas: Canvas, film: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns the film with black borders where the beam was narrowed, in a third of the images."""
    if generator.random() > 0.35:
        return film
    lit = np.zeros_like(film)
    left, right, top, bottom = (generator.uniform(0, 0.05) for _ in range(4))
    height, width = film.shape
    lit[round(top * height) : round((1 - bottom) * height), round(left * width) : round((1 - right) * width)] = 1
    return film * canvas.blurred(lit, 0.006)


def _mark_side(canvas: Canvas, image: np.ndarray, generator: np.random.Generator) -> None:
    """Writes the letter that tells the person's right side, as technicians place it, in place."""
    height, width = image.shape
    scale = height / 256 * generator.uniform(0.5, 0.8)
    place = (round(width * generator.uniform(0.03, 0.09)), round(height * generator.uniform(0.12, 0.22)))
    cv2.putText(image, "R", place, cv2.FONT_HERSHEY_DUPLEX, scale, 235, max(1, round(scale)), cv2.LINE_AA)


def _mark_phantom(image: np.ndarray) -> None:
    """Writes MARK into the lower left corner, white on black, in place."""
    height, width = image.shape
    scale = 0.30 * min(height, width) / 256
    (text_width, text_height), below = cv2.getTextSize(MARK, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)
    margin = max(2, round(0.012 * height))
    top = height - text_height - below - 2 * margin
    cv2.rectangle(image, (0, top), (text_width + 2 * margin, height), 0, cv2.FILLED)
    place = (margin, height - below - margin)
    cv2.putText(image, MARK, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 255, 1, cv2.LINE_AA)
