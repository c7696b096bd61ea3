"""Ensembles of runs, from the command line; their members are one trained run and changed copies of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from changed_runs import change_config, change_network

from cxr_jax.checkpoints import read_newest
from cxr_jax.cli import main as command_line
from cxr_jax.commands import evaluate, predict, publish
from cxr_jax.config.loading import load_config
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.split_loading import load_split
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.evaluation.operating_point import choose_threshold
from cxr_jax.inference.ensemble import mean_of, restore
from cxr_jax.inference.new_ensemble import make_ensemble
from cxr_jax.inference.restore import restore_run
from cxr_jax.reporting.recipe_records import read_recipe
from cxr_jax.runs.files import write_json
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.ledger import read_looks
from cxr_jax.runs.predictions import Predictions, probability_of, read_predictions
from cxr_jax.runs.recipes import find_recipes
from cxr_jax.vocabulary import PNEUMONIA
from tests.undrawn import leave_undrawn

pytestmark = pytest.mark.usefixtures("undrawn_figures")

RULE = {"rule": "sensitivity", "target_sensitivity": 0.9}


def make_member(trained: Path, path: Path, seed: int, image_size: int = 48) -> None:
    """Makes a run like the trained one, of another seed, whose network sees images of another size."""
    run = RunFolder(shutil.copytree(trained, path))
    change_config(
        run,
        data__image_size=image_size,
        operating_point__rule=RULE["rule"],
        operating_point__target_sensitivity=RULE["target_sensitivity"],
    )
    write_json(run.network, {**read_json(run.network), "image_size": image_size})
    if seed:
        change_network(run, "best", seed)


@pytest.fixture(scope="module")
def made(trained, prepared_folder, tmp_path_factory) -> Path:
    """A folder with three runs, and an evaluated ensemble of the first two."""

    folder = tmp_path_factory.mktemp("ensemble")
    make_member(trained, folder / "seed0", 0)
    make_member(trained, folder / "seed1", 1, image_size=32)
    make_member(trained, folder / "seed2", 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_PREPARED_DIR", str(prepared_folder))
        leave_undrawn(patch)
        evaluate.main([str(folder / "seed0"), str(folder / "seed1"), "--out", str(folder / "both")])
    return folder


@pytest.fixture
def folder(made, prepared_phantoms, tmp_path) -> Path:
    """A copy of it, to be changed at will, with the data in reach."""
    return Path(shutil.copytree(made, tmp_path / "runs"))


def logits_of(run: RunFolder, split: str) -> np.ndarray:
    """The logits of one run on a split, as the run itself is evaluated."""
    config = load_config(run.config)
    images = load_split(PreparedData.open(config.data.dataset), config.data, split)
    return restore_run(run).logits(images.images, batch_size=config.training.evaluation_batch_size)


def test_an_ensemble_answers_with_the_mean_of_logits_and_is_a_run_like_any_other(folder):
    run = RunFolder.open(folder / "both")
    members = [RunFolder.open(folder / name) for name in ("seed0", "seed1")]
    for split in ("val", "test"):
        table, logits = read_predictions(run.predictions_of(split)), [logits_of(member, split) for member in members]
        assert np.abs(logits[0] - logits[1]).max() > 0.01
        np.testing.assert_allclose(table.logits, np.mean(logits, axis=0), atol=1e-5)
        np.testing.assert_array_equal(table.probability, probability_of(table.logits))
    validation = read_predictions(run.predictions_of("val"))
    point = read_json(run.operating_point)
    assert point["threshold"] == choose_threshold(validation.probability, validation.label, **RULE)
    (look,) = read_looks(run)
    assert look["threshold"] == point["threshold"]
    assert look["checkpoint"] == "mean of 2 networks (mobilenetv2_tiny)"
    newest = [read_newest(member.checkpoints / "best") for member in members]
    assert look["members"] == [
        {"run": f"../seed{number}", "checkpoint": "best", "step": found.step, "sha256": found.sha256}
        for number, found in enumerate(newest)
    ]
    assert newest[0].sha256 != newest[1].sha256
    report = run.report.read_text()
    assert "mean of 2 networks (mobilenetv2_tiny)" in report
    assert all(found.sha256[:12] in report for found in newest)
    assert not run.checkpoints.exists()


def test_another_look_keeps_the_threshold_and_files_are_predicted_as_evaluate_does(folder, phantom_source, capsys):
    run = RunFolder(folder / "both")
    threshold = read_json(run.operating_point)["threshold"]
    table = read_predictions(run.predictions_of("test"))
    evaluate.main([str(run.path)])
    assert [look["threshold"] for look in read_looks(run)] == [threshold, threshold]
    assert "cxr-jax explain " + str(folder / "seed0") in capsys.readouterr().out
    predict.main([str(run.path), *(str(phantom_source / file) for file in table.file[:5]), "--json"])
    entries = json.loads(capsys.readouterr().out)
    assert [entry["probability"] for entry in entries] == pytest.approx(list(table.probability[:5]), abs=1e-6)
    assert {entry["threshold"] for entry in entries} == {threshold}
    assert {entry["model"] for entry in entries} == {"mean of 2 networks (mobilenetv2_tiny) of both"}


def test_copies_of_members_need_the_runs_no_more(folder):
    runs = [RunFolder.open(folder / name) for name in ("seed0", "seed2")]
    expected = np.mean([logits_of(run, "val") for run in runs], axis=0)
    make_ensemble(runs, folder / "copied", copy=True)
    for run in runs:
        shutil.rmtree(run.path)
    moved = RunFolder.open((folder / "copied").rename(folder / "elsewhere"))
    table = restore(moved).predict_split(PreparedData.open("phantoms"), "val")
    np.testing.assert_allclose(table.logits, expected, atol=1e-5)


def test_it_is_compared_and_published_apart_from_its_members(folder, tmp_path, capsys):
    run, results = RunFolder(folder / "both"), tmp_path / "results"
    shutil.copytree(folder / "both", folder / "other" / "both")
    publish.main([str(run.path), str(folder / "other" / "both"), "--out", str(results)])
    printed = capsys.readouterr().out
    # each is a row, told apart by the folder above
    assert printed.count("| results/both | 1 |") == printed.count("| other/both | 1 |") == 1
    assert read_json(RunFolder(results / "both").ensemble) == read_json(run.ensemble)
    # figures are drawn again without the members, which are not published
    evaluate.main([str(results / "both"), "--stored"])
    (files,) = find_recipes([str(run.path)])
    one, two = (read_json(RunFolder(folder / name).network)["parameters"] for name in ("seed0", "seed1"))
    assert read_recipe(files).costs.parameters == one + two


@pytest.mark.parametrize("command", [["explain"], ["predict", "--maps", "maps"]])
def test_heat_maps_are_of_one_network(folder, phantom_source, command, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    name, *options = command
    files = sorted(map(str, (phantom_source / "test").glob("*/*.jpeg")))[:1]
    assert command_line([name, "both", *files, *options]) == 1
    assert capsys.readouterr().err == (
        "cxr-jax: both is the mean of 2 networks (mobilenetv2_tiny), and this takes one network: name one of its "
        "members, such as seed0\n"
    )
    assert not Path("maps").exists()


def refused(capsys, *arguments: object) -> str:
    """The one sentence by which `evaluate` refuses these arguments."""
    assert command_line(["evaluate", *map(str, arguments)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("cxr-jax: ")


def test_members_must_have_the_same_data_split_and_rule(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    other = RunFolder(Path("seed2"))
    environment = read_json(other.environment)
    for changes, told in (
        (
            {"operating_point__target_sensitivity": 0.8},
            "operating_point.target_sensitivity is 0.9 for the first and 0.8",
        ),
        ({"data__split_seed": 7}, "data.split_seed is 0 for the first and 7"),
        ({"data__validation": "official"}, "data.validation is grouped for the first and official"),
    ):
        change_config(other, **changes)
        sentence = f"seed0 and seed2 cannot be members of one ensemble: {told} for the second"
        assert refused(capsys, "seed0", "seed2", "--out", "new") == sentence
    write_json(other.environment, {**environment, "data_fingerprint": "another"})
    assert refused(capsys, "seed0", "seed2", "--out", "new") == (
        "seed0 and seed2 cannot be members of one ensemble: the fingerprint of the data is "
        f"{environment['data_fingerprint']} for the first and another for the second"
    )
    assert not Path("new").exists()


def test_what_only_other_cuts_use_may_differ(folder):
    runs = [RunFolder(folder / name) for name in ("seed0", "seed2")]
    for seed, run in enumerate(runs):
        change_config(run, data__validation="official", data__split_seed=seed)
    table = restore(make_ensemble(runs, folder / "new")).predict_split(PreparedData.open("phantoms"), "val")
    assert set(table.file) == {
        example.file for example in PreparedData.open("phantoms").examples if example.split == "val"
    }


def test_who_cannot_be_a_member_is_told(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert refused(capsys, "seed0", "./seed0", "--out", "new").startswith("seed0 is named twice")
    assert refused(capsys, "seed0", "both", "--out", "new").startswith("both is an ensemble itself")
    assert refused(capsys, "seed0", "seed2", "--out", "both").startswith(
        "both is an ensemble already: cxr-jax evaluate"
    )
    assert "exists and is not empty" in refused(capsys, "seed0", "seed2", "--out", "seed1")
    RunFolder(Path("seed2")).metrics.write_text('{"kind": "train", "step": 3}\n')
    assert "seed2 is not finished, it stopped after step 3" in refused(capsys, "seed0", "seed2", "--out", "new")
    assert not Path("new").exists()


def test_a_member_that_is_missing_or_another_is_told_before_a_look(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    change_network(RunFolder(Path("seed1")), "best", 5)
    assert refused(capsys, "both").startswith(
        "seed1 has another checkpoint than the one that the ensemble both was made of"
    )
    Path("seed1").rename("moved")
    assert refused(capsys, "both") == (
        "a member of the ensemble both is missing, there is no run at seed1: put it back there, or make the ensemble "
        "again"
    )
    assert len(read_looks(RunFolder(Path("both")))) == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "name a run"),
        (["seed0", "seed1"], "2 runs are evaluated as one ensemble: say by --out FOLDER where it goes"),
        (["seed0", "--out", "new"], "--out is for the ensemble of several runs"),
        (["seed0", "--copy"], "--copy is for the ensemble of several runs"),
        (["seed0", "seed1", "--stored"], "--stored judges one run again"),
    ],
)
def test_options_that_say_too_little_are_told(arguments, told, capsys):
    assert command_line(["evaluate", *arguments]) == EXIT_USAGE
    assert told in capsys.readouterr().err


def test_predictions_of_different_images_have_no_mean():
    table = Predictions.from_logits(
        np.zeros((1, 2)), file=["a"], split=["val"], group=["g"], subtype=["unknown"], label=np.array([PNEUMONIA])
    )
    other = Predictions.from_logits(
        np.ones((1, 2)), file=["b"], split=["val"], group=["g"], subtype=["unknown"], label=np.array([PNEUMONIA])
    )
    with pytest.raises(ValueError, match="different images"):
        mean_of([table, other])


def test_a_damaged_record_is_told(folder):
    run = RunFolder(folder / "both")
    write_json(run.ensemble, {**read_json(run.ensemble), "members": []})
    with pytest.raises(UserError, match="it names no member"):
        evaluate.main([str(run.path)])
