import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cxr_jax.bench import accelerator
from cxr_jax.bench.accelerator import OutOfTimeError, free_path, main, time_limit
from cxr_jax.bench.accelerator_sizes import FULL, QUICK
from cxr_jax.bench.measure import Measurement, Outcome, Ratio
from cxr_jax.errors import UserError
from cxr_jax.models.registry import find_architecture

ROOT = Path(__file__).parents[2]
CEILINGS = {"matmul_float32_flops": 1e12, "matmul_bfloat16_flops": 2e12, "copy_bytes": 1e10}
DEVICE = {"platform": "gpu", "device": "NVIDIA H100 80GB HBM3", "devices": 1, "jax": "0", "pytorch": True}
ROW = {
    "layer": "l",
    "count": 1,
    "lowering": "grouped",
    "floor_seconds": 1.0,
    "seconds": {"forward": 1.0, "input_gradient": 2.0, "weight_gradient": 9.0},
}


def contest_of(contest, effort, tell):
    """Every opponent half as fast as ours."""
    facts = {"flops": 1e11, "bytes_accessed": 1e8}
    measured = [Measurement(contest.case, facts, [0.1], 5), *(Measurement(o, {}, [0.2], 5) for o in contest.opponents)]
    return Outcome(measured, [Ratio(contest.case, opponent, (2.0,), None) for opponent in contest.opponents])


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Measure with stand-ins for all that computes; returns the exit code and the record."""
    monkeypatch.setattr(accelerator, "ask_ceilings", lambda cores: CEILINGS)
    monkeypatch.setattr(accelerator, "ask_depthwise", lambda case, copy: iter([ROW]))
    monkeypatch.setattr(accelerator, "ask_epoch", lambda case: {"ratio": 1.02})
    monkeypatch.setattr(accelerator, "run_contest", contest_of)
    monkeypatch.setattr(accelerator, "run", lambda command: subprocess.CompletedProcess(command, 0, json.dumps(DEVICE)))
    monkeypatch.setattr(accelerator.Measuring, "training", lambda self, entry: entry.update(steps=7))

    def measure(*arguments):
        out = tmp_path / "record.json"
        out.unlink(missing_ok=True)
        code = main(ROOT, ["--out", str(out), *arguments])
        return code, json.loads(out.read_text())

    return measure


def test_every_part_is_measured_and_named(run, capsys):
    code, record = run()
    assert code == 0
    assert list(record["parts"]) == list(accelerator.LIMITS)
    assert {entry["state"] for entry in record["parts"].values()} == {"done"}
    assert record["environment"]["devices"] == ["gpu NVIDIA H100 80GB HBM3"]
    assert record["parts"]["depthwise"]["cases"][0]["totals"]["grouped"]["seconds"]["weight_gradient"] == 9.0
    backends = [entry["case"]["backend"] for entry in record["parts"]["parallel"]["measurements"]]
    assert backends == ["jit", "pmap"]
    contests = record["parts"]["steps"]["contests"]
    assert len(contests) == len(FULL.steps)
    first = contests[0]["measurements"]
    assert [(entry["case"]["implementation"], entry["case"]["backend"]) for entry in first] == [
        ("cxr_jax", "jit"),
        ("timm", "compile"),
        ("timm", "eager"),
    ]
    assert {entry["case"]["precision"] for entry in first} == {"bfloat16"}
    # 1e11 operations in 0.1 s, of the 2e12 a second of the product from bfloat16
    assert first[0]["share_of_matmul"] == pytest.approx(0.5)
    assert "2.00 times as fast as timm, channels_last, compile, bfloat16" in capsys.readouterr().out


def test_a_part_that_fails_or_takes_too_long_does_not_stop_the_rest(run, monkeypatch):
    def slow(case, copy):
        yield ROW
        time.sleep(30)

    def fail(case):
        raise UserError("no data")

    monkeypatch.setattr(accelerator, "ask_depthwise", slow)
    monkeypatch.setattr(accelerator, "ask_epoch", fail)
    monkeypatch.setitem(accelerator.LIMITS, "depthwise", 0.3)
    began = time.monotonic()
    code, record = run()
    assert time.monotonic() - began < 20
    assert code == 0
    depthwise, epoch = record["parts"]["depthwise"], record["parts"]["epoch"]
    assert depthwise["state"] == "out of time"
    # what was measured until then is kept
    assert depthwise["cases"][0]["rows"] == [ROW]
    assert (epoch["state"], epoch["reason"]) == ("failed", "UserError: no data")
    assert record["parts"]["steps"]["state"] == "done"


def test_contests_have_limits_of_their_own_and_can_be_gone_on_with(run, monkeypatch):
    def slow(contest, effort, tell):
        if contest.case.batch_size == 1024:
            time.sleep(30)
        return contest_of(contest, effort, tell)

    monkeypatch.setattr(accelerator, "run_contest", slow)
    monkeypatch.setattr(accelerator, "CONTEST_LIMIT", 0.3)
    _, record = run("--parts", "steps", "--skip", "5")
    assert list(record["parts"]) == ["machine", "ceilings", "steps"]
    contests = record["parts"]["steps"]["contests"]
    assert [contest["number"] for contest in contests] == list(range(5, len(FULL.steps)))
    states = {contest["task"]: contest["state"] for contest in contests}
    assert states["mobilenetv2_100, 224 px, batch 1024, train"] == "out of time"
    assert list(states.values()).count("done") == len(states) - 1


def test_all_ends_in_time(run, monkeypatch):
    def sleep(contest, effort, tell):
        time.sleep(30)

    monkeypatch.setattr(accelerator, "run_contest", sleep)
    began = time.monotonic()
    code, record = run("--parts", "steps", "--seconds", "1")
    assert time.monotonic() - began < 10
    assert code == 1
    assert record["parts"]["steps"]["state"] == "out of time"


def test_pytorch_is_left_out_where_it_sees_no_gpu(run, monkeypatch):
    cpu = json.dumps({**DEVICE, "pytorch": False})
    monkeypatch.setattr(accelerator, "run", lambda command: subprocess.CompletedProcess(command, 0, f"noise\n{cpu}"))
    _, record = run("--quick", "--parts", "steps")
    assert record["quick"]
    assert [len(entry["measurements"]) for entry in record["parts"]["steps"]["contests"]] == [1] * len(QUICK.steps)


def test_a_failed_measurement_is_a_failed_contest(run, monkeypatch):
    monkeypatch.setattr(
        accelerator, "run_contest", lambda contest, *_: Outcome([Measurement(contest.case, error="no memory")], [])
    )
    _, record = run("--parts", "parallel")
    assert record["parts"]["parallel"]["state"] == "failed"
    assert record["parts"]["parallel"]["reason"] == "no memory"


def test_an_outer_limit_survives_an_inner_one():
    with pytest.raises(OutOfTimeError), time_limit(0.3):
        with pytest.raises(OutOfTimeError), time_limit(0.1):
            time.sleep(5)
        with time_limit(5):
            pass
        time.sleep(5)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0
    with pytest.raises(OutOfTimeError), time_limit(0):
        pass


def test_records_are_named_by_the_device_and_none_is_overwritten(tmp_path):
    folder = tmp_path / "results" / "bench"
    assert free_path(tmp_path, "NVIDIA H100 80GB", quick=False) == folder / "accelerator_nvidia_h100_80gb.json"
    folder.mkdir(parents=True)
    (folder / "accelerator_cpu_quick.json").touch()
    assert free_path(tmp_path, "cpu", quick=True).name == "accelerator_cpu_quick_2.json"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--parts", "steps,none"], "--parts holds none; choose among"),
        (["--out", __file__], "exists already"),
        (["--skip", "-1"], "--skip is -1, but must be 0 or more"),
        (["--seconds", "0"], "--seconds is 0, but must be a number above 0"),
        (["--seconds", "nan"], "--seconds is nan, but must be a number above 0"),
    ],
)
def test_mistakes_are_told(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        main(ROOT, arguments)
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err


def test_without_a_device_nothing_is_written(monkeypatch, capsys):
    def fail(command):
        raise UserError("jax is not installed")

    monkeypatch.setattr(accelerator, "run", fail)
    monkeypatch.setattr(accelerator, "ask_ceilings", lambda cores: fail(()))
    assert main(ROOT, ["--parts", "ceilings"]) == 1
    printed = capsys.readouterr().out
    assert "failed after 0 s UserError: jax is not installed" in printed
    assert printed.endswith("nothing is known of the device, and nothing written\n")


def test_the_networks_and_the_config_exist():
    names = {name for sizes in (FULL, QUICK) for name, *_ in (*sizes.steps, *sizes.depthwise, sizes.trained)}
    assert {find_architecture(name) is not None for name in names} == {True}
    assert (ROOT / accelerator.CONFIG).is_file()


def test_a_whole_training_on_prepared_data(few_phantoms, monkeypatch, tmp_path):
    """The real command in a process of its own, with all that the quick sizes override."""
    for name in [name for name in os.environ if name.startswith("COV_")]:
        monkeypatch.delenv(name)
    options = accelerator.parse(["--quick", "--dataset", str(few_phantoms), "--out", str(tmp_path / "x.json")])
    measuring, entry = accelerator.Measuring(ROOT, QUICK, options), {}
    measuring.training(entry)
    assert entry["steps"] >= 2
    assert entry["command_seconds"] > entry["training_seconds"] > 0
    assert entry["images_per_second"] > 0
    assert entry["validations"][-1]["kind"] == "validation"


def test_no_data_is_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("CXR_DATA_DIR", str(tmp_path))
    options = accelerator.parse(["--dataset", "missing"])
    with pytest.raises(UserError, match="nothing is prepared as missing, and CXR_DATA_DIR holds no chest_xray"):
        accelerator.Measuring(ROOT, QUICK, options).prepare_data({})


def test_a_command_that_fails_is_told_with_its_last_line():
    with pytest.raises(UserError, match="ended with code 3: the reason"):
        accelerator.run([sys.executable, "-c", "import sys; print('the reason', file=sys.stderr); sys.exit(3)"])


def test_the_script_runs_from_anywhere_with_nothing_installed(tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    script = ROOT / "scripts" / "measure_accelerator"
    assert os.access(script, os.X_OK)
    done = subprocess.run(
        [sys.executable, str(script), "--help"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "--quick" in done.stdout
