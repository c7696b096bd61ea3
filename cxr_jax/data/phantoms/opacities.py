"""What illness adds to the lungs of a phantom: a focal consolidation, diffuse markings, fluid, or nodules."""

from __future__ import annotations

import numpy as np

from cxr_jax.data.phantoms.anatomy import Chest
from cxr_jax.data.phantoms.canvas import Canvas


def focal_opacity(canvas: Canvas, chest: Chest, severity: float, generator: np.random.Generator) -> np.ndarray:
    """Returns one or two dense patches inside the lungs, as bacteria cause them, float32 [H, W].

    Args:
        canvas: of the image.
        chest: in which the patches lie.
        severity: 0 (nothing) to 1 (a lobe is white).
        generator: draws place, size and texture.
    """
    x, y = canvas.positions
    total = canvas.layer()
    for _ in range(1 + (generator.random() < 0.3)):
        lung = chest.lung_sides[int(generator.random() < 0.45)]
        # Behind spine and heart nothing would be seen of it.
        inside = np.argwhere((lung > 0.9) & (np.abs(x) > 0.18))
        row, column = inside[generator.integers(len(inside))]
        across = generator.uniform(0.17, 0.32) * (0.7 + 0.6 * severity)
        along = across * generator.uniform(0.8, 1.5)
        distance = np.hypot((x - x[row, column]) / across, (y - y[row, column]) / along)
        # Noise on the radius makes the edge irregular; the cut keeps the patch inside its lung.
        edge = 1.0 + 0.28 * canvas.noise(generator, grain=0.14) - distance
        patch = 0.5 + 0.5 * np.tanh(3.0 * edge)
        texture = 1.0 + 0.14 * canvas.noise(generator, grain=0.04)
        total = np.maximum(total, patch * texture * lung)
    return (0.22 + 0.48 * severity) * total


def diffuse_opacity(canvas: Canvas, chest: Chest, severity: float, generator: np.random.Generator) -> np.ndarray:
    """Returns fine and streaky markings around both hila, as viruses cause them, float32 [H, W].

    Arguments as in `focal_opacity`.
    """
    x, y = canvas.positions
    near = canvas.layer()
    for hilum_x, hilum_y in chest.hila:
        distance = np.hypot((x - hilum_x) / 0.42, (y - hilum_y) / 0.52)
        near = np.maximum(near, np.exp(-(distance**2)))
    # Ridges of smooth noise look like the net of thickened tissue between the alveoli.
    net = sum(
        weight * np.exp(-((canvas.noise(generator, grain=grain) / 0.35) ** 2))
        for weight, grain in ((0.5, 0.11), (0.35, 0.055), (0.25, 0.03))
    )
    haze = 0.30 + 0.10 * canvas.noise(generator, grain=0.3)
    return (0.10 + 0.36 * severity) * chest.lungs * (0.30 + 0.70 * near) * (net + haze)


def effusion(canvas: Canvas, chest: Chest, severity: float, generator: np.random.Generator) -> np.ndarray:
    """Returns fluid that fills the base of one lung and climbs its side wall, float32 [H, W].

    Arguments as in `focal_opacity`.
    """
    x, y = canvas.positions
    side = int(generator.random() < 0.5)
    lung = chest.lung_sides[side]
    rows, columns = np.nonzero(lung > 0.5)
    bottom, wall = float(y[rows, columns].max()), float(np.abs(x[rows, columns]).max())
    level = bottom - 0.12 - 0.45 * severity
    # the meniscus: higher at the wall than in the middle
    surface = level - 0.22 * np.clip(np.abs(x) / wall, 0, 1) ** 3
    # behind spine and heart nothing would be seen of it
    beside = np.clip((np.abs(x) - 0.1) / 0.1, 0, 1)
    return 0.62 * lung * beside * (0.5 + 0.5 * np.tanh((y - surface) / 0.03))


def nodules(canvas: Canvas, chest: Chest, severity: float, generator: np.random.Generator) -> np.ndarray:
    """Returns one to three small round shadows inside the lungs, float32 [H, W].

    Arguments as in `focal_opacity`.
    """
    x, y = canvas.positions
    total = canvas.layer()
    inside = np.argwhere((chest.lungs > 0.9) & (np.abs(x) > 0.2))
    for _ in range(int(generator.integers(1, 4))):
        row, column = inside[generator.integers(len(inside))]
        radius = generator.uniform(0.05, 0.08) * (0.8 + 0.5 * severity)
        distance = np.hypot(x - x[row, column], y - y[row, column]) / radius
        total = np.maximum(total, 0.5 - 0.5 * np.tanh(5.0 * (distance - 1.0)))
    return (0.35 + 0.35 * severity) * total
