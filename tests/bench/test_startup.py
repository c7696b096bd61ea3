import importlib
import json
import os
import sys

import pytest

from cxr_jax.bench import launch, startup
from cxr_jax.bench.cases import StartupCase
from cxr_jax.bench.launch import CompilationCount, Stopwatch
from cxr_jax.errors import UserError

CASE = StartupCase("mobilenetv2_tiny", 32, 8, threads=1, dataset="phantoms")


def test_time_is_counted_once_for_the_outer_phase(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(launch.time, "time", lambda: now[0])

    def pass_time(seconds, then=lambda: None):
        now[0] += seconds
        then()

    stopwatch = Stopwatch(began=97.0)
    stopwatch.spent("interpreter", 97.0)
    inner = stopwatch.watch("state", lambda: pass_time(2.0))
    stopwatch.watch("compile training step", pass_time)(3.0, inner)
    pass_time(1.5)
    stopwatch.watch("data", pass_time)(4.0)
    pass_time(0.5)
    report = stopwatch.report()
    assert report["seconds"] == 3 + 3 + 2 + 1.5 + 4 + 0.5
    spent = {phase: seconds for phase, seconds in report["phases"].items() if seconds}
    expected = {"interpreter": 3, "compile training step": 5, "data": 4, "first step": 0.5, "rest": 1.5}
    assert spent == expected
    assert tuple(report["phases"]) == launch.PHASES


def test_a_watched_function_that_fails_is_counted_and_fails(monkeypatch):
    stopwatch = Stopwatch(0.0)

    def fail():
        raise UserError("no data")

    with pytest.raises(UserError, match="no data"):
        stopwatch.watch("data", fail)()
    assert stopwatch.watch("data", lambda: 5)() == 5
    assert stopwatch.seconds["data"] > 0


def test_everything_watched_is_there():
    """A function that is renamed would otherwise be missing from the phases in silence."""
    for name in launch.IMPORTED:
        importlib.import_module(name)
    for places in launch.WATCHED.values():
        for place in places:
            module, _, name = place.partition(":")
            assert callable(getattr(importlib.import_module(module), name))


def test_programs_are_counted():
    import jax
    import jax.numpy as jnp

    count = CompilationCount()
    count.listen()
    jax.jit(lambda x: x * 3 + 41)(jnp.arange(7))
    assert count.facts["programs"] >= 1
    assert count.facts["compile_seconds"] > 0
    before = count.facts["found"]
    count.on_event("/jax/compilation_cache/cache_hits")
    count.on_event("/jax/compilation_cache/cache_misses")
    assert count.facts["found"] == before + 1


STAND_IN = """#!{python}
import json, os, pathlib, sys
task = json.loads(sys.argv[3])
assert sys.argv[1:3] == ["-m", "cxr_jax.bench.launch"], sys.argv
cache = pathlib.Path(os.environ["CXR_COMPILATION_CACHE"])
found = cache.exists()
cache.mkdir(exist_ok=True)
config = pathlib.Path(task["arguments"][1]).read_text()
assert "JAX_COMPILATION_CACHE_DIR" not in os.environ
{body}
phases = {{"imports": 1.0, "rest": 2.0 if found else 7.0}}
told = {{"seconds": sum(phases.values()), "phases": phases, "config": config, "threads": task["threads"]}}
pathlib.Path(task["result"]).write_text(json.dumps(told))
"""


def stand_in(monkeypatch, tmp_path, body=""):
    path = tmp_path / "python"
    path.write_text(STAND_IN.format(python=sys.executable, body=body))
    path.chmod(0o755)
    monkeypatch.setattr(startup.sys, "executable", str(path))


def test_each_round_begins_with_nothing_compiled(monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path)
    told = []
    measured = startup.measure_startup(
        CASE, 3, told.append, {**os.environ, "JAX_COMPILATION_CACHE_DIR": "/elsewhere", "CXR_COMPILATION_CACHE": "off"}
    )
    assert [entry["seconds"] for entry in measured["cold"]["rounds"]] == [8.0] * 3
    assert [entry["seconds"] for entry in measured["cached"]["rounds"]] == [3.0] * 3
    assert measured["cold"]["phases"] == {"imports": 1.0, "rest": 7.0}
    assert measured["cached"]["seconds"] == 3.0
    assert len(told) == 6
    first = measured["cold"]["rounds"][0]
    assert first["threads"] == 1
    assert 'dataset = "phantoms"' in first["config"]
    assert "batch_size = 8" in first["config"]


def test_a_start_that_fails_says_why(monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path, "sys.exit('cxr-jax: there is no such data')")
    with pytest.raises(UserError, match=r"^there is no such data$"):
        startup.measure_startup(CASE, 1, lambda text: None)


def test_a_real_start(few_phantoms, tmp_path, monkeypatch):
    """The real command, watched in a process of its own: every phase is met."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COV_")}
    case = StartupCase("mobilenetv2_tiny", 32, 8, threads=1, dataset=str(few_phantoms))
    told = startup._start(case, tmp_path, "cold", environment)
    assert all(told["phases"][phase] > 0 for phase in launch.PHASES if phase != "rest")
    assert sum(told["phases"].values()) == pytest.approx(told["seconds"])
    assert 1 < told["seconds"] < 600
    compilation = told["compilation"]
    assert compilation["programs"] > 2
    # nothing was kept before; but a small program that one start compiles twice finds itself the second time
    assert compilation["found"] < compilation["programs"] / 4
    assert json.dumps(told)
