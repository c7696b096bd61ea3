"""Classes other than NORMAL and PNEUMONIA, from class folders to a bundle."""

import csv
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from other_classes import NAMES
from scipy.special import softmax

import cxr_jax
from cxr_jax.commands import evaluate, judge, predict, prepare, train
from cxr_jax.data.prepared import PreparedData
from cxr_jax.errors import UserError
from cxr_jax.evaluation.class_judgement import read_class_judgement
from cxr_jax.evaluation.class_points import read_class_points
from cxr_jax.inference.ensemble import mean_of
from cxr_jax.runs.class_predictions import read_class_predictions, write_class_predictions
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.ledger import read_looks
from cxr_jax.runs.metrics_log import read_metrics


@pytest.fixture(scope="session")
def class_folders(classes_folder):
    return classes_folder / "films"


def test_classes_stand_in_the_data_the_network_the_tables_and_the_judgement(three):
    prepared, run = PreparedData.open("films"), RunFolder(three / "run")
    assert prepared.classes == NAMES
    assert prepared.card["counts"]["train"] == dict.fromkeys(NAMES, 20)
    assert {example.label for example in prepared.examples} == set(NAMES)
    assert tuple(read_json(run.network)["classes"]) == NAMES
    table = read_class_predictions(run.predictions_of("test"))
    assert (table.classes, len(table)) == (NAMES, 24)
    assert [table.classes[label] for label in table.label] == [file.split("/")[1] for file in table.file]
    header = run.predictions_of("test").read_text().splitlines()[0]
    assert "probability_clear,probability_Lung Opacity,probability_covid" in header
    judgement = read_class_judgement(run.evaluation)
    assert judgement.classes == NAMES
    assert np.array_equal(np.sum(judgement.test.confusion, axis=1), (8, 8, 8))
    figures = [line["roc_auc"] for line in read_metrics(run.metrics) if line["kind"] == "validation"]
    assert figures
    assert all(0 <= figure <= 1 for figure in figures)


def test_thresholds_are_fixed_on_validation_and_the_look_is_counted(three):
    run = RunFolder(three / "run")
    points, validation = read_class_points(run.operating_point), read_class_predictions(run.predictions_of("val"))
    for index, name in enumerate(NAMES):
        found = validation.probabilities[validation.label == index, index] >= points.classes[name].threshold
        assert np.mean(found) >= 0.9
    (look,) = read_looks(run)
    assert look["thresholds"] == {name: point.threshold for name, point in points.classes.items()}
    test = read_class_predictions(run.predictions_of("test"))
    assert look["predictions_sha256"] == test.sha256()
    assert look["result"]["accuracy"] == np.mean(test.called == test.label)


def test_the_report_tells_every_class(three):
    page = (three / "run" / "report.html").read_text()
    for told in (*NAMES, "3 classes", "Not a medical device", "ROC-AUC, macro", "<strong>once</strong>"):
        assert told in page
    assert "PNEUMONIA" not in page.partition("<main>")[2].partition('<section id="reproduce">')[0]


def test_stored_predictions_are_judged_again_without_a_look(three, tmp_path, undrawn_figures, capsys):
    run = RunFolder(Path(shutil.copytree(three / "run", tmp_path / "run")))
    before = run.evaluation.read_bytes()
    evaluate.main([str(run.path), "--stored"])
    assert run.evaluation.read_bytes() == before
    assert len(read_looks(run)) == 1
    printed = capsys.readouterr().out
    assert "Each class against the rest" in printed
    assert "No look at the test split was added" in printed
    path = run.predictions_of("test")
    whole, stored = path.read_bytes(), read_class_predictions(path)
    write_class_predictions(path, replace(stored, group=("of an earlier version", *stored.group[1:])))
    evaluate.main([str(run.path), "--stored"])
    assert path.read_bytes() == whole
    assert "test.csv: the groups are now those of the prepared data" in " ".join(capsys.readouterr().out.split())
    path.write_text(path.read_text().replace("covid", "clear"))
    with pytest.raises(UserError):
        evaluate.main([str(run.path), "--stored"])


