"""The chest of a drawn child: what weakens X-rays where, as layers that add up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cxr_jax.data.phantoms.canvas import Canvas

SIDES = (-1.0, 1.0)
"""Left of the image (the person's right) and right of the image."""

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Person:
    """The measures of one chest, in body coordinates, equal in all images of a person."""

    chest: float  # half the width of the rib cage
    apex: float  # y of the top of the lungs
    domes: tuple[float, float]  # y of the top of the diaphragm, image left and right
    heart: float  # radius
    heart_shift: float  # x of the middle of the heart
    mediastinum: float  # half width of the upper mediastinum: the thymus of small children
    rib_slope: float  # how far a rib falls from back to side
    rib_gap: float  # distance from rib to rib
    flesh: float  # thickness of soft tissue around the rib cage
    vessels: float  # how plainly the vessels of the lungs show
    gas: float  # size of the gas bubble in the stomach


def draw_person(generator: np.random.Generator) -> Person:
    """Returns the measures of a person at random."""
    dome = generator.normal(0.42, 0.06)
    return Person(
        chest=float(np.clip(generator.normal(0.74, 0.05), 0.62, 0.86)),
        apex=float(generator.normal(-0.66, 0.04)),
        domes=(float(dome), float(dome + generator.normal(0.04, 0.02))),
        heart=float(np.clip(generator.normal(0.33, 0.03), 0.26, 0.41)),
        heart_shift=float(generator.normal(0.10, 0.03)),
        mediastinum=float(np.clip(generator.normal(0.165, 0.035), 0.10, 0.27)),
        rib_slope=float(generator.normal(0.20, 0.04)),
        rib_gap=float(generator.normal(0.148, 0.008)),
        flesh=float(np.clip(generator.normal(0.13, 0.04), 0.05, 0.25)),
        vessels=float(np.clip(generator.normal(1.0, 0.25), 0.4, 1.8)),
        gas=float(max(generator.normal(0.13, 0.05), 0.0)),
    )


@dataclass(frozen=True)
class Chest:
    """A chest laid out on a canvas."""

    density: np.ndarray  # float32 [H, W]: how much radiation is taken away, about 0 (air) to 2 (spine)
    lungs: np.ndarray  # float32 [H, W]: 1 inside the lungs, heart included where it covers them
    lung_sides: tuple[np.ndarray, np.ndarray]  # the same, each lung alone: image left and right
    hila: tuple[tuple[float, float], ...]  # where vessels enter, body coordinates
    heart: np.ndarray  # float32 [H, W]: 1 inside the heart


def draw_chest(canvas: Canvas, person: Person, generator: np.random.Generator) -> Chest:
    """Returns the chest of `person`; `generator` draws what differs between two images of one person."""
    left, right = (canvas.area(_lung_outline(person, side), soft=0.012) for side in SIDES)
    lungs = np.maximum(left, right)
    hila = ((-0.19, -0.08), (0.21, -0.11))
    arms = _arms(person, generator)
    trunk = canvas.area(_trunk_outline(person), soft=0.02)
    density = np.maximum(0.98 * trunk, _limbs(canvas, arms, generator))
    density -= 0.74 * lungs * (0.96 + 0.05 * canvas.noise(generator, grain=0.5))
    density += lungs * _vessels(canvas, person, hila, generator)
    heart = _heart(canvas, person)
    # Above and below the lungs the trunk counts the same tissue already.
    density += _heart_and_mediastinum(canvas, person, heart) * (0.2 + 0.8 * lungs)
    density += _abdomen(canvas, person, trunk * (1.0 - lungs), generator)
    density += _bones(canvas, person, arms)
    density += _wires(canvas, generator)
    return Chest(np.maximum(density, 0.0), lungs, (left, right), hila, heart)


def _half_width(person: Person, y: float) -> float:
    """Returns half the inner width of the rib cage at height `y`."""
    rise = np.clip((y - person.apex) / (0.55 - person.apex), 0.0, 1.0)
    return person.chest * float(0.30 + 0.70 * np.sin(0.5 * np.pi * rise**0.62))


def _lung_outline(person: Person, side: float) -> Points:
    """Returns the outline of one lung, down the side, along the diaphragm and up the middle."""
    dome = person.domes[0 if side < 0 else 1]
    angle = dome + 0.20
    outer = [(side * _half_width(person, y), y) for y in np.linspace(person.apex + 0.07, angle - 0.03, 7)]
    base = [
        (side * (person.chest - 0.015), angle),
        (side * person.chest * 0.86, dome + 0.07),
        (side * person.chest * 0.58, dome),
        (side * 0.20, dome + 0.03),
        (side * -0.02, dome + 0.06),
    ]
    inner = [(side * -0.02, 0.1), (side * -0.02, -0.25), (side * 0.07, person.apex + 0.13)]
    top = [(side * 0.19, person.apex + 0.005)]
    return [*outer, *base, *inner, *top]


def _trunk_outline(person: Person) -> Points:
    """Returns the outline of trunk, neck and shoulders."""
    side = [
        (max(_half_width(person, y), 0.8 * person.chest) + person.flesh, y) for y in (-0.48, -0.2, 0.1, 0.4, 0.8, 1.3)
    ]
    shoulder = [(person.chest + 0.16, -0.62), (0.5, -0.79), (0.24, -0.9), (0.2, -1.3)]
    right = [*shoulder[::-1], *side]
    return [*right, *((-x, y) for x, y in right[::-1])]


def _arms(person: Person, generator: np.random.Generator) -> tuple[Points, Points]:
    """Returns the course of both upper arms: raised, stretched out or lying beside the trunk."""
    start = person.chest + 0.13
    arms = []
    for side in SIDES:
        angle = np.radians(generator.choice([-55.0, 15.0, 62.0]) + generator.normal(0, 10))
        way = [(start + reach * np.cos(angle), -0.58 + reach * np.sin(angle)) for reach in (0.0, 0.3, 0.65, 1.2)]
        arms.append([(side * x, y) for x, y in way])
    return arms[0], arms[1]


def _limbs(canvas: Canvas, arms: tuple[Points, Points], generator: np.random.Generator) -> np.ndarray:
    """Returns the soft tissue of the arms and, in half of the images, the chin that reaches into the upper edge."""
    density = canvas.layer()
    for arm in arms:
        density = np.maximum(density, 0.72 * canvas.band(arm, width=0.27, soft=0.02))
    if generator.random() < 0.5:
        centre = (generator.normal(0, 0.08), generator.uniform(-1.35, -1.15))
        density = np.maximum(density, 1.5 * canvas.area(_blob(centre, 0.42, 0.3, generator), soft=0.03))
    return density


def _wires(canvas: Canvas, generator: np.random.Generator) -> np.ndarray:
    """Returns a lead of a monitor that lies on the child, in a fifth of the images of any class."""
    layer = canvas.layer()
    if generator.random() < 0.2:
        way = [(x, generator.uniform(-0.7, 0.9)) for x in np.linspace(*generator.uniform((-1.3, 0.1), (-0.2, 1.2)), 4)]
        canvas.add_band(layer, way, width=0.014, value=0.35)
        electrode = [(way[-1][0], way[-1][1]), (way[-1][0] + 0.01, way[-1][1])]
        canvas.add_band(layer, electrode, width=0.06, value=0.45)
    return canvas.blurred(layer, 0.004)


def _heart(canvas: Canvas, person: Person) -> np.ndarray:
    """Returns a layer that is 1 inside the heart."""
    r, x = person.heart, person.heart_shift
    base = max(person.domes) + 0.05
    return canvas.area(
        [
            (x - 0.78 * r, 0.12),
            (x - 0.66 * r, -0.08),
            (x - 0.10 * r, -0.22),
            (x + 0.55 * r, -0.08),
            (x + 1.05 * r, 0.20),
            (x + 1.10 * r, 0.40),
            (x + 0.70 * r, base),
            (x - 0.45 * r, base),
            (x - 0.80 * r, 0.30),
        ],
        soft=0.016,
    )


def _heart_and_mediastinum(canvas: Canvas, person: Person, heart: np.ndarray) -> np.ndarray:
    """Returns the heart, great vessels and the upper mediastinum, which cover the lungs between them."""
    m = person.mediastinum
    upper = canvas.area(
        [
            (-0.8 * m, -0.85),
            (-m, -0.45),
            (-0.95 * m, -0.1),
            (m, -0.05),
            (1.25 * m, -0.28),
            (0.9 * m, -0.6),
            (0.8 * m, -0.85),
        ],
        soft=0.02,
    )
    windpipe = canvas.band([(0.0, -1.0), (0.01, -0.5), (0.015, -0.28)], width=0.065, soft=0.012)
    return 0.56 * np.maximum(heart, 0.86 * upper) - 0.16 * windpipe


def _abdomen(canvas: Canvas, person: Person, outside: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Returns what lies below the diaphragm: dense liver and gut, and gas in stomach and bowel.

    `outside` is 1 in the trunk outside the lungs.
    """
    _, y = canvas.positions
    dome = min(person.domes)
    below = np.clip((y - dome) / 0.25, 0.0, 1.0) * outside
    density = 0.26 * below
    if person.gas > 0.05:
        centre = (0.36, person.domes[1] + 0.13 + person.gas)
        density -= 0.42 * canvas.area(_blob(centre, person.gas, person.gas * 0.7, generator), soft=0.02) * below
    for _ in range(generator.integers(0, 5)):
        centre = (generator.uniform(-0.5, 0.5), generator.uniform(0.85, 1.1))
        density -= 0.25 * canvas.area(_blob(centre, 0.11, 0.07, generator), soft=0.02) * below
    return density


def _blob(centre: tuple[float, float], width: float, height: float, generator: np.random.Generator) -> Points:
    """Returns a roundish outline."""
    angles = np.linspace(0, 2 * np.pi, 9, endpoint=False)
    radii = generator.uniform(0.8, 1.15, len(angles))
    return [
        (centre[0] + width * r * np.cos(a), centre[1] + height * r * np.sin(a))
        for a, r in zip(angles, radii, strict=True)
    ]


def _bones(canvas: Canvas, person: Person, arms: tuple[Points, Points]) -> np.ndarray:
    """Returns ribs, spine, collar bones, shoulder blades and the bones of the arms."""
    courses = [_rib(person, side, number) for side in SIDES for number in range(10)]
    density = 0.20 * _bone(canvas, [back for back, _ in courses], width=0.050, soft=0.006)
    density += 0.09 * _bone(canvas, [front for _, front in courses], width=0.058, soft=0.010)
    _, y = canvas.positions
    spine = canvas.band([(0.0, -1.3), (0.0, 1.3)], width=0.13, soft=0.010)
    phase = np.pi * y / (0.88 * person.rib_gap)
    density += spine * (0.06 + 0.28 * np.abs(np.sin(phase)) ** 0.5)
    shafts = canvas.band([(0.0, -1.3), (0.0, 1.3)], width=0.020, soft=0.006)
    density += 0.12 * shafts * (np.cos(phase) ** 2 > 0.8)
    collars, blades = [], canvas.layer()
    edge = person.chest + 0.06
    for side in SIDES:
        collars.append([(side * x, y) for x, y in ((0.10, -0.58), (0.3, -0.66), (0.5, -0.66), (edge + 0.02, -0.73))])
        blade = ((edge - 0.2, -0.55), (edge, -0.6), (edge + 0.02, -0.35), (edge - 0.1, -0.05))
        blades = np.maximum(blades, canvas.area([(side * x, y) for x, y in blade], soft=0.012))
    density += 0.26 * _bone(canvas, collars, width=0.056, soft=0.008) + 0.10 * blades
    return density + 0.30 * _bone(canvas, arms, width=0.095, soft=0.01)


def _rib(person: Person, side: float, number: int) -> tuple[Points, Points]:
    """Returns the courses of the back and the front part of one rib."""
    start = person.apex + 0.02 + number * person.rib_gap
    slope = person.rib_slope * (0.45 + 0.11 * number)
    reach = _half_width(person, start + slope) + 0.012
    back = [
        (side * 0.07, start),
        (side * 0.35 * reach, start - 0.035),
        (side * 0.70 * reach, start + 0.22 * slope),
        (side * 0.93 * reach, start + 0.66 * slope),
        (side * reach, start + slope + 0.02),
    ]
    end = start + slope + 0.03
    front = [
        (side * reach, end),
        (side * 0.93 * reach, end + 0.10),
        (side * 0.72 * reach, end + 0.21),
        (side * 0.46 * reach, end + 0.27),
    ]
    return back, front if number < 7 else front[:2]


def _bone(canvas: Canvas, ways: Sequence[Points], *, width: float, soft: float) -> np.ndarray:
    """Returns bones along `ways`: their rims are denser than their middles."""
    layer = canvas.layer()
    for way in ways:
        canvas.add_band(layer, way, width=width, value=1.0)
    for way in ways:
        canvas.add_band(layer, way, width=0.5 * width, value=0.62)
    return canvas.blurred(layer, soft)


def _vessels(
    canvas: Canvas, person: Person, hila: tuple[tuple[float, float], ...], generator: np.random.Generator
) -> np.ndarray:
    """Returns the vessels that spread from the hila and thin out towards the edge of the lungs."""
    layer = canvas.layer()
    branches = []
    for side, (x, y) in zip(SIDES, hila, strict=True):
        for _ in range(18):
            angle, length = generator.uniform(-1.35, 1.35), generator.uniform(0.25, 0.62)
            bend = generator.normal(0, 0.06)
            branches.append(
                [
                    (
                        x + side * 0.9 * reach * length * np.cos(angle),
                        y + 1.1 * reach * length * np.sin(angle) + bend * reach**2,
                    )
                    for reach in (0.0, 0.25, 0.5, 0.75, 1.0)
                ]
            )
    # Thin ends first, so that the thick beginnings of other branches lie over them.
    for piece in (3, 2, 1, 0):
        for branch in branches:
            canvas.add_band(layer, branch[piece : piece + 2], width=0.026 * 0.7**piece, value=0.8**piece)
    for centre in hila:
        layer = np.maximum(layer, 0.9 * canvas.area(_blob(centre, 0.075, 0.11, generator), soft=0.03))
    return 0.17 * person.vessels * canvas.blurred(layer, 0.012)
