import dataclasses

import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.evaluation import seeds
from cxr_jax.evaluation.intervals import auc_interval
from cxr_jax.runs.predictions import Predictions


def table(seed, *, grouped=True, files=60):
    label = np.arange(files) % 2
    patient = np.random.default_rng(0).normal(size=files // 3)[np.arange(files) // 3]
    own = np.random.default_rng(seed).normal(size=files)
    return Predictions(
        file=[f"{i}.jpeg" for i in range(files)],
        split=["test"] * files,
        group=[f"g{i // 3}" if grouped else "" for i in range(files)],
        subtype=["virus" if positive else "normal" for positive in label],
        label=label,
        logits=None,
        probability=1 / (1 + np.exp(-(patient + own + 1.5 * label))),
    )


def test_spread_is_mean_and_sample_deviation():
    assert seeds.spread([1.0, 2.0, 4.0]) == seeds.Spread(pytest.approx(7 / 3), pytest.approx(1.5275252))
    assert seeds.spread([0.5]) == seeds.Spread(0.5, None)


@pytest.mark.parametrize("grouped", [True, False])
def test_one_seed_has_the_interval_of_its_own_area(grouped):
    one = table(1, grouped=grouped)
    assert seeds.mean_auc_interval([one]) == auc_interval(
        one.label, one.probability, one.clusters() if grouped else None
    )
    assert seeds.mean_auc_interval([one, one, one]).low == pytest.approx(seeds.mean_auc_interval([one]).low)


def test_the_mean_of_seeds_varies_less_than_one_but_not_as_if_the_patients_were_others():
    runs = [table(seed) for seed in range(1, 6)]
    width = np.ptp([seeds.mean_auc_interval(runs).low, seeds.mean_auc_interval(runs).high])
    widths = [i.high - i.low for i in (seeds.mean_auc_interval([run]) for run in runs)]
    assert width < np.mean(widths)
    assert width > 1.2 * np.mean(widths) / np.sqrt(5)


def test_no_interval_without_both_classes_or_without_spread():
    one = table(1)
    assert seeds.mean_auc_interval([one.select(one.label == 1)]) is None
    perfect = Predictions(**{**vars(one), "probability": one.label * 0.9})
    assert seeds.mean_auc_interval([perfect]) is None


def test_tables_are_brought_into_one_order():
    one, other = table(1), table(2)
    shuffled = other.select(np.random.default_rng(0).permutation(len(other)))
    aligned = seeds.same_images([one, shuffled], ["a", "b"])
    assert aligned[0].file == one.file
    assert aligned[1].file == one.file
    np.testing.assert_array_equal(aligned[1].probability, other.probability)


def test_tables_over_other_images_are_refused_and_one_is_named():
    one = table(1)
    fewer = one.select(np.arange(1, 60))
    with pytest.raises(UserError, match=r"a and b are not over the same images: b lacks 0\.jpeg"):
        seeds.same_images([one, fewer], ["a", "b"])
    with pytest.raises(UserError, match=r"a lacks 0\.jpeg"):
        seeds.same_images([fewer, one], ["a", "b"])


def test_tables_that_disagree_on_a_label_are_refused():
    one = table(1)
    flipped = Predictions(**{**vars(one), "label": 1 - one.label, "subtype": ["unknown"] * 60})
    with pytest.raises(UserError, match=r"a and b give different labels to 0\.jpeg, 1\.jpeg, 2\.jpeg and 57 more"):
        seeds.same_images([one, flipped], ["a", "b"])


def test_an_error_names_three_images_and_counts_the_others():
    one = table(1)
    with pytest.raises(UserError, match=r"b lacks 0\.jpeg, 1\.jpeg, 2\.jpeg and 2 more; compare"):
        seeds.same_images([one, one.select(np.arange(5, 60))], ["a", "b"])
    with pytest.raises(UserError, match=r"b lacks 0\.jpeg, and a lacks 59\.jpeg; compare"):
        seeds.same_images([one.select(np.arange(59)), one.select(np.arange(1, 60))], ["a", "b"])


def test_groups_come_from_the_first_table_that_has_them():
    plain, grouped = table(1, grouped=False), table(2)
    aligned = seeds.same_images([plain, grouped], ["a", "b"])
    assert [t.group for t in aligned] == [grouped.group] * 2
    renamed = dataclasses.replace(grouped, group=[f"other {name}" for name in grouped.group])
    assert seeds.same_images([grouped, renamed], ["a", "b"])[1].group == grouped.group
    assert not seeds.same_images([plain, plain], ["a", "b"])[0].has_groups


def test_tables_that_disagree_on_groups_are_refused():
    one = table(1)
    joined = dataclasses.replace(one, group=[*one.group[:3], *["g0"] * 3, *one.group[6:]])
    split = dataclasses.replace(one, group=["alone", *one.group[1:]])
    with pytest.raises(UserError, match=r"a and b put 3\.jpeg into different groups"):
        seeds.same_images([one, joined], ["a", "b"])
    with pytest.raises(UserError, match=r"a and b put 1\.jpeg into different groups"):
        seeds.same_images([one, split], ["a", "b"])
