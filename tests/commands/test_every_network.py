"""Every network is trained, evaluated, reported and explained by the same commands, quality warnings included."""

import cv2
import numpy as np
import pytest

from cxr_jax.commands import evaluate, explain, predict, train
from cxr_jax.models.registry import ARCHITECTURES
from cxr_jax.reporting.report import render_report
from cxr_jax.runs.folder import RunFolder

TINY = [name for name in ARCHITECTURES if name.endswith("_tiny")]


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn_figures", "prepared_phantoms")
@pytest.mark.parametrize("name", TINY)
def test_report_warnings_and_heat_maps_need_nothing_that_is_its_own(name, config_file, tmp_path, capsys):
    run, side = RunFolder(tmp_path / "run"), 75 if name.startswith("inception") else 32
    options = ["--model.name", name, "--data.image-size", str(side), "--training.epochs", "1"]
    train.main([str(config_file), "--out", str(run.path), *options])
    evaluate.main([str(run.path)])
    assert run.quality.is_file() and run.feature_reference.is_file()
    assert 'id="quality"' in render_report(run)
    explain.main([str(run.path)])
    assert any(run.explanations.iterdir())
    white = tmp_path / "white.png"
    cv2.imwrite(str(white), np.full((200, 240), 250, np.uint8))
    capsys.readouterr()
    predict.main([str(run.path), str(white)])
    printed = capsys.readouterr().out
    assert (
        "mean brightness 250 grey levels is unlike the training images" in printed and "Not a medical device" in printed
    )
