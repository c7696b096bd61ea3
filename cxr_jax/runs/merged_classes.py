"""Fewer classes out of several exclusive ones: bacteria and virus together are pneumonia, for one.

The probability of classes together is the sum of theirs. Images of classes that are left out count no more, and the
probabilities of the others are those among the classes that are kept: of bacteria and virus without the normal images,
each divided by the sum of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.special import logsumexp

from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.runs.class_predictions import ClassPredictions
from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.runs.predictions import Predictions
from cxr_jax.vocabulary import CLASS_NAMES, PNEUMONIA, SUBTYPE_NAMES

Merged = Mapping[str, tuple[str, ...]]
"""The classes that each new class is made of, by its name."""


def parse_merged(options: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Returns the classes that every new class is made of, from texts NAME=CLASS or NAME=CLASS+CLASS.

    Raises:
        UserError: a text is of another form, there are fewer than two, or a name or a class comes twice.
    """
    merged: dict[str, tuple[str, ...]] = {}
    for option in options:
        name, _, classes = option.partition("=")
        parts = tuple(part.strip() for part in classes.split("+"))
        if not name.strip() or not all(parts):
            raise UserError(f"--merge takes NAME=CLASS or NAME=CLASS+CLASS, not {option!r}", EXIT_USAGE)
        if name.strip() in merged:
            raise UserError(f"--merge names {name.strip()} twice", EXIT_USAGE)
        merged[name.strip()] = parts
    taken = [part.lower() for parts in merged.values() for part in parts]
    twice = sorted({part for part in taken if taken.count(part) > 1})
    if twice:
        raise UserError(f"--merge puts {', '.join(twice)} into more than one place", EXIT_USAGE)
    if len(merged) == 1:
        raise UserError("--merge needs two new classes or more: NAME=CLASS OTHER=CLASS+CLASS", EXIT_USAGE)
    return merged


def merge_classes(predictions: ClassPredictions, merged: Merged) -> ClassPredictions:
    """Returns the images of the named classes with the new classes, in the order of their names in `merged`.

    Raises:
        ValueError: a class is none of the predictions', or no image is of a class that is named.
    """
    lowered = [name.lower() for name in predictions.classes]
    members = [[lowered.index(part.lower()) for part in parts] for parts in merged.values()]
    new_label = np.full(len(lowered), -1)
    for label, indices in enumerate(members):
        new_label[indices] = label
    labels = new_label[predictions.label]
    rows = labels >= 0
    sums = np.stack([predictions.probabilities[rows][:, indices].sum(axis=1) for indices in members], axis=1)
    logits = None
    if predictions.logits is not None:
        logits = np.stack([logsumexp(predictions.logits[rows][:, indices], axis=1) for indices in members], axis=1)
    kept = predictions.select(rows)
    # Where all probabilities that are kept round to 0 nothing is known; the logits, if there are some, still tell.
    total = sums.sum(axis=1, keepdims=True)
    shares = np.divide(sums, total, out=np.full_like(sums, 1 / len(members)), where=total > 0)
    return ClassPredictions(
        file=kept.file,
        split=kept.split,
        group=kept.group,
        classes=tuple(merged),
        label=labels[rows],
        logits=logits,
        probabilities=shares if logits is None else ClassPredictions.activated(logits),
    )


def makes_two_classes(merged: Merged) -> bool:
    """Returns True if the new classes are NORMAL and PNEUMONIA, in capitals or not."""
    return {name.upper() for name in merged} == set(CLASS_NAMES)


def merge_to_two(predictions: ClassPredictions, merged: Merged) -> Predictions:
    """Returns the same as predictions of PNEUMONIA, whose images keep the cause that their former class names.

    Raises:
        ValueError: as in `merge_classes`, or the new classes are not NORMAL and PNEUMONIA.
    """
    if not makes_two_classes(merged):
        raise ValueError(f"the new classes are {', '.join(merged)}")
    named = {name.upper(): parts for name, parts in merged.items()}
    new = merge_classes(predictions, {name: named[name] for name in CLASS_NAMES})
    taken = {part.lower() for parts in merged.values() for part in parts}
    causes = (predictions.classes[label].lower() for label in predictions.label)
    return Predictions(
        file=new.file,
        split=new.split,
        group=new.group,
        subtype=tuple(map(_subtype, new.label, (name for name in causes if name in taken))),
        label=new.label,
        logits=new.logits,
        probability=new.probabilities[:, PNEUMONIA],
    )


def check_merged(path: str | Path, former: ClassProbabilities, merged: Merged) -> ClassPredictions:
    """Returns the predictions of the table at `path`, if the new classes can be made of them.

    Raises:
        UserError: they are of findings, lack a class that is named, or have no image of a new class.
    """
    if not isinstance(former, ClassPredictions):
        raise UserError(f"{path} is of findings that occur together, which cannot be merged into classes")
    lowered = [name.lower() for name in former.classes]
    for name, parts in merged.items():
        unknown = [part for part in parts if part.lower() not in lowered]
        if unknown:
            raise UserError(f"--merge names {unknown[0]}, but {path} has the classes {', '.join(former.classes)}")
        if not np.isin(former.label, [lowered.index(part.lower()) for part in parts]).any():
            raise UserError(f"{path} has no image of {' or '.join(parts)}, so there is none of {name}")
    return former


def _subtype(label: int, former: str) -> str:
    """Returns the subtype of an image of NORMAL or PNEUMONIA whose former class had this name, in small letters."""
    if label != PNEUMONIA:
        return SUBTYPE_NAMES[0]
    return former if former in SUBTYPE_NAMES[1:] else SUBTYPE_NAMES[-1]
