import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logit
from scipy.stats import norm, ttest_1samp

from cxr_jax.errors import UserError
from cxr_jax.evaluation import seeds
from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.intervals import Interval, obuchowski_covariance
from cxr_jax.evaluation.metrics import roc_auc
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
def test_one_seed_has_the_interval_of_its_own_area_symmetric_on_the_logit(grouped):
    one = table(1, grouped=grouped)
    (auc,), covariance = obuchowski_covariance(one.label, one.probability, one.clusters())
    found = seeds.mean_auc_interval([one])
    half = 1.959964 * np.sqrt(covariance[0, 0]) / (auc * (1 - auc))
    assert (logit(found.low), logit(found.high)) == pytest.approx((logit(auc) - half, logit(auc) + half))
    assert found.method == ("Obuchowski, logit" if grouped else "DeLong, logit")
    assert seeds.mean_auc_interval([one, one, one]).low == pytest.approx(found.low)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(0, 10**6), st.floats(0.5, 0.99))
def test_equal_seeds_have_the_interval_of_groups_and_others_a_longer_one(count, seed, level):
    random = np.random.default_rng(seed)
    values = 0.8 + random.uniform(-0.15, 0.15, size=count)
    trained = Interval(values.mean() - 0.1, values.mean() + 0.04, "by groups")
    assert seeds.interval_over_seeds(np.full(count, values.mean()), trained, level) == trained
    # one seed tells nothing of others
    assert seeds.interval_over_seeds(values[:1], trained, level) == trained
    found = seeds.interval_over_seeds(values, trained, level)
    assert 0 <= found.low < trained.low < trained.high < found.high <= 1
    # what is a share of 1 is as good as a share of another whole
    double = seeds.interval_over_seeds(
        4 * values - 2, Interval(4 * trained.low - 2, 4 * trained.high - 2, ""), level, (-2, 2)
    )
    assert (double.low, double.high) == (pytest.approx(4 * found.low - 2), pytest.approx(4 * found.high - 2))
    nearer = seeds.interval_over_seeds(values.mean() + (values - values.mean()) / 2, trained, level)
    assert found.low < nearer.low and nearer.high <= found.high


def test_seeds_that_lie_apart_are_what_the_interval_of_their_mean_is_made_of():
    values = np.array([0.882, 0.822, 0.639])
    found = seeds.interval_over_seeds(values, Interval(0.750, 0.812, "by groups"))
    assert found.low < 0.639 and found.high > 0.882
    assert found.method == "by groups, t over seeds"
    # where patients say nothing it is Student's interval of the three, on the scale of the logarithm or the angle
    mean, (low, high) = values.mean(), ttest_1samp(values, 0).confidence_interval(0.95)
    point = Interval(mean, mean, "")
    alone = seeds.interval_over_seeds(values, point, bounds=(0, np.inf))
    assert np.log([alone.low, alone.high]) == pytest.approx(np.log(mean) + (np.array([low, high]) - mean) / mean)
    alone = seeds.interval_over_seeds(values, point)
    angle = np.arcsin(np.sqrt(mean)) + (np.array([low, high]) - mean) / (2 * np.sqrt(mean * (1 - mean)))
    assert np.arcsin(np.sqrt([alone.low, alone.high])) == pytest.approx(np.minimum(angle, np.pi / 2))
    assert seeds.interval_over_seeds(values, None) is None


def test_an_interval_that_ends_at_an_edge_stays_there():
    found = seeds.interval_over_seeds([1.0, 0.995], Interval(0.99, 1.0, "by groups"))
    assert found.low < 0.99 and found.high == 1
    found = seeds.interval_over_seeds([0.0, 0.005], Interval(0.0, 0.01, "by groups"))
    assert found.low == 0 and found.high > 0.01
    sure = Interval(0.97, 1.0, "by groups")
    assert seeds.interval_over_seeds([1.0, 1.0], sure) == sure


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 5])
@pytest.mark.parametrize("skill", [1.5, 2.5])
@pytest.mark.parametrize("between", [0.0, 0.15, 0.6])
def test_the_interval_of_a_mean_over_seeds_covers_as_promised(count, skill, between):
    """Networks of one recipe differ in skill by `between`; images come in groups that share their luck."""
    random = np.random.default_rng(count)
    groups = np.repeat(np.arange(150), random.integers(1, 4, size=150))
    label = groups % 2
    truth = norm.cdf((skill + between * random.normal(size=100_000)) / np.sqrt(2 * (0.8 + 0.2 + 0.3))).mean()
    over_seeds, as_trained = [], []
    for _ in range(600):
        patient = np.sqrt(0.8) * random.normal(size=150)[groups] + np.sqrt(0.2) * random.normal(size=len(groups))
        seen = patient + (skill + between * random.normal(size=(count, 1))) * label
        runs = tables_of(groups, seen + np.sqrt(0.3) * random.normal(size=(count, len(groups))))
        trained = seeds.mean_auc_interval(runs)
        areas = [float(roc_auc(Cases.unweighted(run.label, run.probability))[0]) for run in runs]
        found = seeds.interval_over_seeds(areas, trained)
        as_trained.append(trained.low <= truth <= trained.high)
        over_seeds.append(found.low <= truth <= found.high)
    assert 0.94 <= np.mean(over_seeds) <= 0.99
    if between == 0.6:
        assert np.mean(as_trained) < 0.8


def tables_of(groups, scores):
    """Tables over the same images, a row of scores [S, N] each."""
    label = groups % 2
    return [
        Predictions(
            file=[f"{i}.jpeg" for i in range(len(groups))],
            split=["test"] * len(groups),
            group=[f"g{group:03}" for group in groups],
            subtype=["virus" if positive else "normal" for positive in label],
            label=label,
            logits=None,
            probability=1 / (1 + np.exp(-row)),
        )
        for row in scores
    ]


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
    moved = dataclasses.replace(one, group=[*one.group[:2], "g1", *one.group[3:]])
    with pytest.raises(UserError, match=r"a and b put 2\.jpeg into different groups"):
        seeds.same_images([one, moved], ["a", "b"])
    with pytest.raises(UserError, match=r"b and a put 3\.jpeg into different groups"):
        seeds.same_images([moved, one], ["b", "a"])


def test_a_table_that_joins_whole_groups_of_another_is_taken_for_both():
    """As where two groups hold identical files, which tables of earlier versions did not know."""
    one = table(1)
    joined = dataclasses.replace(one, group=[*one.group[:3], *["g0"] * 3, *one.group[6:]])
    for tables in ([one, joined], [joined, one], [one, joined, one]):
        aligned = seeds.same_images(tables, ["a", "b", "c"][: len(tables)])
        assert {t.group for t in aligned} == {joined.group}
