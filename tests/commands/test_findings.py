"""Findings that occur together, from phantoms in the layout of NIH ChestX-ray14 to a bundle."""

import csv
import html
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit
from sklearn import metrics as sk

import cxr_jax
from cxr_jax.commands import (
    compare,
    evaluate,
    judge,
    phantoms,
    predict,
    train,
)
from cxr_jax.data.phantoms.findings import PHANTOM_FINDINGS
from cxr_jax.data.prepared import PreparedData
from cxr_jax.errors import UserError
from cxr_jax.evaluation.class_judgement import read_class_judgement
from cxr_jax.evaluation.class_points import read_class_points
from cxr_jax.evaluation.numbers import measured_text
from cxr_jax.inference.ensemble import mean_of
from cxr_jax.runs.class_predictions import read_class_predictions
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.ledger import read_looks
from cxr_jax.runs.metrics_log import read_metrics
from cxr_jax.runs.trained_on import told_films

TABLE = "Data_Entry_2017_phantoms.csv"


def test_phantoms_with_findings_are_drawn_in_the_layout_of_nih(several, tmp_path):
    rows = list(csv.DictReader((several / "films" / TABLE).open()))
    lists = {
        name: set((several / "films" / name).read_text().split()) for name in ("train_val_list.txt", "test_list.txt")
    }
    assert [len(names) for names in lists.values()] == [60, 20]
    patients = {
        name: {row["Patient ID"] for row in rows if row["Image Index"] in files} for name, files in lists.items()
    }
    assert not set.intersection(*patients.values())
    shown = {name for row in rows for name in row["Finding Labels"].split("|")}
    assert shown == {*PHANTOM_FINDINGS, "No Finding"}
    assert any("|" in row["Finding Labels"] for row in rows)
    phantoms.main([str(tmp_path / "again"), "--findings", "--count", "80", "--smallest", "48", "--largest", "64"])
    files = [path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*") if path.is_file()]
    assert len(files) == 85
    assert all((tmp_path / "again" / file).read_bytes() == (several / "films" / file).read_bytes() for file in files)


def test_the_kind_stands_in_the_data_the_network_the_tables_and_the_judgement(several):
    prepared, run = PreparedData.open("phantom_findings"), RunFolder(several / "run")
    assert (prepared.classes, prepared.kind, prepared.card["phantom"]) == (PHANTOM_FINDINGS, "findings", True)
    assert read_json(run.network)["kind"] == "findings"
    assert tuple(read_json(run.network)["classes"]) == PHANTOM_FINDINGS
    header = run.predictions_of("test").read_text().splitlines()[0]
    assert "label_Cardiomegaly" in header
    assert "probability_Consolidation" in header
    table = read_class_predictions(run.predictions_of("test"))
    assert table.probabilities == pytest.approx(expit(table.logits))
    told = {row["Image Index"]: row["Finding Labels"] for row in csv.DictReader((several / "films" / TABLE).open())}
    for file, labels in zip(table.file, table.label, strict=True):
        shown = [name for name, label in zip(table.classes, labels, strict=True) if label == 1]
        assert set(shown or ["No Finding"]) == set(told[Path(file).name].split("|"))
    judgement = read_class_judgement(run.evaluation)
    assert judgement.of_findings
    areas = [sk.roc_auc_score(table.label[:, k], table.probabilities[:, k]) for k in range(5)]
    assert judgement.test.metrics["macro_roc_auc"].value == pytest.approx(np.mean(areas))
    figures = [line["roc_auc"] for line in read_metrics(run.metrics) if line["kind"] == "validation"]
    assert figures
    assert all(0 <= figure <= 1 for figure in figures)


def test_thresholds_are_fixed_on_validation_and_the_look_is_counted(several):
    run = RunFolder(several / "run")
    points, validation = read_class_points(run.operating_point), read_class_predictions(run.predictions_of("val"))
    for index, name in enumerate(PHANTOM_FINDINGS):
        of_shown = validation.probabilities[validation.label[:, index] == 1, index]
        assert np.mean(of_shown >= points.classes[name].threshold) >= 0.9
    (look,) = read_looks(run)
    assert look["thresholds"] == {name: point.threshold for name, point in points.classes.items()}
    test = read_class_predictions(run.predictions_of("test"))
    assert look["predictions_sha256"] == test.sha256()
    assert set(look["result"]) == {"accuracy", "macro_roc_auc"}


def test_the_report_tells_every_finding(several):
    page = (several / "run" / "report.html").read_text()
    for told in (*PHANTOM_FINDINGS, "5 findings", "Not a medical device", "Phantoms, not patients", "Each finding"):
        assert told in page
    assert html.escape(told_films(RunFolder(several / "run"))) in page.replace("&#39;", "&#x27;")
    body = page.partition("<main>")[2].partition('<section id="reproduce">')[0]
    assert "PNEUMONIA" not in body
    assert "Each class against the rest" not in body
    assert "<strong>once</strong>" in page


def test_stored_predictions_are_judged_again_without_a_look(several, tmp_path, undrawn_figures, capsys):
    run = RunFolder(Path(shutil.copytree(several / "run", tmp_path / "run")))
    before = run.evaluation.read_bytes()
    evaluate.main([str(run.path), "--stored"])
    assert run.evaluation.read_bytes() == before
    assert len(read_looks(run)) == 1
    printed = capsys.readouterr().out
    assert "Each finding where it is known" in printed
    assert "No look at the test split was added" in printed


def test_the_tables_of_an_ensemble_have_the_sigmoid_of_the_mean_of_their_logits(several):
    one = read_class_predictions(RunFolder(several / "run").predictions_of("test"))
    both = mean_of([one, one.with_logits(3 * one.logits)])
    assert both.probabilities == pytest.approx(expit(2 * one.logits))
    assert both.KIND == "findings"


def predicted(arguments, capsys):
    predict.main([*arguments, "--json"])
    return json.loads(capsys.readouterr().out)


def test_a_run_and_its_bundle_predict_the_same(several, capsys):
    run, bundle, films = several / "run", several / "bundle", several / "films" / "images_001" / "images"
    test = [str(films / name) for name in (several / "films" / "test_list.txt").read_text().split()]
    of_run, of_bundle = (predicted([str(place), *test], capsys) for place in (run, bundle))
    table = read_class_predictions(RunFolder(run).predictions_of("test"))
    expected = {Path(file).name: row for file, row in zip(table.file, table.probabilities, strict=True)}
    points = read_class_points(RunFolder(run).operating_point).classes
    for one, other in zip(of_run, of_bundle, strict=True):
        assert tuple(one["probabilities"]) == PHANTOM_FINDINGS
        assert list(one["probabilities"].values()) == pytest.approx(expected[Path(one["file"]).name], abs=1e-5)
        assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-5)
        called = [name for name, value in one["probabilities"].items() if value >= points[name].threshold]
        assert one["findings"] == called
        assert one["label"] == ("|".join(called) or "No Finding")
        assert one["thresholds"] == other["thresholds"] == {name: point.threshold for name, point in points.items()}
        assert (one["threshold"], one["threshold_rule"]) == (None, "sensitivity")
    told = json.loads((bundle / "bundle.json").read_text())
    assert (told["kind"], told["network"]["kind"]) == ("findings", "findings")
    assert [call["label"] for call in told["calls"]] == list(PHANTOM_FINDINGS)
    assert told["test"]["figures"][0]["title"] == "ROC-AUC, macro"
    card = (bundle / "MODEL_CARD.md").read_text()
    assert "An image may show several of these findings, or none." in card
    for name, judged in read_class_judgement(RunFolder(run).evaluation).test.classes.items():
        area = measured_text(judged.metrics["roc_auc"], word=" to ")
        assert f"| {name} | {judged.images} | {area} |" in card
    alone = subprocess.run(
        [sys.executable, str(bundle / "predict.py"), test[0]], capture_output=True, text=True, check=True
    ).stdout
    assert f"called {', '.join(of_run[0]['findings']) or 'No Finding'}" in alone


