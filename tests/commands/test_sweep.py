"""`cxr-jax sweep`, with a stand-in for `cxr-jax train` where only processes matter, and once with the real one."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cxr_jax.cli import main as command_line
from cxr_jax.config.loading import load_config
from cxr_jax.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, EXIT_USAGE
from cxr_jax.runs.locks import held
from cxr_jax.runs.metrics_log import read_metrics
from cxr_jax.sweeps import training

STAND_IN = """
import json, os, shutil, signal, sys, time
config, out, resume = sys.argv[1], sys.argv[3], "--resume" in sys.argv
if os.path.exists(out) != resume:
    sys.exit("cxr-jax: --resume is " + str(resume))
variant, seed = out.split(os.sep)[-2:]
os.makedirs(out, exist_ok=True)
shutil.copy(config, os.path.join(out, "config.toml"))
def log(kind, **values):
    with open(os.path.join(out, "metrics.jsonl"), "a") as file:
        file.write(json.dumps({"kind": kind, "step": 1, **values}) + "\\n")
def stop(number, frame):
    log("end", reason="stopped", seconds=1.0)
    print("cxr-jax: stopped and saved", file=sys.stderr)
    sys.exit(130 if number == signal.SIGINT else 75)
signal.signal(signal.SIGINT, stop)
signal.signal(signal.SIGTERM, stop)
if variant == "fails" and seed == "seed1":
    print("cxr-jax: the loss is nan at step 3", file=sys.stderr)
    sys.exit(1)
if variant == "slow" and not resume:
    print("waiting", flush=True)
    time.sleep(60)
