import json

import pytest
from rich.console import Console

from cxr_jax.bench import works
from cxr_jax.bench.cases import EpochCase
from cxr_jax.bench.record import describe_works
from cxr_jax.bench.work_tables import DIRECTIONS, render_works, totals
from cxr_jax.bench.works import WorkPlan, measure_works
from cxr_jax.errors import UserError

LISTS = {"models": ("a", "b"), "image_sizes": (32,), "batch_sizes": (2, 4), "threads": (1, 2)}
CEILINGS = {threads: {"matmul_float32_flops": 1.0, "copy_bytes": 10.0 * threads} for threads in (1, 2)}

EPOCH = {
    "platform": "cpu",
    "device": "cpu",
    "devices": 1,
    "images": 80,
    "steps": 10,
    "epoch_seconds": 21.0,
    "steps_seconds": 20.5,
    "finish_seconds": 0.25,
    "validation_seconds": 3.0,
    "pure_seconds": 20.0,
    "ratio": 1.05,
    "ratio_of_steps": 1.025,
    "images_per_second": 38.0,
    "peak_memory_bytes": 2**30,
}
START = {
    kind: {
        "seconds": seconds,
        "phases": {"imports": 1.0, "rest": seconds - 1},
        "rounds": [{"compilation": {"programs": 117, "found": found}}],
    }
    for kind, seconds, found in (("cold", 14.5, 0), ("cached", 5.25, 113))
}


def row(lowering, count, floor, **changes):
    seconds = dict(zip(DIRECTIONS, (2 * floor, 3 * floor, 4 * floor), strict=True))
    return {
        "layer": "8 x 8 x 5, stride 1", "count": count, "lowering": lowering, "floor_seconds": floor, "seconds": seconds
    } | changes  # fmt: skip


def test_every_combination_is_a_case_once():
    startups = list(WorkPlan("startup", **LISTS, weights="w", dataset="d").cases())
    assert len(set(startups)) == 8
    assert {(case.dataset, case.weights) for case in startups} == {("d", "w")}
    epochs = list(WorkPlan("epoch", **LISTS, backends=("jit", "pmap"), devices=2, steps=3).cases())
    assert len(set(epochs)) == 16
    assert {(case.steps, case.devices) for case in epochs} == {(3, 2)}
    assert {case.backend for case in epochs} == {"jit", "pmap"}
    precisions = ("float32", "bfloat16")
    assert len(set(WorkPlan("depthwise", **LISTS, precisions=precisions).cases())) == 16


def test_each_work_is_asked_of_its_own_child_and_a_failure_leaves_the_others(monkeypatch):
    def fail_at_four(case):
        if case.batch_size == 4:
            raise UserError("out of memory")
        return EPOCH

    monkeypatch.setattr(works, "ask_epoch", fail_at_four)
    lists = {**LISTS, "models": ("a",), "threads": (2,)}
    told = []
    first, second = measure_works(WorkPlan("epoch", **lists), {}, told.append)
    assert first["ratio"] == 1.05
    assert second["error"] == "out of memory"
    assert "ratio" not in second
    assert len(told) == 2
    monkeypatch.setattr(works, "ask_depthwise", lambda case, copy: iter([(case.threads, copy)]))
    assert measure_works(WorkPlan("depthwise", **lists), CEILINGS, told.append)[0]["rows"] == [(2, 20.0)]
    monkeypatch.setattr(works, "measure_startup", lambda case, rounds, tell: {"rounds": rounds})
    assert measure_works(WorkPlan("startup", **lists, rounds=7), {}, told.append)[0]["rounds"] == 7


def test_the_network_has_each_layer_as_often_as_it_says():
    rows = [row("grouped", 2, 1.0), row("grouped", 3, 10.0), row("shifted", 2, 1.0), row("shifted", 3, 0, error="no")]
    assert totals(rows) == {
        "grouped": {
            "floor_seconds": 32.0,
            "seconds": {"forward": 64.0, "input_gradient": 96.0, "weight_gradient": 128.0},
        }
    }


@pytest.fixture
def results():
    shared = {"model": "net", "image_size": 32, "batch_size": 8, "threads": 2}
    epoch = EpochCase(**shared, dataset="/home/somebody/prepared/few")
    case = {**shared, "dataset": epoch.dataset, "weights": "/home/somebody/w.safetensors"}
    rows = [row("grouped", 2, 1e-3), row("shifted", 2, 1e-3, error="out of memory")]
    return [
        {"work": "epoch", "task": epoch.task, "case": case, **EPOCH},
        {"work": "startup", "task": "a start", "case": case, **START},
        {"work": "depthwise", "task": "all layers", "case": case, "rows": rows},
        {"work": "epoch", "task": "another epoch", "case": case, "error": "no data"},
    ]


def test_record_is_json_without_anybodys_folders(results):
    plan = WorkPlan("epoch", **LISTS, dataset="/home/somebody/prepared/few")
    record = json.loads(json.dumps(describe_works(plan, results, CEILINGS), allow_nan=False))
    assert "/home" not in json.dumps({name: record[name] for name in ("plan", "results")})
    assert record["results"][0]["case"]["dataset"] == "few"
    assert record["results"][0]["ratio"] == 1.05
    assert record["results"][3]["error"] == "no data"
    assert record["ceilings"] == [{"threads": threads, **CEILINGS[threads]} for threads in (1, 2)]
    assert record["environment"]["devices"] == ["cpu cpu"]


def test_tables_show_ratio_phases_floors_and_failures(results):
    console = Console(width=400)
    with console.capture() as capture:
        console.print(render_works(results, {"processor": "Some CPU", "cores": 2}))
    text = capture.get()
    assert text.startswith("Some CPU, 2 cores")
    for expected in (
        "1.050 x",
        "1.025 x",
        "14.50 s",
        "5.25 s",
        "117, 113 found",
        "2.000 (2.0 x)",
        "8.000 (4.0 x)",
        "out of memory",
        "another epoch: no data",
    ):
        assert expected in text
    assert "all │ shifted" not in " ".join(text.split())