@pytest.mark.slow
def test_an_ensemble_of_two_runs_answers_with_the_mean_of_their_logits(three, tmp_path, undrawn_figures):
    run = RunFolder(three / "run")
    other = Path(shutil.copytree(run.path, tmp_path / "other"))
    train.main([str(three / "films.toml"), "--out", str(tmp_path / "second"), "--training.seed", "1"])
    evaluate.main([str(tmp_path / "second")])
    evaluate.main([str(other), str(tmp_path / "second"), "--out", str(tmp_path / "both")])
    tables = [
        read_class_predictions(RunFolder(folder).predictions_of("test"))
        for folder in (other, tmp_path / "second", tmp_path / "both")
    ]
    assert tables[2].logits == pytest.approx((tables[0].logits + tables[1].logits) / 2, abs=1e-6)
    assert tables[2].label.tolist() == tables[0].label.tolist()
    judged = read_class_judgement(tmp_path / "both" / "evaluation.json").test.metrics["accuracy"]
    assert judged.value == np.mean(tables[2].called == tables[2].label)
    assert "ensemble" in (tmp_path / "both" / "report.html").read_text()


def test_the_tables_of_an_ensemble_have_the_mean_of_their_logits(three):
    one = read_class_predictions(RunFolder(three / "run").predictions_of("test"))
    both = mean_of([one, one.with_logits(3 * one.logits)])
    assert both.logits == pytest.approx(2 * one.logits)
    assert both.probabilities == pytest.approx(softmax(2 * one.logits, axis=1))
    assert (both.file, both.classes) == (one.file, one.classes)


def predicted(arguments, capsys):
    predict.main([*arguments, "--json"])
    return json.loads(capsys.readouterr().out)


def test_a_run_and_its_bundle_predict_the_same(three, class_folders, tmp_path, capsys):
    run, bundle = three / "run", three / "bundle"
    folder = class_folders / "test" / "covid"
    of_run, of_bundle = (predicted([str(place), str(folder)], capsys) for place in (run, bundle))
    table = read_class_predictions(RunFolder(run).predictions_of("test"))
    rows = zip(table.file, table.probabilities, strict=True)
    expected = {Path(file).name: row for file, row in rows if "covid" in file}
    for one, other in zip(of_run, of_bundle, strict=True):
        assert list(one["probabilities"]) == list(NAMES)
        assert list(one["probabilities"].values()) == pytest.approx(expected[Path(one["file"]).name], abs=1e-5)
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
        assert one["label"] == max(one["probabilities"], key=one["probabilities"].get)
        assert one["probability"] == one["probabilities"][one["label"]]
        assert one["threshold"] is None
        assert one["compared_with_training"]
    told = json.loads((bundle / "bundle.json").read_text())
    assert [call["label"] for call in told["calls"]] == list(NAMES)
    assert told["test"]["figures"][0]["title"] == "Accuracy"
    card = (bundle / "MODEL_CARD.md").read_text()
    assert "called the class of its highest probability" in card
    assert "clear or Lung Opacity or covid" in card
    file = str(next(folder.iterdir()))
    alone = subprocess.run(
        [sys.executable, str(bundle / "predict.py"), file], capture_output=True, text=True, check=True
    ).stdout
    (called,) = (entry["label"] for entry in of_run if entry["file"] == file)
    assert f"called {called}, the highest probability" in alone
    (found,) = cxr_jax.load(bundle).predict(file)
    assert (found.label, found.threshold, found.findings) == (called, None, None)
    (expected,) = (entry["probabilities"] for entry in of_run if entry["file"] == file)
    assert found.probabilities == pytest.approx(expected, abs=1e-5)
    assert cxr_jax.load(bundle).heat_map(file).case.explained == called


