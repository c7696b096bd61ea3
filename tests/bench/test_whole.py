"""Starts and epochs of the real command, watched from outside."""

import json
from dataclasses import replace

import pytest

from cxr_jax.bench.cases import Case, Effort
from cxr_jax.bench.record import describe
from cxr_jax.bench.tables import render
from cxr_jax.bench.whole import measure_whole
from cxr_jax.commands.bench import Options
from cxr_jax.terminal import Terminal

EFFORT = Effort(rounds=1, steps=1, seconds=0.0, limit=0.0)


def case(dataset, **changes):
    settings = {"work": "epoch", "threads": 1, "dataset": str(dataset), "devices": 1} | changes
    return Case("squeezenet_tiny", 32, 8, **settings)


@pytest.mark.slow
def test_an_epoch_beside_its_bare_steps(few_phantoms, capsys):
    """40 images are 5 steps; whatever is written and shown adds up, and no folder of the machine is in the record."""
    result = measure_whole(case(few_phantoms), EFFORT, Terminal())
    assert "error" not in result
    assert (result["steps"], result["images"], result["platform"]) == (5, 40, "cpu")
    assert result["epoch_seconds"] >= result["steps_seconds"] > 0
    assert result["epoch_seconds"] >= result["steps_seconds"] + result["finish_seconds"] - 1e-6
    assert result["validation_seconds"] > 0
    assert result["finish_seconds"] >= 0
    assert result["ratio"] == pytest.approx(result["epoch_seconds"] / result["pure_seconds"])
    assert result["images_per_second"] == pytest.approx(40 / result["epoch_seconds"])
    asked = Options(work="epoch", dataset=str(few_phantoms))
    record = json.dumps(describe(asked, {}, [], [result]), allow_nan=False)
    assert str(few_phantoms) not in record
    assert json.loads(record)["results"][0]["case"]["dataset"] == few_phantoms.name
    capsys.readouterr()
    Terminal().show(render(json.loads(record)))
    assert f"{result['ratio']:.3f} x the bare steps" in capsys.readouterr().out


@pytest.mark.slow
def test_a_start_with_and_without_compiled_programs(few_phantoms, capsys):
    """What a start is made of adds up; the second finds what the first has compiled, and is told after its round."""
    result = measure_whole(case(few_phantoms, work="startup", devices=0), EFFORT, Terminal())
    for kind in ("cold", "cached"):
        (told,) = result[kind]["rounds"]
        assert 1 < told["seconds"] == pytest.approx(told["before_training"] + told["compiling_and_first_step"])
        assert min(told["before_training"], told["compiling_and_first_step"]) > 0
        assert result[kind]["seconds"] == told["seconds"]
        assert f"round 1 of 1, {kind}: {told['seconds']:.2f} s" in capsys.readouterr().out or kind == "cached"


def test_a_start_that_cannot_work_or_takes_too_long_is_told(few_phantoms, tmp_path):
    """A mistake is that of the command; a start beyond the limit is ended."""
    broken = case(few_phantoms, work="startup", weights=str(tmp_path / "missing.safetensors"))
    assert "there is no weights file" in measure_whole(broken, EFFORT, Terminal())["error"]
    limited = measure_whole(case(few_phantoms, work="startup"), replace(EFFORT, limit=0.01), Terminal())
    assert limited["error"] == "did not finish step 1 in 0.01 s"
