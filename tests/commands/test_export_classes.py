"""`cxr-jax export --check` of findings and of three classes: the bundle is held to the run on all validation images."""

import numpy as np
import pytest

from cxr_jax.bundle.record import read_bundle
from cxr_jax.bundle.runtime import load_bundle
from cxr_jax.commands import export
from cxr_jax.config.loading import load_config
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.split_loading import load_split
from cxr_jax.runs.class_predictions import read_class_predictions
from cxr_jax.runs.folder import RunFolder
from cxr_jax.training.validation import validation_figures


@pytest.mark.parametrize(("folder", "option"), [("several", "--int8"), ("three", "--half")])
def test_it_is_held_to_the_run_on_validation(folder, option, request, tmp_path, capsys):
    data = request.getfixturevalue(folder)
    out, run = tmp_path / "bundle", RunFolder(data / "run")
    export.main([str(run.path), str(out), "--check", option])
    bundle, stored = read_bundle(out), read_class_predictions(run.predictions_of("val"))
    exact = 1e-5 if option == "--int8" else 0.01
    assert bundle.runtimes and all(check.largest_difference < exact for check in bundle.runtimes)
    assert {check.images for check in bundle.runtimes} == {len(stored)}
    config = load_config(run.config)
    images = load_split(PreparedData.open(config.data.dataset), config.data, "val")
    loss = bundle.int8 or bundle.half
    logits = load_bundle(out, int8=option == "--int8").logits(images.images)
    assert loss.roc_auc_float32 == pytest.approx(validation_figures(stored.logits, images.labels)["roc_auc"])
    assert loss.roc_auc == pytest.approx(validation_figures(logits, images.labels)["roc_auc"])
    found = stored.activated(logits)
    assert loss.largest_difference == pytest.approx(np.abs(found - stored.probabilities).max(), abs=1e-5)
    if folder == "several":
        thresholds = [call.threshold for call in bundle.calls]
        other = ((found >= thresholds) != (stored.probabilities >= thresholds)).any(axis=1)
    else:
        other = found.argmax(axis=1) != stored.called
    assert loss.other_calls == other.sum()
    assert "validation images" in capsys.readouterr().out
