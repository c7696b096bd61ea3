"""Cutting a data set by group, and proving that no group and no identical file is in two parts."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from cxr_jax.data.examples import Example
from cxr_jax.data.findings import present_in
from cxr_jax.errors import UserError
from cxr_jax.vocabulary import CLASS_NAMES, NORMAL

_NUMBER = re.compile(r"\d+$")
"""The number at the end of a group's name."""


@dataclass(frozen=True)
class Proof:
    """What was found when the parts of a data set were compared; empty tuples are the proof."""

    groups_in_two_splits: tuple[str, ...]
    identical_files_in_two_splits: tuple[tuple[str, ...], ...]  # sets of byte-identical files

    @property
    def holds(self) -> bool:
        """True if no group and no identical file is in two splits."""
        return not self.groups_in_two_splits and not self.identical_files_in_two_splits

    def as_dict(self) -> dict[str, object]:
        """Returns the proof for a JSON file."""
        return {"holds": self.holds, **asdict(self)}


def identical_files(examples: Sequence[Example]) -> tuple[tuple[Example, ...], ...]:
    """Returns the sets of two or more examples whose files are byte for byte the same."""
    by_content: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_content[example.sha256].append(example)
    return tuple(tuple(same) for same in by_content.values() if len(same) > 1)


def prove_disjoint(examples: Sequence[Example], splits: Sequence[str] | None = None) -> Proof:
    """Compares the parts of a data set.

    Args:
        examples: all examples.
        splits: the part that each example is in; by default its own `split`.
    """
    part_of = dict(zip((example.file for example in examples), splits or [e.split for e in examples], strict=True))
    parts_of_group: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        parts_of_group[example.group].add(part_of[example.file])
    shared = sorted(group for group, parts in parts_of_group.items() if len(parts) > 1)
    crossing = [
        tuple(example.file for example in same)
        for same in identical_files(examples)
        if len({part_of[example.file] for example in same}) > 1
    ]
    return Proof(tuple(shared), tuple(crossing))


def clusters_of(examples: Sequence[Example]) -> list[str]:
    """Returns for each example the name of its cluster: groups joined where they share a byte-identical file."""
    parent: dict[str, str] = {}

    def find(node: str) -> str:
        """Returns the root of `node`, shortening the way to it."""
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for example in examples:
        one, other = sorted((find(f"group {example.group}"), find(f"sha256 {example.sha256}")))
        parent[other] = one
    return [find(f"group {example.group}") for example in examples]


@dataclass(frozen=True)
class JoinedGroups:
    """Groups that were joined because they hold identical files, under the name of the first."""

    groups: tuple[str, ...]
    files: tuple[str, ...]  # every file whose content is in two of the groups


def joined_by_content(examples: Sequence[Example]) -> tuple[tuple[Example, ...], tuple[JoinedGroups, ...]]:
    """Returns the examples with groups joined where they share a byte-identical file, and what was joined.

    Identical files are of one patient, whatever their names say. A joined group has the name that sorts first.
    """
    names: dict[str, set[str]] = defaultdict(set)
    clusters = clusters_of(examples)
    for example, cluster in zip(examples, clusters, strict=True):
        names[cluster].add(example.group)
    joined = tuple(replace(e, group=min(names[cluster])) for e, cluster in zip(examples, clusters, strict=True))
    # only content that is in two groups joins them
    files_of: dict[str, list[str]] = defaultdict(list)
    group_of = dict(zip((example.file for example in joined), (example.group for example in joined), strict=True))
    for same in identical_files(examples):
        if len({example.group for example in same}) > 1:
            files_of[group_of[same[0].file]].extend(example.file for example in same)
    together = (sorted(members) for members in names.values() if len(members) > 1)
    return joined, tuple(JoinedGroups(tuple(groups), tuple(files_of[groups[0]])) for groups in sorted(together))


def cut_by_group(examples: Sequence[Example], fraction: float, seed: int) -> list[bool]:
    """Chooses about `fraction` of the clusters of `examples`, in every subtype alike.

    Clusters of a subtype are ordered by a hash of seed and name, and the first ones are taken. The choice therefore
    depends neither on the order of the examples nor on the random numbers of a library. A subtype with two or more
    clusters gives at least one and keeps at least one. Of findings that occur together an image counts for the rarest
    that it shows.

    Returns:
        True for every chosen example; a cluster is chosen whole or not at all.
    """
    stratum_of = rarest_shown(examples)
    return _cut(examples, fraction, stratum_of, lambda stratum, cluster, members: shuffled(cluster, seed))


