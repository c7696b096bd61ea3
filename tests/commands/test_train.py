from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr_jax.cli import main as command_line
from cxr_jax.commands import train
from cxr_jax.data.prepared import open_data_of_run
from cxr_jax.errors import EXIT_INTERRUPTED, EXIT_USAGE, UserError
from cxr_jax.runs.description import read_description
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.metrics_log import read_metrics


def test_a_run_explains_itself(trained, prepared_folder):
    run = RunFolder.open(trained)
    description = read_description(run)
    assert (description.architecture, description.image_size) == ("mobilenetv2_tiny", 48)
    card = read_json(run.data_card)
    assert card["phantom"] is True
    assert read_json(run.environment)["data_fingerprint"] == card["fingerprint"]
    assert [line["kind"] for line in read_metrics(run.metrics)][-1] == "end"
    assert list(run.tensorboard.glob("events*"))
    assert {path.name for path in run.checkpoints.iterdir()} == {"best", "last"}


def test_a_run_that_exists_is_not_touched(run_path, config_file):
    before = {path: path.stat().st_mtime_ns for path in run_path.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="exists and is not empty"):
        train.main([str(config_file), "--out", str(run_path)])
    assert {path: path.stat().st_mtime_ns for path in run_path.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--training.batch-size", "13", "--parallel.devices", "8"], "batch_size is 13, which cannot be shared evenly"),
        (["--training.batch-size", "4096"], "batch_size is 4096, but there are only"),
        (["--optimizer.learning-rate", "-1"], "learning-rate is -1.0, but must be 0 or more"),
        (["--data.dataset", "nowhere"], "nowhere"),
        (["--model.name", "mobilenetv2_tinny"], "did you mean mobilenetv2_tiny"),
        (["--model.weights", "missing.safetensors"], r"missing\.safetensors"),
        (["--parallel.devices", "99"], "there are only 8"),
        (["--optimizer.rate", "1"], "rate"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_run(
    prepared_phantoms, config_file, tmp_path, capsys, arguments, sentence
):
    out = tmp_path / "run"
    assert command_line(["train", str(config_file), "--out", str(out), *arguments]) != 0
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "Traceback" not in printed
    with pytest.raises(UserError, match=sentence):
        train.main([str(config_file), "--out", str(out), *arguments])
    assert not out.exists()


def test_a_place_without_permission_is_told(prepared_phantoms, config_file, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="choose another place"):
        train.main([str(config_file), "--out", str(tmp_path / "file" / "run")])


def test_without_a_config_the_usage_is_told(capsys):
    with pytest.raises(UserError, match="name a config first") as caught:
        train.main([])
    assert caught.value.code == EXIT_USAGE


def test_help_shows_the_options_of_the_config(config_file, capsys):
    with pytest.raises(SystemExit):
        train.main([str(config_file), "--help"])
    printed = capsys.readouterr().out
    assert "--optimizer.learning-rate" in printed
    assert "--resume" in printed


def test_a_run_is_resumed_only_with_its_own_config_and_data(run_path, config_file, phantom_source):
    with pytest.raises(UserError, match="was started with another config"):
        train.main([str(config_file), "--out", str(run_path), "--resume", "--training.seed", "9"])
    environment = RunFolder(run_path).environment
    for changed in (read_json(environment) | {"data_fingerprint": "another"}, {}):
        environment.write_text(json.dumps(changed))
        with pytest.raises(UserError, match="the prepared data is not what"):
            train.main([str(config_file), "--out", str(run_path), "--resume"])


def test_a_resumed_run_that_is_finished_says_so(run_path, config_file, capsys):
    before = read_metrics(run_path / "metrics.jsonl")
    train.main([str(config_file), "--out", str(run_path), "--resume"])
    assert read_metrics(run_path / "metrics.jsonl") == before
    assert "Next: cxr-jax evaluate" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["./here", "here", "../folder/here"])
def test_data_given_by_a_relative_path_are_found_from_any_folder(
    prepared_folder, config_file, tmp_path, monkeypatch, capsys, name
):
    def train_at_once(plan, network, train_set, validation_set, run, *others, **how):
        run.metrics.touch()
        return "finished"

    # what is found counts, not what is learned from it
    monkeypatch.setattr("cxr_jax.training.run.train", train_at_once)
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path / "nothing here"))
    folder = tmp_path / "folder"
    shutil.copytree(prepared_folder / "phantoms", folder / "here")
    monkeypatch.chdir(folder)
    arguments = [str(config_file), "--out", str(tmp_path / "run"), "--data.dataset", name, "--training.epochs", "1"]
    train.main(arguments)
    train.main([*arguments, "--resume"])
    monkeypatch.chdir(tmp_path)
    assert open_data_of_run(RunFolder(tmp_path / "run")).path == folder / "here"
    train.main([str(tmp_path / "run" / "config.toml"), "--out", str(tmp_path / "run"), "--resume"])
    assert capsys.readouterr().out.count("Next: cxr-jax evaluate") == 3


