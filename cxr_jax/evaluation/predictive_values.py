"""What a call is worth where PNEUMONIA is more or less common than among the images that were judged."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """A share in 0..1 with its lowest and its highest plausible value, both None where they are unknown."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def complement(self) -> Share:
        """The share of all others."""
        if self.low is None or self.high is None:
            return Share(1 - self.value)
        return Share(1 - self.value, 1 - self.high, 1 - self.low)


@dataclass(frozen=True)
class PredictiveValues:
    """How often calls are right at one prevalence; None where no such call would be made."""

    prevalence: float
    of_pneumonia: Share | None
    of_normal: Share | None


def predictive_values(sensitivity: Share, specificity: Share, prevalence: float) -> PredictiveValues:
    """Returns the share of PNEUMONIA calls and of NORMAL calls that would be right at a prevalence.

    By Bayes' rule (Altman & Bland, BMJ 1994); sensitivity and specificity are taken to be the same there. The ends are
    those that both rates give at their own ends, so they lie wider than an interval of the same level.

    Args:
        sensitivity: share of PNEUMONIA images that are called so.
        specificity: share of NORMAL images that are called so.
        prevalence: share of PNEUMONIA, above 0 and below 1.

    Raises:
        ValueError: the prevalence is out of range.
    """
    if not 0 < prevalence < 1:
        raise ValueError(f"prevalence is {prevalence}, but must be above 0 and below 1")
    return PredictiveValues(
        prevalence,
        _share_of_right(prevalence, sensitivity, specificity.complement),
        _share_of_right(1 - prevalence, specificity, sensitivity.complement),
    )


def _share_of_right(prior: float, right: Share, wrong: Share) -> Share | None:
    """Returns the share of calls that are right: `right` of those it should be, `wrong` of the others are called so."""
    value = _bayes(prior, right.value, wrong.value)
    if value is None or None in (right.low, wrong.low):
        return None if value is None else Share(value)
    # it rises with right calls and falls with wrong ones
    return Share(value, _bayes(prior, right.low, wrong.high), _bayes(prior, right.high, wrong.low))


def _bayes(prior: float, right: float, wrong: float) -> float | None:
    called = prior * right + (1 - prior) * wrong
    return prior * right / called if called > 0 else None
