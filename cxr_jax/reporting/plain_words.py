"""What a judgement means, in sentences for a reader who knows radiographs and no statistics."""

from __future__ import annotations

from scipy.special import expit

from cxr_jax.evaluation.judgement import JudgedSplit, Judgement
from cxr_jax.evaluation.measures import Measured
from cxr_jax.evaluation.numbers import TO, range_text
from cxr_jax.vocabulary import CLASS_NAMES, NORMAL, PNEUMONIA


def told_rule(judgement: Judgement) -> str | None:
    """Returns what may be expected of the rule that chose the threshold; None where no rule chose it."""
    found = judgement.for_rule
    if found is None or judgement.validation is None:
        return None
    told = f"The threshold was set on {judgement.validation.images:,} validation images, and others would have put it "
    ends = [f"{name} {ends}" for name in ("accuracy", "specificity") if (ends := _percent(found.metrics[name]))]
    if not ends:
        return f"{told}elsewhere."
    return f"{told}elsewhere: set anew by the same rule, it may lead to {' and '.join(ends)} on such test images."


def _percent(measured: Measured) -> str | None:
    interval = measured.interval
    return None if interval is None else f"anywhere from {range_text(interval.low, interval.high, '.0%', word=TO)}"


def told_calibration(judgement: Judgement, *, weighted: bool) -> tuple[str, ...]:
    """Returns whether probabilities are too low or too high, on each split where the interval says so, and why.

    Nothing is said of an evaluation of an earlier version, which does not know. `weighted` says that a class counted
    more in training than its share.
    """
    sentences = []
    # validation first: what the network was trained for shows on images like those of training
    for name, judged in reversed(judgement.splits.items()):
        if (told := _told_shift(name, judged)) is not None:
            sentences.append(told)
    if not sentences:
        return ()
    sentences.append(
        "No temperature mends that: it makes all probabilities more or less extreme, but moves none across 50%."
    )
    if weighted and judgement.validation is not None and _shift_follows_weights(judgement.validation):
        rare = CLASS_NAMES[_rarer(judgement.validation)]
        sentences.append(
            f"The rarer class, {rare}, counted more in training, which moves every probability towards it."
        )
    return (" ".join(sentences),)


def _told_shift(split: str, judged: JudgedSplit) -> str | None:
    """Returns in words how far the probabilities of a split lie off; None where they may lie right."""
    shift = _shift(judged)
    if shift is None:
        return None
    direction = "too low" if shift.value > 0 else "too high"
    interval = shift.interval
    ends = range_text(*sorted(abs(end) for end in (interval.low, interval.high)), ".1f", word=TO)
    return (
        f"On {split} the probabilities of PNEUMONIA are {direction}, by {abs(shift.value):.1f} logits "
        f"({ends}): where the network says 50%, it should say about {expit(shift.value):.0%}."
    )


def _shift(judged: JudgedSplit) -> Measured | None:
    """Returns calibration in the large where its interval leaves 0 out, else None."""
    told = judged.calibration.before.recalibration
    interval = None if told is None else told.in_the_large.interval
    if interval is None or interval.low <= 0 <= interval.high:
        return None
    return told.in_the_large


def _shift_follows_weights(judged: JudgedSplit) -> bool:
    shift = _shift(judged)
    return shift is not None and (shift.value > 0) == (_rarer(judged) == NORMAL)


def _rarer(judged: JudgedSplit) -> int:
    return NORMAL if judged.classes[CLASS_NAMES[NORMAL]] < judged.classes[CLASS_NAMES[PNEUMONIA]] else PNEUMONIA
