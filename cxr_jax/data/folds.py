"""The folds of cross-validation: which of them every image of train is held out in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cxr_jax.data.examples import Example
from cxr_jax.data.splits import clusters_by_stratum, shuffled, subtype_of
from cxr_jax.errors import UserError
from cxr_jax.vocabulary import CLASS_NAMES


def assign_folds(
    examples: Sequence[Example], folds: int, seed: int, classes: tuple[str, ...] = CLASS_NAMES
) -> list[int]:
    """Shares out `examples` among folds, whole clusters at a time, so that every fold has every subtype alike.

    The clusters of a subtype are taken from the largest to the smallest, those of one size in the order of a hash of
    seed and name, and each goes to the fold that has the fewest images of the subtype, then of the class, then of all.
    So two folds differ in a subtype by no more images than its largest cluster has, and the choice depends neither on
    the order of the examples nor on a library's random numbers.

    Args:
        examples: N examples.
        folds: how many, 2 or more.
        seed: of the order.
        classes: names of the classes.

    Returns:
        The number of the fold of every example, from 0.

    Raises:
        UserError: a class has fewer clusters than there are folds.
    """
    strata = clusters_by_stratum(examples, subtype_of)
    for name in classes:
        groups = sum(len(clusters) for stratum, clusters in strata.items() if stratum[0] == name)
        if groups < folds:
            raise UserError(
                f"{folds} folds need {folds} groups of each class, and train has {groups} of {name}: take fewer folds"
            )
    assigned = [0] * len(examples)
    of_class: dict[str, Counter[int]] = {name: Counter() for name in classes}
    of_all: Counter[int] = Counter()
    for stratum, clusters in sorted(strata.items()):
        of_stratum: Counter[int] = Counter()
        counted = (of_stratum, of_class[stratum[0]], of_all)
        for cluster in sorted(clusters, key=lambda name: (-len(clusters[name]), shuffled(name, seed))):
            fold = min(range(folds), key=lambda number: tuple(counts[number] for counts in counted))
            for counts in counted:
                counts[fold] += len(clusters[cluster])
            for row in clusters[cluster]:
                assigned[row] = fold
    return assigned