def test_the_table_and_the_csv_have_a_column_for_each_class(three, class_folders, tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    files = [str(class_folders / "test" / "covid" / "0.png"), str(broken)]
    with pytest.raises(UserError, match="1 of 2 files"):
        predict.main([str(three / "run"), *files, "--csv", str(tmp_path / "out.csv")])
    printed = capsys.readouterr().out
    assert "P(clear)  P(Lung Opacity)  P(covid)  call" in printed
    assert "Called: the class of the highest probability" in printed
    first, second = csv.DictReader((tmp_path / "out.csv").open())
    assert sum(float(first[f"probability_{name}"]) for name in NAMES) == pytest.approx(1)
    assert second["probability_covid"] == ""
    with pytest.raises(UserError, match="takes no threshold"):
        predict.main([str(three / "run"), files[0], "--threshold", "0.5"])
    predict.main([str(three / "run"), files[0], "--maps", str(tmp_path / "maps")])
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["0.png"]


def test_its_table_is_judged_by_itself(three, tmp_path, capsys, undrawn_figures):
    run = RunFolder(three / "run")
    tables = [str(run.predictions_of("test")), "--validation", str(run.predictions_of("val"))]
    judge.main([*tables, "--rule", "youden", "--resamples", "100", "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    for told in ("24 test images of 3 classes", "Confusion matrix", "Lung Opacity", "Not a medical device"):
        assert told in printed
    judged = read_class_judgement(tmp_path / "out" / "evaluation.json")
    assert judged.test.confusion == read_class_judgement(run.evaluation).test.confusion
    assert "Each class against the rest" in (tmp_path / "out" / "report.html").read_text()
    with pytest.raises(UserError, match=r"declares a share of PNEUMONIA, and .* has other classes"):
        judge.main([*tables, "--align-to", "0.3"])


def test_what_takes_two_classes_says_so(three, tmp_path):
    config = str(three / "films.toml")
    for option, value in (("balancing", "barnett"), ("validation", "least_sharp")):
        with pytest.raises(UserError, match="treats NORMAL images in a way of their own"):
            train.main([config, "--out", str(tmp_path / "run"), f"--data.{option}", value])
    assert list(tmp_path.iterdir()) == []


def test_subtypes_of_phantoms_become_classes(phantom_source, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path))
    prepare.main([str(phantom_source), "--subtypes"])
    prepared = PreparedData.open("phantoms_subtypes")
    assert prepared.classes == ("normal", "bacteria", "virus")
    assert all(example.label == example.subtype for example in prepared.examples)
    assert all((example.label == "normal") == ("/NORMAL/" in example.file) for example in prepared.examples)
    order = [("train", "val", "test").index(e.split) * 3 + prepared.classes.index(e.label) for e in prepared.examples]
    assert order == sorted(order)
    printed = capsys.readouterr().out
    assert "bacteria" in printed
    assert "cxr-jax train quickstart --data.dataset phantoms_subtypes" in printed
    # groups are still those of the file names
    assert prepared.card["groups"]["named"] == len(prepared.examples)
    prepare.main([str(phantom_source), "--subtypes"])
    assert "Nothing to do" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"with other classes, normal, bacteria, virus"):
        prepare.main([str(phantom_source), "--name", "phantoms_subtypes"])


def test_images_without_a_subtype_are_left_out_and_listed(phantom_source, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path / "prepared"))
    source = Path(shutil.copytree(phantom_source, tmp_path / "source"))
    ill = (
        sorted((source / "chest_xray" / "train" / "PNEUMONIA").iterdir())
        if (source / "chest_xray").is_dir()
        else (sorted((source / "train" / "PNEUMONIA").iterdir()))
    )
    ill[0].rename(ill[0].with_name("unnamed.jpeg"))
    prepare.main([str(source), "--subtypes", "--name", "some"])
    assert "unnamed.jpeg: the file name tells no subtype" in capsys.readouterr().out
    assert [entry["file"].rpartition("/")[2] for entry in PreparedData.open("some").card["left_out"]] == [
        "unnamed.jpeg"
    ]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--classes", "clear"], "two classes or more"),
        (["--classes", "clear", "Clear"], "named twice"),
        (["--classes", "clear", "a/b"], "'a/b' cannot be the name of a class"),
        (["--classes", "clear", "oedema"], "holds no training images of class oedema: two classes are needed"),
        (["--classes", *NAMES, "oedema"], "class oedema: each of the 4 classes needs some"),
        (["--classes", *NAMES, "--subtypes"], "exclude each other"),
        ([], "folders named NORMAL and PNEUMONIA.*class folders of other names are named by --classes.*covid"),
    ],
)
def test_wrong_classes_are_told_in_one_sentence(class_folders, tmp_path, monkeypatch, options, sentence):
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path))
    with pytest.raises(UserError, match=sentence):
        prepare.main([str(class_folders), *options])
    assert list(tmp_path.iterdir()) == []
