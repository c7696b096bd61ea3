"""`cxr-jax crossval`, with a stand-in for `cxr-jax train` that hands out changed copies of one trained run."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from changed_runs import change_network

from cxr_jax.cli import main as command_line
from cxr_jax.commands import evaluate, export
from cxr_jax.config.loading import load_config
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.split_loading import load_split
from cxr_jax.errors import EXIT_INTERRUPTED, EXIT_USAGE
from cxr_jax.evaluation.operating_point import choose_threshold
from cxr_jax.inference.restore import restore_run
from cxr_jax.runs.ensemble import read_ensemble
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.ledger import read_looks
from cxr_jax.runs.predictions import probability_of, read_predictions
from cxr_jax.sweeps import training

STAND_IN = """
import os, shutil, signal, sys, time
networks, config, out, resume = sys.argv[1], sys.argv[2], sys.argv[4], "--resume" in sys.argv
fold = out.split(os.sep)[-2]
if os.path.exists(out) != resume:
    sys.exit("cxr-jax: --resume is " + str(resume))
wish = os.path.join(networks, fold + "-ends")
if os.path.exists(wish) and not resume:
    os.makedirs(out)
    shutil.copy(config, os.path.join(out, "config.toml"))
    signal.signal(signal.SIGINT, lambda number, frame: sys.exit(130))
    if open(wish).read() == "interrupted":
        os.kill(os.getppid(), signal.SIGINT)
        time.sleep(60)
    sys.exit("cxr-jax: the loss is nan at step 3")
