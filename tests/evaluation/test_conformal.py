"""Sets of possible classes keep their promise, whatever the network: of every class few images have one without it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from cxr_jax.errors import UserError
from cxr_jax.evaluation.conformal import ConformalSets, bounds_of, read_conformal, write_conformal
from cxr_jax.runs.predictions import Predictions

SURE = 1e-6
"""A simulation fails by chance once in a million times."""


def table(probability, label, group=None):
    count = len(label)
    names = [f"{i}.png" for i in range(count)]
    subtypes = np.where(np.asarray(label) == 1, "unknown", "normal")
    return Predictions(names, ["val"] * count, group or [""] * count, subtypes, label, None, probability)


def drawn_groups(random, count, largest):
    """Probabilities of the true class of `count` groups: those of large groups are low, and alike within a group."""
    sizes = random.integers(1, largest + 1, count)
    groups = np.repeat(np.arange(count), sizes)
    middle = random.normal(2 - 2.5 * sizes / largest, 1)
    return 1 / (1 + np.exp(-(middle[groups] + random.normal(0, 0.3, len(groups))))), groups


@pytest.mark.parametrize(("images", "rate"), [(19, 0.05), (40, 0.1), (99, 0.01), (132, 0.05), (30, 0.2)])
def test_of_independent_images_the_share_left_out_is_the_error_rate_to_within_one_image(images, rate):
    """Split conformal prediction covers at least 1 - rate and at most 1 - rate + 1 / (n + 1) on average."""
    random, times = np.random.default_rng(images), 2000
    covered = 0
    for _ in range(times):
        probability = random.beta(2, 1, images + 1)
        (bound,) = bounds_of(probability[:-1], np.arange(images), (rate,))
        covered += probability[-1] >= bound
    assert binom.ppf(SURE, times, 1 - rate) <= covered <= binom.isf(SURE, times, 1 - rate + 1 / (images + 1))


@pytest.mark.parametrize(("groups", "rate"), [(25, 0.1), (60, 0.05)])
def test_of_a_new_patient_at_most_the_error_rate_is_left_out_though_images_of_one_patient_are_alike(groups, rate):
    """Taking images for independent breaks the promise where hard patients have few images; groups keep it."""
    random, times = np.random.default_rng(7), 2000
    by_group = by_image = 0
    for _ in range(times):
        probability, group = drawn_groups(random, groups + 1, 12)
        # easy patients have many images here, so that images alone look easier than patients are
        probability = 1 - probability
        new = random.choice(np.flatnonzero(group == groups))
        known = group < groups
        (grouped,) = bounds_of(probability[known], group[known], (rate,))
        (single,) = bounds_of(probability[known], np.arange(known.sum()), (rate,))
        by_group += probability[new] >= grouped
        by_image += probability[new] >= single
    assert by_group >= binom.ppf(SURE, times, 1 - rate)
    assert by_image < binom.ppf(SURE, times, 1 - rate)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    groups=st.integers(1, 60),
    largest=st.integers(1, 5),
    rate=st.floats(0.01, 0.5),
    levels=st.sampled_from([2, 5, 1000]),
)
def test_the_bound_is_the_highest_that_leaves_out_no_more_than_the_rate_of_groups_and_one_more(
    seed, groups, largest, rate, levels
):
    """Held to the definition, with ties: a new group is counted among the known ones, and always left out."""
    random = np.random.default_rng(seed)
    probability, group = drawn_groups(random, groups, largest)
    probability = np.round(probability * levels) / levels
    (bound,) = bounds_of(probability, group, (rate,))

    def left_out(lowest):
        shares = [np.mean(probability[group == number] < lowest) for number in range(groups)]
        return (sum(shares) + 1) / (groups + 1)

    candidates = [value for value in np.unique(probability) if left_out(value) <= rate + 1e-9]
    assert bound == (max(candidates) if candidates else 0.0)


def test_each_class_keeps_its_own_promise_though_one_is_rare_and_hard():
    random = np.random.default_rng(3)

    def draw(count):
        label = (random.uniform(size=count) < 0.9).astype(int)
        margin = np.where(label == 1, random.normal(3, 1, count), random.normal(0.5, 2, count))
        return table(1 / (1 + np.exp(-margin)), label)

    rates = (0.05, 0.2)
    sets = ConformalSets.of(draw(4000), rates)
    new = draw(20_000)
    probabilities = np.stack([1 - new.probability, new.probability], axis=1)
    for rate in rates:
        held = sets.rule(rate).sets(probabilities)
        for label in (0, 1):
            own = held[new.label == label, label]
            # the coverage of one calibration is itself drawn: Beta, with a spread of 1 / sqrt(n) or less
            spread = 4 * np.sqrt(rate * (1 - rate) * (1 / len(own) + 1 / sets.classes[label].images))
            assert own.mean() == pytest.approx(1 - rate, abs=spread)


def test_too_few_groups_for_an_error_rate_leave_no_class_out():
    sets = ConformalSets.of(table(np.linspace(0.01, 0.99, 36), np.arange(36) % 2), (0.05, 0.1))
    assert [bounds.lowest[0] for bounds in sets.classes] == [0.0, 0.0]
    assert all(bounds.lowest[1] > 0 for bounds in sets.classes)
    assert sets.rule(0.05).possible(0.999) == ("NORMAL", "PNEUMONIA")


def test_a_class_without_validation_images_is_never_left_out():
    sets = ConformalSets.of(table(np.linspace(0.5, 0.99, 60), np.ones(60, int)))
    normal, pneumonia = sets.classes
    assert (normal.images, normal.groups, set(normal.lowest)) == (0, 0, {0.0})
    assert (pneumonia.images, pneumonia.groups) == (60, 60)
    assert sets.rule(0.05).possible(0.99) == ("NORMAL", "PNEUMONIA")


def test_groups_are_counted_and_not_their_images():
    label = np.zeros(80, int)
    sets = ConformalSets.of(table(np.linspace(0, 1, 80), label, [f"g{i // 4}" for i in range(80)]))
    assert (sets.classes[0].images, sets.classes[0].groups) == (80, 20)


def test_another_error_rate_than_those_of_validation_is_refused():
    sets = ConformalSets.of(table(np.linspace(0, 1, 40), np.arange(40) % 2))
    with pytest.raises(UserError, match=r"error rate is 0\.3, .* 0\.01, 0\.02, 0\.05, 0\.1, 0\.2"):
        sets.rule(0.3)


def test_bounds_come_back_from_their_file_to_the_bit(tmp_path):
    sets = ConformalSets.of(table(np.random.default_rng(0).uniform(size=200), np.arange(200) % 2))
    write_conformal(tmp_path / "conformal.json", sets)
    assert read_conformal(tmp_path / "conformal.json") == sets


@pytest.mark.parametrize("text", ['{"schema_version": 2}', '{"schema_version": 1}', "[]"])
def test_a_file_that_holds_no_bounds_is_refused(tmp_path, text):
    (tmp_path / "conformal.json").write_text(text)
    with pytest.raises(UserError, match=r"conformal\.json"):
        read_conformal(tmp_path / "conformal.json")
