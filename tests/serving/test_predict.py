from dataclasses import replace

import cv2
import numpy as np
import pytest

from cxr_jax.data.decode import to_square
from cxr_jax.data.quality.measures import MEASURES, measure_quality
from cxr_jax.data.quality.reference import QualityReference
from cxr_jax.data.quality.table import QualityTable, thumbnail
from cxr_jax.errors import UserError
from cxr_jax.evaluation.conformal import ClassBounds, ConformalSets
from cxr_jax.runs.predictions import probability_of
from cxr_jax.serving.predict import FilePrediction, Threshold, predict_files
from cxr_jax.vocabulary import CLASS_NAMES, DISCLAIMER


@pytest.fixture
def files(tmp_path):
    """Seven images of different sizes, and one each that is damaged, missing and a folder, in between."""
    random = np.random.default_rng(5)
    names = []
    for number in range(7):
        shape = (40 + 9 * number, 70 - 3 * number)
        image = np.clip(random.normal(20 + 30 * number, 40, shape), 0, 255).astype(np.uint8)
        names.append(str(tmp_path / f"{number}.png"))
        cv2.imwrite(names[-1], image)
    (tmp_path / "damaged.png").write_bytes((tmp_path / "0.png").read_bytes()[:50])
    names[2:2] = [str(tmp_path / "damaged.png")]
    names[5:5] = [str(tmp_path), str(tmp_path / "missing.png")]
    return names


def test_an_image_of_a_few_pixels_ends_nothing(trained, files, tmp_path):
    thin = str(tmp_path / "thin.png")
    cv2.imwrite(thin, np.zeros((200, 7), np.uint8))
    results = list(predict_files(trained, [files[0], thin, files[1]], Threshold.of(trained)))
    assert [result.error for result in results] == [None] * 3
    assert any("enlarged" in warning for warning in results[1].warnings)


def expected_probability(trained, file):
    grey = cv2.imread(file, cv2.IMREAD_GRAYSCALE)
    return probability_of(trained.logits(to_square(grey, 32, "squash", "area")[None]))[0]


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_every_file_gets_its_own_result_in_the_given_order(trained, files, batch_size):
    results = list(predict_files(trained, files, Threshold.of(trained), batch_size=batch_size))
    assert [result.file for result in results] == files
    failed = [result.file for result in results if result.error]
    assert failed == [files[2], files[5], files[6]]
    good = [result for result in results if not result.error]
    np.testing.assert_allclose(
        [result.probability for result in good],
        [expected_probability(trained, result.file) for result in good],
        rtol=0,
        atol=1e-6,
    )
    assert np.ptp([result.probability for result in good]) > 0.01
    for result in results:
        assert (result.probability is None) == (result.label is None) == bool(result.error)


def test_the_call_follows_the_threshold(trained, files):
    probability = next(predict_files(trained, files, Threshold.of(trained))).probability
    for value, label in ((probability, "PNEUMONIA"), (np.nextafter(probability, 2), "NORMAL")):
        assert next(predict_files(trained, files, Threshold.of(trained, value))).label == label


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_depth_and_channels_do_not_change_the_prediction(trained, tmp_path, bits, channels):
    grey = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
    image = grey if bits == 8 else grey.astype(np.uint16) * 257
    if channels > 1:
        layers = [image] * 3 + [np.full_like(image, np.iinfo(image.dtype).max)] * (channels - 3)
        image = np.stack(layers, axis=-1)
    plain, other = str(tmp_path / "plain.png"), str(tmp_path / "other.png")
    cv2.imwrite(plain, grey)
    cv2.imwrite(other, image)
    first, second = predict_files(trained, [plain, other], Threshold.of(trained))
    assert second.probability == pytest.approx(first.probability, abs=1e-6)


def test_only_unreadable_files_are_no_error_of_the_batch(trained, tmp_path):
    (result,) = predict_files(trained, [str(tmp_path)], Threshold.of(trained))
    assert "folder" in result.error
    assert list(predict_files(trained, [], Threshold.of(trained))) == []


