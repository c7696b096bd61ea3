"""The data card: what a reader must know of a prepared data set before trusting results on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from cxr_jax.config.schema import DataConfig
from cxr_jax.data.examples import Example, fingerprint
from cxr_jax.data.findings import present_in, unknown_in
from cxr_jax.data.inspection import Inspection
from cxr_jax.data.sources import PassedOver
from cxr_jax.data.splits import JoinedGroups, cut_by_group, identical_files, joined_by_content, prove_disjoint
from cxr_jax.vocabulary import CLASS_NAMES, EXCLUSIVE, FINDINGS, NO_FINDING, SPLIT_NAMES, SUBTYPE_NAMES, Kind

SCHEMA_VERSION = 1

OF_OTHER_CLASSES = 2
"""Version of the card of data whose classes are not NORMAL and PNEUMONIA, which earlier programs cannot read."""

OF_FINDINGS = 3
"""Version of the card of data whose classes are findings that occur together."""

LISTED_VALUES = 12
"""Different values of a column up to which each is counted; of more, numbers are told by their range."""

GROUPS_NAMED = (
    "Groups come from file names (subtype and person number, prefix and number, or id). They are the best stand-in "
    "for a patient, not verified patients."
)
GROUPS_GIVEN = "Groups are those that the table of labels names."
GROUPS_GIVEN_PARTLY = (
    "It names none for {count:,} images: what their file names tell is taken, or each is a group of its own."
)
GROUPS_PARTLY = (
    "{count:,} file names tell no group: each of these images is a group of its own, and leakage between images of "
    "one patient cannot be excluded for them."
)
GROUPS_UNKNOWN = (
    "The source tells no groups: every image is a group of its own, and leakage between images of one patient cannot "
    "be excluded."
)
SPLITS_CUT = (
    "The source has no splits: {share:.0%} of the groups were cut for test (stratified by {strata}, seed "
    "{seed}, identical files kept together). The test split is therefore not a published one."
)


def build_card(
    name: str,
    source: dict[str, Any],
    inspection: Inspection,
    examples: Sequence[Example],
    *,
    classes: tuple[str, ...],
    kind: Kind,
    joined: Sequence[JoinedGroups],
    passed_over: Sequence[PassedOver],
    notes: Sequence[str],
    phantom: bool,
) -> dict[str, Any]:
    """Returns the data card, ready for JSON.

    Args:
        name: under which the data set is stored.
        source: kind, path and stamp of the source.
        inspection: what was found in it.
        examples: the table, with the splits and groups as they are stored.
        classes: names of the classes, in the order of the labels.
        kind: of the classes.
        joined: groups of the file names that are one in the table.
        passed_over: files of the source that are no part of the data set.
        notes: sentences about the source.
        phantom: the images are drawn, not taken from people.
    """
    same = identical_files(examples)
    proof = prove_disjoint(examples)
    version = SCHEMA_VERSION if classes == CLASS_NAMES else OF_OTHER_CLASSES
    return {
        "schema_version": OF_FINDINGS if kind == FINDINGS else version,
        "name": name,
        "phantom": phantom,
        "fingerprint": fingerprint(examples),
        "source": source,
        "images": len(examples),
        **({} if kind == EXCLUSIVE else _of_findings(examples, classes)),
        "classes": list(classes),
        "counts": {split: _count_present(_in(examples, split), classes) for split in _splits(examples)},
        "subtypes": {split: _count(examples, split, "subtype", SUBTYPE_NAMES) for split in _splits(examples)},
        "groups": _count_groups(examples, inspection.named),
        "joined_groups": [{"groups": list(entry.groups), "files": list(entry.files)} for entry in joined],
        "size": {
            side: {"min": min(values), "median": sorted(values)[len(values) // 2], "max": max(values)}
            for side in ("width", "height")
            for values in [[getattr(example, side) for example in examples]]
        },
        "identical_files": {
            "sets": len(same),
            "surplus": sum(len(files) - 1 for files in same),
            "files": [[example.file for example in files] for files in same],
        },
        "left_out": [{"file": file.file, "reason": file.reason} for file in inspection.left_out],
        "passed_over": told_passed_over(passed_over),
        "contradicting_names": list(inspection.contradicting),
        "proof": proof.as_dict(),
        "validation_cut": _validation_cut(examples, classes),
        **({"known": _known(examples)} if examples[0].known else {}),
        "image_notes": list(inspection.notes),
        "notes": [_group_note(inspection, len(examples)), *inspection.notes, *notes],
    }


def told_groups(card: dict[str, Any], examples: Sequence[Example]) -> dict[str, Any]:
    """Returns the entries of a card on groups; those of a card that joined none are counted anew on its `examples`."""
    if "joined_groups" in card:
        return {name: card[name] for name in ("groups", "joined_groups")}
    whole, joined = joined_by_content(examples)
    return {
        "groups": _count_groups(whole, card["groups"]["named"]),
        "joined_groups": [{"groups": list(entry.groups), "files": list(entry.files)} for entry in joined],
    }


def _count_groups(examples: Sequence[Example], named: int) -> dict[str, int]:
    return {
        "total": len({example.group for example in examples}),
        **{split: len({e.group for e in examples if e.split == split}) for split in _splits(examples)},
        "named": named,
        "largest": max(Counter(example.group for example in examples).values()),
    }


def told_passed_over(groups: Sequence[PassedOver]) -> list[dict[str, Any]]:
    """Returns how the card tells of files that are no part of the data set, ready for JSON."""
    return [
        {"folder": group.folder, "reason": group.reason, "count": group.count, "files": list(group.files)}
        for group in groups
    ]


def left_out_in_all(card: dict[str, Any]) -> int:
    """Returns how many files of the source are no examples.

    A card of an earlier version does not say what was passed over: only images that could not be read count there.
    """
    return len(card["left_out"]) + sum(group["count"] for group in card.get("passed_over", ()))


def _splits(examples: Sequence[Example]) -> list[str]:
    """Returns the splits that hold an example, in their usual order."""
    present = {example.split for example in examples}
    return [split for split in SPLIT_NAMES if split in present]


def _in(examples: Sequence[Example], split: str) -> list[Example]:
    return [example for example in examples if example.split == split]


def _count(examples: Sequence[Example], split: str, column: str, names: Sequence[str]) -> dict[str, int]:
    """Returns how many examples of a split have each value of a column."""
    counts = Counter(getattr(example, column) for example in _in(examples, split))
    return {name: counts[name] for name in names}


def _count_present(examples: Iterable[Example], names: Sequence[str]) -> dict[str, int]:
    """Returns how many examples are of each class, or show each finding."""
    counts = Counter(name for example in examples for name in present_in(example.label))
    return {name: counts[name] for name in names}


def _of_findings(examples: Sequence[Example], names: tuple[str, ...]) -> dict[str, Any]:
    """Returns what a card says of findings alone: how often nobody knows of one, and how often there is none."""
    unknown, without = {}, {}
    for split in _splits(examples):
        part = _in(examples, split)
        counts = Counter(name for example in part for name in unknown_in(example.label))
        unknown[split] = {name: counts[name] for name in names}
        without[split] = sum(example.label == NO_FINDING for example in part)
    return {"kind": FINDINGS, "unknown": unknown, "without_findings": without}


def _known(examples: Sequence[Example]) -> dict[str, dict[str, Any]]:
    """Returns for each split and each thing that the source tells besides, how often each value occurs, or their range.

    An empty value is one that the source does not tell.
    """
    told: dict[str, dict[str, Any]] = {}
    for split in _splits(examples):
        rows = [dict(example.known) for example in _in(examples, split)]
        told[split] = {name: _summed_up([row[name] for row in rows]) for name, _ in examples[0].known}
    return told


def _summed_up(values: Sequence[str]) -> dict[str, Any]:
    """Returns how often each of a few values occurs; of more, the range of the numbers, or how many there are."""
    counts = Counter(values)
    if len(counts) <= LISTED_VALUES:
        return dict(sorted(counts.items()))
    numbers = sorted(float(value) for value in values if value.replace(".", "", 1).isdecimal())
    missing = counts[""]
    if len(numbers) + missing < len(values):
        return {"values": len(counts), "missing": missing}
    return {"min": numbers[0], "median": numbers[len(numbers) // 2], "max": numbers[-1], "missing": missing}


def _validation_cut(examples: Sequence[Example], classes: tuple[str, ...]) -> dict[str, Any]:
    """Describes the validation split that is cut from train unless a config asks for another."""
    config = DataConfig()
    train = [example for example in examples if example.split == "train"]
    chosen = cut_by_group(train, config.validation_fraction, config.split_seed)
    parts = ["val" if taken else "train" for taken in chosen]
    sizes = {
        part: {
            **dict.fromkeys(SUBTYPE_NAMES, 0),
            **Counter(e.subtype for e, p in zip(train, parts, strict=True) if p == part),
        }
        for part in ("train", "val")
    }
    of_class = {
        part: _count_present((e for e, p in zip(train, parts, strict=True) if p == part), classes)
        for part in ("train", "val")
    }
    return {
        "fraction": config.validation_fraction,
        "seed": config.split_seed,
        "images": {part: sum(sizes[part].values()) for part in sizes},
        "groups": {
            part: len({e.group for e, p in zip(train, parts, strict=True) if p == part}) for part in ("train", "val")
        },
        "subtypes": sizes,
        "classes": of_class,
        "proof": prove_disjoint(train, parts).as_dict(),
    }


def _group_note(inspection: Inspection, images: int) -> str:
    """Says how far groups are known."""
    if inspection.given:
        rest = images - inspection.given
        return f"{GROUPS_GIVEN} {GROUPS_GIVEN_PARTLY.format(count=rest)}" if rest else GROUPS_GIVEN
    if inspection.named == 0:
        return GROUPS_UNKNOWN
    if inspection.named < images:
        return f"{GROUPS_NAMED} {GROUPS_PARTLY.format(count=images - inspection.named)}"
    return GROUPS_NAMED
