import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cxr_jax.commands import bench
from cxr_jax.commands.bench import Options, effort_of, plan_of
from cxr_jax.config.command_line import parse
from cxr_jax.errors import EXIT_USAGE, UserError

ROOT = Path(__file__).parents[2]


def test_lists_are_taken_apart():
    lists = {"models": "mobilenetv2_tiny, mobilenetv2_100", "sizes": "32,64", "batches": "1,2", "threads": "1"}
    plan = plan_of(Options(**lists))
    assert plan.models == ("mobilenetv2_tiny", "mobilenetv2_100")
    assert (plan.image_sizes, plan.batch_sizes, plan.threads) == ((32, 64), (1, 2), (1,))
    assert (plan.works, plan.plain, plan.against_timm) == (("train", "inference"), False, False)
    assert plan_of(Options(work="train")).works == ("train",)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"models": "mobilenetv2_tini"}, "did you mean mobilenetv2_tiny"),
        ({"models": "mobilenetv2_tiny,,"}, "--models is .* must be names with commas"),
        ({"sizes": "8"}, "--sizes is '8', but must be whole numbers from 16 to 2048"),
        ({"batches": "0"}, "--batches is '0'"),
        ({"batches": "1.5"}, "--batches is '1.5'"),
        ({"batches": "²"}, "--batches is '²'"),
        ({"threads": "99999"}, "--threads is '99999', but must be whole numbers from 1 to "),
        ({"backends": "jit,tpu"}, "--backends holds tpu; choose among jit and pmap"),
        ({"precisions": "float16"}, "--precisions holds float16; choose among float32 and bfloat16"),
        ({"devices": -1}, "--devices is -1, but must be a number from 0 up"),
        ({"compile": True}, "add --against timm"),
        ({"preload": "x.so"}, "add --against timm"),
        ({"preload": "missing.so", "against": "timm"}, r"there is no file missing\.so to preload"),
        ({"weights": "w.safetensors"}, "--weights needs --work startup"),
        ({"work": "epoch", "plain": True}, "--plain needs --work train, inference or both"),
        ({"work": "epoch", "against": "timm"}, "--against needs --work train"),
        ({"work": "startup", "trace": "folder"}, "--trace needs --work train"),
        ({"work": "epoch", "dataset": "missing"}, "no prepared data called 'missing'"),
        ({"work": "epoch", "steps": -1}, "--steps is -1"),
        ({"work": "startup", "precisions": "bfloat16"}, "--precisions has no effect with --work startup; leave it out"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(changes, sentence, prepared_phantoms):
    with pytest.raises(UserError, match=sentence):
        plan_of(Options(**{"dataset": "phantoms"} | changes))


def test_weights_of_a_start_must_be_there(prepared_phantoms, monkeypatch):
    monkeypatch.delenv("CXR_WEIGHTS_DIR", raising=False)
    with pytest.raises(UserError, match="there is no weights file"):
        plan_of(Options(work="startup", dataset="phantoms", weights="missing.safetensors"))


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"rounds": 0}, "rounds"),
        ({"steps": -1}, "steps"),
        ({"seconds": -0.1}, "seconds"),
        ({"seconds": 1e999}, "seconds"),
        ({"limit": -1.0}, "limit"),
    ],
)
def test_effort_has_bounds(changes, name):
    with pytest.raises(UserError, match=f"--{name} is ") as mistake:
        effort_of(Options(**changes))
    assert mistake.value.code == EXIT_USAGE


def test_a_turn_has_three_steps_and_two_minutes_unless_it_is_told_otherwise():
    assert (effort_of(Options()).steps, effort_of(Options(steps=5)).steps) == (3, 5)
    limits = (Options(), Options(limit=7), Options(work="epoch"), Options(work="epoch", limit=7))
    assert [effort_of(options).limit for options in limits] == [120, 7, 0, 7]


def test_results_of_others_are_kept(tmp_path):
    taken = tmp_path / "taken.json"
    taken.write_text("theirs")
    with pytest.raises(UserError, match=r"taken\.json exists already"):
        bench.main(["--json", str(taken)])
    with pytest.raises(UserError, match=r"taken\.json cannot be written"):
        bench.main(["--json", str(taken / "below" / "file.json")])
    assert taken.read_text() == "theirs"


