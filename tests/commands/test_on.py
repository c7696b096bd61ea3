"""`evaluate RUN --on DATASET`: a network that was trained on phantoms judges phantoms of another look."""

import json
import shutil

import cv2
import numpy as np
import pytest
from other_films import NAME, both_prepared, prepare_other_films, write_other_films
from sklearn.metrics import roc_auc_score

from cxr_jax.commands import evaluate, prepare
from cxr_jax.config.loading import load_config
from cxr_jax.data.attributes import attributes_of
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.split_loading import load_rows
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.evaluation.external import read_external
from cxr_jax.evaluation.quality import read_quality
from cxr_jax.inference.restore import restore_run
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.ledger import read_looks
from cxr_jax.runs.predictions import read_predictions
from cxr_jax.vocabulary import DISCLAIMER

pytestmark = pytest.mark.usefixtures("undrawn_figures")


@pytest.fixture
def data(prepared_folder, tmp_path_factory, tmp_path, monkeypatch):
    """A copy of a folder with the phantoms of the run and those of another look, to which the environment points."""
    folder = shutil.copytree(both_prepared(prepared_folder, tmp_path_factory), tmp_path / "prepared")
    monkeypatch.setenv("CXR_PREPARED_DIR", str(folder))
    return folder


@pytest.fixture
def run(evaluated_run, tmp_path):
    return RunFolder(shutil.copytree(evaluated_run, tmp_path / "evaluated"))


def of_the_run(run):
    """Everything of a run but its report and what it is worth elsewhere."""
    files = (path for path in run.path.rglob("*") if path.is_file() and run.external not in path.parents)
    return {path: path.read_bytes() for path in files if path != run.report}


def test_other_films_are_judged_at_the_threshold_of_the_run_which_stays_as_it_is(run, data, capsys):
    before = of_the_run(run)
    evaluate.main([str(run.path), "--on", NAME])
    assert of_the_run(run) == before
    printed = " ".join(capsys.readouterr().out.split())
    found, table = read_external(run.external / NAME / "external.json"), run.external / NAME / "predictions.csv"
    predictions, prepared = read_predictions(table), PreparedData.open(NAME)
    assert (found.dataset, found.images_of, found.phantom) == (NAME, "all", False)
    assert found.threshold == read_json(run.operating_point)["threshold"]
    assert predictions.file == tuple(example.file for example in prepared.examples)

    # the figures, computed anew
    called, sick = predictions.probability >= found.threshold, predictions.label == 1
    whole = found.whole
    assert (whole.images, whole.pneumonia) == (72, sick.sum())
    assert whole.groups == len({example.group for example in prepared.examples})
    assert whole.rates.roc_auc.value == pytest.approx(roc_auc_score(sick, predictions.probability))
    assert whole.rates.sensitivity.value == pytest.approx(called[sick].mean())
    assert whole.rates.specificity.value == pytest.approx((~called[~sick]).mean())

    # by age, sex and view
    known = [attributes_of(example.known) for example in prepared.examples]
    parts = {(part.attribute, part.value): part for part in found.parts}
    assert [part.attribute for part in found.parts] == ["all", *["age"] * 5, "sex", "sex", "view", "view"]
    for value in ("F", "M"):
        rows = np.array([entry.sex == value for entry in known])
        part = parts["sex", value]
        assert (part.images, part.pneumonia) == (rows.sum(), sick[rows].sum())
        assert part.rates.roc_auc.value == pytest.approx(roc_auc_score(sick[rows], predictions.probability[rows]))
    assert sum(part.images for part in found.parts if part.attribute == "age") == 71  # the age of one is not known
    assert parts["age", "60 and older"].images == sum((entry.age or 0) >= 60 for entry in known)

    # what recalibration would gain: the mean probability becomes the share of PNEUMONIA
    margins = predictions.logits[:, 1] - predictions.logits[:, 0] + found.recalibration.shift
    assert np.mean(1 / (1 + np.exp(-margins))) == pytest.approx(sick.mean(), abs=1e-6)
    assert found.recalibration.after["log_loss"] < found.recalibration.before["log_loss"]
    # and is not applied
    assert "It is not applied" in printed
    own = read_predictions(run.predictions_of("val"))
    assert found.scores["NORMAL"].validation.median == pytest.approx(np.median(own.probability[own.label == 0]))

    # an inverted film is not like those of training, in quality and in the network's features
    assert found.quality["mean"].training == read_quality(run.quality).splits["train"].measures["mean"]
    assert found.warned["quality"].value > 0.9 and found.quality["mean"].outside > 0
    trained = restore_run(run)
    images = load_rows(prepared, load_config(run.config).data, np.arange(72, dtype=np.int32))
    _, distances = trained.logits_and_distances(np.asarray(images.images))
    assert found.warned["features"].value == pytest.approx(np.mean(distances > trained.feature_limit.distance))
    assert found.warned["features"].value > 0.5
    assert whole.warned.value >= max(share.value for share in found.warned.values())

    (look,) = [json.loads(line) for line in (run.external / NAME / "ledger.jsonl").read_text().splitlines()]
    assert (look["dataset"], look["looks_at_these_images"]) == (NAME, 1)
    assert look["checkpoint_sha256"] == read_looks(run)[-1]["checkpoint_sha256"]
    for told in ("72 images of", "age 18 to 39", "view AP", DISCLAIMER, "This network learned from phantoms"):
        assert told in printed
    report = run.report.read_text()
    assert 'id="external"' in report and "<h3>inverted</h3>" in report and "view AP" in report

    # again: another look, and the test images alone go into a folder of their own
    evaluate.main([str(run.path), "--on", NAME])
    evaluate.main([str(run.path), "--on", NAME, "--test"])
    looks = [json.loads(line) for line in (run.external / NAME / "ledger.jsonl").read_text().splitlines()]
    assert [look["looks_at_these_images"] for look in looks] == [1, 2]
    alone = read_external(run.external / f"{NAME}-test" / "external.json")
    assert (alone.whole.images, alone.images_of) == (24, "test")
    (look,) = [json.loads(line) for line in (run.external / f"{NAME}-test" / "ledger.jsonl").read_text().splitlines()]
    assert look["looks_at_these_images"] == 3


