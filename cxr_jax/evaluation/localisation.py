"""Do heat maps find what they are of? Boxes from maps, and their hottest place, against boxes that readers drew.

The rules are those of Wang et al., "ChestX-ray8", CVPR 2017, table 4. A drawn box is found if a box from the map of its
finding covers it enough: by the intersection as a share of the box from the map (IoBB), or of both (IoU). A box from
the map that covers no drawn one enough is a false positive; they are counted per map. The pointing game (Zhang et al.,
IJCV 2018) asks whether the hottest place of a map lies in a drawn box.

Large boxes are found by large boxes wherever these come from. So the same rules are applied to two boxes that saw no
image: one in the middle of it, and the mean box. Their sizes and places are means over the boxes of other patients.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from cxr_jax.evaluation.confidence import LEVEL, RESAMPLES
from cxr_jax.evaluation.intervals import Interval, bootstrap_weights, percentile_interval, wilson_interval_of_groups
from cxr_jax.evaluation.measures import Measured
from cxr_jax.images.boxes import (
    Box,
    centred,
    covered_share,
    intersection_over_found,
    intersection_over_union,
    mean_box,
)
from cxr_jax.runs.files import write_json
from cxr_jax.runs.records import fields_to_json, read_record

SCHEMA_VERSION = 1
"""Version of localisation.json."""

Kind = Literal["IoBB", "IoU", "pointing"]

LIMITS: dict[Kind, tuple[float, ...]] = {
    "IoBB": (0.1, 0.25, 0.5, 0.75, 0.9),
    "IoU": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7),
}
"""T(IoBB) and T(IoU) of the paper."""

COVERS: dict[Kind, Callable[[Box, Box], float]] = {"IoBB": intersection_over_found, "IoU": intersection_over_union}

CENTRED, MEAN = "centred box", "mean box"

ALL = "all"
"""Name of the findings together."""


@dataclass(frozen=True)
class Answer:
    """What is said of where a finding is: boxes, and the one place that is surest; None where nothing is said."""

    boxes: tuple[Box, ...]
    place: tuple[float, float] | None


@dataclass(frozen=True)
class BoxedMap:
    """The map of one finding in one image, with the boxes that were drawn of it; all in pixels of the image."""

    file: str
    finding: str
    group: str  # the stand-in for a patient
    width: int
    height: int
    drawn: tuple[Box, ...]
    answer: Answer


@dataclass(frozen=True)
class Rate:
    """How many of something were found."""

    found: int
    of: int
    share: Measured
    false_positives: float | None = None  # boxes per map that cover no drawn one enough; None of the pointing game


@dataclass(frozen=True)
class Score:
    """A network by one rule, beside boxes that saw no image.

    Attributes:
        kind: of the rule.
        limit: what must be exceeded; 0 in the pointing game.
        network: its rate.
        chance: the rates of the boxes that saw no image; empty where all images are of one patient.
        more: the network's share less theirs, paired, with the interval over patients.
    """

    kind: Kind
    limit: float
    network: Rate
    chance: dict[str, Rate]
    more: dict[str, Measured]


@dataclass(frozen=True)
class Part:
    """One finding, or all together.

    Attributes:
        name: of the finding.
        maps: how many, one for each image and finding with a box.
        images: how many.
        boxes: how many were drawn.
        groups: stand-ins for patients.
        blank: maps on which nothing speaks for the finding.
        covered: mean share of an image in the drawn boxes, which is how often a place by lot lies in one.
        scores: by rule.
    """

    name: str
    maps: int
    images: int
    boxes: int
    groups: int
    blank: int
    covered: float
    scores: tuple[Score, ...]

    def score(self, kind: Kind, limit: float = 0.0) -> Score:
        """Returns that of one rule; KeyError if there is none."""
        for score in self.scores:
            if (score.kind, score.limit) == (kind, limit):
                return score
        raise KeyError((kind, limit))


@dataclass(frozen=True)
class Localisation:
    """The contents of localisation.json.

    Attributes:
        dataset: name of the prepared data.
        images_of: whose images were looked at: a split, or all.
        phantom: the images are drawn.
        architecture: of the network, with its head.
        step: of training.
        checkpoint_sha256: of the network.
        stage: whose maps they are.
        levels: of 255, from which on places belong to a box; each gives boxes of its own.
        left_out: boxes that are not scored, by the reason.
        files: the images.
        parts: each finding, and all together last.
        date: when they were measured, in ISO's form.
    """

    dataset: str
    images_of: str
    phantom: bool
    architecture: str
    step: int
    checkpoint_sha256: str
    stage: str
    levels: tuple[int, ...]
    left_out: dict[str, int]
    files: tuple[str, ...]
    parts: tuple[Part, ...]
    date: str = ""


def chance_answers(maps: Sequence[BoxedMap]) -> dict[str, list[Answer]]:
    """Returns what boxes that saw no image say of every map; nothing where all are of one patient.

    For each map they come from the boxes of all other patients: of the same finding where there are such, else of any.
    Lengths are shares of the sides of the image.
    """
    if len({entry.group for entry in maps}) < 2:
        return {}
    answers: dict[str, list[Answer]] = {CENTRED: [], MEAN: []}
    for entry in maps:
        others = [other for other in maps if other.group != entry.group]
        alike = [other for other in others if other.finding == entry.finding] or others
        shares = (box.scaled(1 / other.width, 1 / other.height) for other in alike for box in other.drawn)
        mean = mean_box(shares).scaled(entry.width, entry.height)
        for name, box in ((CENTRED, centred(mean, entry.width, entry.height)), (MEAN, mean)):
            answers[name].append(Answer((box,), box.centre))
    return answers


def judge_boxes(maps: Sequence[BoxedMap]) -> tuple[Part, ...]:
    """Returns how well maps find what was drawn, for each finding and for all together; there is at least one map."""
    chance = chance_answers(maps)
    findings = sorted({entry.finding for entry in maps})
    names = findings if len(findings) == 1 else [*findings, ALL]
    return tuple(
        _part(name, [row for row, entry in enumerate(maps) if name in (ALL, entry.finding)], maps, chance)
        for name in names
    )


class _Units:
    """What is counted by a rule, N of them, and the resamples of their patients."""

    def __init__(self, groups: Sequence[str]) -> None:
        self._clusters = np.unique(groups, return_inverse=True)[1]
        self._weights = bootstrap_weights(self._clusters, RESAMPLES, np.random.default_rng(0))
        self._totals = self._weights.sum(axis=1)

    def rate(self, hits: np.ndarray, false: float | None) -> Rate:
        """Returns the share of hits [N], with Wilson's interval by groups, and the group bootstrap's behind it."""
        intervals = (wilson_interval_of_groups(hits, self._clusters), self._bootstrapped(hits))
        share = Measured("share found", float(hits.mean()), None, tuple(each for each in intervals if each is not None))
        return Rate(int(hits.sum()), len(hits), share, false)

    def difference(self, who: str, hits: np.ndarray, others: np.ndarray) -> Measured:
        """Returns the share of hits [N] less that of others [N], paired, with the interval of the group bootstrap."""
        values = hits.astype(np.float64) - others
        interval = self._bootstrapped(values)
        title = f"share found less that of the {who}"
        return Measured(title, float(values.mean()), None, (interval,) if interval else ())

    def _bootstrapped(self, values: np.ndarray) -> Interval | None:
        means = self._weights @ values.astype(np.float64) / self._totals
        return percentile_interval(means, float(values.mean()), LEVEL)


def _part(name: str, rows: list[int], maps: Sequence[BoxedMap], chance: dict[str, list[Answer]]) -> Part:
    chosen = [maps[row] for row in rows]
    answers = [entry.answer for entry in chosen]
    blind = {who: [given[row] for row in rows] for who, given in chance.items()}
    # in the pointing game a map is asked, by the others every drawn box
    maps_asked = _Units([entry.group for entry in chosen])
    boxes_asked = _Units([entry.group for entry in chosen for _ in entry.drawn])
    rules = [(kind, limit) for kind, limits in LIMITS.items() for limit in limits]
    return Part(
        name=name,
        maps=len(chosen),
        images=len({entry.file for entry in chosen}),
        boxes=sum(len(entry.drawn) for entry in chosen),
        groups=len({entry.group for entry in chosen}),
        blank=sum(answer.place is None for answer in answers),
        covered=float(np.mean([covered_share(entry.drawn, entry.width, entry.height) for entry in chosen])),
        scores=(
            *(_score(kind, limit, boxes_asked, chosen, answers, blind) for kind, limit in rules),
            _score("pointing", 0.0, maps_asked, chosen, answers, blind),
        ),
    )


def _score(
    kind: Kind,
    limit: float,
    units: _Units,
    maps: list[BoxedMap],
    answers: list[Answer],
    blind: dict[str, list[Answer]],
) -> Score:
    """Returns how a network and the boxes that saw no image do by one rule."""
    hits, false = _hits(kind, limit, maps, answers)
    chance, more = {}, {}
    for who, given in blind.items():
        others, their_false = _hits(kind, limit, maps, given)
        chance[who] = units.rate(others, their_false)
        more[who] = units.difference(who, hits, others)
    return Score(kind, limit, units.rate(hits, false), chance, more)


def _hits(
    kind: Kind, limit: float, maps: Sequence[BoxedMap], answers: Sequence[Answer]
) -> tuple[np.ndarray, float | None]:
    """Returns whether each drawn box is found, or each map points into one, bool [N], and false positives per map."""
    if kind == "pointing":
        pointed = [
            answer.place is not None and any(box.holds(*answer.place) for box in entry.drawn)
            for entry, answer in zip(maps, answers, strict=True)
        ]
        return np.array(pointed, bool), None
    covers, found, false = COVERS[kind], [], 0
    for entry, answer in zip(maps, answers, strict=True):
        shares = np.array([[covers(box, truth) for truth in entry.drawn] for box in answer.boxes])
        right = shares.reshape(len(answer.boxes), len(entry.drawn)) > limit
        found.extend(right.any(axis=0))
        false += int(np.sum(~right.any(axis=1)))
    return np.array(found, bool), false / len(maps)


def write_localisation(path: str | Path, localisation: Localisation) -> None:
    """Writes the record atomically; UserError as in `write_json`."""
    write_json(path, {"schema_version": SCHEMA_VERSION, **fields_to_json(localisation)})


def read_localisation(path: str | Path) -> Localisation:
    """Reads what `write_localisation` wrote; UserError if the file is missing, damaged, or of another version."""
    advice = "run cxr-jax explain with --boxes again"
    return read_record(path, Localisation, version=SCHEMA_VERSION, where="localisation", advice=advice)
