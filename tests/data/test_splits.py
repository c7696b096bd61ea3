import dataclasses
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_jax.data.examples import Example
from cxr_jax.data.splits import (
    JoinedGroups,
    clusters_of,
    cut_by_group,
    cut_least_sharp,
    cut_lowest_numbers,
    identical_files,
    joined_by_content,
    prove_disjoint,
)
from cxr_jax.errors import UserError


def example(number, group="g", sha="", subtype="bacteria", split="train"):
    label = "NORMAL" if subtype == "normal" else "PNEUMONIA"
    return Example(f"{split}/{label}/{number}.png", split, subtype, label, group, 10, 10, sha or f"sha{number}")


@st.composite
def example_lists(draw, splits=("train",)):
    return [
        example(
            number,
            group=f"g{draw(st.integers(0, 12))}",
            sha=f"s{draw(st.integers(0, 25))}",
            subtype=draw(st.sampled_from(["normal", "bacteria", "virus"])),
            split=draw(st.sampled_from(splits)),
        )
        for number in range(draw(st.integers(1, 40)))
    ]


@given(example_lists(), st.floats(0.01, 0.49), st.integers(0, 10**6))
def test_a_cut_never_parts_a_group_or_identical_files(examples, fraction, seed):
    chosen = cut_by_group(examples, fraction, seed)
    proof = prove_disjoint(examples, ["val" if taken else "train" for taken in chosen])
    assert proof.holds
    assert len(chosen) == len(examples)


@given(example_lists(), st.randoms())
def test_clusters_are_the_connected_components(examples, shuffler):
    clusters = clusters_of(examples)
    # by brute force: spread the smallest row number along shared groups and contents until nothing changes
    lowest = list(range(len(examples)))
    for _ in examples:
        for row, one in enumerate(examples):
            linked = [lowest[i] for i, o in enumerate(examples) if o.group == one.group or o.sha256 == one.sha256]
            lowest[row] = min(linked)
    by_cluster = defaultdict(set)
    for cluster, low in zip(clusters, lowest, strict=True):
        by_cluster[cluster].add(low)
    assert all(len(lows) == 1 for lows in by_cluster.values())
    assert len(by_cluster) == len(set(lowest))


@given(example_lists(), st.floats(0.05, 0.45), st.integers(0, 99), st.randoms(use_true_random=False))
def test_the_cut_does_not_depend_on_the_order_of_examples(examples, fraction, seed, shuffler):
    chosen = {e.file for e, taken in zip(examples, cut_by_group(examples, fraction, seed), strict=True) if taken}
    shuffled = examples[:]
    shuffler.shuffle(shuffled)
    again = {e.file for e, taken in zip(shuffled, cut_by_group(shuffled, fraction, seed), strict=True) if taken}
    assert chosen == again


def many(groups_per_subtype=200):
    return [
        example(f"{subtype}{group}-{image}", group=f"{subtype}{group}", subtype=subtype)
        for subtype in ("normal", "bacteria", "virus")
        for group in range(groups_per_subtype)
        for image in range(1 + group % 3)
    ]


def test_every_subtype_gives_its_share_of_groups():
    examples = many()
    chosen = cut_by_group(examples, 0.1, 0)
    groups = {e.group: e.subtype for e, taken in zip(examples, chosen, strict=True) if taken}
    assert Counter(groups.values()) == {"normal": 20, "bacteria": 20, "virus": 20}


def test_seeds_choose_differently_and_repeatably():
    examples = many()
    cuts = [tuple(cut_by_group(examples, 0.1, seed)) for seed in (0, 0, 1, 2)]
    assert cuts[0] == cuts[1]
    assert len(set(cuts)) == 3


def test_small_subtypes_give_one_group_and_keep_one():
    examples = [example(n, group=f"n{n}", subtype="normal") for n in range(2)]
    examples += [example(9, group="only", subtype="virus")]
    chosen = cut_by_group(examples, 0.1, 0)
    assert sum(chosen[:2]) == 1
    assert not chosen[2]


def test_identical_files_join_groups():
    examples = [example(0, "a", "x"), example(1, "b", "x"), example(2, "b", "y"), example(3, "c", "y"), example(4, "d")]
    clusters = clusters_of(examples)
    assert len(set(clusters[:4])) == 1
    assert clusters[4] != clusters[0]
    assert [[e.file for e in same] for same in identical_files(examples)] == [
        ["train/PNEUMONIA/0.png", "train/PNEUMONIA/1.png"],
        ["train/PNEUMONIA/2.png", "train/PNEUMONIA/3.png"],
    ]


def test_the_proof_finds_a_group_in_two_splits():
    proof = prove_disjoint([example(0, "a"), example(1, "a", split="test"), example(2, "b", split="test")])
    assert proof.groups_in_two_splits == ("a",)
    assert proof.identical_files_in_two_splits == ()
    assert not proof.holds


def test_the_proof_finds_identical_files_in_two_splits():
    proof = prove_disjoint([example(0, "a", "x"), example(1, "b", "x", split="test"), example(2, "c", "y")])
    assert proof.groups_in_two_splits == ()
    assert proof.identical_files_in_two_splits == (("train/PNEUMONIA/0.png", "test/PNEUMONIA/1.png"),)
    assert proof.as_dict()["holds"] is False


