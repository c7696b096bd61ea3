"""`cxr-jax probe` leaves a run that the other commands take like any other."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest

from cxr_jax.checkpoints import read_newest
from cxr_jax.cli import main as cli
from cxr_jax.commands import evaluate, probe
from cxr_jax.config.loading import load_config
from cxr_jax.config.schema import Config, ModelConfig, ProbeConfig
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.split_loading import load_split
from cxr_jax.errors import UserError
from cxr_jax.evaluation.linear_probe import fit_finding_probes, fit_probe
from cxr_jax.evaluation.linear_probe import scores_of as scores_by
from cxr_jax.evaluation.probe_record import read_probe
from cxr_jax.inference.restore import restore_run
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.metrics_log import read_metrics
from cxr_jax.runs.predictions import read_predictions
from cxr_jax.training import probe as room

QUICK = ["--probe.folds", "3", "--probe.strengths", "10", "1000", "--data.image-size", "32"]


def probed(config_file, out, *options):
    """Runs the command and returns what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        probe.main([str(config_file), "--out", str(out), "--model.name", "squeezenet_tiny", *QUICK, *options])
    return printed.getvalue()


@pytest.fixture
def of(prepared_phantoms, config_file, tmp_path):
    """Probes SqueezeNet with some options, into a new run."""

    def make(*options, name="run"):
        probed(config_file, tmp_path / name, *options)
        return RunFolder.open(tmp_path / name)

    return make


def scores_of(run, split):
    """The logit of PNEUMONIA less that of NORMAL, of the restored network."""
    config = load_config(run.config)
    images = load_split(PreparedData.open("phantoms"), config.data, split)
    logits = restore_run(run).logits(images.images)
    np.testing.assert_allclose(logits[:, 0], -logits[:, 1], atol=1e-5)
    return logits[:, 1] - logits[:, 0]


@pytest.mark.parametrize(
    ("options", "until"),
    [
        (("--probe.classifier", "logistic", "--model.name", "stephen2019_tiny"), ""),
        (("--probe.classifier", "svm", "--model.name", "stephen2019_tiny", "--probe.features", "logits"), ""),
        (("--probe.classifier", "svm", "--probe.features", "logits"), "logits"),
        (("--probe.classifier", "logistic"), "fire3"),
        (("--probe.classifier", "logistic", "--probe.features", "fire2"), "fire2"),
    ],
)
def test_the_restored_network_answers_as_the_classifier_of_scikit_learn(of, options, until):
    """With a head that is a linear layer the network stays whole; else it is cut behind the features."""
    run = of(*options)
    config = load_config(run.config)
    assert json.loads(run.network.read_text())["until"] == until
    frozen, prepared = room.freeze(config), PreparedData.open("phantoms")
    images = {split: load_split(prepared, config.data, split) for split in ("train", "val")}
    network = frozen.until_features
    program = room.compile_features(frozen, config, room.jax.devices()[:1])
    features = {split: program.over(network.params, network.batch_stats, images[split].images) for split in images}
    settings = config.probe
    fit = fit_probe(
        features["train"],
        images["train"].labels,
        images["train"].groups,
        kind=settings.classifier,
        strengths=settings.strengths,
        folds=settings.folds,
        seed=config.training.seed,
    )
    np.testing.assert_allclose(scores_of(run, "val"), fit.classifier.scores(features["val"]), rtol=1e-3, atol=1e-4)
    record = read_probe(run.probe)
    assert (record.strength, record.scores) == (fit.strength, fit.scores)
    assert (record.classifier, record.channels) == (settings.classifier, features["val"].shape[1])
    assert record.images == len(images["train"])


def test_the_same_config_gives_the_same_bits(of):
    options = ("--probe.classifier", "svm", "--probe.balancing", "smote")
    runs = [of(*options, name=name) for name in ("one", "other")]
    one, other = (read_newest(run.checkpoints / "best") for run in runs)
    assert one.sha256 == other.sha256
    assert read_probe(runs[0].probe).balancing == "smote"


def test_the_run_is_evaluated_used_explained_exported_and_published(
    of, phantom_source, tmp_path, undrawn_figures, capsys
):
    run = of("--probe.classifier", "svm", "--probe.features", "fire2", "--loss.class-weights", "balanced")
    path, film = str(run.path), str(next((phantom_source / "test").rglob("*.jpeg")))
    evaluate.main([path])
    assert (run.report.is_file(), run.operating_point.is_file()) == (True, True)
    report = run.report.read_text()
    assert "linear support vector machine was fitted on 16 features" in report
    assert "cxr-jax probe config.toml" in report
    validation = read_predictions(run.predictions_of("val"))
    (line,) = read_metrics(run.metrics, ("validation",))
    assert np.mean((validation.probability >= 0.5) == validation.label) == pytest.approx(line["accuracy"])
    for command in (
        ["predict", path, film],
        ["explain", path, film],
        ["export", path, str(tmp_path / "bundle")],
        ["predict", str(tmp_path / "bundle"), film],
        ["publish", path, "--out", str(tmp_path / "results")],
    ):
        assert cli(command) == 0, command
    assert "squeezenet_tiny up to fire2" in capsys.readouterr().out
    assert (tmp_path / "results" / "run" / "probe.json").is_file()