def rarest_shown(examples: Sequence[Example]) -> Callable[[Example], tuple[str, ...]]:
    """Returns the function that gives the stratum of an example: the rarest finding that it shows, and its subtype."""
    counts = Counter(name for example in examples for name in present_in(example.label))

    def stratum_of(example: Example) -> tuple[str, ...]:
        shown = present_in(example.label)
        return (min(shown, key=lambda name: (counts[name], name)) if shown else "", example.subtype)

    return stratum_of


def cut_lowest_numbers(examples: Sequence[Example], fraction: float) -> list[bool]:
    """Chooses the clusters with the lowest numbers, about `fraction` of every series of numbers.

    The official test split of these radiographs is such a block of numbers, so this cut stands beside it as nearly as
    train allows. A series is a subtype and what stands before the number of a group, such as NORMAL2-IM-.

    Returns:
        True for every chosen example; a cluster is chosen whole or not at all.

    Raises:
        UserError: a group does not end in a number.
    """
    for example in examples:
        if not _NUMBER.search(example.group):
            raise UserError(
                f'data.validation is "numbered", but group {example.group} of {example.file} does not end in a number; '
                'take "grouped"'
            )
    return _cut(
        examples,
        fraction,
        lambda example: (*subtype_of(example), _NUMBER.sub("", example.group)),
        lambda stratum, cluster, members: (
            min(int(_NUMBER.search(examples[row].group)[0]) for row in members),
            cluster,
        ),
    )


def cut_least_sharp(
    examples: Sequence[Example], fraction: float, seed: int, sharpness: Float[np.ndarray, " N"]
) -> list[bool]:
    """Chooses the NORMAL clusters that are least sharp, and PNEUMONIA clusters as `cut_by_group` does.

    Sharp pictures are a shortcut to NORMAL where healthy children were photographed better than ill ones. A network
    that took it fails on these images, on which it was not trained: it calls blurred normals ill.

    Args:
        examples: N examples.
        fraction: share of the clusters of each subtype.
        seed: of the choice among PNEUMONIA.
        sharpness: of each example, in any unit; a cluster is as sharp as its images are on average.

    Returns:
        True for every chosen example; a cluster is chosen whole or not at all.
    """

    def order(stratum: tuple[str, ...], cluster: str, members: list[int]) -> tuple[float, bytes]:
        """Returns normals by sharpness, others by chance."""
        normal = stratum[0] == CLASS_NAMES[NORMAL]
        return (float(np.mean(sharpness[members])) if normal else 0.0, shuffled(cluster, seed))

    return _cut(examples, fraction, subtype_of, order)


def _cut(
    examples: Sequence[Example],
    fraction: float,
    stratum_of: Callable[[Example], tuple[str, ...]],
    order: Callable[[tuple[str, ...], str, list[int]], Any],
) -> list[bool]:
    """Chooses the first `fraction` of the clusters of every stratum, by the key that `order` gives.

    `order` is called with the stratum, the name of a cluster and its rows. A stratum with two or more clusters gives at
    least one and keeps at least one.
    """
    chosen: set[int] = set()
    for stratum, clusters in clusters_by_stratum(examples, stratum_of).items():
        ordered = sorted(clusters, key=lambda cluster: order(stratum, cluster, clusters[cluster]))
        count = min(max(round(fraction * len(ordered)), 1), len(ordered) - 1)
        chosen.update(row for cluster in ordered[:count] for row in clusters[cluster])
    return [row in chosen for row in range(len(examples))]


def clusters_by_stratum(
    examples: Sequence[Example], stratum_of: Callable[[Example], tuple[str, ...]]
) -> dict[tuple[str, ...], dict[str, list[int]]]:
    """Returns the rows of every cluster, by stratum and by the name of the cluster.

    A cluster of mixed strata belongs to its most frequent one; their names break ties.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for row, cluster in enumerate(clusters_of(examples)):
        members[cluster].append(row)
    strata: dict[tuple[str, ...], dict[str, list[int]]] = defaultdict(dict)
    for cluster, rows in members.items():
        counts = Counter(stratum_of(examples[row]) for row in rows)
        strata[min(counts, key=lambda kind: (-counts[kind], kind))][cluster] = rows
    return dict(strata)


def subtype_of(example: Example) -> tuple[str, ...]:
    """Returns class and subtype of an example, the stratum of cuts that are alike in every subtype."""
    return (example.label, example.subtype)


def shuffled(cluster: str, seed: int) -> bytes:
    """Returns the key by which clusters are ordered at random."""
    return hashlib.sha256(f"{seed} {cluster}".encode(errors="surrogateescape")).digest()
