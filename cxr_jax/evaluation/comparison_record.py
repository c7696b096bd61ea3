"""What a comparison of recipes found: the record that `compare` makes, comparison.json keeps, and reports read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.intervals import Interval
from cxr_jax.evaluation.metrics import CALL_METRICS, METRICS, THRESHOLD_FREE
from cxr_jax.evaluation.paired import DifferenceOverSeeds
from cxr_jax.runs.files import write_json
from cxr_jax.runs.records import fields_to_json, read_record
from cxr_jax.vocabulary import Kind

SCHEMA_VERSION = 3
"""Version of comparison.json."""

HALF = 0.5
"""The threshold at which every recipe is compared, whatever it says of its own."""

RESOLUTION = 0.001
"""What the smallest adjusted p-value of a bootstrap test should lie below."""

At = Literal["half", "call", "operating_point", "rule"]

_PLACES = {
    None: "",
    "half": f" at {HALF:g}",
    "call": " where the highest probability is called",
    "operating_point": " at the operating point",
    "rule": " by the rule for the operating point",
}


@dataclass(frozen=True)
class Endpoint:
    """What recipes are compared by: a metric, and the threshold that it is computed at.

    `at` is `half` for 0.5, `call` where a class is called that has the highest probability, `operating_point` for the
    threshold of each run, taken as given, and `rule` for the same threshold as the estimate that it is: intervals and
    tests set it anew on other validation images. It is None for a metric that needs no threshold, or that calls the
    highest probability of all classes.
    """

    metric: str
    at: At | None = None

    @property
    def key(self) -> str:
        """Its name in a comparison, such as `roc_auc` or `accuracy@half`."""
        return self.metric if self.at is None else f"{self.metric}@{self.at}"

    @property
    def title(self) -> str:
        """Its name for a reader."""
        return METRICS[self.metric].title + _PLACES[self.at]


FREE = tuple(Endpoint(name) for name in THRESHOLD_FREE)


def endpoints_at(at: At) -> tuple[Endpoint, ...]:
    """Returns every metric that needs a threshold, at that one."""
    return tuple(Endpoint(name, at) for name in CALL_METRICS)


@dataclass(frozen=True)
class EndpointSummary:
    """One endpoint of a recipe.

    Attributes:
        values: of every seed.
        mean: their mean.
        deviation: their standard deviation (n - 1 in the denominator); None for a single seed.
        interval: of the mean, for other patients and, where there are several seeds, other seeds; None where it does
            not exist.
        as_trained: of the mean, for other patients and these very networks.
    """

    values: tuple[float, ...]
    mean: float
    deviation: float | None
    interval: Interval | None
    as_trained: Interval | None


@dataclass(frozen=True)
class RecipeSummary:
    """A recipe: how many seeds, their thresholds, and by `Endpoint.key` what they give.

    An endpoint is None where a seed has no value, or the recipe no operating point.
    """

    seeds: int
    thresholds: tuple[float, ...] | None
    endpoints: dict[str, EndpointSummary | None]


@dataclass(frozen=True)
class AdjustedDifferenceOverSeeds(DifferenceOverSeeds):
    """A difference over seeds whose p-value is also adjusted over all pairs of the endpoint."""

    adjusted_p_value: float | None = None


@dataclass(frozen=True)
class Answer:
    """What is to be said of one endpoint of a pair.

    Attributes:
        difference: mean of the first recipe minus mean of the second.
        interval: of the difference, for these very networks on other patients; None where it does not exist.
        test: name of the test.
        p_value: two-sided, None where it does not exist.
        over_seeds: interval and p-value for other patients and other seeds; None unless both recipes have two seeds.
        only_first_right: for accuracy, images that only the first calls rightly, averaged over pairs of seeds.
        only_second_right: the same of the second.
        adjusted_p_value: adjusted over all pairs of the endpoint.
        smallest_p_value: the smallest that a bootstrap test can give, before adjusting; None for other tests.
    """

    difference: float
    interval: Interval | None
    test: str
    p_value: float | None
    over_seeds: AdjustedDifferenceOverSeeds | None
    only_first_right: float | None = None
    only_second_right: float | None = None
    adjusted_p_value: float | None = None
    smallest_p_value: float | None = None

    @property
    def ends(self) -> Interval | None:
        """The interval for other patients and other seeds; for these very networks where seeds are too few."""
        return self.interval if self.over_seeds is None else self.over_seeds.interval

    @property
    def is_bounded(self) -> bool:
        """True if no draw spoke against a difference, so that the p-value is only known to lie below what is told."""
        return self.smallest_p_value is not None and self.p_value <= self.smallest_p_value


@dataclass(frozen=True)
class Pair:
    """Two recipes, and by `Endpoint.key` how they differ; None where one of them has no value."""

    first: str
    second: str
    endpoints: dict[str, Answer | None]


@dataclass(frozen=True)
class Correction:
    """How p-values of one endpoint are adjusted for the number of pairs; intervals hold for one pair at a time."""

    method: str
    comparisons: int
    simultaneous_intervals: bool = False


@dataclass(frozen=True)
class Comparison:
    """Recipes on the same images.

    Attributes:
        images: how many there are.
        pneumonia: how many of them are PNEUMONIA, or of the class in its place; None of several classes together.
        groups: how many; None if unknown.
        confidence: how intervals were computed.
        correction: of p-values. Those of one endpoint are adjusted together over all pairs, those over seeds by
            themselves, and different endpoints not for each other.
        endpoints: by `Endpoint.key`; operating point and rule are left out if it is 0.5 in every run, or nowhere known.
        recipes: by name.
        pairs: every two recipes, or each with the reference.
    """

    images: int
    pneumonia: int | None
    groups: int | None
    confidence: Confidence
    correction: Correction
    endpoints: dict[str, Endpoint]
    recipes: dict[str, RecipeSummary]
    pairs: tuple[Pair, ...]

    def as_json(self) -> dict[str, Any]:
        """Returns the content of comparison.json."""
        return {"schema_version": SCHEMA_VERSION, **fields_to_json(self)}

    @property
    def parts(self) -> dict[str, Comparison]:
        """What is compared, by the name of its class: two classes have none."""
        return {"": self}

    def has(self, at: At) -> bool:
        """Returns True if something is compared there."""
        return any(endpoint.at == at for endpoint in self.endpoints.values())

    def answers(self, metric: str) -> list[Answer]:
        """Returns what is said of a metric, at any threshold, of every pair."""
        keys = [key for key, endpoint in self.endpoints.items() if endpoint.metric == metric]
        found = [pair.endpoints[key] for pair in self.pairs for key in keys]
        return [answer for answer in found if answer is not None]


@dataclass(frozen=True)
class ClassComparison:
    """Recipes of classes other than NORMAL and PNEUMONIA, or of findings, on the same images.

    Attributes:
        kind_of_classes: whether they exclude each other, or are findings.
        together: all classes together.
        classes: each class against the rest, or each finding on the images of which it is known, by name. P-values of
            an endpoint are adjusted over all pairs of all of them.
        left_out: classes that no image shows, or every one, of which nothing can be said.
    """

    kind_of_classes: Kind
    together: Comparison
    classes: dict[str, Comparison]
    left_out: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Returns the content of comparison.json."""
        return {"schema_version": SCHEMA_VERSION, **fields_to_json(self)}

    @property
    def parts(self) -> dict[str, Comparison]:
        """What is compared, by the name of its class; all together have none."""
        return {"": self.together, **self.classes}


def write_comparison(path: str | Path, comparison: Comparison | ClassComparison) -> None:
    """Writes comparison.json atomically; UserError as in `write_json`."""
    write_json(path, comparison.as_json())


def read_comparison(path: str | Path) -> Comparison:
    """Reads comparison.json.

    Raises:
        UserError: the file is missing, damaged, or of another version.
    """
    return read_record(path, Comparison, version=SCHEMA_VERSION, where="comparison", advice="compare the runs again")
