from __future__ import annotations

from collections import Counter, defaultdict

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cxr_jax.config.schema import DataConfig
from cxr_jax.data.examples import Example
from cxr_jax.data.folds import assign_folds
from cxr_jax.data.preparation import prepare
from cxr_jax.data.split_loading import load_split, rows_of_split
from cxr_jax.data.splits import clusters_of, prove_disjoint
from cxr_jax.errors import UserError

SUBTYPES = ("normal", "bacteria", "virus")


def example(number: int, group: str, subtype: str, sha: str) -> Example:
    label = "NORMAL" if subtype == "normal" else "PNEUMONIA"
    return Example(f"train/{label}/{number}.png", "train", subtype, label, group, 10, 10, sha)


@st.composite
def patients(draw):
    """Images of patients of one subtype each; now and then two have an identical image."""
    examples = []
    for patient in range(draw(st.integers(8, 30))):
        subtype = draw(st.sampled_from(SUBTYPES))
        for _ in range(draw(st.integers(1, 6))):
            number = len(examples)
            sha = draw(st.sampled_from([f"own{number}"] * 9 + [f"shared {subtype}"]))
            examples.append(example(number, f"{subtype}{patient}", subtype, sha))
    return examples


def clusters_of_class(examples, label):
    names = clusters_of(examples)
    return {name for name, entry in zip(names, examples, strict=True) if entry.label == label}


@given(patients(), st.integers(2, 4), st.integers(0, 10**6), st.randoms())
def test_folds_part_no_group_are_alike_and_lose_nothing(examples, folds, seed, shuffler):
    assume(all(len(clusters_of_class(examples, label)) >= folds for label in ("NORMAL", "PNEUMONIA")))
    assigned = assign_folds(examples, folds, seed)
    # every image is in exactly one fold, with the whole of its group and all identical files
    assert len(assigned) == len(examples)
    assert set(assigned) == set(range(folds))
    assert prove_disjoint(examples, [str(fold) for fold in assigned]).holds
    # every fold has both classes, and of a subtype the folds differ by no more than its largest cluster
    names = clusters_of(examples)
    sizes = Counter(names)
    counts = defaultdict(Counter)
    for entry, fold in zip(examples, assigned, strict=True):
        counts[entry.subtype][fold] += 1
    for fold in range(folds):
        assert counts["normal"][fold] > 0
        assert counts["bacteria"][fold] + counts["virus"][fold] > 0
    for subtype in {entry.subtype for entry in examples}:
        of_folds = [counts[subtype][fold] for fold in range(folds)]
        largest = max(sizes[name] for name, entry in zip(names, examples, strict=True) if entry.subtype == subtype)
        assert max(of_folds) - min(of_folds) <= largest
    # the same seed gives the same folds, in whatever order the examples come
    order = list(range(len(examples)))
    shuffler.shuffle(order)
    again = assign_folds([examples[row] for row in order], folds, seed)
    assert [assigned[row] for row in order] == again


def test_another_seed_gives_other_folds():
    examples = [example(n, f"g{n}", SUBTYPES[n % 3], f"s{n}") for n in range(60)]
    assert assign_folds(examples, 5, 0) == assign_folds(examples, 5, 0) != assign_folds(examples, 5, 1)


def test_classes_are_shared_out_evenly_where_groups_are_small():
    examples = [example(n, f"g{n // 2}", SUBTYPES[n // 2 % 3], f"s{n}") for n in range(300)]
    counts = Counter(zip(assign_folds(examples, 5, 3), (entry.label for entry in examples), strict=True))
    assert set(counts.values()) == {20, 40}


def test_more_folds_than_groups_of_a_class_are_refused():
    examples = [example(n, f"g{n}", "bacteria" if n else "normal", f"s{n}") for n in range(9)]
    with pytest.raises(UserError, match="2 folds need 2 groups of each class, and train has 1 of NORMAL: take fewer"):
        assign_folds(examples, 2, 0)


def test_each_fold_is_held_out_once_and_trained_on_otherwise(official_tree, prepared_root):
    prepared = prepare(official_tree).prepared
    everything = [row for row, entry in enumerate(prepared.examples) if entry.split != "test"]
    assert {prepared.examples[row].split for row in everything} == {"train", "val"}
    held = []
    for fold in range(3):
        config = DataConfig(image_size=16, validation="fold", folds=3, fold=fold)
        train, val = load_split(prepared, config, "train"), load_split(prepared, config, "val")
        assert sorted([*train.ids, *val.ids]) == everything
        assert not set(train.groups) & set(val.groups)
        assert {prepared.examples[row].split for row in load_split(prepared, config, "test").ids} == {"test"}
        held += list(val.ids)
    assert sorted(held) == everything


def test_the_ensemble_of_all_folds_has_no_images_to_train_with(official_tree, prepared_root):
    prepared = prepare(official_tree).prepared
    config = DataConfig(image_size=16, validation="out_of_fold", folds=3)
    assert list(rows_of_split(prepared, config, "val")) == list(rows_of_split(prepared, config, "train"))
    with pytest.raises(UserError, match="is only for an ensemble of folds"):
        load_split(prepared, config, "val")


@pytest.mark.parametrize(("fields", "told"), [({"folds": 1}, "folds is 1"), ({"folds": 3, "fold": 3}, "from 0 to 2")])
def test_folds_that_cannot_be_are_refused(fields, told):
    with pytest.raises(ValueError, match=told):
        DataConfig(validation="fold", **fields)


def test_findings_are_shared_out_by_the_rarest_that_an_image_shows():
    cells = ["Effusion|Mass", "Effusion", "Effusion", "No Finding", "Mass?", "Effusion"] * 6
    examples = [
        Example(f"train/{number}.png", "train", "unknown", cell, f"p{number}", 10, 10, f"own{number}")
        for number, cell in enumerate(cells)
    ]
    assigned = assign_folds(examples, 3, 0, ("Effusion", "Mass"), "findings")
    masses = Counter(fold for fold, cell in zip(assigned, cells, strict=True) if cell == "Effusion|Mass")
    assert masses == {0: 2, 1: 2, 2: 2}
    assert Counter(assigned) == {0: 12, 1: 12, 2: 12}
    with pytest.raises(UserError, match="7 folds need 7 groups that show each finding, and train has 6 of Mass"):
        assign_folds(examples, 7, 0, ("Effusion", "Mass"), "findings")