def test_the_lines_and_the_csv_tell_the_findings_of_each_file(several, tmp_path, capsys):
    film = str(next((several / "films" / "images_001" / "images").iterdir()))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    for threshold, label in (("0", "|".join(PHANTOM_FINDINGS)), ("1", "No Finding")):
        out = tmp_path / f"{threshold}.csv"
        with pytest.raises(UserError, match="1 of 2 files"):
            predict.main([str(several / "run"), film, str(broken), "--threshold", threshold, "--csv", str(out)])
        first, second = csv.DictReader(out.open())
        assert first["label"] == label
        assert 0 < float(first["probability_Effusion"]) < 1
        assert second["probability_Effusion"] == ""
    printed = capsys.readouterr().out
    assert "2 files: 1 No Finding, 1 not predicted" in printed
    assert "1 Consolidation, 1 Nodule, 1 Infiltration, 1 Effusion, 1 Cardiomegaly, 1 not predicted" in printed
    with pytest.raises(UserError, match="has no bounds"):
        predict.main([str(several / "run"), film, "--error-rate", "0.05"])


def test_of_one_file_every_finding_is_told_and_a_map_of_the_likeliest(several, tmp_path, capsys):
    film = str(min((several / "films" / "images_001" / "images").iterdir()))
    predict.main([str(several / "bundle"), film, "--maps", str(tmp_path / "maps")])
    lines = capsys.readouterr().out.splitlines()
    points = read_class_points(RunFolder(several / "run").operating_point).classes
    probabilities = {}
    for name in PHANTOM_FINDINGS:
        (line,) = [line for line in lines if line.startswith(f"{name} ") and "(" not in line and film not in line]
        told, threshold, *called = line.split()[1:]
        probabilities[name] = float(told)
        assert float(threshold) == pytest.approx(points[name].threshold, abs=6e-5)
        assert bool(called) == (probabilities[name] >= float(threshold))
    assert len(list((tmp_path / "maps").iterdir())) == 1


