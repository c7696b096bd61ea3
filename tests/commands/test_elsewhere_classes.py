"""`evaluate RUN --on`, `--degraded` and `--occluded` of runs of three exclusive classes, and of findings."""

import csv
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from other_classes import NAMES, draw_squares
from sklearn.metrics import accuracy_score, recall_score, roc_auc_score

from cxr_jax.commands import evaluate, phantoms, prepare
from cxr_jax.data.phantoms.findings import PHANTOM_FINDINGS
from cxr_jax.data.prepared import PreparedData
from cxr_jax.errors import UserError
from cxr_jax.evaluation.class_points import read_class_points
from cxr_jax.evaluation.external import read_external
from cxr_jax.evaluation.occlusion import read_occlusion
from cxr_jax.evaluation.robustness import read_robustness
from cxr_jax.images.degraded import KINDS
from cxr_jax.inference import degraded
from cxr_jax.runs.class_predictions import read_class_predictions
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.ledger import read_looks
from cxr_jax.vocabulary import DISCLAIMER

pytestmark = pytest.mark.usefixtures("undrawn_figures")


@pytest.fixture
def run(run_of_classes):
    return run_of_classes


def thresholds_of(run):
    return {name: point.threshold for name, point in read_class_points(run.operating_point).classes.items()}


def require_figures(rates, table, thresholds):
    """Holds the rates of each class, and the means over them, to those of scikit-learn; returns the ROC-AUCs."""
    areas = []
    for index, (name, threshold) in enumerate(thresholds.items()):
        rows, shown = table.asked(name)
        probability = table.probabilities[rows, index]
        areas.append(roc_auc_score(shown, probability))
        assert rates[name].roc_auc.value == pytest.approx(areas[-1])
        assert rates[name].sensitivity.value == pytest.approx(recall_score(shown, probability >= threshold))
        assert rates[name].specificity.value == pytest.approx(recall_score(~shown, probability < threshold))
        assert rates[name].specificity.interval is not None
    assert rates[""].roc_auc.value == pytest.approx(np.mean(areas))
    if table.KIND == "exclusive":
        assert rates[""].accuracy.value == pytest.approx(accuracy_score(table.label, table.called))
    else:
        assert rates[""].accuracy is None


