"""`cxr-jax crossval` of findings and of three classes, with a stand-in for training that hands out one trained run."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from test_crossval import replace_training

from cxr_jax.cli import main as command_line
from cxr_jax.commands import evaluate
from cxr_jax.config.loading import load_config
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.split_loading import load_split
from cxr_jax.evaluation.class_points import choose_class_points, read_class_points
from cxr_jax.inference.restore import restore_run
from cxr_jax.runs.class_predictions import read_class_predictions
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.ledger import read_looks


@pytest.mark.parametrize("folder", ["several", "three"])
def test_every_image_is_judged_out_of_fold_with_thresholds_for_each_class(
    folder, request, tmp_path, monkeypatch, capsys, undrawn_figures
):
    data = request.getfixturevalue(folder)
    networks, out = tmp_path / "networks", tmp_path / "out"
    for fold in range(2):
        shutil.copytree(data / "run", networks / f"fold{fold}")
    replace_training(monkeypatch, networks)
    assert command_line(["crossval", str(data / "films.toml"), "--folds", "2", "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    table, record = read_class_predictions(out / "out_of_fold.csv"), read_json(out / "crossval.json")
    prepared = PreparedData.open(load_config(data / "films.toml").data.dataset)
    assert table.file == tuple(example.file for example in prepared.examples if example.split != "test")
    known = dict(zip(table.file, table.logits, strict=True))
    for fold in range(2):
        run = RunFolder.open(out / f"fold{fold}" / "seed0")
        held_out = load_split(prepared, load_config(run.config).data, "val")
        logits = restore_run(run, "last").logits(held_out.images, batch_size=16)
        np.testing.assert_allclose([known.pop(file) for file in held_out.files], logits, atol=1e-5)
    assert not known
    points = choose_class_points(table, rule="sensitivity", target_sensitivity=0.9)
    for name, point in points.classes.items():
        assert record["points"]["classes"][name]["threshold"] == point.threshold
        assert f"| {name} | {record['pooled']['classes'][name]['images']} |" in (out / "crossval.md").read_text()
        assert name in printed
    assert len(record["folds"]) == 2 and "macro_roc_auc" in record["folds"][0]["metrics"]
    assert "Not a medical device" in printed
    evaluate.main([str(out / "ensemble")])
    ensemble = RunFolder(out / "ensemble")
    assert read_class_points(ensemble.operating_point) == points and len(read_looks(ensemble)) == 1
    validation = Path(ensemble.predictions_of("val"))
    assert read_class_predictions(validation).probabilities == pytest.approx(table.probabilities)
