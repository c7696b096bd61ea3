"""The first screen of a report: what the network got right and wrong in counts of children's radiographs, and beside
it what needs no network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cxr_jax.evaluation.baselines import ALL_MEASURES
from cxr_jax.evaluation.judgement import JudgedSplit
from cxr_jax.evaluation.measures import Measured
from cxr_jax.evaluation.predictive_values import PredictiveValues, Share, predictive_values
from cxr_jax.reporting.quality import ToldBaseline

PREVALENCES = (0.01, 0.05, 0.1, 0.2, 0.5)
"""Shares of PNEUMONIA that every report tells the worth of a call for."""

EXAMPLE_PREVALENCE = 0.1
"""The one that a report begins with where the config declares none."""

_IN_ALL = 1000
"""Of how many radiographs a report tells what would become of them."""


@dataclass(frozen=True)
class Bar:
    """The images of one class: how many were called rightly, and how many wrongly."""

    title: str
    right: int
    wrong: int
    told_right: str
    told_wrong: str

    @property
    def images(self) -> int:
        """All of them."""
        return self.right + self.wrong

    @property
    def percent_right(self) -> float:
        """Share of right calls in per cent."""
        return 100 * self.right / self.images


@dataclass(frozen=True)
class Summary:
    """The first screen in words."""

    sentences: tuple[str, ...]
    bars: tuple[Bar, ...]
    ranking: str | None  # how often the ill image has the higher score, with and without a network
    against_baseline: str | None  # what follows from that


@dataclass(frozen=True)
class Outlook:
    """What calls would be worth where the network is used."""

    declared: float | None  # the prevalence that the config declares
    prevalence: float  # the one that is told in a sentence
    sentence: str
    rows: tuple[PredictiveValues, ...]  # by prevalence, rising
    sensitivity: float
    specificity: float


def summarise(judged: JudgedSplit, baselines: Sequence[ToldBaseline]) -> Summary:
    """Returns what a judged split says in counts, `baselines` being those that `quality.quality_of` tells."""
    (true_negatives, false_positives), (false_negatives, true_positives) = judged.confusion
    ill, well = true_positives + false_negatives, true_negatives + false_positives
    sentences, bars = [], []
    if ill:
        sentences.append(f"Of {ill:,} radiographs with pneumonia it missed {_counted(false_negatives)}.")
        bars.append(Bar("With pneumonia", true_positives, false_negatives, "found", "missed"))
    if well:
        sentences.append(f"Of {well:,} without pneumonia it called {_counted(false_positives)} ill.")
        bars.append(Bar("Without pneumonia", true_negatives, false_positives, "called well", "called ill"))
    if ill and well:
        right = true_positives + true_negatives
        sentences.append(f"In all it was right {right:,} times; who calls every radiograph ill is right {ill:,} times.")
    baseline = next((entry.test["roc_auc"] for entry in baselines if entry.name == ALL_MEASURES), None)
    network = judged.metrics["roc_auc"]
    return Summary(tuple(sentences), tuple(bars), _ranking(network, baseline), _against(network, baseline))


def _counted(number: int) -> str:
    return f"{number:,}" if number else "none"


def _ranking(network: Measured, baseline: Measured | None) -> str | None:
    """Returns in words how often the ill one of two images has the higher score."""
    if network.value is None:
        return None
    told = (
        "Shown one radiograph with pneumonia and one without, it gives the ill one the higher score in "
        f"{_of_pairs(network)}. Guessing does so in 50."
    )
    if baseline is None or baseline.value is None:
        return told
    return f"{told} Brightness, sharpness and the like, without any network, do so in {_of_pairs(baseline)}."


def _of_pairs(measured: Measured) -> str:
    return f"{100 * measured.value:.0f} of 100 such pairs (AUC {measured.value:.3f})"


def _against(network: Measured, baseline: Measured | None) -> str | None:
    """Returns what the two areas and their intervals show; None where either has no interval."""
    if baseline is None or network.interval is None or baseline.interval is None:
        return None
    own, other = network.interval, baseline.interval
    if own.low > other.high:
        return "So the network knows more than how the pictures were taken: the two intervals do not overlap."
    if own.high < other.low:
        return "So the network does worse than what needs no network."
    return "It is not shown that the network knows more than how the pictures were taken: the two intervals overlap."


def outlook(judged: JudgedSplit, declared: float | None) -> Outlook | None:
    """Returns what calls would be worth at several prevalences; None where a rate is undefined.

    Args:
        judged: the judgement of a split.
        declared: the share of PNEUMONIA that the config declares, or None.
    """
    rates = [_share_of(judged.metrics[name]) for name in ("sensitivity", "specificity")]
    if rates[0] is None or rates[1] is None:
        return None
    sensitivity, specificity = rates
    own = judged.all_pneumonia_accuracy
    prevalence = declared or EXAMPLE_PREVALENCE
    shown = sorted({*PREVALENCES, prevalence, *([own] if 0 < own < 1 else [])})
    return Outlook(
        declared=declared,
        prevalence=prevalence,
        sentence=outlook_sentence(sensitivity.value, specificity.value, prevalence),
        rows=tuple(predictive_values(sensitivity, specificity, share) for share in shown),
        sensitivity=sensitivity.value,
        specificity=specificity.value,
    )


def _share_of(measured: Measured) -> Share | None:
    """Returns a measure with the ends of its first interval; None where it is undefined."""
    if measured.value is None:
        return None
    if measured.interval is None:
        return Share(measured.value)
    return Share(measured.value, measured.interval.low, measured.interval.high)


def outlook_sentence(sensitivity: float, specificity: float, prevalence: float) -> str:
    """Returns what would become of many radiographs, in counts; the script of the page tells the same."""
    ill = _rounded(_IN_ALL * prevalence)
    well = _IN_ALL - ill
    found, alarms = _rounded(ill * sensitivity), _rounded(well * (1 - specificity))
    return (
        f"Of {_IN_ALL:,} radiographs, {ill} show pneumonia: {found} of them are found and {ill - found} missed. "
        f"Of the {well} others, {alarms} are called ill. So {found} of {found + alarms} calls of PNEUMONIA are right, "
        f"and {well - alarms} of {_IN_ALL - found - alarms} calls of NORMAL."
    )


def _rounded(value: float) -> int:
    """Returns the nearest whole number, halves upwards as a script rounds them."""
    return int(value + 0.5)
