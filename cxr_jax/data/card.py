"""The data card: what a reader must know of a prepared data set before trusting results on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from cxr_jax.config.schema import DataConfig
from cxr_jax.data.examples import Example, fingerprint
from cxr_jax.data.inspection import Inspection
from cxr_jax.data.sources import PassedOver
from cxr_jax.data.splits import JoinedGroups, cut_by_group, identical_files, joined_by_content, prove_disjoint
from cxr_jax.vocabulary import CLASS_NAMES, SPLIT_NAMES, SUBTYPE_NAMES

SCHEMA_VERSION = 1

OF_OTHER_CLASSES = 2
"""Version of the card of data whose classes are not NORMAL and PNEUMONIA, which earlier programs cannot read."""

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
    "The source has no splits: {share:.0%} of the groups were cut for test (stratified by class and subtype, seed "
    "{seed}, identical files kept together). The test split is therefore not a published one."
)


def build_card(
    name: str,
    source: dict[str, Any],
    inspection: Inspection,
    examples: Sequence[Example],
    *,
    classes: tuple[str, ...],
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
        joined: groups of the file names that are one in the table.
        passed_over: files of the source that are no part of the data set.
        notes: sentences about the source.
        phantom: the images are drawn, not taken from people.
    """
    same = identical_files(examples)
    proof = prove_disjoint(examples)
    return {
        "schema_version": SCHEMA_VERSION if classes == CLASS_NAMES else OF_OTHER_CLASSES,
        "name": name,
        "phantom": phantom,
        "fingerprint": fingerprint(examples),
        "source": source,
        "images": len(examples),
        "classes": list(classes),
        "counts": {split: _count(examples, split, "label", classes) for split in _splits(examples)},
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


def _count(examples: Sequence[Example], split: str, column: str, names: Sequence[str]) -> dict[str, int]:
    """Returns how many examples of a split have each value of a column."""
    counts = Counter(getattr(example, column) for example in examples if example.split == split)
    return {name: counts[name] for name in names}


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
        part: {
            **dict.fromkeys(classes, 0),
            **Counter(e.label for e, p in zip(train, parts, strict=True) if p == part),
        }
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
