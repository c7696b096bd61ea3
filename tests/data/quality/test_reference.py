import json

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cxr_jax.data.quality.measures import MEASURES, measure_quality
from cxr_jax.data.quality.reference import (
    LIKENESS,
    TAIL,
    QualityReference,
    read_reference,
    told_measure,
    write_reference,
)
from cxr_jax.data.quality.table import QualityTable, thumbnail
from cxr_jax.errors import UserError


def table_of(images):
    rows = [measure_quality(image) for image in images]
    columns = {name: np.array([row[name] for row in rows]) for name in MEASURES}
    return QualityTable(columns, np.stack([thumbnail(image) for image in images]))


@pytest.fixture(scope="module")
def training(chests):
    return table_of(chests)


@pytest.fixture(scope="module")
def reference(training):
    return QualityReference.of(training)


def made_up(columns):
    """A table with those values and thumbnails that differ."""
    count = len(next(iter(columns.values())))
    thumbnails = np.random.default_rng(0).integers(0, 256, (count, 32, 32)).astype(np.uint8)
    return QualityTable({name: np.asarray(columns.get(name, np.ones(count))) for name in MEASURES}, thumbnails)


def test_ranges_leave_out_the_tails_of_training():
    values = np.arange(10_001.0)
    reference = QualityReference.of(made_up({"mean": values, "rotation": values}))
    assert reference.ranges["mean"] == (10_000 * TAIL, 10_000 * (1 - TAIL))
    assert reference.ranges["rotation"] == (None, 10_000 * (1 - TAIL))
    assert reference.images == 10_001
    outside = reference.outside(made_up({"mean": [19, 20, 5_000, 9_980, 9_981], "rotation": [-5, 0, 9_981, 0, 0]}))
    assert outside["mean"].tolist() == [True, False, False, False, True]
    assert outside["rotation"].tolist() == [False, False, True, False, False]


def test_the_size_of_a_file_is_no_reason_for_distrust(reference, chests):
    assert set(reference.ranges) == (set(MEASURES) | {LIKENESS}) - {"pixels", "aspect"}
    enlarged = cv2.resize(chests[3], (1600, 1200), interpolation=cv2.INTER_CUBIC)
    assert not {"pixels", "aspect"} & set(reference.remarks(enlarged))


def test_few_training_images_are_all_usual(reference, training, chests):
    assert not np.any(list(reference.outside(training).values()))
    assert not any(reference.remarks(chest) for chest in chests)


def test_what_is_no_chest_is_told(reference, hand, page, noise, chests):
    for image in (page, noise, 255 - chests[0], np.rot90(chests[0]).copy()):
        assert reference.remarks(image)[LIKENESS].startswith("unlike the training images as a whole")
    assert reference.remarks(hand)


def test_the_remark_names_measure_value_and_range(reference, chests):
    low, high = reference.ranges["mean"]
    brightest = np.clip(chests[0].astype(int) + 120, 0, 255).astype(np.uint8)
    remark = reference.remarks(brightest)["mean"]
    value = measure_quality(brightest)["mean"]
    assert remark == f"mean brightness {value:.0f} grey levels is unlike the training images ({low:.0f} to {high:.0f})"
    blurred = cv2.GaussianBlur(chests[0], (0, 0), 12)
    assert reference.remarks(blurred)["sharpness"].startswith("sharpness")


def test_a_single_bound_is_told_as_one(chests):
    reference = QualityReference.of(table_of(chests))
    image = np.full((224, 224), 255, np.uint8)
    image[::2, :3] = 0
    remark = reference.remarks(image)["bright_area"]
    assert remark.startswith("bright area")
    assert remark.endswith(f"(at most {reference.ranges['bright_area'][1]:.2g})")


@given(st.floats(0.3, 1.5), st.integers(-30, 30))
def test_likeness_does_not_follow_brightness_or_contrast(factor, shift):
    thumbnails = np.random.default_rng(1).integers(80, 150, (6, 32, 32)).astype(np.uint8)
    changed = np.rint(128 + (thumbnails - 128.0) * factor + shift).astype(np.uint8)
    columns = {name: np.zeros(6) for name in MEASURES}
    reference, other = (QualityReference.of(QualityTable(columns, small)) for small in (thumbnails, changed))
    assert reference.ranges[LIKENESS][0] == pytest.approx(other.ranges[LIKENESS][0], abs=0.02)
    assert reference.mean_picture.mean() == pytest.approx(0, abs=1e-12)
    assert np.sum(reference.mean_picture**2) == pytest.approx(1)


def test_a_reference_is_read_as_it_was_written(reference, training, hand, tmp_path):
    path = tmp_path / "reference.json"
    write_reference(path, reference)
    again = read_reference(path)
    assert again.ranges == reference.ranges
    assert again.images == reference.images
    np.testing.assert_allclose(again.mean_picture, reference.mean_picture, atol=1e-5)
    assert again.remarks(hand) == reference.remarks(hand)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema_version": 99}, "another version"),
        ({"ranges": {"mean": {"low": 1}}}, "damaged"),
        ({"ranges": {"beauty": {"low": 1, "high": 2}}}, "no measure is called beauty"),
        ({"ranges": [1]}, "damaged"),
        ({"ranges": {"mean": {"low": "much", "high": 2}}}, "damaged"),
        ({"mean_picture": [[1.0]]}, "32 x 32"),
        ({"images": None}, "damaged"),
    ],
)
def test_a_damaged_reference_is_one_sentence(reference, tmp_path, change, sentence):
    path = tmp_path / "reference.json"
    write_reference(path, reference)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match=sentence):
        read_reference(path)


def test_every_range_has_a_title():
    for name in (*MEASURES, LIKENESS):
        assert told_measure(name).title


def test_few_real_radiographs_are_remarked_on_and_other_pictures_are(real_radiographs, hand, page, noise):
    files = sorted((real_radiographs / "train").glob("*/*.jpeg"))[::10]
    table = table_of([cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files])
    kept = np.arange(len(files)) % 5 > 0
    reference = QualityReference.of(table.rows(kept))
    assert np.any(list(reference.outside(table.rows(~kept)).values()), axis=0).mean() < 0.08
    for image in (hand, page, noise):
        assert reference.remarks(image)