shutil.copytree(os.path.join(networks, fold), out, dirs_exist_ok=True)
shutil.copy(config, os.path.join(out, "config.toml"))
"""

RULE = {"rule": "sensitivity", "target_sensitivity": 0.9}
OPTIONS = ("--folds", "3", "--operating-point.rule", "sensitivity", "--operating-point.target-sensitivity", "0.9")


@pytest.fixture(scope="module")
def made_networks(trained, tmp_path_factory) -> Path:
    """A folder with a trained run for each of three folds, all with networks of their own."""
    folder = tmp_path_factory.mktemp("networks")
    for fold in range(3):
        run = RunFolder(shutil.copytree(trained, folder / f"fold{fold}"))
        change_network(run, "last", fold + 1)
    return folder


def replace_training(patch: pytest.MonkeyPatch, networks: Path) -> None:
    """Has what is trained taken from `networks`."""
    (networks / "stand_in.py").write_text(STAND_IN)
    patch.setattr(training, "TRAIN", (sys.executable, "-S", str(networks / "stand_in.py"), str(networks)))


@pytest.fixture
def networks(made_networks, prepared_phantoms, tmp_path, monkeypatch) -> Path:
    """A copy of them, from which the stand-in takes what is trained."""
    folder = Path(shutil.copytree(made_networks, tmp_path / "networks"))
    replace_training(monkeypatch, folder)
    return folder


@pytest.fixture
def crossval(networks, config_file, tmp_path, capsys):
    """Runs the command with three folds; returns exit code, standard output and standard error."""

    def run(*options: str) -> tuple[int, str, str]:
        code = command_line(["crossval", str(config_file), "--out", str(tmp_path / "out"), *OPTIONS, *options])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def made_folds(made_networks, prepared_folder, config_file, tmp_path_factory) -> Path:
    """The folder of a finished cross-validation."""
    folder = tmp_path_factory.mktemp("crossval") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_PREPARED_DIR", str(prepared_folder))
        replace_training(patch, made_networks)
        assert command_line(["crossval", str(config_file), "--out", str(folder), *OPTIONS, "--jobs", "2"]) == 0
    return folder


@pytest.fixture
def out(made_folds, prepared_phantoms, tmp_path) -> Path:
    """A copy of it, where the command of `crossval` finds it."""
    return Path(shutil.copytree(made_folds, tmp_path / "out"))


def test_every_image_of_train_is_judged_by_the_network_that_did_not_see_it(out):
    prepared = PreparedData.open("phantoms")
    table = read_predictions(out / "out_of_fold.csv")
    everything = [example for example in prepared.examples if example.split != "test"]
    assert {example.split for example in everything} == {"train", "val"}
    assert table.file == tuple(example.file for example in everything)
    known = dict(zip(table.file, table.logits, strict=True))
    runs = [RunFolder.open(out / f"fold{fold}" / "seed0") for fold in range(3)]
    for run in runs:
        config = load_config(run.config)
        assert (config.validation.checkpoint, config.validation.patience) == ("last", 0)
        trained_on, held_out = (load_split(prepared, config.data, split) for split in ("train", "val"))
        assert not set(trained_on.groups) & set(held_out.groups)
        logits = restore_run(run, "last").logits(held_out.images, batch_size=16)
        np.testing.assert_allclose([known.pop(file) for file in held_out.files], logits, atol=1e-6)
    assert not known

    record = read_json(out / "crossval.json")
    threshold = choose_threshold(table.probability, table.label, **RULE)
    assert record["operating_point"]["threshold"] == threshold
    assert record["operating_point"]["validation"]["images"] == len(everything)
    areas = [fold["metrics"]["roc_auc"]["value"] for fold in record["folds"]]
    assert record["mean_roc_auc"]["value"] == pytest.approx(np.mean(areas))
    assert record["pooled"]["metrics"]["roc_auc"]["value"] != pytest.approx(np.mean(areas), abs=1e-4)
    assert sum(fold["images"] for fold in record["folds"]) == record["pooled"]["images"] == len(everything)
    assert record["pooled"]["metrics"]["accuracy"]["value"] == np.mean((table.probability >= threshold) == table.label)
    told = (out / "crossval.md").read_text()
    assert (
        "ROC-AUC within folds, averaged" in told and "Pooled over all folds" in told and "Not a medical device" in told
    )


def test_the_ensemble_of_folds_is_evaluated_at_the_threshold_out_of_fold(out, undrawn_figures, capsys):
    run = RunFolder.open(out / "ensemble")
    threshold = read_json(out / "crossval.json")["operating_point"]["threshold"]
    assert not run.ledger.exists()
    evaluate.main([str(run.path)])
    assert "each image as the network of the fold that held it out judged it" in capsys.readouterr().out
    (look,) = read_looks(run)
    assert look["threshold"] == read_json(run.operating_point)["threshold"] == threshold
    assert [member["run"] for member in look["members"]] == [f"../fold{fold}/seed0" for fold in range(3)]
    table, prepared = read_predictions(run.predictions_of("test")), PreparedData.open("phantoms")
    config = load_config(out / "fold0" / "seed0.toml")
    images = load_split(prepared, config.data, "test").images
    members = [restore_run(RunFolder(out / f"fold{fold}" / "seed0"), "last") for fold in range(3)]
    logits = np.mean([member.logits(images, batch_size=16) for member in members], axis=0)
    np.testing.assert_allclose(table.probability, probability_of(logits), atol=1e-6)
    assert read_predictions(run.predictions_of("val")).file == read_predictions(out / "out_of_fold.csv").file
    assert "not by the ensemble" in run.report.read_text()
    evaluate.main([str(run.path), "--stored"])


def test_its_networks_are_asked_in_another_way_without_training(out, config_file, tmp_path, capsys):
    def asked(name, *options):
        command = ["crossval", str(config_file), "--out", str(tmp_path / name), "--networks", str(out), *OPTIONS]
        code = command_line([*command, *options])
        return code, *capsys.readouterr()

    # two views of each image: how many there are is told and tested of evaluation, and ten take five times as long
    code, printed, errors = asked("looks", "--model.flip-average")
    assert code == 0, errors
    assert "3 of them finished already" in printed
    ways = {"plain": out, "looks": tmp_path / "looks"}
    tables = {way: read_predictions(folder / "out_of_fold.csv") for way, folder in ways.items()}
    assert tables["looks"].file == tables["plain"].file
    assert np.abs(tables["looks"].probability - tables["plain"].probability).max() > 1e-4
    for fold in range(3):
        plain, looks = (RunFolder.open(folder / f"fold{fold}" / "seed0") for folder in ways.values())
        assert restore_run(looks).checkpoint_sha256 == restore_run(plain).checkpoint_sha256
        assert not restore_run(plain).description.flip_average
    threshold = read_json(tmp_path / "looks" / "crossval.json")["operating_point"]["threshold"]
    # without StableHLO, for which the views by each of three networks are traced for every platform
    export.main([str(tmp_path / "looks" / "ensemble"), str(tmp_path / "bundle"), "--half"])
    bundle = read_json(tmp_path / "bundle" / "bundle.json")
    assert [call["threshold"] for call in bundle["calls"]] == [threshold]
    code, _, errors = asked("other", "--training.epochs", "9", "--model.shift-average", "0.1")
    assert code == 1
    assert "seed0 was trained with training.epochs = " in errors and "only model.flip_average and" in errors


def test_the_same_command_goes_on_where_it_was_stopped(crossval, networks, tmp_path):
    (networks / "fold1-ends").write_text("interrupted")
    out = tmp_path / "out"
    code, _, errors = crossval()
    assert code == EXIT_INTERRUPTED
    assert errors.startswith("cxr-jax: stopped by SIGINT with 1 of 3 runs finished; ")
    assert "go on with cxr-jax crossval " in errors
    assert not (out / "fold2" / "seed0").exists()
    assert not (out / "ensemble").exists() and not (out / "out_of_fold.csv").exists()
    code, printed, errors = crossval()
    assert (code, errors) == (0, "")
    assert "fold1 seed0 goes on" in printed and "fold0 seed0 begins" not in printed
    assert printed.splitlines()[-2] == f"Next: cxr-jax evaluate {out / 'ensemble'}"
    assert len(read_ensemble(RunFolder(out / "ensemble")).members) == 3


def test_a_fold_that_fails_is_told_and_nothing_is_judged(crossval, networks, tmp_path):
    (networks / "fold1-ends").write_text("failed")
    code, _, errors = crossval()
    assert code == 1
    assert "fold1 seed0 failed: the loss is nan at step 3" in errors
    assert errors.endswith("1 of 3 folds failed, as told above; the same command tries them again\n")
    assert not (tmp_path / "out" / "ensemble").exists() and not (tmp_path / "out" / "out_of_fold.csv").exists()


def test_what_is_finished_stays_as_it_is(crossval, out):
    before = (out / "ensemble" / "environment.json").stat().st_mtime_ns
    code, printed, _ = crossval()
    assert code == 0 and "3 runs, 3 of them finished already" in printed
    assert (out / "ensemble" / "environment.json").stat().st_mtime_ns == before
    code, _, errors = crossval("--folds", "4")
    assert code == 1 and "begun with data.folds = 3, and now it would be 4" in errors
    tables = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    code, _, errors = crossval("--training.seed", "1")
    assert code == 1 and "is made of other runs, " in errors and "choose another --out" in errors
    assert not list(out.glob("*/seed1*"))
    # a network that was trained anew is no member of the ensemble
    change_network(RunFolder(out / "fold2" / "seed0"), "last", 9)
    code, _, errors = crossval()
    assert code == 1 and "is made of other networks than those that stand beside it now" in errors
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == tables


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (["--folds", "1"], EXIT_USAGE, "--folds is 1, but must be 2 or more"),
        (["--jobs", "0"], EXIT_USAGE, "--jobs is 0, but must be 1 or more"),
        (["--folds", "50"], 1, "50 folds need 50 groups of each class, and train has"),
        (["--out", ""], EXIT_USAGE, "say where the folds go: cxr-jax crossval {config} --out FOLDER"),
        (["--data.dataset", "nowhere"], 1, "no prepared data called 'nowhere'"),
        (["--training.batch-size", "4096"], 1, "training.batch_size is 4096"),
        (
            ["--validation.patience", "3"],
            EXIT_USAGE,
            "--validation.patience has no effect in cross-validation, which sets validation.patience to 0",
        ),
        (["--data.validation-fraction", "0.3"], EXIT_USAGE, "--data.validation-fraction has no effect"),
    ],
)
def test_wrong_input_is_told_before_anything_is_trained(crossval, config_file, tmp_path, options, code, told):
    found, _, errors = crossval(*options)
    told = told.format(config=config_file)
    assert found == code and errors.startswith("cxr-jax: ") and told in errors and errors.count("\n") == 1
    assert not list(tmp_path.rglob("*.log"))


def test_a_folder_of_something_else_is_left_alone(crossval, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    code, _, errors = crossval()
    assert code == 1 and "holds something else than a cross-validation" in errors
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_without_a_config_the_command_says_what_to_type(capsys):
    assert command_line(["crossval"]) == EXIT_USAGE
    assert "name a config first: cxr-jax crossval CONFIG --folds 5 --out FOLDER" in capsys.readouterr().err


@pytest.mark.slow
def test_real_folds_are_trained_and_joined(prepared_phantoms, config_file, undrawn_figures, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--folds", "2", "--training.epochs", "1", "--jobs", "2"]
    assert command_line(["crossval", str(config_file), "--out", str(out), *options]) == 0
    evaluate.main([str(out / "ensemble")])
    capsys.readouterr()
    config = RunFolder(out / "fold1" / "seed0").read_config()
    assert (config["data"]["validation"], config["data"]["fold"]) == ("fold", 1)
    assert len(read_looks(RunFolder(out / "ensemble"))) == 1
