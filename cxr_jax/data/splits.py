"""Cutting a data set by group, and proving that no group and no identical file is in two parts."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from cxr_jax.data.examples import Example


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
        """Return the proof for a JSON file."""
        return {"holds": self.holds, **asdict(self)}


def identical_files(examples: Sequence[Example]) -> tuple[tuple[Example, ...], ...]:
    """Return the sets of two or more examples whose files are byte for byte the same."""
    by_content: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        by_content[example.sha256].append(example)
    return tuple(tuple(same) for same in by_content.values() if len(same) > 1)


def prove_disjoint(examples: Sequence[Example], splits: Sequence[str] | None = None) -> Proof:
    """Compare the parts of a data set.

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
    """Return for each example the name of its cluster: groups joined where they share a byte-identical file."""
    parent: dict[str, str] = {}

    def find(node: str) -> str:
        """Return the root of `node`, shortening the way to it."""
        parent.setdefault(node, node)
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for example in examples:
        one, other = sorted((find(f"group {example.group}"), find(f"sha256 {example.sha256}")))
        parent[other] = one
    return [find(f"group {example.group}") for example in examples]


def cut_by_group(examples: Sequence[Example], fraction: float, seed: int) -> list[bool]:
    """Choose about `fraction` of the clusters of `examples`, in every subtype alike.

    Clusters of a subtype are ordered by a hash of seed and name and the first share is taken, so that the choice
    depends neither on the order of the examples nor on a library's random numbers. A subtype with two or more
    clusters gives at least one and keeps at least one.

    Returns:
        True for every chosen example; a cluster is chosen whole or not at all.
    """
    clusters = clusters_of(examples)
    kinds: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)
    for cluster, example in zip(clusters, examples, strict=True):
        kinds[cluster][example.label, example.subtype] += 1
    strata: dict[tuple[str, str], list[str]] = defaultdict(list)
    for cluster, counts in kinds.items():
        # A cluster of mixed kinds belongs to its most frequent one; names break ties.
        strata[min(counts, key=lambda kind: (-counts[kind], kind))].append(cluster)
    chosen: set[str] = set()
    for stratum in strata.values():
        ordered = sorted(stratum, key=lambda cluster: hashlib.sha256(f"{seed} {cluster}".encode()).digest())
        count = min(max(round(fraction * len(ordered)), 1), len(ordered) - 1)
        chosen.update(ordered[:count])
    return [cluster in chosen for cluster in clusters]