def test_what_an_earlier_version_did_not_keep_is_made_and_not_stored(run, data):
    evaluate.main([str(run.path), "--on", NAME])
    whole = read_external(run.external / NAME / "external.json")
    older = RunFolder(shutil.copytree(run.path, run.path.with_name("older")))
    for path in (older.feature_reference, older.conformal):
        path.unlink()
    shutil.rmtree(older.external)
    evaluate.main([str(older.path), "--on", NAME])
    assert read_external(older.external / NAME / "external.json") == whole
    assert not older.feature_reference.exists() and not older.conformal.exists()
    # elsewhere the run's own data may not be there: nothing is said of what they would have told
    shutil.rmtree(data / "phantoms")
    evaluate.main([str(older.path), "--on", NAME])
    found = read_external(older.external / NAME / "external.json")
    assert "features" not in found.warned and found.whole.rates.unlike is None
    assert found.whole.rates.roc_auc == whole.whole.rates.roc_auc


def test_what_the_run_was_trained_on_is_not_judged_as_other_films(run, data, phantom_source):
    with pytest.raises(UserError, match=r"phantoms is what .* was trained on: cxr-jax evaluate .* on its test images"):
        evaluate.main([str(run.path), "--on", "phantoms"])
    # the same images under other names are known by their content
    moved = shutil.copytree(phantom_source, data.parent / "moved")
    for path in sorted(moved.glob("*/NORMAL/*.jpeg")):
        path.rename(path.with_stem(f"film-{path.stem}"))
    prepare.main([str(moved), "--name", "again"])
    with pytest.raises(
        UserError, match=r"trained on 68 of the 92 images of again: take its test images alone by --test"
    ):
        evaluate.main([str(run.path), "--on", "again"])
    assert not run.external.exists()


def test_other_classes_and_a_run_without_threshold_are_told(run, run_path, data):
    films = data.parent / "three"
    for number, name in enumerate(("train/A", "train/B", "train/C", "test/A", "test/B", "test/C")):
        folder = films / name
        folder.mkdir(parents=True)
        picture = np.random.default_rng(number).integers(0, 255, (32, 32)).astype(np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), picture)
    prepare.main([str(films), "--classes", "A", "B", "C"])
    with pytest.raises(
        UserError, match=r"three has the classes A, B, C, and .* knows the classes NORMAL, PNEUMONIA: prepare"
    ):
        evaluate.main([str(run.path), "--on", "three"])
    with pytest.raises(UserError, match=r"has no threshold yet .* at which films could be called: cxr-jax evaluate"):
        evaluate.main([str(run_path), "--on", NAME])
    with pytest.raises(UserError, match="no prepared data called 'nothing'"):
        evaluate.main([str(run.path), "--on", "nothing"])


def test_results_on_other_data_of_the_same_name_are_not_overwritten(run, data, tmp_path):
    evaluate.main([str(run.path), "--on", NAME])
    kept = (run.external / NAME / "external.json").read_bytes()
    shutil.rmtree(data / NAME)
    prepare_other_films(write_other_films(tmp_path / "films", train=12, test=6, seed=9))
    with pytest.raises(UserError, match="holds results on other data that were called inverted: rename that folder"):
        evaluate.main([str(run.path), "--on", NAME])
    assert (run.external / NAME / "external.json").read_bytes() == kept


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["RUN", "RUN", "--on", NAME], "--on judges one run"),
        (["RUN", "--on", NAME, "--degraded"], "--on goes with --test alone"),
        (["RUN", "--on", NAME, "--stored"], "--on goes with --test alone"),
    ],
)
def test_options_that_contradict_each_other_are_refused(arguments, sentence, evaluated_run):
    with pytest.raises(UserError, match=sentence) as raised:
        evaluate.main([str(evaluated_run) if entry == "RUN" else entry for entry in arguments])
    assert raised.value.code == EXIT_USAGE
