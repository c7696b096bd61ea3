"""The folds of cross-validation: which of them every image of train is held out in."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from cxr_jax.data.examples import Example
from cxr_jax.data.findings import present_in
from cxr_jax.data.splits import clusters_by_stratum, rarest_shown, shuffled, subtype_of
from cxr_jax.errors import UserError
from cxr_jax.vocabulary import CLASS_NAMES, EXCLUSIVE, FINDINGS, Kind


def assign_folds(
    examples: Sequence[Example],
    folds: int,
    seed: int,
    classes: tuple[str, ...] = CLASS_NAMES,
    kind: Kind = EXCLUSIVE,
) -> list[int]:
    """Shares out `examples` among folds, whole clusters at a time, so that every fold has every subtype alike.

    The clusters of a subtype are taken from the largest to the smallest, those of one size in the order of a hash of
    seed and name, and each goes to the fold that has the fewest images of the subtype, then of the class, then of all.
    So two folds differ in a subtype by no more images than its largest cluster has, and the choice depends neither on
    the order of the examples nor on a library's random numbers. Of findings that occur together an image counts for the
    rarest that it shows.

    Args:
        examples: N examples.
        folds: how many, 2 or more.
        seed: of the order.
        classes: names of the classes.
        kind: of the classes.

    Returns:
        The number of the fold of every example, from 0.

    Raises:
        UserError: a class has fewer clusters than there are folds, or fewer show a finding.
    """
    of_findings = kind == FINDINGS
    strata = clusters_by_stratum(examples, rarest_shown(examples) if of_findings else subtype_of)
    _require_groups(examples, strata, folds, classes, of_findings=of_findings)
    assigned = [0] * len(examples)
    of_class: defaultdict[str, Counter[int]] = defaultdict(Counter)
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


def _require_groups(
    examples: Sequence[Example],
    strata: Mapping[tuple[str, ...], Mapping[str, Sequence[int]]],
    folds: int,
    classes: tuple[str, ...],
    *,
    of_findings: bool,
) -> None:
    """Raises UserError if fewer groups than there are folds are of a class, or show a finding."""
    groups: Counter[str] = Counter()
    for stratum, clusters in strata.items():
        for rows in clusters.values():
            shown = {name for row in rows for name in present_in(examples[row].label)}
            groups.update(shown if of_findings else (stratum[0],))
    which = "that show each finding" if of_findings else "of each class"
    for name in classes:
        if groups[name] < folds:
            raise UserError(
                f"{folds} folds need {folds} groups {which}, and train has {groups[name]} of {name}: take fewer folds"
            )
