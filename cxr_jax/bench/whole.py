"""Whole works of `cxr-jax train`: its start, and an epoch beside the bare steps that it holds.

The command is watched from outside, by the files of its run. metrics.jsonl is created when everything is read and built
and training begins. It has a line for every step, with the seconds since then.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cxr_jax.bench.cases import Case, Effort
from cxr_jax.bench.children import environment_of, start_case, started
from cxr_jax.data.prepared import PreparedData
from cxr_jax.errors import UserError
from cxr_jax.process import CACHE_SWITCH, KERNELS_SWITCH
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.metrics_log import read_metrics
from cxr_jax.terminal import Terminal

POLL_SECONDS = 0.005


def measure_whole(case: Case, effort: Effort, terminal: Terminal) -> dict[str, Any]:
    """Returns `work`, `name`, `case` and the figures of an epoch or of starts, or an `error` in their place."""
    terminal.say(case.task)
    try:
        figures = (measure_startup if case.work == "startup" else measure_epoch)(case, effort, terminal)
    except UserError as error:
        terminal.say(f"  failed: {error}")
        figures = {"error": str(error)}
    return {"work": case.work, "name": case.task, "case": case, **figures}


def measure_startup(case: Case, effort: Effort, terminal: Terminal) -> dict[str, Any]:
    """Starts `effort.rounds` times with nothing compiled, neither programs nor kernels, and after each with the rest.

    Returns, under `cold` and `cached`, the `seconds` to the end of the first step and its parts `before_training` and
    `compiling_and_first_step`, each by the median and for every start (`rounds`). The kernel's cache of files is left
    as it is. Raises UserError as `_train` does.
    """
    starts: dict[str, list[dict[str, Any]]] = {"cold": [], "cached": []}
    for number in range(effort.rounds):
        with tempfile.TemporaryDirectory(prefix="cxr-jax-bench-") as folder:
            kept = {CACHE_SWITCH: f"{folder}/compiled"}
            if os.environ.get(KERNELS_SWITCH) != "off":
                kept[KERNELS_SWITCH] = f"{folder}/native"
            for kind, told in starts.items():
                with terminal.waiting(f"  starting {kind}"):
                    training = _train(case, kept, effort.limit, steps=1)
                after = next(line["seconds"] for line in training.lines if line["kind"] == "train")
                parts = {"before_training": training.seconds - after, "compiling_and_first_step": after}
                told.append({"seconds": training.seconds, **parts})
                terminal.say(
                    f"  round {number + 1} of {effort.rounds}, {kind}: {training.seconds:.2f} s to the first step"
                )
    return {
        kind: {**{name: statistics.median(start[name] for start in told) for name in told[0]}, "rounds": told}
        for kind, told in starts.items()
    }


def measure_epoch(case: Case, effort: Effort, terminal: Terminal) -> dict[str, Any]:
    """Trains an epoch by `cxr-jax train`, and as many bare steps, half of them right before and half right after.

    The command does all that it does: prepared data, log, checkpoints, TensorBoard. The bare steps are those of
    `--work train`, in a process of their own. Returns seconds, their `ratio` and what was computed, ready for JSON.
    `epoch_seconds` are those from the beginning of the first step to the last file written, without validation. Raises
    UserError as `_train` and `children.start_case` do.
    """
    images = sum(example.split == "train" for example in PreparedData.open(case.dataset).examples)
    half = {"steps": max(images // case.batch_size // 2, 1), "seconds": 0.0}
    with (
        terminal.waiting("  taking bare steps, an epoch and bare steps"),
        start_case(replace(case, work="train"), effort) as bare,
    ):
        bare_seconds = bare.ask(half, effort.limit)["seconds"]
        training = _train(case, {}, effort.limit)
        bare_seconds += bare.ask(half, effort.limit)["seconds"]
    lines = training.lines
    steps = [line for line in lines if line["kind"] == "train"]
    validated = [line for line in lines if line["kind"] == "validation"][-1]["seconds"]
    within = [case.batch_size / line["images_per_second"] for line in steps]
    # the last save goes on behind the line that ends the log; both times are the file system's
    finish = training.written_after
    epoch = steps[-1]["seconds"] - steps[0]["seconds"] + within[0] + finish
    pure = statistics.fmean(bare_seconds) * len(steps)
    return {
        **{name: bare.facts[name] for name in ("platform", "device", "devices")},
        "images": len(steps) * case.batch_size,
        "steps": len(steps),
        "epoch_seconds": epoch,
        "steps_seconds": sum(within),
        "finish_seconds": finish,
        "validation_seconds": validated - steps[-1]["seconds"],
        "pure_seconds": pure,
        "ratio": epoch / pure,
        "ratio_of_steps": sum(within) / pure,
        "images_per_second": len(steps) * case.batch_size / epoch,
    }


@dataclass(frozen=True)
class _Training:
    """What was seen of a `cxr-jax train`."""

    seconds: float  # from the start of the command until it was seen
    lines: list[dict[str, Any]]  # of its metrics
    written_after: float  # seconds from the last of these lines to its newest file


def _train(case: Case, environment: Mapping[str, str], limit: float, steps: int = 0) -> _Training:
    """Trains the case in a process of its own to the end, or only until so many steps are done.

    Raises UserError, with the last line that it wrote, if the command fails, and if it takes longer than `limit`
    seconds (0: no limit).
    """
    chosen = environment_of(case, os.environ) | environment
    with tempfile.TemporaryDirectory(prefix="cxr-jax-bench-") as name, Path(name, "log").open("w+") as log:
        Path(name, "config.toml").write_text(_config(case), encoding="utf-8")
        run, began = RunFolder(Path(name, "run")), time.monotonic()
        command = ["-m", "cxr_jax", "train", f"{name}/config.toml", "--out", f"{name}/run"]
        with started(command, chosen, case.threads, stdout=log, stderr=log) as process:
            while True:
                code, passed = process.poll(), time.monotonic() - began
                done = run.metrics.read_bytes().count(b'{"kind": "train"') if run.metrics.is_file() else 0
                if code == 0 or done >= (steps or math.inf):
                    break
                if code is not None:
                    log.seek(0)
                    words = log.read().strip().splitlines() or ["it wrote nothing"]
                    raise UserError(words[-1].removeprefix("cxr-jax: "))
                if limit and passed > limit:
                    raise UserError(f"did not finish {f'step {steps}' if steps else 'the epoch'} in {limit:g} s")
                time.sleep(POLL_SECONDS)
            newest = max(path.stat().st_mtime for path in run.path.rglob("*"))
            return _Training(passed, read_metrics(run.metrics), newest - run.metrics.stat().st_mtime)


def _config(case: Case) -> str:
    """Returns a config of the case; of a start everything else is as it is by default."""
    sections: dict[str, dict[str, Any]] = {
        "data": {"dataset": case.dataset, "image_size": case.image_size},
        "model": {"name": case.model, "weights": case.weights},
        "training": {"batch_size": case.batch_size},
    }
    if case.work == "epoch":
        own = any(example.split == "val" for example in PreparedData.open(case.dataset).examples)
        sections["data"]["validation"] = "official" if own else "grouped"
        precision = "bf16" if case.precision == "bfloat16" else "float32"
        # a batch that the devices can share is one that they can validate
        sections["training"] |= {"epochs": 1, "evaluation_batch_size": case.batch_size, "precision": precision}
        sections["parallel"] = {"backend": case.backend, "devices": case.devices}
    return "".join(
        f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in fields.items())
        for section, fields in sections.items()
    )