def test_the_proof_needs_a_part_for_every_example():
    with pytest.raises(ValueError, match="zip"):
        prove_disjoint([example(0), example(1)], ["train"])


@given(example_lists(splits=("train", "val", "test")))
def test_the_proof_holds_exactly_when_nothing_is_shared(examples):
    shared = any(
        one.split != other.split and (one.group == other.group or one.sha256 == other.sha256)
        for one in examples
        for other in examples
    )
    assert prove_disjoint(examples).holds is not shared


@given(example_lists(), st.floats(0.05, 0.45), st.integers(0, 99))
def test_the_least_sharp_normals_are_cut_and_the_ill_as_by_group(examples, fraction, seed):
    sharpness = np.random.default_rng(seed).random(len(examples))
    chosen = cut_least_sharp(examples, fraction, seed, sharpness)
    assert prove_disjoint(examples, ["val" if taken else "train" for taken in chosen]).holds
    clusters = clusters_of(examples)
    members = defaultdict(list)
    for row, cluster in enumerate(clusters):
        members[cluster].append(row)
    pure = [rows for rows in members.values() if {examples[row].subtype for row in rows} == {"normal"}]
    taken = [float(np.mean(sharpness[rows])) for rows in pure if chosen[rows[0]]]
    kept = [float(np.mean(sharpness[rows])) for rows in pure if not chosen[rows[0]]]
    assert not (taken and kept) or max(taken) <= min(kept)
    by_group = cut_by_group(examples, fraction, seed)
    for row, cluster in enumerate(clusters):
        if all(examples[other].subtype != "normal" for other in members[cluster]):
            assert chosen[row] == by_group[row]


def test_a_cluster_that_counts_as_normal_is_cut_by_its_sharpness():
    # a group with one image of each class is NORMAL by its name, which breaks ties; it is the sharpest here
    examples = [example(number, group=f"g{number}", subtype="normal") for number in range(9)]
    examples += [example(10, group="both", subtype="normal"), example(11, group="both", subtype="virus")]
    sharpness = np.array([*range(1, 10), 20.0, 20.0])
    chosen = cut_least_sharp(examples, 0.2, 0, sharpness)
    assert [row for row, taken in enumerate(chosen) if taken] == [0, 1]


def test_the_lowest_numbers_of_every_series_are_cut():
    groups = [f"IM-{number:04}" for number in (9, 10, 100, 115)] + [
        f"NORMAL2-IM-{number}" for number in (383, 20, 1000)
    ]
    examples = [example(number, group=group, subtype="normal") for number, group in enumerate(groups)]
    examples += [example(100 + number, group=f"bacteria-person{number}") for number in (1, 2, 10, 11)]
    chosen = [e.group for e, taken in zip(examples, cut_lowest_numbers(examples, 0.4), strict=True) if taken]
    # by value: 9 before 10, though "10" sorts before "9"; NORMAL2-IM is a series of its own
    assert chosen == ["IM-0009", "IM-0010", "NORMAL2-IM-20", "bacteria-person1", "bacteria-person2"]


def test_groups_of_one_number_in_two_subtypes_are_two_series():
    examples = [
        example(number, group=f"id-{number}", subtype="normal" if number > 5 else "virus") for number in range(10)
    ]
    chosen = [e.group for e, taken in zip(examples, cut_lowest_numbers(examples, 0.25), strict=True) if taken]
    assert chosen == ["id-0", "id-1", "id-6"]


def test_groups_without_a_number_cannot_be_cut_by_number():
    with pytest.raises(
        UserError, match=r'data\.validation is "numbered", but group anna of .* does not end in a number'
    ):
        cut_lowest_numbers([example(1, group="IM-1"), example(2, group="anna")], 0.2)


@given(example_lists(splits=("train", "test")))
def test_groups_are_joined_where_they_hold_identical_files_and_nowhere_else(examples):
    whole, joined = joined_by_content(examples)
    assert [dataclasses.replace(e, group="") for e in whole] == [dataclasses.replace(e, group="") for e in examples]
    members, names = defaultdict(set), defaultdict(set)
    for before, after, cluster in zip(examples, whole, clusters_of(examples), strict=True):
        members[after.group].add(cluster)
        names[after.group].add(before.group)
    assert all(len(clusters) == 1 for clusters in members.values())
    assert all(min(before) == after for after, before in names.items())
    assert sorted(tuple(sorted(n)) for n in names.values() if len(n) > 1) == [entry.groups for entry in joined]
    # a cut by group is the same on both, and joining again changes nothing
    assert cut_by_group(whole, 0.3, 1) == cut_by_group(examples, 0.3, 1)
    assert joined_by_content(whole) == (whole, ())


def test_the_files_that_join_two_groups_are_named():
    examples = [
        example(1, "a", "x"),
        example(2, "a", "y"),
        example(3, "b", "x"),
        example(4, "c", "z"),
        example(5, "c", "z"),
    ]
    _, joined = joined_by_content(examples)
    assert joined == (JoinedGroups(("a", "b"), ("train/PNEUMONIA/1.png", "train/PNEUMONIA/3.png")),)