def test_a_network_of_findings_is_used_from_python(several):
    film = str(min((several / "films" / "images_001" / "images").iterdir()))
    points = read_class_points(RunFolder(several / "run").operating_point).classes
    of_run, of_bundle = (cxr_jax.load(several / place) for place in ("run", "bundle"))
    for model in (of_run, of_bundle):
        (found,) = model.predict(film)
        assert model.threshold is None and f"Effusion from {points['Effusion'].threshold:.4g}" in repr(model)
        assert model.thresholds == {name: point.threshold for name, point in points.items()}
        called = [name for name, value in found.probabilities.items() if value >= points[name].threshold]
        assert found.findings == tuple(called)
        assert model.heat_map(film, explained="Effusion").case.explained == "Effusion"
    assert of_run.predict(film)[0].probabilities == pytest.approx(of_bundle.predict(film)[0].probabilities, abs=1e-5)
    likeliest = max(found.findings or found.probabilities, key=found.probabilities.get)
    assert of_bundle.heat_map(film).case.explained == likeliest
    with pytest.raises(UserError, match="there is no class 'Tuberculosis': explain Cardiomegaly or"):
        of_bundle.heat_map(film, explained="Tuberculosis")


def with_empty_cells(source, target):
    """A copy of a table in which every third label of an effusion, and all of nodules, are empty."""
    rows = list(csv.DictReader(source.open()))
    for index, row in enumerate(rows):
        row["label_Nodule"] = ""
        if index % 3 == 0:
            row["label_Effusion"] = "NA"
    with target.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return target