def test_the_threshold_is_the_users_else_the_runs_else_one_half(trained, unjudged):
    assert Threshold.of(trained, 0.25) == Threshold(0.25, "given by the user")
    assert Threshold.of(trained, 0.0).value == 0.0
    assert Threshold.of(trained) == Threshold(0.4, "youden")
    assert Threshold.of(unjudged).value == 0.5
    assert "not chosen" in Threshold.of(unjudged).rule


def test_a_film_is_uncertain_where_not_the_called_class_alone_is_possible(trained, files):
    """The call stays what the threshold makes of it; what is possible follows the bounds and the error rate."""
    probability = next(predict_files(trained, files, Threshold.of(trained))).probability
    normal, pneumonia = 1 - probability, probability
    called = CLASS_NAMES[probability >= trained.threshold]
    bounds = {"NORMAL": (normal, 1.0, 1.0, normal), "PNEUMONIA": (pneumonia, 1.0, pneumonia, 1.0)}
    sets = ConformalSets((0.01, 0.02, 0.05, 0.1), tuple(ClassBounds(name, 9, 9, bounds[name]) for name in CLASS_NAMES))
    model = replace(trained, sets=sets)
    for rate, possible in ((0.01, CLASS_NAMES), (0.02, ()), (None, ("PNEUMONIA",)), (0.1, ("NORMAL",))):
        threshold = Threshold.of(model, error_rate=rate)
        found = next(predict_files(model, files, threshold))
        assert (found.label, found.probability, found.possible) == (called, probability, possible)
        assert found.uncertain == (possible != (called,))
        told = found.as_json(threshold, "m", "")
        assert (told["uncertain"], told["possible"]) == (found.uncertain, list(possible))
        assert told["error_rate"] == (rate or 0.05)
    # a threshold of the user's own leaves the bounds as they are
    assert Threshold.of(model, 0.9).sets == Threshold.of(model).sets


def test_an_error_rate_without_bounds_is_refused(trained):
    with pytest.raises(UserError, match=r"no bounds for an error rate were fixed .* evaluate the run"):
        Threshold.of(trained, error_rate=0.05)


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), float("inf")])
def test_a_threshold_outside_0_to_1_is_refused(trained, value):
    with pytest.raises(UserError, match="from 0 to 1"):
        Threshold.of(trained, value)


def test_images_unlike_those_of_training_are_predicted_with_a_warning(trained, files):
    """Likeness to training changes what is said of an image, and never its probability."""
    random = np.random.default_rng(2)
    lit = [np.clip(random.normal(120, 40, (80, 90)), 0, 255).astype(np.uint8) for _ in range(8)]
    rows = [measure_quality(image) for image in lit]
    columns = {name: np.array([row[name] for row in rows]) for name in MEASURES}
    reference = QualityReference.of(QualityTable(columns, np.stack([thumbnail(image) for image in lit])))
    readable = [file for file in files if file.rsplit("/", 1)[1] in ("0.png", "6.png")]
    plain = list(predict_files(trained, readable, Threshold.of(trained)))
    compared = list(predict_files(trained, readable, Threshold.of(trained), reference=reference))
    for one, other in zip(plain, compared, strict=True):
        assert other.probability == one.probability
        assert not one.compared and other.compared
        assert other.as_json(Threshold.of(trained), "m", "")["compared_with_training"] is True
        assert not any("training images" in warning for warning in one.warnings)
        assert any(warning.startswith("mean brightness") for warning in other.warnings)


def test_json_has_every_field_and_an_error_only_where_there_is_one():
    threshold = Threshold(0.4, "youden")
    good = FilePrediction("a.png", 0.7, "PNEUMONIA", warnings=("enlarged",)).as_json(
        threshold, "tiny of run", "It saw."
    )
    assert good == {
        "file": "a.png",
        "probability": 0.7,
        "label": "PNEUMONIA",
        "threshold": 0.4,
        "threshold_rule": "youden",
        "uncertain": None,
        "possible": None,
        "error_rate": None,
        "warnings": ["enlarged"],
        "compared_with_training": False,
        "model": "tiny of run",
        "films": "It saw.",
        "disclaimer": DISCLAIMER,
    }
    bad = FilePrediction("b.png", error="b.png does not exist").as_json(threshold, "tiny of run", "It saw.")
    assert bad["error"] == "b.png does not exist"
    assert bad["probability"] is None and bad["label"] is None
