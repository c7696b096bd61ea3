"""Whole works of `cxr-jax train`: its start, and an epoch beside the bare steps that it holds.

The command is watched from outside, by the files of its run: metrics.jsonl is there when training begins, with
everything read and built, and has a line for every step, with seconds since then.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cxr_jax.bench.cases import Case, Effort
from cxr_jax.bench.children import held_to_cores, start_case
from cxr_jax.data.prepared import PreparedData
from cxr_jax.errors import UserError
from cxr_jax.process import CACHE_SWITCH, KERNELS_SWITCH, before_restart
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.metrics_log import read_metrics
from cxr_jax.terminal import Terminal

POLL_SECONDS = 0.005


def measure_whole(case: Case, effort: Effort, terminal: Terminal) -> dict[str, Any]:
    """Returns `work`, `task`, `case` and the figures of an epoch or of starts, or an `error` in their place."""
    terminal.say(case.task)
    try:
        figures = (measure_startup if case.work == "startup" else measure_epoch)(case, effort, terminal)
    except UserError as error:
        terminal.say(f"  failed: {error}")
        figures = {"error": str(error)}
    return {"work": case.work, "task": case.task, "case": case, **figures}


def measure_startup(case: Case, effort: Effort, terminal: Terminal) -> dict[str, Any]:
    """Starts `effort.rounds` times with nothing compiled, neither programs nor kernels, and after each with the rest.

    Returns, under `cold` and `cached`, what each start told (`rounds`), the median `seconds` to the end of the first
    step, and medians by phase: `before training` and `compiling and first step`. The kernel's cache of files is left
    as it is. Raises UserError as `_training` does.
    """
    starts: dict[str, list[dict[str, Any]]] = {"cold": [], "cached": []}
    for number in range(effort.rounds):
        with tempfile.TemporaryDirectory(prefix="cxr-jax-bench-") as folder:
            kept = {CACHE_SWITCH: f"{folder}/compiled"}
            if os.environ.get(KERNELS_SWITCH) != "off":
                kept[KERNELS_SWITCH] = f"{folder}/native"
            for kind, told in starts.items():
                with terminal.waiting(f"  starting {kind}"), _training(case, kept) as training:
                    training.wait_for(1, effort.limit)
                    before, seconds = training.seconds_before, time.monotonic() - training.began
                phases = {"before training": before, "compiling and first step": seconds - before}
                told.append({"seconds": seconds, "phases": phases})
                terminal.say(f"  round {number + 1} of {effort.rounds}, {kind}: {seconds:.2f} s to the first step")
    return {
        kind: {
            "seconds": statistics.median(start["seconds"] for start in told),
            "phases": {name: statistics.median(start["phases"][name] for start in told) for name in phases},
            "rounds": told,
        }
        for kind, told in starts.items()
    }


def measure_epoch(case: Case, effort: Effort, terminal: Terminal) -> dict[str, Any]:
    """Trains an epoch by `cxr-jax train`, and as many bare steps, half of them right before and half right after.

    The command does all that it does: prepared data, log, checkpoints, TensorBoard. The bare steps are those of
    `--work train`, in a process of their own. Returns seconds, their `ratio` and what was computed, ready for JSON;
    `epoch_seconds` go from the beginning of the first step to the last file written, validation left out, and of only
    `case.steps` steps to the end of the last one. Raises UserError as `_training` and `children.start_case` do.
    """
    images = sum(example.split == "train" for example in PreparedData.open(case.dataset).examples)
    if case.steps * case.batch_size > images:
        raise UserError(
            f"an epoch of {images} images has no {case.steps} steps of {case.batch_size}; take fewer --steps"
        )
    with terminal.waiting("  compiling the bare steps"):
        bare = start_case(replace(case, work="train"), effort)
    with bare:
        bare_steps = {"steps": max((case.steps or images // case.batch_size) // 2, 1), "seconds": 0.0}
        with terminal.waiting("  taking half of the bare steps"):
            bare_seconds = bare.ask(bare_steps, effort.limit)["seconds"]
        with terminal.waiting("  training"), _training(case, {}) as training:
            training.wait_for(case.steps, effort.limit)
            lines, written_after = read_metrics(training.run.metrics), training.written_after_metrics()
        with terminal.waiting("  taking the other half of the bare steps"):
            bare_seconds += bare.ask(bare_steps, effort.limit)["seconds"]
    steps = [line for line in lines if line["kind"] == "train"][: case.steps or None]
    last = [line for line in lines if line["kind"] == "validation"][-1:] if not case.steps else []
    validation = sum(line["seconds"] for line in last) - (steps[-1]["seconds"] if last else 0.0)
    within = [case.batch_size / line["images_per_second"] for line in steps]
    # by the clock of the run itself up to the line that ends it: nobody who watches knows when its first step began
    finish = lines[-1]["seconds"] - last[0]["seconds"] + written_after if last else 0.0
    epoch = steps[-1]["seconds"] - steps[0]["seconds"] + within[0] + finish
    pure = statistics.fmean(bare_seconds) * len(steps)
    return {
        **{name: bare.facts[name] for name in ("platform", "device", "devices")},
        "images": len(steps) * case.batch_size,
        "steps": len(steps),
        "epoch_seconds": epoch,
        "steps_seconds": sum(within),
        "finish_seconds": finish,
        "validation_seconds": validation,
        "pure_seconds": pure,
        "ratio": epoch / pure,
        "ratio_of_steps": sum(within) / pure,
        "images_per_second": len(steps) * case.batch_size / epoch,
    }


@dataclass
class _Training:
    """A `cxr-jax train` under way."""

    process: subprocess.Popen
    run: RunFolder
    log: Path
    began: float  # by time.monotonic()
    seconds_before: float = 0.0  # from the start of the process to that of training

    def wait_for(self, steps: int, limit: float) -> None:
        """Returns when so many steps are done, or with 0 when training has ended.

        Raises UserError, with the last line that it wrote, if the command ends before, and if it takes longer than
        `limit` seconds (0: no limit).
        """
        while True:
            ended = self.process.poll()
            done = self.run.metrics.read_bytes().count(b'{"kind": "train"') if self.run.metrics.is_file() else -1
            passed = time.monotonic() - self.began
            if done >= 0 and not self.seconds_before:
                self.seconds_before = passed
            if (steps and done >= steps) or (not steps and ended == 0):
                return
            if ended is not None:
                lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                raise UserError((lines or ["it wrote nothing"])[-1].removeprefix("cxr-jax: "))
            if limit and passed > limit:
                raise UserError(f"did not finish {f'step {steps}' if steps else 'the epoch'} in {limit:g} s")
            time.sleep(POLL_SECONDS)

    def written_after_metrics(self) -> float:
        """Returns seconds from the last line of the metrics file to the newest file of the run."""
        newest = max(path.stat().st_mtime for path in self.run.path.rglob("*"))
        return newest - self.run.metrics.stat().st_mtime


@contextlib.contextmanager
def _training(case: Case, environment: Mapping[str, str]) -> Iterator[_Training]:
    """Trains the case for an epoch in a process of its own, which is ended with the block."""
    with tempfile.TemporaryDirectory(prefix="cxr-jax-bench-") as name:
        folder = Path(name)
        (folder / "config.toml").write_text(_config(case), encoding="utf-8")
        chosen = before_restart(os.environ) | environment
        if environment:
            chosen.pop("JAX_COMPILATION_CACHE_DIR", None)
        if case.devices > 1:
            chosen["JAX_NUM_CPU_DEVICES"] = str(case.devices)
        command = [sys.executable, "-m", "cxr_jax", "train", f"{name}/config.toml", "--out", f"{name}/run"]
        began = time.monotonic()
        with held_to_cores(case.threads), (folder / "log").open("w") as log:
            process = subprocess.Popen(command, env=chosen, stdout=log, stderr=log, start_new_session=True)
        try:
            yield _Training(process, RunFolder(folder / "run"), folder / "log", began)
        finally:
            # what training has begun besides is of no use to anybody
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


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
