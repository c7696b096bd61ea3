"""A bundle held to its run on validation, with weights of half precision and in 8 bits."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from predicted_films import probabilities_of
from sklearn.metrics import roc_auc_score

from cxr_jax.bundle.record import read_bundle
from cxr_jax.bundle.runtime import load_bundle
from cxr_jax.commands import export, predict
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.export.half import in_half_precision
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.predictions import read_predictions
from tests.made_once import made_once


@pytest.fixture(scope="module")
def checked_bundle(evaluated_run, prepared_folder, tmp_path_factory):
    """The evaluated run, exported, held to validation and written in 8 bits; and what the command said."""
    folder, told = tmp_path_factory.mktemp("checked") / "bundle", io.StringIO()
    with contextlib.redirect_stdout(told), pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_PREPARED_DIR", str(prepared_folder))
        export.main([str(evaluated_run), str(folder), "--check", "--int8"])
    return folder, told.getvalue()


@pytest.mark.parametrize("runtime", ["onnxruntime", "OpenVINO"])
def test_every_validation_image_has_the_probability_of_the_run(runtime, checked_bundle, evaluated_run):
    if runtime == "OpenVINO":
        pytest.importorskip("openvino")
    folder, told = checked_bundle
    checks = [check for check in read_bundle(folder).runtimes if check.runtime.startswith(f"{runtime} ")]
    assert [check.batch_size for check in checks] == [1, 7]
    validation = read_predictions(RunFolder(evaluated_run).predictions_of("val"))
    for check in checks:
        assert check.images == len(validation.label) and 0 < check.largest_difference <= 1e-5
        sentence = f"{check.runtime}, batches of {check.batch_size}: they differ by {check.largest_difference:.1e}"
        assert sentence in told
        assert f"| {check.runtime} | {check.batch_size} |" in (folder / "MODEL_CARD.md").read_text()


def test_a_network_in_8_bits_says_what_it_loses(checked_bundle, evaluated_run, films, capsys):
    folder, told = checked_bundle
    loss = read_bundle(folder).int8
    validation = read_predictions(RunFolder(evaluated_run).predictions_of("val"))
    assert loss.roc_auc_float32 == pytest.approx(roc_auc_score(validation.label, validation.probability), abs=1e-9)
    assert 0 < loss.largest_difference < 0.2 and loss.calibration_images > 0
    assert f"AUC {loss.roc_auc:.4f}" in told and f"{loss.roc_auc:.4f}" in (folder / "MODEL_CARD.md").read_text()
    assert (folder / "model.int8.onnx").stat().st_size < (folder / "model.onnx").stat().st_size
    whole = probabilities_of(folder, films, capsys)
    predict.main([str(folder), *films, "--json", "--int8"])
    in_8_bits = json.loads(capsys.readouterr().out)
    for entry, other in zip(whole, in_8_bits, strict=True):
        assert other["probability"] == pytest.approx(entry["probability"], abs=0.2)
        assert other["model"].endswith("exported in 8 bits")
    assert [entry["probability"] for entry in whole] != [entry["probability"] for entry in in_8_bits]


def test_a_network_in_8_bits_that_is_not_there_is_told(evaluated_run, bundle, films):
    with pytest.raises(UserError, match="has no network in 8 bits: export the run again with --int8"):
        predict.main([str(bundle), films[0], "--int8"])
    with pytest.raises(UserError, match="--int8 is for an exported network"):
        predict.main([str(evaluated_run), films[0], "--int8"])


def test_an_export_without_8_bits_leaves_none_behind(checked_bundle, evaluated_run, tmp_path):
    folder = Path(shutil.copytree(checked_bundle[0], tmp_path / "own"))
    export.main([str(evaluated_run), str(folder), "--replace"])
    assert not (folder / "model.int8.onnx").exists() and read_bundle(folder).int8 is None


@pytest.fixture(scope="module")
def half_bundle(evaluated_run, prepared_folder, tmp_path_factory):
    """The evaluated run with weights of half precision, held to the run; it is not to be changed."""

    def export_there(folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CXR_PREPARED_DIR", str(prepared_folder))
            export.main([str(evaluated_run), str(folder), "--half", "--check"])

    return made_once(tmp_path_factory, "half-bundle", export_there)


def test_weights_of_half_precision_halve_the_file_and_change_next_to_nothing(half_bundle, bundle, films, capsys):
    told = read_bundle(half_bundle)
    assert told.weights == "float16" and read_bundle(bundle).weights == "float32"
    assert not (half_bundle / "model.stablehlo").exists()
    kernels = [array for array in constants_of(bundle).values() if array.size >= 1024]
    sizes = [(folder / "model.onnx").stat().st_size for folder in (bundle, half_bundle)]
    assert sizes[0] - sizes[1] == pytest.approx(2 * sum(array.size for array in kernels), rel=0.1)
    # what it says of the difference on validation is true, and small
    run, half = (probabilities_of(model, films, capsys) for model in (bundle, half_bundle))
    differences = [abs(one["probability"] - other["probability"]) for one, other in zip(run, half, strict=True)]
    assert 0 < max(differences) < 2e-3
    assert 0 < told.half.largest_difference < 2e-3 and told.half.images == told.runtimes[0].images > 0
    assert told.half.roc_auc == pytest.approx(told.half.roc_auc_float32, abs=0.02)
    assert "half precision" in (half_bundle / "MODEL_CARD.md").read_text()


def test_arithmetic_stays_in_float32(half_bundle, bundle):
    """The logits are, to rounding in float32, those of the whole network with weights that were rounded before."""
    model = onnx.load(bundle / "model.onnx")
    for constant in model.graph.initializer:
        array = numpy_helper.to_array(constant)
        if array.dtype == np.float32 and array.size >= 1024:
            rounded = array.astype(np.float16).astype(np.float32)
            constant.CopyFrom(numpy_helper.from_array(rounded, constant.name))
    images = np.random.default_rng(0).integers(0, 256, (3, 48, 48), dtype=np.uint8)
    expected = onnxruntime.InferenceSession(model.SerializeToString()).run(["logits"], {"images": images})[0]
    np.testing.assert_allclose(load_bundle(half_bundle).logits(images), expected, rtol=0, atol=1e-5)


def constants_of(folder):
    return {entry.name: numpy_helper.to_array(entry) for entry in onnx.load(folder / "model.onnx").graph.initializer}


def test_a_weight_beyond_half_precision_is_refused(bundle):
    model = onnx.load(bundle / "model.onnx")
    kernel = next(entry for entry in model.graph.initializer if np.prod(entry.dims) >= 1024)
    kernel.CopyFrom(numpy_helper.from_array(1e9 * numpy_helper.to_array(kernel), kernel.name))
    with pytest.raises(UserError, match=r"half precision ends at 65,504: export it without --half"):
        in_half_precision(model)


def test_half_precision_and_8_bits_exclude_each_other(tmp_path):
    with pytest.raises(UserError, match="--half and --int8 exclude each other") as told:
        export.main(["run", str(tmp_path / "out"), "--half", "--int8"])
    assert told.value.code == EXIT_USAGE