def other_films(run, folder):
    """Prepares inverted films of the same classes, and returns their names."""
    if read_class_predictions(run.predictions_of("test")).KIND == "findings":
        phantoms.main(
            [str(folder), "--findings", "--count", "60", "--smallest", "48", "--largest", "64", "--seed", "5"]
        )
        prepare.main([str(folder), "--name", "elsewhere"])
        return PHANTOM_FINDINGS
    draw_squares(folder)
    rows = []
    for number, path in enumerate(sorted(folder.rglob("*.png"))):
        cv2.imwrite(str(path), 255 - cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
        rows.append((path.relative_to(folder), path.parent.name, number, "test", "FM"[number % 2]))
    with (folder.parent / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label", "patient", "fold", "sex"), *rows])
    columns = ["--group-column", "patient", "--keep-columns", "sex"]
    table = ["--table", str(folder.parent / "labels.csv"), *columns]
    prepare.main([str(folder), "--name", "elsewhere", *table, "--classes", *NAMES])
    return NAMES


def test_films_of_another_source_are_judged_class_by_class(run, tmp_path, capsys):
    names = other_films(run, tmp_path / "films")
    before = {path: path.read_bytes() for path in run.path.glob("*.json")}
    capsys.readouterr()
    evaluate.main([str(run.path), "--on", "elsewhere"])
    printed = " ".join(capsys.readouterr().out.split())
    assert before == {path: path.read_bytes() for path in run.path.glob("*.json")}
    found = read_external(run.external / "elsewhere" / "external.json")
    table = read_class_predictions(run.external / "elsewhere" / "predictions.csv")
    assert table.file == tuple(example.file for example in PreparedData.open("elsewhere").examples)
    thresholds = thresholds_of(run)
    assert {name: alone.threshold for name, alone in found.classes.items()} == thresholds
    rates = {"": found.whole.rates, **{name: alone.whole.rates for name, alone in found.classes.items()}}
    require_figures(rates, table, thresholds)
    assert [found.classes[name].whole.pneumonia for name in names] == [table.asked(n)[1].sum() for n in names]
    if table.KIND == "exclusive":
        sexes = found.classes["covid"].parts[1:]
        assert [(part.attribute, part.value) for part in sexes] == [("sex", "F"), ("sex", "M")]
        assert sum(part.pneumonia for part in sexes) == found.classes["covid"].whole.pneumonia
    else:
        assert found.classes["Effusion"].recalibration.after["log_loss"] is not None
    assert found.quality["mean"].here.median > 0
    (look,) = [json.loads(line) for line in (run.external / "elsewhere" / "ledger.jsonl").read_text().splitlines()]
    assert look["thresholds"] == thresholds
    assert look["result"]["macro_roc_auc"] == found.whole.rates.roc_auc.value
    for told in ("images", *names, "Means over", DISCLAIMER):
        assert told in printed
    report = run.report.read_text()
    assert 'id="external"' in report
    assert all(f"{name} against the rest" in report or f"{name}, where it is known" in report for name in names)


def test_films_of_other_classes_are_refused_with_what_to_do(run, tmp_path):
    films = tmp_path / "films"
    draw_squares(films)
    prepare.main([str(films), "--name", "fewer", "--classes", *NAMES[:2]])
    known = ", ".join(thresholds_of(run))
    sentence = rf"fewer has the classes clear, Lung Opacity, and .* knows the \w+ {known}: prepare these films with the"
    with pytest.raises(UserError, match=sentence) as raised:
        evaluate.main([str(run.path), "--on", "fewer"])
    assert "cxr-jax prepare SOURCE --name NAME --classes" in str(raised.value)
    prepare.main([str(films), "--name", "turned", "--classes", *NAMES[::-1]])
    with pytest.raises(UserError, match="turned has the classes covid, Lung Opacity, clear"):
        evaluate.main([str(run.path), "--on", "turned"])


def test_degraded_images_are_measured_class_by_class(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(degraded, "KINDS", KINDS[:2])
    looks = run.ledger.read_bytes()
    evaluate.main([str(run.path), "--degraded"])
    printed, found = capsys.readouterr().out, read_robustness(run.robustness_of("val"))
    assert run.ledger.read_bytes() == looks
    thresholds = thresholds_of(run)
    assert {name: alone.threshold for name, alone in found.classes.items()} == thresholds
    table = read_class_predictions(run.predictions_of("val"))
    require_figures({"": found.clean, **{n: alone.clean for n, alone in found.classes.items()}}, table, thresholds)
    assert found.kinds == KINDS[:2]
    assert all(alone.kinds == KINDS[:2] for alone in found.classes.values())
    assert found.mean_error == pytest.approx(np.mean([alone.mean_error for alone in found.classes.values()]))
    assert all(told in printed for told in (*KINDS[:2], *thresholds, f"{found.mean_error:.1%}"))
    assert 'id="robustness"' in run.report.read_text()

    twin = RunFolder(Path(shutil.copytree(run.path, tmp_path / "twin")))
    evaluate.main([str(twin.path), "--degraded", "--test"])
    assert read_looks(twin)[-1]["degraded"] is True
    assert read_looks(twin)[-1]["thresholds"] == thresholds
    evaluate.main([str(twin.path), "--degraded", "--reference", str(run.path)])
    again = read_robustness(twin.robustness_of("val"))
    assert (again.levels, again.reference) == (found.levels, "run")
    assert again.mean_corruption_error in (1.0, None)


def test_regions_are_measured_class_by_class(run, tmp_path, capsys):
    prepared = PreparedData.open(run.configured("data", "dataset"))
    for example in prepared.examples:
        path = (tmp_path / "masks" / example.file).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        mask = np.zeros((64, 64), np.uint8)
        mask[16:48, 8:56] = 255
        cv2.imwrite(str(path), mask)
    prepare.main(["--name", prepared.card["name"], "--masks", str(tmp_path / "masks")])
    capsys.readouterr()
    evaluate.main([str(run.path), "--occluded"])
    printed, found = capsys.readouterr().out, read_occlusion(run.occlusion_of("val"))
    thresholds = thresholds_of(run)
    assert {name: alone.threshold for name, alone in found.classes.items()} == thresholds
    assert "Means over" in printed
    assert all(f"{name}:" in printed for name in thresholds)
    for index, region in enumerate(found.regions):
        alone = [one.regions[index] for one in found.classes.values()]
        if region.roc_auc.value is not None:
            assert region.roc_auc.value == pytest.approx(np.mean([one.roc_auc.value for one in alone]))
        for one, whole in zip(alone, found.classes.values(), strict=True):
            more = one.level.sensitivity.value - whole.whole.sensitivity.value
            assert one.sensitivity.value == pytest.approx(more)
    assert 'id="occlusion"' in run.report.read_text()