log("validation", loss=0.5, roc_auc=0.9 + 0.01 * int(seed[4:]), best=True, seconds=1.0)
log("end", reason="finished", seconds=6.0)
"""

SWEEP = """
config = "{config}"
seeds = [0, 1]
[variants.fails]
model.dropout = 0.1
[variants.slow]
model.dropout = 0.2
"""


@pytest.fixture
def stand_in(tmp_path):
    """The command line of the stand-in; without site packages it starts in a few milliseconds."""
    (tmp_path / "stand_in.py").write_text(STAND_IN)
    return (sys.executable, "-S", str(tmp_path / "stand_in.py"))


@pytest.fixture
def swept(stand_in, prepared_phantoms, config_file, tmp_path, monkeypatch, capsys):
    """Runs the command on the sweep above; returns exit code, standard output and standard error."""
    monkeypatch.setattr(training, "TRAIN", stand_in)
    (tmp_path / "s.toml").write_text(SWEEP.format(config=config_file))

    def run(*options: str) -> tuple[int, str, str]:
        code = command_line(["sweep", str(tmp_path / "s.toml"), "--out", str(tmp_path / "out"), *options])
        return code, *capsys.readouterr()

    return run


def starts(log: Path) -> list[str]:
    """The command lines in a log, in order."""
    return [line for line in log.read_text().splitlines() if line.startswith("$ ")]


def test_what_is_left_is_trained_and_compared(swept, tmp_path):
    code, printed, errors = swept("--only", "base", "--jobs", "2")
    assert (code, errors) == (0, "")
    assert "2 runs, 0 of them finished already" in printed
    assert "[2/2]" in printed
    out = tmp_path / "out"
    assert load_config(out / "base" / "seed1.toml").training.seed == 1
    (started,) = starts(out / "base" / "seed1.log")
    assert shlex.split(started[2:])[3:] == [str(out / "base" / "seed1.toml"), "--out", str(out / "base" / "seed1")]
    assert printed.splitlines()[-2:] == [
        "Best on validation by roc_auc: base, 0.9050 over 2 seeds",
        f"Next: cxr-jax evaluate {out / 'base' / 'seed0'}",
    ]
    table = (out / "sweep.md").read_text()
    assert "| base | 2 | 0.9050 ± 0.0071 | 0.5000 ± 0.0000 | 0.1 |" in table
    assert "2 of 6 runs" in table
    assert "0.9050 ± 0.0071" in printed
    assert json.loads((out / "sweep.json").read_text())["finished"] == 2
    # and nothing is trained twice
    code, printed, _ = swept("--only", "base")
    assert code == 0
    assert "2 runs, 2 of them finished already" in printed
    assert starts(out / "base" / "seed1.log") == [started]


def test_a_run_that_fails_is_told_at_the_end_and_the_others_go_on(swept, tmp_path):
    code, printed, errors = swept("--only", "fails", "base")
    log = tmp_path / "out" / "fails" / "seed1.log"
    assert code == 1
    assert "fails seed1 is not finished (exit code 1): the loss is nan at step 3, after" in printed
    assert errors.splitlines() == [
        f"fails seed1 failed: the loss is nan at step 3 (log: {log})",
        "cxr-jax: 1 of 4 runs failed, as told above; the same command tries them again",
    ]
    assert "3 of 6 runs" in (tmp_path / "out" / "sweep.md").read_text()
    code, printed, _ = swept("--only", "fails", "base")
    assert code == 1
    assert "4 runs, 3 of them finished already" in printed
    assert [line.endswith("--resume") for line in starts(log)] == [False, True]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, EXIT_INTERRUPTED), (signal.SIGTERM, EXIT_TERMINATED)])
def test_a_signal_stops_trainings_and_sweep_and_the_same_command_goes_on(swept, stand_in, tmp_path, sent, code):
    start = (
        "import sys; from cxr_jax.sweeps import training; from cxr_jax.cli import main\n"
        f"training.TRAIN = {stand_in!r}; sys.exit(main(sys.argv[1:]))"
    )
    out = tmp_path / "out"
    arguments = ["sweep", str(tmp_path / "s.toml"), "--out", str(out), "--jobs", "2", "--only", "slow", "base"]
    process = subprocess.Popen(
        [sys.executable, "-c", start, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        wait_for(lambda: all("waiting\n" in text(out / "slow" / f"seed{seed}.log") for seed in range(2)), process)
        process.send_signal(sent)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == code, errors
    again = shlex.join(["cxr-jax", *arguments])
    assert errors == (
        f"cxr-jax: stopped by {sent.name} with 2 of 4 runs finished; the others are saved as far as they had come, go "
        f"on with {again}\n"
    )
    for seed in range(2):
        assert read_metrics(out / "slow" / f"seed{seed}" / "metrics.jsonl")[-1]["reason"] == "stopped"
    assert swept("--jobs", "2", "--only", "slow", "base")[0] == 0
    assert starts(out / "slow" / "seed0.log")[1].endswith("--resume")


def text(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def wait_for(happened, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 240
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_list_is_one_command_line_a_run_that_is_left(swept, tmp_path):
    assert swept("--only", "base", "--seeds", "0")[0] == 0
    slow = tmp_path / "out" / "slow" / "seed1"
    slow.mkdir(parents=True)
    code, printed, errors = swept("--list")
    assert (code, errors) == (0, f"Reading {tmp_path / 's.toml'}\n")
    lines = [shlex.split(line) for line in printed.splitlines()]
    outs = [Path(line[line.index("--out") + 1]) for line in lines]
    assert [path.relative_to(tmp_path / "out").as_posix() for path in outs] == [
        "fails/seed0",
        "slow/seed0",
        "base/seed1",
        "fails/seed1",
        "slow/seed1",
    ]
    for line, out in zip(lines, outs, strict=True):
        config = load_config(line[3])
        assert (config.training.seed, out.is_absolute(), Path(line[3]).is_absolute()) == (int(out.name[4:]), True, True)
        assert not any(out.glob("*"))
    # a line does what it says, from any folder; what it leaves goes on with --resume
    subprocess.run(lines[2], check=True, cwd="/")
    assert subprocess.run(lines[3], cwd="/", capture_output=True).returncode == 1
    _, printed, _ = swept("--list", "--seeds", "1", "--only", "base", "fails")
    assert [line.split()[-1] for line in printed.splitlines()] == ["--resume"]


def test_a_table_can_be_had_at_any_time(swept, tmp_path):
    assert swept("--table") == (
        1,
        f"Reading {tmp_path / 's.toml'}\n",
        f"cxr-jax: there is no sweep in {tmp_path / 'out'}: leave --table out to begin one\n",
    )
    assert not (tmp_path / "out").exists()
    swept("--list")
    code, printed, _ = swept("--table")
    assert code == 0
    assert "0 of 6 runs of 3 variants stand behind this table." in printed
    assert f"Written: {tmp_path / 'out' / 'sweep.md'}" in printed


def test_a_changed_sweep_is_refused_before_anything_is_written(swept, tmp_path):
    assert swept("--only", "base")[0] == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    sweep_file = tmp_path / "s.toml"
    sweep_file.write_text(sweep_file.read_text() + "[base]\noptimizer.momentum = 0.5\n")
    for options in ((), ("--list",), ("--table",), ("--only", "slow")):
        code, printed, errors = swept(*options)
        assert (code, printed) == (1, "" if "--list" in options else f"Reading {sweep_file}\n")
        assert f"base of {sweep_file} has changed" in errors
        assert "optimizer.momentum = 0.9, and now it would be 0.5" in errors
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_a_point_of_the_grid_that_is_the_base_is_named(swept, tmp_path):
    sweep_file = tmp_path / "s.toml"
    sweep_file.write_text(sweep_file.read_text() + "[grid]\nmodel.dropout = [0.0, 0.5]\n")
    _, printed, errors = swept("--list", "--seeds", "0")
    assert errors == f"Reading {sweep_file}\ndropout=0.0 is the base itself, which is trained once\n"
    assert len(printed.splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "sentence", "code"),
    [
        ([], "name a sweep first", EXIT_USAGE),
        (["s.toml"], "say where the runs go: cxr-jax sweep s.toml --out FOLDER", EXIT_USAGE),
        (["s.toml", "--out", "o", "--jobs", "0"], "--jobs is 0, but must be 1 or more", EXIT_USAGE),
        (["s.toml", "--out", "o", "--list", "--table"], "choose one", EXIT_USAGE),
        (["s.toml", "--out", "o", "--seed", "1"], "did you mean --seeds", EXIT_USAGE),
        (["absent.toml", "--out", "o"], "there is no sweep absent.toml; did you mean s.toml?", 1),
        (["s.toml", "--out", "o", "--only", "slo"], "s.toml has no variant slo; it has base, fails, slow", 1),
        (["s.toml", "--out", "o", "--seeds", "7"], "s.toml has no seed 7; it has 0, 1", 1),
        (["s.toml", "--out", "s.toml"], "s.toml is a file", 1),
        (["s.toml", "--out", "."], "holds something else than a sweep", 1),
    ],
)
def test_a_mistake_is_one_sentence(swept, tmp_path, monkeypatch, capsys, arguments, sentence, code):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert command_line(["sweep", *arguments]) == code
    errors = capsys.readouterr().err
    assert sentence in errors
    assert errors.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("data.dataset = 'nowhere'", "nowhere"),
        ("model.name = 'nowhere'", "nowhere"),
        ("model.weights = 'nowhere.safetensors'", "nowhere"),
        ("schedule.warmup_iterations = 1000", "schedule.warmup_iterations is 1000, but the phase has only"),
        ("training.batch_size = 4096", "training.batch_size is 4096, but there are only"),
        ("training.accumulation_steps = 3", "which cannot be shared in 3 parts"),
        ("phases = [{trainable = ['nothing']}]", "phase 'train': no parameter is called nothing"),
        ("synthesis.generator = 'dcgan'\ndata.image_size = 64", "cxr-jax synthesize"),
    ],
)
def test_what_training_would_refuse_of_a_variant_is_told_before_anything_is_trained(swept, tmp_path, change, sentence):
    sweep_file = tmp_path / "s.toml"
    sweep_file.write_text(sweep_file.read_text() + f"[variants.other]\n{change}\n")
    code, _, errors = swept()
    assert code == 1
    assert re.match(rf"cxr-jax: variant other: .*{re.escape(sentence)}.*\n$", errors)
    assert not list((tmp_path / "out").rglob("*.log"))


def test_a_variant_is_checked_with_the_network_that_it_has(swept, tmp_path):
    sweep_file = tmp_path / "s.toml"
    phase = "phases = [{trainable = ['transition', 'classifier']}]"
    sweep_file.write_text(sweep_file.read_text() + f"[variants.other]\nmodel.transition = 8\n{phase}\n")
    code, _, errors = swept("--only", "base", "other", "--seeds", "0")
    assert (code, errors) == (0, "")
    assert (tmp_path / "out" / "other" / "seed0" / "metrics.jsonl").is_file()


def test_what_finished_runs_needed_may_be_gone(swept, tmp_path, monkeypatch):
    assert swept("--only", "base")[0] == 0
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path / "elsewhere"))
    assert swept("--only", "base")[0] == 0
    assert swept("--only", "base", "slow")[0] == 1


def test_two_sweeps_do_not_work_in_one_folder(swept, tmp_path):
    assert swept("--list")[0] == 0
    with held(tmp_path / "out", "busy"):
        code, _, errors = swept()
        assert (code, "another process is training in" in errors) == (1, True)
        # which hinders nobody from looking
        assert swept("--table")[0] == 0


def test_a_run_that_is_damaged_is_told_in_the_table(swept, tmp_path):
    assert swept("--only", "base", "--seeds", "0")[0] == 0
    metrics = tmp_path / "out" / "base" / "seed0" / "metrics.jsonl"
    metrics.write_text("{\n" + metrics.read_text())
    assert "line 1: not a line of training metrics" in swept("--table")[2]


@pytest.mark.slow
def test_real_trainings_stop_go_on_and_are_compared(
    prepared_phantoms, config_file, attempted_connections, tmp_path, capsys
):
    (tmp_path / "s.toml").write_text(
        f'config = "{config_file}"\nseeds = [3]\n[base]\ntraining.epochs = 12\n'
        "[variants.still]\naugmentation.horizontal_flip = 0.0\ntraining.epochs = 1\n"
    )
    out = tmp_path / "out"
    command = [sys.executable, "-m", "cxr_jax", "sweep", str(tmp_path / "s.toml"), "--out", str(out)]
    environment = os.environ | {"CXR_JAX_ALLOCATOR": "off", "JAX_PLATFORMS": "cpu"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: text(out / "base" / "seed3" / "metrics.jsonl").count("\n") > 3, process)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == EXIT_TERMINATED, errors
    assert "0 of 2 runs finished" in errors
    assert read_metrics(out / "base" / "seed3" / "metrics.jsonl")[-1]["reason"] == "terminated"
    assert not (out / "still" / "seed3").exists()

    assert command_line(["sweep", str(tmp_path / "s.toml"), "--out", str(out), "--jobs", "2"]) == 0
    assert "2 runs, 0 of them finished already\nbase seed3 goes on;" in capsys.readouterr().out
    lines = read_metrics(out / "base" / "seed3" / "metrics.jsonl")
    assert lines[-1]["reason"] == "finished"
    best = [line for line in lines if line["kind"] == "validation" and line["best"]][-1]
    summary = json.loads((out / "sweep.json").read_text())
    base, still = sorted(summary["variants"], key=lambda variant: variant["name"])
    assert base["runs"]["3"]["step"] == best["step"]
    assert {name: figure["mean"] for name, figure in base["figures"].items()} == {
        name: best[name] for name in ("loss", "accuracy", "roc_auc")
    }
    assert still["changes"] == {"augmentation.horizontal_flip": 0.0, "training.epochs": 1}
    assert not list(out.rglob("test.csv")) and not list(out.rglob("ledger.jsonl"))
    assert not attempted_connections()
