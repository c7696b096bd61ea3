import dataclasses
import itertools
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from cxr_jax.bench.cases import Case
from cxr_jax.commands import bench
from cxr_jax.commands.bench import Options, contests_of, limit_of
from cxr_jax.config.command_line import parse
from cxr_jax.errors import EXIT_USAGE, UserError

ROOT = Path(__file__).parents[2]


def test_lists_are_taken_apart():
    lists = {"models": "mobilenetv2_tiny, mobilenetv2_100", "sizes": "32,64", "batches": "1,2", "threads": "1"}
    contests = contests_of(Options(**lists))
    described = [(c.case.model, c.case.image_size, c.case.batch_size, c.case.work, c.case.threads) for c in contests]
    models, works = ("mobilenetv2_tiny", "mobilenetv2_100"), ("train", "inference")
    assert described == list(itertools.product(models, (32, 64), (1, 2), works, (1,)))
    assert all(contest.opponents == () for contest in contests)
    assert {contest.case.implementation for contest in contests} == {"cxr_jax"}
    assert [contest.case.work for contest in contests_of(Options(work="train"))] == ["train"]


def entries_of(**changes):
    """Our case and its opponents, of each contest that the options ask for."""
    chosen = {"models": "mobilenetv2_tiny", "sizes": "32", "batches": "2", "threads": "1"} | changes
    return [(contest.case, *contest.opponents) for contest in contests_of(Options(**chosen))]


@pytest.fixture
def timm_is_there(monkeypatch, tmp_path_factory):
    """Whoever plans what to measure asks whether they are installed, and imports none of them."""
    packages = tmp_path_factory.mktemp("packages")
    for name in ("torch", "timm", "zentorch"):
        (packages / f"{name}.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(packages)


def test_opponents_do_the_same_work_on_the_same_cores(timm_is_there):
    for entries in entries_of(sizes="32,64", plain=True, against="timm", backends="jit,pmap", devices=2):
        assert {(entry.task, entry.threads) for entry in entries} == {(entries[0].task, 1)}
        assert {entry.devices for entry in entries if entry.implementation != "timm"} == {2}


def test_pmap_takes_turns_with_jit_in_training_only():
    backends = {entries[0].work: [entry.backend for entry in entries] for entries in entries_of(backends="pmap,jit")}
    assert backends == {"train": ["pmap", "jit"], "inference": ["jit"]}


def test_precisions_take_turns():
    for entries in entries_of(precisions="float32,bfloat16", plain=True):
        ours = [entry.precision for entry in entries if entry.implementation == "cxr_jax"]
        assert ours == ["float32", "bfloat16"]


@pytest.mark.parametrize(("work", "count"), [("epoch", 8), ("startup", 2)])
def test_whole_works_have_no_opponents(work, count, prepared_phantoms):
    """A start knows neither backend nor precision; an epoch has a case for each."""
    both = {"backends": "jit,pmap", "precisions": "float32,bfloat16"} if work == "epoch" else {}
    contests = entries_of(work=work, batches="2,4", dataset="phantoms", **both)
    assert len(set(contests)) == len(contests) == count
    assert all(len(entries) == 1 and entries[0].dataset == "phantoms" for entries in contests)
    in_a_folder = dataclasses.replace(contests[0][0], dataset="/home/few")
    assert "/home" not in in_a_folder.task
    assert "few" in in_a_folder.task


def test_plain_differs_in_the_convolutions_alone():
    for case, plain in entries_of(plain=True, backends="pmap"):
        assert plain == dataclasses.replace(case, implementation="plain")


@pytest.mark.parametrize("contiguous", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("preloaded", [False, True])
def test_modes_of_pytorch(contiguous, compiled, preloaded, timm_is_there, tmp_path):
    library = tmp_path / "libtcmalloc.so.4"
    library.touch()
    options = {"contiguous": contiguous, "compile": compiled, "preload": str(library) if preloaded else ""}
    for _, *opponents in entries_of(against="timm", **options):
        ways = {opponent.way for opponent in opponents}
        assert len(opponents) == len(ways) == 2 * (1 + contiguous) * (1 + compiled) * (1 + preloaded)
        assert {opponent.precision for opponent in opponents} == {"float32", "bfloat16"}
        assert ("timm, channels_last, eager, bfloat16, libtcmalloc" in ways) == preloaded
        assert ("timm, channels_last, compile, float32" in ways) == compiled
        assert ("timm, contiguous, eager, float32" in ways) == contiguous


def test_pytorch_is_held_to_the_precisions_asked_for(timm_is_there):
    for _, *opponents in entries_of(against="timm", compile=True, rival_precisions="bfloat16"):
        assert [(opponent.backend, opponent.precision) for opponent in opponents] == [
            ("eager", "bfloat16"),
            ("compile", "bfloat16"),
        ]


def test_zentorch_takes_turns_in_inference_alone(timm_is_there):
    for case, *opponents in entries_of(against="zentorch"):
        ways = [opponent.way for opponent in opponents]
        assert ways == [
            f"zentorch, channels_last, compile, {precision}"
            for precision in ("float32", "bfloat16")
            if case.work == "inference"
        ]


def test_runtimes_take_turns_in_inference_alone():
    for case, *opponents in entries_of(against="onnxruntime,openvino"):
        ways = [opponent.way for opponent in opponents]
        assert ways == [
            way
            for way in ("onnxruntime, onnx, float32", "OpenVINO, onnx, float32", "OpenVINO, onnx, bfloat16")
            if case.work == "inference"
        ]


def test_a_case_says_what_it_computes_and_how():
    case = Case("mobilenetv2_100", 224, 32, "train", threads=2, implementation="plain", backend="pmap")
    assert case.task == "mobilenetv2_100, 224 px, batch 32, train"
    assert case.way == "cxr_jax, plain convolutions, pmap, float32"
    assert case.name == f"{case.task}, {case.way}"


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
        ({"contiguous": True}, "add --against timm"),
        ({"preload": "x.so"}, "add --against timm"),
        ({"preload": "missing.so", "against": "timm"}, r"there is no file missing\.so to preload"),
        ({"against": "torch"}, "--against holds torch; choose among timm, zentorch, onnxruntime and openvino"),
        ({"against": "onnxruntime", "compile": True}, "add --against timm"),
        ({"against": "onnxruntime,openvino", "work": "train"}, "onnxruntime and openvino cannot train"),
        ({"weights": "w.safetensors"}, "--weights needs --work startup"),
        ({"work": "epoch", "plain": True}, "--plain needs --work train, inference or both"),
        ({"work": "epoch", "against": "timm"}, "--against needs --work train"),
        ({"work": "startup", "compile": True}, "--compile needs --work train"),
        ({"work": "epoch", "steps": 5}, "--steps needs --work train"),
        ({"work": "startup", "seconds": 2.0}, "--seconds needs --work train"),
        ({"work": "epoch", "clock": "cpu", "threads": "1"}, "--clock needs --work train"),
        ({"clock": "cpu"}, "--clock cpu needs --threads 1"),
        ({"table": "t.json", "work": "train"}, "--table needs --work train --precisions bfloat16,float32"),
        ({"table": "t.json", "precisions": "bfloat16,float32"}, "--table needs --work train"),
        (
            {"table": "t.json", "work": "train", "precisions": "bfloat16,float32", "backends": "jit,pmap"},
            "--table compares two precisions: name one of --backends",
        ),
        ({"work": "epoch", "dataset": "missing"}, "no prepared data called 'missing'"),
        ({"work": "epoch", "steps": -1}, "--steps is -1"),
        ({"work": "startup", "precisions": "bfloat16"}, "--precisions has no effect with --work startup; leave it out"),
    ],
)
def test_mistakes_are_told_before_anything_is_measured(changes, sentence, prepared_phantoms):
    with pytest.raises(UserError, match=sentence):
        contests_of(Options(**{"dataset": "phantoms"} | changes))