def test_its_table_is_judged_by_itself_with_empty_cells_too(several, tmp_path, capsys, undrawn_figures):
    run = RunFolder(several / "run")
    tables = [str(run.predictions_of("test")), "--validation", str(run.predictions_of("val")), "--resamples", "100"]
    judge.main([*tables, "--rule", "youden", "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    for told in ("20 test images and 5 findings", "Each finding from its threshold on", "Not a medical device"):
        assert told in printed
    judged = read_class_judgement(tmp_path / "out" / "evaluation.json")
    stored = read_class_judgement(run.evaluation)
    assert judged.test.metrics["macro_roc_auc"].value == stored.test.metrics["macro_roc_auc"].value
    partly = with_empty_cells(run.predictions_of("test"), tmp_path / "partly.csv")
    judge.main([str(partly), *tables[1:], "--out", str(tmp_path / "partly")])
    part = read_class_judgement(tmp_path / "partly" / "evaluation.json")
    assert part.test.classes["Effusion"].unknown == 7
    assert "Nodule" not in part.test.classes
    assert part.test.classes["Cardiomegaly"].metrics == judged.test.classes["Cardiomegaly"].metrics
    assert "over 4 of 5: on test the known labels of Nodule are all alike" in " ".join(part.warnings)
    report = (tmp_path / "partly" / "report.html").read_text()
    assert "over 4 of 5" in report


def test_a_run_and_a_table_are_compared_finding_by_finding(several, tmp_path, capsys):
    test = several / "run" / "predictions" / "test.csv"
    rows = list(csv.DictReader(test.open()))
    other = tmp_path / "other.csv"
    names = [name for name in rows[0] if not name.startswith("logit_")]
    with other.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        random = np.random.default_rng(0)
        chances = {name for name in names if name.startswith("probability_")}
        writer.writerows({**row, **{name: random.random() for name in chances}} for row in rows)
    arguments = [f"trained={several / 'run'}", f"chance={other}", "--resamples", "100"]
    compare.main([*arguments, "--out", str(tmp_path / "out")])
    printed = capsys.readouterr().out
    for told in ("20 images, ", "All findings together", *PHANTOM_FINDINGS, "Not a medical device"):
        assert told in printed
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())
    table = read_class_predictions(test)
    area = sk.roc_auc_score(table.label[:, 1], table.probabilities[:, 1])
    assert record["classes"]["Effusion"]["recipes"]["trained"]["endpoints"]["roc_auc"]["mean"] == pytest.approx(area)
    stored = read_class_points(several / "run" / "operating_point.json").classes["Effusion"].threshold
    assert record["classes"]["Effusion"]["recipes"]["trained"]["thresholds"] == [stored]
    assert "multiply_adds" in (tmp_path / "out" / "costs.csv").read_text()


def test_tables_that_cannot_be_judged_are_told_in_one_sentence(several, tmp_path):
    test, validation = (several / "run" / "predictions" / f"{split}.csv" for split in ("test", "val"))
    rows = list(csv.DictReader(validation.open()))
    blank = tmp_path / "blank.csv"
    with blank.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows({**row, **{name: "" for name in row if name.startswith("label_")}} for row in rows)
    with pytest.raises(UserError, match="has no finding that is both present and absent: judging needs one"):
        judge.main([str(test), "--validation", str(blank)])
    fewer = tmp_path / "fewer.csv"
    names = [name for name in rows[0] if not name.endswith("Nodule")]
    with fewer.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(UserError, match="both need the same, in the same order"):
        judge.main([str(test), "--validation", str(fewer)])
    exclusive = tmp_path / "exclusive.csv"
    exclusive.write_text("file,label,probability_a,probability_b\nx,a,0.7,0.3\ny,b,0.3,0.7\n")
    with pytest.raises(UserError, match="are of different kinds"):
        judge.main([str(test), "--validation", str(exclusive)])
    with pytest.raises(UserError, match=r"declares a share of PNEUMONIA, and .* has other classes"):
        judge.main([str(test), "--validation", str(validation), "--align-to", "0.3"])


def test_what_takes_two_classes_says_so(several, tmp_path):
    config = str(several / "films.toml")
    for option, value in (("balancing", "barnett"), ("validation", "least_sharp")):
        with pytest.raises(UserError, match="treats NORMAL images in a way of their own"):
            train.main([config, "--out", str(tmp_path / "run"), f"--data.{option}", value])
    with pytest.raises(UserError, match="which visits classes alike, and an image shows any number of findings"):
        options = ["--training.sampling", "balanced", "--loss.class-weights", "none"]
        train.main([config, "--out", str(tmp_path / "run"), *options])
    assert list(tmp_path.iterdir()) == []
