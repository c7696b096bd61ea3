import numpy as np
import pytest
from scipy.special import expit

from cxr_jax.evaluation.conformal import ConformalSets
from cxr_jax.evaluation.external import (
    External,
    Warnings,
    parts_of,
    read_external,
    recalibrate,
    shares_warned,
    spread_of_quality,
    spread_of_scores,
    write_external,
)
from cxr_jax.evaluation.rates import rates_of
from cxr_jax.runs.predictions import Predictions

THRESHOLD = 0.3


def drawn(seed: int, count: int = 200, shift: float = 0.0, labels: tuple[int, ...] = (0, 1)) -> Predictions:
    """Images of groups of two, whose margins lie higher by `shift` than their labels say."""
    random = np.random.default_rng(seed)
    label = random.choice(labels, count)
    margin = random.normal(2.0 * label - 1, 1.0) + shift
    return Predictions.from_logits(
        np.stack([np.zeros(count), margin], axis=1),
        file=[f"{seed}-{i}.png" for i in range(count)],
        split=["test"] * count,
        group=[f"{seed}-{i // 2}" for i in range(count)],
        subtype=["normal" if value == 0 else "unknown" for value in label],
        label=label,
    )


def test_parts_are_the_images_of_each_value_and_one_without_images_is_left_out():
    found, flags = drawn(1), np.arange(200) % 5 == 0
    view = np.arange(200) % 4 == 0
    warnings = Warnings(flags, {"mean": ~flags, "contrast": np.zeros(200, bool)})
    attributes = {"view": {"AP": view, "PA": ~view, "LL": np.zeros(200, bool)}, "sex": {}}
    whole, ap, pa = parts_of(found, THRESHOLD, attributes, ConformalSets.of(drawn(2)).rule(), warnings)[""]
    assert [(part.attribute, part.value) for part in (whole, ap, pa)] == [("all", ""), ("view", "AP"), ("view", "PA")]
    assert (whole.images, ap.images, pa.images) == (200, 50, 150)
    assert (whole.groups, ap.groups) == (100, 50)
    assert whole.warned.value == 1.0 and whole.rates.unlike.value == pytest.approx(0.2)
    assert ap.rates.unlike.value == pytest.approx(flags[view].mean())
    chosen = found.select(view)
    assert ap.rates == rates_of(chosen, THRESHOLD, ConformalSets.of(drawn(2)).rule(), flags[view])
    assert ap.pneumonia == chosen.label.sum()
    # an interval of fewer groups is wider
    width = [part.rates.roc_auc.interval.high - part.rates.roc_auc.interval.low for part in (whole, ap)]
    assert width[1] > width[0]


def test_a_part_with_one_class_alone_has_no_ranking():
    one = drawn(3, labels=(0,))
    (whole,) = parts_of(one, THRESHOLD, {}, None, Warnings(None, None))[""]
    assert whole.rates.roc_auc.value is whole.rates.sensitivity.value is None
    assert whole.rates.specificity.value == pytest.approx(np.mean(one.probability < THRESHOLD))
    assert whole.warned is whole.rates.unlike is whole.rates.uncertain is None
    assert recalibrate(one, THRESHOLD) is None
    assert shares_warned(one, Warnings(None, None)) == {}


@pytest.mark.parametrize("shift", [-2.0, 0.0, 3.0])
def test_recalibration_in_the_large_finds_the_shift_and_changes_no_ranking(shift):
    found = drawn(4, 2000, shift)
    gained = recalibrate(found, THRESHOLD)
    # margins of these images are calibrated at twice their size, so that the intercept alone is near the shift
    assert gained.shift == pytest.approx(-shift, abs=0.6)
    assert gained.interval.low < gained.shift < gained.interval.high
    margin = found.logits[:, 1] - found.logits[:, 0]
    after = expit(margin + gained.shift)
    assert after.mean() == pytest.approx(found.label.mean(), abs=1e-9)
    assert gained.after["log_loss"] <= gained.before["log_loss"] + 1e-12
    assert gained.after["sensitivity"] == pytest.approx(np.mean(after[found.label == 1] >= THRESHOLD))
    assert gained.before["specificity"] == pytest.approx(np.mean(found.probability[found.label == 0] < THRESHOLD))


def test_scores_are_compared_class_by_class_with_validation():
    validation, here = drawn(5), drawn(6, shift=2.0)
    spreads = spread_of_scores(validation, here)
    assert list(spreads) == ["NORMAL", "PNEUMONIA"]
    for label, spread in enumerate(spreads.values()):
        own, theirs = here.probability[here.label == label], validation.probability[validation.label == label]
        assert spread.here.median == pytest.approx(np.median(own))
        assert spread.validation.high == pytest.approx(np.quantile(theirs, 0.95))
        assert spread.higher_here == pytest.approx(np.mean(own[:, None] > theirs[None]))
        assert spread.interval.low > 0.5
    assert list(spread_of_scores(validation, drawn(7, labels=(1,)))) == ["PNEUMONIA"]


def test_a_record_reads_back(tmp_path):
    found = drawn(8)
    warnings = Warnings(None, {"mean": found.probability > 0.5})
    columns = {"mean": np.arange(200.0), "pixels": np.full(200, 9.0)}
    titles = {"mean": ("Mean brightness", "grey levels"), "pixels": ("Image size", "pixels")}
    record = External(
        dataset="others",
        fingerprint="f",
        phantom=False,
        images_of="all",
        threshold=THRESHOLD,
        rule="sensitivity",
        checkpoint_sha256="c",
        parts=parts_of(found, THRESHOLD, {}, None, warnings)[""],
        recalibration=recalibrate(found, THRESHOLD),
        scores=spread_of_scores(drawn(9), found),
        quality=spread_of_quality(columns, titles, None, warnings),
        warned=shares_warned(found, warnings),
    )
    assert record.quality["mean"].outside == int(np.sum(found.probability > 0.5))
    assert record.quality["pixels"].outside is None and record.quality["mean"].training is None
    write_external(tmp_path / "external.json", record)
    assert read_external(tmp_path / "external.json") == record
    cases = found.label == 1
    pairs = found.probability[cases][:, None] > found.probability[~cases][None]
    assert record.whole.rates.roc_auc.value == pytest.approx(pairs.mean())
