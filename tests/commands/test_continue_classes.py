"""`train CONFIG --from RUN` of three exclusive classes, and of findings: what was gained, and what was forgotten."""

import json
import shutil

import cv2
import numpy as np
import pytest
from other_classes import NAMES, draw_squares
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score

from cxr_jax.commands import evaluate, phantoms, prepare, train
from cxr_jax.evaluation.change import read_changes
from cxr_jax.evaluation.class_points import read_class_points
from cxr_jax.runs.class_predictions import read_class_predictions
from cxr_jax.runs.folder import RunFolder

pytestmark = pytest.mark.usefixtures("undrawn_figures")


@pytest.fixture
def learned(run_of_classes, tmp_path):
    """A run that learned on from inverted images of the same classes, or from other phantoms, and is evaluated."""
    films, origin = tmp_path / "films", run_of_classes
    if read_class_predictions(origin.predictions_of("test")).KIND == "findings":
        drawn = ["--findings", "--count", "80", "--smallest", "48", "--largest", "64", "--seed", "5"]
        phantoms.main([str(films), *drawn])
        prepare.main([str(films), "--name", "elsewhere"])
    else:
        draw_squares(films)
        for path in films.rglob("*.png"):
            cv2.imwrite(str(path), 255 - cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
        prepare.main([str(films), "--name", "elsewhere", "--classes", *NAMES])
    options = ["--data.dataset", "elsewhere", "--training.epochs", "1"]
    train.main([str(origin.config), "--from", str(origin.path), "--out", str(tmp_path / "learned"), *options])
    run = RunFolder(tmp_path / "learned")
    evaluate.main([str(run.path)])
    return run


def figures_of(table, points):
    """What scikit-learn says of a table, each class at its own threshold."""
    asked = {name: table.asked(name) for name in table.classes}
    of_class = {}
    for index, (name, (rows, shown)) in enumerate(asked.items()):
        probability = table.probabilities[rows, index]
        called = probability >= points.classes[name].threshold
        of_class[f"ROC-AUC, {name}"] = roc_auc_score(shown, probability)
        of_class[f"Sensitivity (recall), {name}"] = recall_score(shown, called)
        of_class[f"Specificity, {name}"] = recall_score(~shown, ~called)
    together = {"ROC-AUC, macro": np.mean([of_class[f"ROC-AUC, {name}"] for name in asked])}
    if table.KIND == "exclusive":
        together["Balanced accuracy (macro recall)"] = balanced_accuracy_score(table.label, table.called)
    else:
        for name in ("Sensitivity", "Specificity"):
            values = [value for title, value in of_class.items() if title.startswith(name)]
            together[f"{name} at the thresholds, macro"] = np.mean(values)
    return together | of_class


def test_every_class_is_told_before_and_after_on_both_test_sets(learned, run_of_classes, capsys):
    capsys.readouterr()
    evaluate.main([str(learned.path), "--stored"])
    printed = " ".join(capsys.readouterr().out.split())
    origin = run_of_classes
    tables = {
        ("new", "before"): learned.change / "new_before.csv",
        ("new", "after"): learned.predictions_of("test"),
        ("old", "before"): learned.change / "old_before.csv",
        ("old", "after"): learned.change / "old_after.csv",
    }
    assert tables["old", "before"].read_bytes() == origin.predictions_of("test").read_bytes()
    points = {"before": read_class_points(origin.operating_point), "after": read_class_points(learned.operating_point)}
    changes = read_changes(learned.change / "change.json")
    report = learned.report.read_text()
    for which, change in (("new", changes.new), ("old", changes.old)):
        table = {when: read_class_predictions(tables[which, when]) for when in points}
        figures = {when: figures_of(table[when], points[when]) for when in points}
        told = {one.title: one for one in change.told}
        for title, before in figures["before"].items():
            after, one = figures["after"][title], told.pop(title)
            assert (one.before, one.after) == (pytest.approx(before), pytest.approx(after))
            assert one.answer.difference == pytest.approx(after - before)
            assert f"{title} {before:.3f} -> {after:.3f}" in printed and title in report
        assert list(told) == ["PR-AUC (average precision), macro"]
        assert set(change.classes) == set(table["after"].classes)
        assert change.comparison.images == len(table["after"])
        assert f"On {change.data}, the {which} films," in printed
        kind = "findings" if table["after"].KIND == "findings" else "classes"
        assert f"the mean ROC-AUC of {len(change.classes)} {kind} changed by" in printed
    assert changes.new.data == "elsewhere" and 'id="change"' in report
    # each class at the threshold of the run whose network looked
    looks = [json.loads(line) for line in (learned.change / "ledger.jsonl").read_text().splitlines()]
    assert [look["run"] for look in looks] == [str(run.path.resolve()) for run in (origin, learned)]
    for look, when in zip(looks, ("before", "after"), strict=True):
        assert look["thresholds"] == {name: point.threshold for name, point in points[when].classes.items()}
        assert look["result"]["macro_roc_auc"] is not None


def test_a_test_set_on_which_nothing_can_be_compared_is_said_and_the_rest_is_told(learned, tmp_path, capsys):
    path = learned.change / "old_before.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    capsys.readouterr()
    evaluate.main([str(learned.path), "--stored"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "Not compared on " in printed and "the new films" in printed and "the old films" not in printed
    changes = read_changes(learned.change / "change.json")
    assert changes.old is None and changes.new is not None
    shutil.rmtree(learned.change)
    evaluate.main([str(learned.path), "--stored"])
    assert 'id="change"' not in learned.report.read_text()
