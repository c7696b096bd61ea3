"""A run whose config asks for the mean over an image and its mirror image gives it wherever it is asked."""

import dataclasses
import json

import numpy as np
import pytest

from cxr_jax.commands import evaluate, predict, train
from cxr_jax.config.loading import load_config
from cxr_jax.data.prepared import open_data_of_run
from cxr_jax.data.split_loading import load_split
from cxr_jax.explain.cases import explain_cases
from cxr_jax.explain.subjects import Subject
from cxr_jax.inference.restore import restore_run
from cxr_jax.runs.description import read_description
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.metrics_log import read_metrics
from cxr_jax.runs.predictions import probability_of, read_predictions
from cxr_jax.training.validation import validation_figures
from tests.undrawn import leave_undrawn


@pytest.fixture(scope="module")
def flipping_run(prepared_folder, config_file, tmp_path_factory):
    """A run that was trained to average over flips, and evaluated."""
    out = tmp_path_factory.mktemp("flipping") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_PREPARED_DIR", str(prepared_folder))
        train.main([str(config_file), "--out", str(out), "--model.flip-average"])
        leave_undrawn(patch)
        evaluate.main([str(out)])
    return RunFolder.open(out)


@pytest.fixture
def splits(flipping_run, prepared_phantoms):
    """The run's validation and test images."""
    config, prepared = load_config(flipping_run.config), open_data_of_run(flipping_run)
    return {split: load_split(prepared, config.data, split) for split in ("val", "test")}


def plain_of(trained):
    """The same network, asked for the image alone."""
    return dataclasses.replace(trained, description=dataclasses.replace(trained.description, flip_average=False))


def test_both_splits_are_predicted_by_the_mean_of_image_and_mirror_image(flipping_run, splits):
    trained = restore_run(flipping_run)
    assert read_description(flipping_run).flip_average
    for split, images in splits.items():
        table = read_predictions(flipping_run.predictions_of(split))
        plain, mirrored = (
            plain_of(trained).logits(rows, batch_size=16) for rows in (images.images, images.images[:, :, ::-1])
        )
        np.testing.assert_allclose(table.probability, probability_of((plain + mirrored) / 2), atol=1e-6)
        assert np.abs(table.probability - probability_of(plain)).max() > 1e-4


def test_predict_and_explain_show_the_probability_of_evaluate(flipping_run, splits, phantom_source, capsys):
    table = read_predictions(flipping_run.predictions_of("test"))
    capsys.readouterr()
    predict.main([str(flipping_run.path), *(str(phantom_source / name) for name in table.file), "--json"])
    predicted = [entry["probability"] for entry in json.loads(capsys.readouterr().out)]
    np.testing.assert_allclose(predicted, table.probability, atol=1e-6)
    subjects = [Subject(name, b"", None) for name in table.file]
    explained = explain_cases(
        restore_run(flipping_run), subjects, splits["test"].images, threshold=0.5, stage="conv_head"
    )
    np.testing.assert_allclose([case.probability for case, _ in explained], table.probability, atol=1e-6)


def test_validation_while_training_is_of_the_image_alone(flipping_run, splits):
    last = [line for line in read_metrics(flipping_run.metrics) if line["kind"] == "validation"][-1]
    trained, images = restore_run(flipping_run, "last"), splits["val"]
    plain, averaged = (
        validation_figures(one.logits(images.images), images.labels)["loss"] for one in (plain_of(trained), trained)
    )
    assert abs(last["loss"] - plain) < 0.1 * abs(last["loss"] - averaged)
