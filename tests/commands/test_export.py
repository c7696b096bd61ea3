"""A run as a folder that works without JAX, tried as its users have it."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
import pytest
from predicted_films import probabilities_of

from cxr_jax.bundle.record import read_bundle
from cxr_jax.bundle.runtime import load_bundle
from cxr_jax.commands import evaluate, export, predict
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.evaluation.judged_sets import read_uncertainty
from cxr_jax.evaluation.judgement import read_judgement
from cxr_jax.evaluation.robustness import read_robustness
from cxr_jax.export.answers import answers_of, images_of
from cxr_jax.export.from_jaxpr import to_onnx
from cxr_jax.images.stamp import marked_png
from cxr_jax.inference import degraded
from cxr_jax.inference.ensemble import Ensemble
from cxr_jax.inference.restore import restore_run
from cxr_jax.runs.folder import RunFolder
from cxr_jax.vocabulary import DISCLAIMER

WITHOUT = """
import runpy, sys
sys.modules.update(dict.fromkeys({names!r}))
sys.argv = {arguments!r}
{code}
"""


@pytest.fixture
def own_bundle(bundle, tmp_path):
    return Path(shutil.copytree(bundle, tmp_path / "own"))


def run_without(names, arguments, code):
    """Runs `code` in a process in which modules of these names cannot be imported."""
    script = WITHOUT.format(names=names, arguments=[str(argument) for argument in arguments], code=code)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=300, env=os.environ | {"COLUMNS": "200"}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_bundle_predicts_what_its_run_predicts(evaluated_run, bundle, films, capsys):
    of_run, of_bundle = (probabilities_of(model, films, capsys) for model in (evaluated_run, bundle))
    for run_entry, bundle_entry in zip(of_run, of_bundle, strict=True):
        assert bundle_entry["probability"] == pytest.approx(run_entry["probability"], abs=1e-6)
        for name in (
            "file",
            "label",
            "threshold",
            "threshold_rule",
            "films",
            "disclaimer",
            "compared_with_training",
            "possible",
            "error_rate",
        ):
            assert bundle_entry[name] == run_entry[name]
        # what needs a picture made of training images stays with the run
        told = [warning for warning in run_entry["warnings"] if "as a whole" not in warning]
        assert bundle_entry["warnings"] == told
    assert np.ptp([entry["probability"] for entry in of_bundle]) > 1e-4


def test_predicting_with_a_bundle_imports_no_jax(bundle, films):
    code = "from cxr_jax.cli import main; main()"
    told = run_without(["jax", "jaxlib", "flax", "optax"], ["cxr-jax", "predict", bundle, films[0]], code)
    assert films[0] in told and DISCLAIMER in told


def test_the_program_in_a_bundle_needs_nothing_of_this_package(bundle, films, capsys):
    code = f"runpy.run_path({str(bundle / 'predict.py')!r}, run_name='__main__')"
    told = run_without(["cxr_jax", "jax", "jaxlib", "flax"], ["predict.py", *films], code)
    lines = told.splitlines()
    assert lines[-2:] == [load_bundle(bundle).bundle.films, DISCLAIMER]
    for line, entry in zip(lines, probabilities_of(bundle, films, capsys), strict=False):
        file, _, ill, called = line.split("  ")
        assert file == entry["file"]
        assert float(ill.removeprefix("P(PNEUMONIA) ")) == pytest.approx(entry["probability"], abs=2e-6)
        far = any("learned from" in warning for warning in entry["warnings"])
        remark = " (unlike the radiographs that this network learned from)" if far else ""
        assert called == f"called {entry['label']}{remark}"


def test_the_program_in_a_bundle_takes_no_synthetic_image(bundle, tmp_path):
    (tmp_path / "made.png").write_bytes(marked_png(np.zeros((60, 60), np.uint8), {}))
    command = [sys.executable, str(bundle / "predict.py"), str(tmp_path / "made.png")]
    answered = subprocess.run(command, capture_output=True, text=True)
    assert answered.returncode == 1
    assert "made.png is no radiograph: its file says that it is synthetic" in answered.stderr


def test_the_stablehlo_runs_in_jax_without_this_package(bundle, tmp_path):
    bundled = load_bundle(bundle)
    size = bundled.description.image_size
    images = np.random.default_rng(0).integers(0, 256, (3, size, size), dtype=np.uint8)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import numpy as np; from jax import export\n"
        f"program = export.deserialize(bytearray(open({str(bundle / 'model.stablehlo')!r}, 'rb').read()))\n"
        f"answers = program.call(np.load({str(tmp_path / 'images.npy')!r}))\n"
        f"np.savez({str(tmp_path / 'answers.npz')!r}, **answers)\n"
        "print(sorted(program.platforms))"
    )
    assert run_without(["cxr_jax", "flax"], [], code).strip() == "['cpu', 'cuda', 'tpu']"
    with np.load(tmp_path / "answers.npz") as answers:
        np.testing.assert_allclose(answers["logits"], bundled.logits(images), atol=1e-5)
        np.testing.assert_allclose(answers["evidence"].transpose(0, 3, 1, 2), bundled.evidence(images), atol=1e-4)
        np.testing.assert_allclose(answers["probability"].sum(axis=1), 1, atol=1e-6)


def test_evidence_and_bias_give_the_logits(evaluated_run, bundle):
    """The map is what the logit is the mean of, so that it explains the very number."""
    bundled, model = load_bundle(bundle), restore_run(RunFolder(evaluated_run))
    size = model.image_size
    images = np.random.default_rng(0).integers(0, 256, (2, size, size), dtype=np.uint8)
    bias = np.asarray(model.params["classifier.bias"])
    np.testing.assert_allclose(bundled.evidence(images).mean(axis=(2, 3)) + bias, bundled.logits(images), atol=1e-4)


@pytest.mark.parametrize("shift", [0.0, 0.06])
def test_a_run_that_averages_over_flips_and_shifts_does_so_in_its_bundle(tiny_trained, shift):
    model = tiny_trained(loud=True, step=1, threshold=None, threshold_rule=None)
    averaging = dataclasses.replace(model.description, flip_average=True, shift_average=shift)
    model = dataclasses.replace(model, description=averaging)
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    images[:, :, :16] //= 3
    logits, evidence = answers_by_onnx(model, images)
    np.testing.assert_allclose(logits, model.logits(images), atol=1e-4)
    turned_logits, turned_evidence = answers_by_onnx(model, images[:, :, ::-1])
    np.testing.assert_allclose(turned_logits, logits, atol=1e-4)
    np.testing.assert_allclose(turned_evidence, evidence[..., ::-1], atol=1e-4)


@dataclasses.dataclass(frozen=True)
class Together(Ensemble):
    """Networks that answer together, without a folder behind them."""

    def __init__(self, *members):
        object.__setattr__(self, "members", members)


def test_an_ensemble_answers_with_the_means_of_its_members(tiny_trained):
    first, second = (tiny_trained(loud=loud, step=1, threshold=None, threshold_rule=None) for loud in (True, False))
    images = np.random.default_rng(0).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    logits, evidence = answers_by_onnx(Together(first, second), images)
    each = [answers_by_onnx(member, images) for member in (first, second)]
    np.testing.assert_allclose(logits, np.mean([found[0] for found in each], axis=0), atol=1e-4)
    np.testing.assert_allclose(evidence, np.mean([found[1] for found in each], axis=0), atol=1e-4)
    smaller = dataclasses.replace(first, description=dataclasses.replace(first.description, image_size=16))
    with pytest.raises(UserError, match=r"see different squares \(image_size\): export them one by one"):
        answers_by_onnx(Together(first, smaller), images)
    clearer = dataclasses.replace(first, description=dataclasses.replace(first.description, clarify="clahe"))
    with pytest.raises(UserError, match=r"see different squares \(clarify\)"):
        answers_by_onnx(Together(first, clearer), images)


def answers_by_onnx(model, images):
    """Logits [N, K] and evidence [N, K, h, w] of an exported network for images of its size."""
    session = onnxruntime.InferenceSession(to_onnx(answers_of(model), images_of(model)).SerializeToString())
    return session.run(["logits", "evidence"], {"images": images})


def test_maps_of_a_bundle_are_written(bundle, films, tmp_path, capsys):
    predict.main([str(bundle), films[0], "--maps", str(tmp_path / "maps")])
    (picture,) = (tmp_path / "maps").iterdir()
    assert cv2.imread(str(picture)).shape[1] >= cv2.imread(films[0]).shape[1]
    assert np.ptp(cv2.imread(str(picture)).astype(int).max(axis=2) - cv2.imread(str(picture)).min(axis=2)) > 50


def test_what_a_bundle_says(evaluated_run, bundle):
    """Classes and thresholds are lists; no path of a machine, no picture and no file name of a radiograph is in it."""
    told = read_bundle(bundle)
    run = RunFolder(evaluated_run)
    point = json.loads(run.operating_point.read_text())
    assert told.network.classes == ("NORMAL", "PNEUMONIA") and told.kind == "exclusive"
    (call,) = told.calls
    assert (call.label, call.threshold, call.rule) == ("PNEUMONIA", point["threshold"], point["rule"])
    assert call.sensitivity == point["validation"]["sensitivity"]
    assert told.checkpoint_sha256 and told.data_fingerprint and told.software["jax"]
    assert {usual.measure for usual in told.quality} >= {"mean", "sharpness"}
    assert told.scores is None  # of fewer than twenty images of validation none are told
    text = (bundle / "bundle.json").read_text() + (bundle / "MODEL_CARD.md").read_text()
    assert "mean_picture" not in text and "likeness" not in text and str(evaluated_run.parent) not in text
    card = (bundle / "MODEL_CARD.md").read_text()
    assert f"is above {told.feature_limit.distance:.4g}" in card and "uncertain" in card
    assert f"PNEUMONIA is possible from a probability of {told.sets.rule().lowest[1]:.4g}" in card
    assert card.count(DISCLAIMER) == 2 and "Drawn phantoms" in card and "| sensitivity |" in card
    # what the sets of possible classes were worth on test
    judged = read_uncertainty(run.uncertainty).at(0.05).rows
    assert [row.images_of for row in told.test.sets] == [row.name for row in judged if row.images]
    for row in told.test.sets:
        expected = next(each for each in judged if each.name == row.images_of)
        assert (row.images, row.covered.value, row.uncertain.value) == (
            *(expected.images, expected.covered.value, expected.uncertain.value),
        )
        assert f"| {row.images_of} | {row.images} | {row.covered.number()} |" in card
    assert "On degraded images" not in card


@pytest.mark.usefixtures("prepared_phantoms", "undrawn_figures")
def test_the_model_card_tells_of_degraded_images_where_these_were_measured(evaluated_run, tmp_path, monkeypatch):
    run = RunFolder(shutil.copytree(evaluated_run, tmp_path / "run"))
    monkeypatch.setattr(degraded, "KINDS", ("blur", "letters"))
    evaluate.main([str(run.path), "--degraded"])
    export.main([str(run.path), str(tmp_path / "bundle")])
    card, record = (tmp_path / "bundle" / "MODEL_CARD.md").read_text(), read_robustness(run.robustness_of("val"))
    assert f"The {record.images} validation images made worse on purpose" in card
    assert f"{record.mean_error:.1%} over all severities" in card
    lines = card.splitlines()
    header = next(line for line in lines if line.startswith("| degradation |"))
    rows = [line for line in lines if line.startswith(("| blur |", "| letters |"))]
    assert len(rows) == 2 and {line.count("|") for line in (header, *rows)} == {8}
    # no line between the rows of a table
    first = lines.index(header)
    assert lines[first + 2 : first + 4] == rows


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda folder: (folder / "model.onnx").write_bytes(b"\0" + (folder / "model.onnx").read_bytes()), "sha256"),
        (lambda folder: (folder / "model.onnx").unlink(), "lacks model.onnx"),
        (lambda folder: (folder / "bundle.json").write_text("{"), "is not JSON"),
        (lambda folder: change(folder, lambda told: told.update(schema_version=2)), "newer version"),
        (lambda folder: change(folder, lambda told: told.pop("network")), "is damaged"),
        (lambda folder: change(folder, lambda told: told.update(files=[])), "names no model.onnx"),
        (lambda folder: change(folder, lambda told: told["files"][1].update(name="../x")), "outside the bundle"),
    ],
)
def test_a_bundle_that_is_not_what_was_exported_is_refused(damage, sentence, own_bundle, films):
    damage(own_bundle)
    with pytest.raises(UserError, match=sentence) as told:
        predict.main([str(own_bundle), films[0]])
    assert re.search("export the run again|write it anew", str(told.value))


def change(folder, how):
    told = json.loads((folder / "bundle.json").read_text())
    how(told)
    (folder / "bundle.json").write_text(json.dumps(told))


@pytest.fixture
def run_of_many_validation_images(evaluated_run, tmp_path_factory):
    """The evaluated run, as if its validation images had been twice as many."""
    run = RunFolder(Path(shutil.copytree(evaluated_run, tmp_path_factory.mktemp("many") / "run")))
    header, *rows = run.predictions_of("val").read_text().splitlines()
    again = [f"again/{row}" for row in rows]
    run.predictions_of("val").write_text("\n".join([header, *rows, *again]) + "\n")
    return run.path


def test_a_bundle_tells_what_its_run_reached_on_test(bundle, evaluated_run):
    judged = read_judgement(evaluated_run / "evaluation.json").test
    reached = read_bundle(bundle).test
    assert reached.images == judged.images
    (auc,) = (figure for figure in reached.figures if figure.title == "ROC-AUC")
    measured = judged.metrics["roc_auc"]
    assert (auc.value, auc.low, auc.high) == (measured.value, measured.interval.low, measured.interval.high)
    assert auc.text() == f"ROC-AUC {auc.value:.3f} ({auc.low:.3f} to {auc.high:.3f})"


def test_nothing_is_overwritten_unasked(evaluated_run, run_of_many_validation_images, own_bundle, tmp_path):
    before = {path.name: path.read_bytes() for path in own_bundle.iterdir()}
    with pytest.raises(UserError, match="exists already; choose another place, or replace it by --replace"):
        export.main([str(evaluated_run), str(own_bundle)])
    assert {path.name: path.read_bytes() for path in own_bundle.iterdir()} == before
    (own_bundle / "notes.txt").write_text("mine")
    export.main([str(run_of_many_validation_images), str(own_bundle), "--replace"])
    assert (own_bundle / "notes.txt").read_text() == "mine"
    scores = read_bundle(own_bundle).scores
    assert scores.images >= 20 and sum(scores.shares) == pytest.approx(1)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else than a bundle"):
        export.main([str(evaluated_run), str(other), "--replace"])
    assert [path.name for path in other.iterdir()] == ["thesis.txt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other", "own"]


@pytest.mark.parametrize(("arguments", "sentence"), [([], "name a run"), (["run"], "name a run")])
def test_what_is_missing_is_told(arguments, sentence):
    with pytest.raises(UserError, match=sentence) as told:
        export.main(arguments)
    assert told.value.code == EXIT_USAGE


def test_a_folder_that_is_no_run_is_told(tmp_path):
    with pytest.raises(UserError, match="is not a run"):
        export.main([str(tmp_path), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()