def test_weights_of_a_start_must_be_there(prepared_phantoms, monkeypatch):
    monkeypatch.delenv("CXR_WEIGHTS_DIR", raising=False)
    with pytest.raises(UserError, match="there is no weights file"):
        contests_of(Options(work="startup", dataset="phantoms", weights="missing.safetensors"))


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
        contests_of(Options(**changes))
    assert mistake.value.code == EXIT_USAGE


def test_a_turn_has_three_steps_and_two_minutes_unless_it_is_told_otherwise():
    assert (Options().steps, parse(Options, ["--steps", "5"], prog="", description="").steps) == (3, 5)
    limits = (Options(), Options(limit=7), Options(work="epoch"), Options(work="epoch", limit=7))
    assert [limit_of(options) for options in limits] == [120, 7, 0, 7]


def test_results_of_others_are_kept(tmp_path):
    taken = tmp_path / "taken.json"
    taken.write_text("theirs")
    with pytest.raises(UserError, match=r"taken\.json exists already"):
        bench.main(["--json", str(taken)])
    with pytest.raises(UserError, match=r"taken\.json cannot be written"):
        bench.main(["--json", str(taken / "below" / "file.json")])
    assert taken.read_text() == "theirs"


@pytest.mark.slow
def test_tiny_networks_end_to_end(attempted_connections, tmp_path, capsys):
    """Real children take turns and reach for no network; a batch that two devices cannot share stops nothing."""
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
    assert not attempted_connections()


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
    tmp_path, options, prepared_phantoms, timm_is_there
):
    """Each call has a record of its own, and a limit for its turns where rivals run."""
    done, calls = measure_accelerator(tmp_path, *options)
    assert done.returncode == 0, done.stderr
    records = []
    for command, *arguments in calls:
        assert command == "bench"
        if "epoch" in arguments or "startup" in arguments:
            arguments += ["--dataset", "phantoms"]
        given = parse(Options, arguments, prog="cxr-jax bench", description="")
        assert contests_of(given)
        assert limit_of(given) > 0
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
