"""What a reader must know of the splits that are judged, before believing the numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.runs.finding_predictions import FindingPredictions
from cxr_jax.runs.predictions import Predictions

# below this many images of a class an estimate moves by more than its interval can tell
_FEW = 20


def warnings_of_splits(
    validation: Predictions | ClassProbabilities | None,
    test: Predictions | ClassProbabilities,
    classes: Sequence[str],
    without_validation: str,
) -> list[str]:
    """Returns what a reader must know before believing the numbers, one sentence each.

    `classes` names the labels in their order; `without_validation` is what is unknown where there is no validation,
    with its verb.
    """
    warnings = []
    if not test.has_groups:
        warnings.append("Not every image has a group: intervals take images for independent and may be too narrow.")
    for split, predictions in (("test", test), ("validation", validation)):
        if predictions is None:
            continue
        if isinstance(predictions, FindingPredictions):
            warnings += _of_rare_findings(predictions, split)
            continue
        for index, name in enumerate(classes):
            count = int(np.sum(predictions.label == index))
            if count < _FEW:
                warnings.append(f"Only {count} {split} images are {name}: what rests on them is hardly known.")
    if validation is None:
        warnings.append(f"There are no validation predictions: {without_validation} unknown.")
        return warnings
    shared = len(set(validation.file) & set(test.file))
    if shared:
        warnings.append(f"{shared} images are in validation and in test: the test figures are not to be believed.")
    groups = len((set(validation.group) & set(test.group)) - {""})
    if groups:
        warnings.append(f"{groups} groups have images in validation and in test: the test figures flatter.")
    return warnings


def _of_rare_findings(predictions: FindingPredictions, split: str) -> list[str]:
    """Returns a sentence on the findings that few images show, if there are any."""
    counts = {name: int(predictions.asked(name)[1].sum()) for name in predictions.classes}
    few = [f"{name} ({count})" for name, count in counts.items() if count < _FEW]
    return [f"Few {split} images show {', '.join(few)}: what rests on them is hardly known."] if few else []