def test_tiny_networks_end_to_end(tmp_path, capsys):
    """Real children take turns; a batch that two devices cannot share fails, and stops nothing."""
    file = tmp_path / "results" / "bench.json"
    arguments = ["--models", "mobilenetv2_tiny", "--sizes", "32", "--batches", "2,3", "--work", "inference", "--plain"]
    effort = ["--threads", "1", "--rounds", "2", "--steps", "2", "--seconds", "0", "--limit", "500", "--devices", "2"]
    with pytest.raises(UserError, match=r"^1 measurements failed, first mobilenetv2_tiny, 32 px, batch 3, inference, "):
        bench.main([*arguments, *effort, "--json", str(file)])
    record = json.loads(file.read_text())
    ours, plain, failed = record["measurements"]
    assert (ours["case"]["implementation"], plain["case"]["implementation"]) == ("cxr_jax", "plain")
    assert len(ours["seconds"]) == len(plain["seconds"]) == 4
    product = record["ceilings"][0]["matmul_float32_flops"]
    assert ours["share_of_matmul"] == pytest.approx(ours["flops_per_second"] / product)
    assert (ours["facts"]["cores"], ours["facts"]["devices"]) == (1, 2)
    assert "cannot be shared evenly among 2 devices" in failed["error"]
    (ratio,) = record["ratios"]
    assert len(ratio["of_rounds"]) == 2
    printed = capsys.readouterr().out
    begun = "Measuring inference of mobilenetv2_tiny, in processes of their own"
    assert printed.splitlines()[:2] == [begun, "measuring the machine on 1 of its cores"]
    assert printed.count("round 2 of 2: ") == 1
    assert f"{ratio['times_as_fast']:.2f} x" in printed
    assert printed.splitlines()[-1] == f"written to {file}"


def measure_accelerator(tmp_path, *options, **environment):
    """Run the script with a stand-in for Python; returns the process and the calls of `cxr-jax`."""
    calls = tmp_path / "calls"
    calls.touch()
    stand_in = tmp_path / "python"
    stand_in.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit 0\nshift 2\necho "$@" >>{calls}\nexit ${{CODE:-0}}\n')
    stand_in.chmod(0o755)
    chosen = {**os.environ, "PYTHON": str(stand_in), "OUT": str(tmp_path / "out"), "CXR_DATA_DIR": "", **environment}
    done = subprocess.run(
        [ROOT / "scripts" / "measure_accelerator", *options], env=chosen, capture_output=True, text=True
    )
    return done, [shlex.split(line) for line in calls.read_text().splitlines()]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
@pytest.mark.parametrize("options", [[], ["--quick"]])
def test_an_accelerator_is_measured_by_calls_that_the_command_understands(
    tmp_path, options, prepared_phantoms, monkeypatch
):
    """Each call has a record of its own, and a limit for its turns where rivals run."""
    monkeypatch.setattr("cxr_jax.bench.rivals.require_timm", lambda: None)
    done, calls = measure_accelerator(tmp_path, *options)
    assert done.returncode == 0, done.stderr
    records = []
    for command, *arguments in calls:
        assert command == "bench"
        if "epoch" in arguments or "startup" in arguments:
            arguments += ["--dataset", "phantoms"]
        given = parse(Options, arguments, prog="cxr-jax bench", description="")
        assert next(iter(plan_of(given).contests()))
        assert effort_of(given).limit > 0
        records.append(given.json)
    assert len(records) == len(set(records)) == (1 if options else 7)
    assert {Path(record).parent for record in records} == {tmp_path / "out"}
    assert done.stdout.splitlines()[-1] == f"{len(records)} records in {tmp_path / 'out'}"


@pytest.mark.skipif(sys.platform == "win32", reason="needs a shell")
def test_a_call_that_fails_or_finds_no_time_leaves_the_others(tmp_path):
    done, calls = measure_accelerator(tmp_path, CODE="1")
    assert (done.returncode, len(calls)) == (1, 7)
    assert "== epoch did not come to its end" in done.stdout
    (tmp_path / "calls").unlink()
    done, calls = measure_accelerator(tmp_path, SECONDS_IN_ALL="0")
    assert (done.returncode, calls) == (1, [])
    assert done.stdout.count("no time is left") == 7
    assert measure_accelerator(tmp_path, "--fast")[0].returncode == 2