def test_a_run_keeps_the_precision_that_was_chosen_unless_another_is_asked_for(
    prepared_phantoms, config_file, tmp_path, capsys
):
    def trained(*more):
        train.main([str(config_file), "--out", str(out), "--training.epochs", "1", *more])
        recorded = read_json(RunFolder(out).environment)["activations"]
        return [(entry["precision"], entry["kernels"]) for entry in recorded], capsys.readouterr().out

    out = tmp_path / "run"
    assert trained()[0] == [("float32", "XLA")]
    # as if it had been begun where bf16 is the faster one
    environment = RunFolder(out).environment
    begun = read_json(environment)
    begun["activations"][-1]["precision"] = "bf16"
    environment.write_text(json.dumps(begun))
    recorded, told = trained("--resume")
    assert recorded == [("bf16", "XLA")]
    assert "Activations in bf16, all else in float32: as this run was trained until now" in " ".join(told.split())
    assert "Activations" not in trained("--resume", "--training.precision", "float32")[1]


def test_a_run_may_be_resumed_with_its_images_elsewhere(run_path, config_file, capsys):
    train.main([str(config_file), "--out", str(run_path), "--resume", "--data.placement", "device"])
    assert "Next: cxr-jax evaluate" in capsys.readouterr().out


# what it holds, test_train_signals.py holds of a second Ctrl-C too, and tests/training/test_run.py within one process
@pytest.mark.slow
def test_ctrl_c_in_training_saves_and_the_run_can_be_resumed(prepared_phantoms, config_file, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "cxr_jax", "train", str(config_file), "--out", str(out)]
    command += ["--training.epochs", "2000"]
    environment = os.environ | {"CXR_JAX_ALLOCATOR": "off", "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not _has_steps(out) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == EXIT_INTERRUPTED, errors
    assert "go on with cxr-jax train" in errors
    assert "Traceback" not in errors
    lines = read_metrics(out / "metrics.jsonl")
    assert lines[-1]["reason"] == "interrupted"
    assert RunFolder.open(out)


@pytest.mark.slow
def test_a_disk_that_fills_up_in_training_is_one_sentence_and_the_run_can_be_resumed(
    prepared_phantoms, config_file, tmp_path
):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no small file system can be mounted here")
    try:
        command = [sys.executable, "-m", "cxr_jax", "train", str(config_file), "--out", str(disk / "run")]
        command += ["--training.epochs", "15"]
        environment = os.environ | {"CXR_JAX_ALLOCATOR": "off", "JAX_PLATFORMS": "cpu"}
        full = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
        assert full.returncode == 1
        assert full.stderr.count("\n") == 1, full.stderr
        assert "the disk is full" in full.stderr
        subprocess.run(["mount", "-o", "remount,size=40m", disk], check=True)
        assert command_line([*command[3:], "--resume"]) == 0
        assert read_metrics(disk / "run" / "metrics.jsonl")[-1]["reason"] == "finished"
    finally:
        subprocess.run(["umount", disk], check=True)


def _has_steps(out: Path) -> bool:
    path = out / "metrics.jsonl"
    return path.is_file() and path.read_text().count("\n") > 3


def test_training_says_what_is_odd_about_the_images(config_file, tmp_path, monkeypatch, capsys):
    """Of 12 bits in 16, which are read as 12, a note stands in the data card: training repeats it."""
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path / "prepared"))
    random = np.random.default_rng(0)
    for number in range(48):
        folder = tmp_path / "deep" / ("NORMAL", "PNEUMONIA")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / f"{number}.png"), random.integers(0, 4096, (40, 40)).astype(np.uint16))
    assert command_line(["prepare", str(tmp_path / "deep")]) == 0
    note = "48 of 48 16-bit images hold no value above 4,095"
    assert note in capsys.readouterr().out
    options = ["--data.dataset", "deep", "--training.epochs", "1"]
    assert command_line(["train", str(config_file), "--out", str(tmp_path / "run"), *options]) == 0
    assert f"Note on the images: {note}" in capsys.readouterr().out


def test_a_run_that_is_killed_before_its_first_save_begins_again_from_the_same_denoiser(
    prepared_phantoms, config_file, tmp_path, monkeypatch
):
    begun = []

    def begin(plan, network, *others, **how):
        begun.append({name: np.asarray(value) for name, value in network.params.items() if "denoiser" in name})
        raise UserError("killed")

    monkeypatch.setattr("cxr_jax.training.run.train", begin)
    monkeypatch.setattr("cxr_jax.training.denoising.STEPS", 2)
    for more in ([], ["--resume"]):
        with pytest.raises(UserError, match="killed"):
            train.main([str(config_file), "--out", str(tmp_path / "run"), "--model.denoiser", "2", *more])
    first, second = begun
    assert np.any(first["denoiser.convolutions.3.kernel"])
    assert all(np.array_equal(value, second[name]) for name, value in first.items())