def test_it_prints_every_strength_and_what_comes_next(prepared_phantoms, config_file, tmp_path):
    printed = probed(config_file, tmp_path / "run", "--probe.classifier", "logistic")
    assert "24 features of squeezenet_tiny, from fire3" in printed
    assert "chosen" in printed and "1000" in printed
    assert "what [augmentation], [optimizer], [training], [validation] say of training has no effect" in printed
    assert f"Next: cxr-jax evaluate {tmp_path / 'run'}" in printed


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "is of a network that is trained: cxr-jax train"),
        (
            ["--probe.classifier", "svm", "--probe.features", "fire9"],
            "stage 'fire9'; did you mean fire3? (it has conv1, fire2",
        ),
        (
            ["--probe.classifier", "svm", "--training.epochs", "3"],
            "--training.epochs has no effect, because probe.clas",
        ),
        (["--probe.classifier", "svm", "--probe.strengths", "0"], "--probe.strengths is"),
        (["--probe.classifier", "tree"], "must be one of none, logistic, svm"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_run(
    prepared_phantoms, config_file, tmp_path, options, sentence, capsys
):
    command = ["probe", str(config_file), "--out", str(tmp_path / "run"), "--model.name", "squeezenet_tiny", *options]
    assert cli(command) != 0
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_there_is_kept_and_training_refuses_the_config_of_a_probe(of, config_file, tmp_path, capsys):
    run = of("--probe.classifier", "logistic")
    before = run.network.stat().st_mtime_ns
    assert cli(["probe", str(run.config), "--out", str(run.path)]) == 1
    assert "exists and is not empty" in capsys.readouterr().err
    assert run.network.stat().st_mtime_ns == before
    assert cli(["train", str(run.config), "--out", str(tmp_path / "no")]) == 1
    assert "a probe trains nothing: cxr-jax probe with the same config fits it" in capsys.readouterr().err


def test_a_sweep_probes_the_variants_that_ask_for_it(prepared_phantoms, config_file, tmp_path, capsys):
    base = tmp_path / "base.toml"
    shutil.copy(config_file, base)
    sweep = tmp_path / "s.toml"
    sweep.write_text(
        'config = "base.toml"\n[base]\nprobe.classifier = "logistic"\nprobe.folds = 3\nmodel.name = "squeezenet_tiny"\n'
        '[variants.svm]\nprobe.classifier = "svm"\n'
    )
    assert cli(["sweep", str(sweep), "--out", str(tmp_path / "out"), "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and all(" -m cxr_jax probe " in line for line in lines)


def test_weights_without_a_classifier_have_no_logits(real_weights, monkeypatch):
    monkeypatch.setenv("CXR_WEIGHTS_DIR", str(real_weights.parent))
    config = Config(model=ModelConfig("mobilenetv2_100", real_weights.name), probe=ProbeConfig("svm", "logits"))
    with pytest.raises(UserError, match="has no classifier of 1000 classes, whose logits could be features"):
        room.freeze(config)


@pytest.mark.parametrize("folder", ["several", "three"])
def test_other_classes_and_findings_are_probed_and_evaluated(folder, request, tmp_path, undrawn_figures, capsys):
    data = request.getfixturevalue(folder)
    printed = probed(data / "films.toml", tmp_path / "run", "--probe.classifier", "logistic")
    run = RunFolder.open(tmp_path / "run")
    config, record = load_config(run.config), read_probe(run.probe)
    prepared = PreparedData.open(config.data.dataset)
    frozen = room.freeze(config, prepared.classes)
    images = {split: load_split(prepared, config.data, split) for split in ("train", "val")}
    network, program = frozen.until_features, room.compile_features(frozen, config, room.jax.devices()[:1])
    features = {split: program.over(network.params, network.batch_stats, images[split].images) for split in images}
    how = {
        "kind": "logistic",
        "strengths": config.probe.strengths,
        "folds": config.probe.folds,
        "seed": 0,
        "balanced": True,
    }
    train = images["train"]
    if folder == "several":
        classifiers, told = fit_finding_probes(features["train"], train.labels, train.groups, train.classes, **how)
        assert record.findings == told and record.strength is None
        assert "images that show it" in printed and all(name in printed for name in train.classes)
    else:
        fit = fit_probe(features["train"], train.labels, train.groups, classes=train.classes, **how)
        classifiers = fit.classifiers
        assert (record.strength, record.scores) == (fit.strength, fit.scores)
    logits = restore_run(run).logits(images["val"].images)
    np.testing.assert_allclose(logits, scores_by(classifiers, features["val"]), rtol=1e-3, atol=1e-4)
    evaluate.main([str(run.path)])
    assert "logistic regression was fitted" in run.report.read_text()
