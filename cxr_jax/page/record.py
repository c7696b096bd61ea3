"""What page.json tells the page: the network, its calls, what is usual, and which files there are."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cxr_jax.bundle.record import Bundle, Call
from cxr_jax.data.encoded import MAX_BYTES, MAX_PIXELS
from cxr_jax.data.quality.reference import told_measure
from cxr_jax.evaluation.conformal import SetRule
from cxr_jax.evaluation.feature_distance import FeatureLimit
from cxr_jax.explain.overlay import HOTTEST_COLOUR, OPACITY
from cxr_jax.vocabulary import CLASS_NAMES, DISCLAIMER, FINDINGS, Kind

SCHEMA_VERSION = 1

HIGHEST = "the highest probability"
"""In place of a rule where the likeliest class is called."""

NOT_CHOSEN = "not chosen: evaluate the run to choose one on validation"
"""In place of a rule where a run has no threshold, so that one half counts."""


@dataclass(frozen=True)
class Limits:
    """Bounds of what is read, and what every radiograph is held against."""

    aspect: float  # longer to shorter side
    contrast: float  # standard deviation in grey levels
    colour: float  # difference of the colour channels in grey levels
    bytes: int = MAX_BYTES
    pixels: int = MAX_PIXELS


@dataclass(frozen=True)
class ToldCall:
    """From which probability a class is called, and what is told of that."""

    label: str
    threshold: float | None  # None of exclusive classes with other names, of which the likeliest is called
    rule: str
    promise: str  # a sentence or two; empty without a threshold


@dataclass(frozen=True)
class ToldRange:
    """The usual values of a measure on the training images, as a remark states them."""

    measure: str
    title: str
    unit: str  # with the blank before it
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Phantom:
    """A drawn chest of the teaching mode."""

    file: str
    drawn_as: str  # class


@dataclass(frozen=True)
class PageFile:
    """A file that the page loads."""

    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Page:
    """The contents of page.json."""

    name: str  # of the network, for people
    kind: Kind  # of the classes: a radiograph has exactly one, or shows any number of findings
    classes: tuple[str, ...]
    size: int  # side of the network's square in pixels
    resize: str
    interpolation: str
    calls: tuple[ToldCall, ...]
    sets: SetRule | None  # which classes are possible; None where the bundle does not say
    feature_limit: FeatureLimit | None  # of the distance that the network tells; None where it tells none
    limits: Limits
    quality: tuple[ToldRange, ...]
    training_images: int
    colours: tuple[str, ...]  # of the heat map, from no heat to the most
    strength: float  # of the heat map at first, 0 to 1
    phantoms: tuple[Phantom, ...]
    files: tuple[PageFile, ...]
    films: str = ""  # whose films the network learned from; empty where nobody said
    disclaimer: str = DISCLAIMER


def told_calls(bundle: Bundle) -> tuple[ToldCall, ...]:
    """Returns the calls of a bundle with what they promised; at a half where the run chose none."""
    classes = bundle.network.classes
    if bundle.kind != FINDINGS and classes != CLASS_NAMES:
        return tuple(ToldCall(name, None, HIGHEST, "") for name in classes)
    if not bundle.calls:
        promise = "Nobody chose this threshold: the network was not evaluated before it was exported."
        called = classes if bundle.kind == FINDINGS else classes[-1:]
        return tuple(ToldCall(name, 0.5, NOT_CHOSEN, promise) for name in called)
    return tuple(ToldCall(call.label, call.threshold, call.rule, _promise(call)) for call in bundle.calls)


def _promise(call: Call) -> str:
    if not call.images or call.sensitivity is None or call.specificity is None:
        return "What this threshold finds was not measured."
    return (
        f"On the {call.images:,} validation images this threshold found {call.sensitivity:.0%} of the images with "
        f"{call.label} (sensitivity) and left {call.specificity:.0%} of the others uncalled (specificity)."
    )


def told_ranges(bundle: Bundle) -> tuple[ToldRange, ...]:
    """Returns the usual ranges of a bundle, with the units in which remarks state them."""
    told = []
    for usual in bundle.quality:
        unit = told_measure(usual.measure).unit
        shown = "" if unit in ("", "share") else f" {unit}"
        told.append(ToldRange(usual.measure, usual.title, shown, usual.low, usual.high))
    return tuple(told)


def heat_colours() -> tuple[str, ...]:
    """Returns the colours that heat maps have everywhere in this program, as #rrggbb, from no heat to the most."""
    levels = np.arange(HOTTEST_COLOUR + 1, dtype=np.uint8)[:, None]
    colours = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[:, 0]
    return tuple(f"#{red:02x}{green:02x}{blue:02x}" for blue, green, red in colours)


def page_of(
    bundle: Bundle, name: str, limits: Limits, phantoms: tuple[Phantom, ...], files: tuple[PageFile, ...]
) -> Page:
    """Returns what page.json says of a bundle that is called `name`."""
    network = bundle.network
    return Page(
        name=name,
        kind=bundle.kind,
        classes=network.classes,
        size=network.image_size,
        resize=network.resize,
        interpolation=network.interpolation,
        calls=told_calls(bundle),
        sets=bundle.sets.rule() if bundle.sets else None,
        feature_limit=bundle.feature_limit,
        limits=limits,
        quality=told_ranges(bundle),
        training_images=bundle.training_images,
        colours=heat_colours(),
        strength=OPACITY,
        phantoms=phantoms,
        files=files,
        films=bundle.films,
    )
