"""Measure the first accelerator of this machine within ten minutes: scripts/measure_accelerator [options]

Ceilings, depthwise convolutions alone, jit beside pmap, a whole training on the real radiographs, an epoch beside its
bare steps, and in the time that is left training and inference of both networks beside timm's in PyTorch. Every part
has a limit of its own; one that fails or runs out of time is recorded as such and the next one begins. What is known
is written after every step, to results/bench, named by the device.

It runs from a bare checkout with the requirements installed. PyTorch is measured where torch and timm are installed
and torch sees a GPU. The radiographs are those prepared as `chest_xray`, or else those in CXR_DATA_DIR/chest_xray.

    scripts/measure_accelerator
    scripts/measure_accelerator --parts steps --skip 4      go on with the fifth contest
    scripts/measure_accelerator --quick                     tiny sizes, on any machine: does it work at all?
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cxr_jax.bench.accelerator_sizes import FULL, QUICK, Sizes
from cxr_jax.bench.cases import Case, Contest, DepthwiseCase, EpochCase
from cxr_jax.bench.children import ask_ceilings, ask_depthwise, ask_epoch, bare_environment
from cxr_jax.bench.measure import run_contest
from cxr_jax.bench.record import describe_outcomes
from cxr_jax.bench.work_tables import totals
from cxr_jax.bench.worker import available_cores
from cxr_jax.data.prepared import PreparedData
from cxr_jax.errors import UserError
from cxr_jax.runs.environment import describe_environment
from cxr_jax.runs.files import write_json
from cxr_jax.runs.metrics_log import read_metrics

SCHEMA_VERSION = 1

WITHIN = 570
"""Seconds that everything may take."""

LIMITS = {
    "machine": 90,
    "ceilings": 60,
    "depthwise": 140,
    "parallel": 80,
    "training": 120,
    "epoch": 60,
    "steps": WITHIN,
}
"""Seconds of each part, in the order in which they run; the last has what is left."""

CONTEST_LIMIT = 180
"""Seconds of one contest of `steps`."""

LOOK_AT_DEVICE = """
import importlib.util, json, jax
devices, cuda = jax.devices(), False
if all(map(importlib.util.find_spec, ("torch", "timm"))):
    import torch
    cuda = torch.cuda.is_available()
print(json.dumps({"platform": devices[0].platform, "device": devices[0].device_kind, "devices": len(devices),
                  "jax": jax.__version__, "pytorch": cuda}))
"""


CONFIG = Path("configs", "mobilenetv2_scratch_honest.toml")
"""What is trained, in the checkout: it needs no weights."""

KINDS = ("train", "validation", "end")
"""Of the lines of metrics.jsonl."""


class OutOfTimeError(Exception):
    """A part has used up its seconds."""


class Measuring:
    """The parts, and the record that they fill."""

    def __init__(self, checkout: Path, sizes: Sizes, options: argparse.Namespace) -> None:
        self.checkout, self.sizes, self.options, self.began = checkout, sizes, options, time.monotonic()
        self.cores = available_cores()
        self.known: dict[int, dict[str, float]] = {}  # ceilings, by the number of cores
        self.pytorch = False
        self.path: Path | None = Path(options.out) if options.out else None
        self.record: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "quick": options.quick, "parts": {}}

    @property
    def left(self) -> float:
        """Seconds until the end."""
        return self.options.seconds - (time.monotonic() - self.began)

    def part(self, name: str) -> None:
        """Carry out one part within its limit, and record how it ended."""
        entry: dict[str, Any] = {"state": "done"}
        self.record["parts"][name] = entry
        began = time.monotonic()
        with recording(entry), time_limit(min(LIMITS[name], self.left)):
            print(f"{name}: at most {min(LIMITS[name], self.left):.0f} s", flush=True)
            getattr(self, name)(entry)
        entry["seconds"] = time.monotonic() - began
        print(f"{name}: {entry['state']} after {entry['seconds']:.0f} s {entry.get('reason', '')}", flush=True)
        self.write()

    def write(self) -> None:
        """Write what is known so far."""
        if self.path is not None:
            write_json(self.path, self.record)

    def machine(self, entry: dict[str, Any]) -> None:
        """Which device there is, and whether PyTorch can be measured on it."""
        done = run([sys.executable, "-c", LOOK_AT_DEVICE])
        entry |= json.loads(done.stdout.splitlines()[-1])
        self.pytorch = entry["pytorch"]
        device = f"{entry['platform']} {entry['device']}"
        self.record["environment"] = describe_environment(devices=[device] * entry["devices"], data_fingerprint="")
        self.path = self.path or free_path(self.checkout, entry["device"], quick=self.options.quick)

    def ceilings(self, entry: dict[str, Any]) -> None:
        """Products and copies at their best."""
        self.known = {self.cores: ask_ceilings(self.cores)}
        entry |= self.known[self.cores]

    def depthwise(self, entry: dict[str, Any]) -> None:
        """Each depthwise convolution alone."""
        if not self.known:
            raise UserError("the ceilings, which the floors are taken from, are not known")
        entry["cases"] = []
        for model, size, batch, precision in self.sizes.depthwise:
            case = DepthwiseCase(model, size, batch, self.cores, precision)
            rows: list[dict[str, Any]] = []
            described = {"case": dataclasses.asdict(case), "rows": rows}
            entry["cases"].append(described)
            for row in ask_depthwise(case, self.known[self.cores]["copy_bytes"]):
                rows.append(row)
                described["totals"] = totals(rows)
            print(f"  {case.task}: {told_totals(described['totals'])}", flush=True)

    def parallel(self, entry: dict[str, Any]) -> None:
        """jit beside pmap on all devices."""
        model, size, batch, precision = self.sizes.trained
        jit = Case(model, size, batch, "train", self.cores, precision=precision)
        self.contest(Contest(jit, (dataclasses.replace(jit, backend="pmap"),)), entry)

    def training(self, entry: dict[str, Any]) -> None:
        """A whole training on real radiographs, from the command to its end."""
        self.prepare_data(entry)
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            where = ("--out", str(out), "--data.dataset", self.options.dataset)
            began = time.monotonic()
            run([sys.executable, "-m", "cxr_jax", "train", str(self.checkout / CONFIG), *where, *self.sizes.training])
            entry["command_seconds"] = time.monotonic() - began
            lines = read_metrics(out / "metrics.jsonl")
        train, validation, end = ([line for line in lines if line["kind"] == kind] for kind in KINDS)
        entry |= {
            "config": CONFIG.name,
            "overrides": list(self.sizes.training),
            "training_seconds": end[-1]["seconds"],
            "steps": len(train),
            "images_per_second": statistics.median(line["images_per_second"] for line in train),
            "validations": validation,
        }

    def prepare_data(self, entry: dict[str, Any]) -> None:
        """Prepare the radiographs unless they are; UserError where there are none."""
        with contextlib.suppress(UserError):
            PreparedData.open(self.options.dataset)
            return
        folder = Path(os.environ.get("CXR_DATA_DIR", ""), "chest_xray")
        if not folder.is_dir():
            raise UserError(f"nothing is prepared as {self.options.dataset}, and CXR_DATA_DIR holds no chest_xray")
        began = time.monotonic()
        run([sys.executable, "-m", "cxr_jax", "prepare", str(folder), "--name", self.options.dataset])
        entry["prepare_seconds"] = time.monotonic() - began

    def epoch(self, entry: dict[str, Any]) -> None:
        """A whole epoch beside its bare steps."""
        model, size, batch, precision = self.sizes.trained
        entry |= ask_epoch(EpochCase(model, size, batch, self.cores, self.options.dataset, precision=precision))

    def steps(self, entry: dict[str, Any]) -> None:
        """Training and inference of both networks, beside PyTorch where it sees the device."""
        entry["contests"] = []
        for number, (model, size, batch, work, precision) in enumerate(self.sizes.steps):
            if number < self.options.skip:
                continue
            if self.left <= 0:
                break
            ours = Case(model, size, batch, work, self.cores, precision=precision)
            timm = dataclasses.replace(ours, implementation="timm")
            modes = ("compile", "eager") if self.pytorch else ()
            contest = Contest(ours, tuple(dataclasses.replace(timm, backend=mode) for mode in modes))
            described: dict[str, Any] = {"number": number, "task": ours.task, "state": "done"}
            entry["contests"].append(described)
            with recording(described), time_limit(min(CONTEST_LIMIT, self.left)):
                self.contest(contest, described)
            self.write()

    def contest(self, contest: Contest, entry: dict[str, Any]) -> None:
        """Run `contest` and describe it in `entry`."""
        outcome = run_contest(contest, self.sizes.effort, lambda text: print(f"  {text}", flush=True))
        entry |= describe_outcomes([outcome], self.known)
        for measured in entry["measurements"]:
            if "error" in measured:
                entry |= {"state": "failed", "reason": measured["error"]}
        for ratio in entry["ratios"]:
            print(f"  {ratio['task']}: {ratio['times_as_fast']:.2f} times as fast as {ratio['opponent']}", flush=True)


def told_totals(sums: dict[str, dict[str, Any]]) -> str:
    """Each lowering's directions as multiples of the floor."""
    return "; ".join(
        f"{lowering} "
        + ", ".join(f"{name} {value / total['floor_seconds']:.1f} x" for name, value in total["seconds"].items())
        for lowering, total in sums.items()
    )


@contextlib.contextmanager
def recording(entry: dict[str, Any]) -> Iterator[None]:
    """Record in `entry` why the block did not end as it should; only Ctrl-C goes on."""
    try:
        yield
    except OutOfTimeError:
        entry |= {"state": "out of time"}
    except Exception as error:
        entry |= {"state": "failed", "reason": f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]}


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTimeError in the block after `seconds`; an outer limit that comes first stays."""

    def end(*_: Any) -> None:
        raise OutOfTimeError

    outer, began = signal.getitimer(signal.ITIMER_REAL)[0], time.monotonic()
    if seconds <= 0:
        raise OutOfTimeError
    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, min(seconds, outer) if outer else seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if outer:
            signal.setitimer(signal.ITIMER_REAL, max(outer - (time.monotonic() - began), 1e-3))


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run `command` to its end, as a user without compiled programs would; UserError with its last line if it fails."""
    done = subprocess.run(command, env=bare_environment(os.environ), capture_output=True, text=True, errors="replace")
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it wrote nothing"]
        raise UserError(f"{' '.join(command[1:5])} ended with code {done.returncode}: {lines[-1]}")
    return done


def free_path(checkout: Path, device: str, *, quick: bool) -> Path:
    """Where the record of `device` goes: a name in results/bench that is free."""
    name = "_".join(["accelerator", *re.findall("[a-z0-9]+", device.lower()), *(["quick"] if quick else [])])
    folder = checkout / "results" / "bench"
    numbers = (f"{name}{suffix}.json" for suffix in ["", *(f"_{number}" for number in range(2, 1000))])
    return next(folder / candidate for candidate in numbers if not (folder / candidate).exists())


def main(checkout: Path, arguments: list[str] | None = None) -> int:
    """Measure what the command line asks for, from the files of `checkout`; 1 if no part came to its end."""
    options = parse(arguments)
    measuring = Measuring(checkout, QUICK if options.quick else FULL, options)
    # floors and shares need the ceilings, whatever else is measured
    for name in LIMITS:
        if name in ("machine", "ceilings", *options.parts):
            measuring.part(name)
    measuring.write()
    print(f"written to {measuring.path}" if measuring.path else "nothing is known of the device, and nothing written")
    states = {name: entry["state"] for name, entry in measuring.record["parts"].items()}
    return 0 if "done" in {states[name] for name in options.parts} else 1


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The options; a mistake ends the process with a sentence and code 2."""
    parser = argparse.ArgumentParser(
        prog="measure_accelerator", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = list(LIMITS)[1:]
    parser.add_argument("--quick", action="store_true", help="tiny sizes")
    parser.add_argument("--parts", default=",".join(parts), help="which, with commas between (default: all)")
    parser.add_argument("--skip", type=int, default=0, metavar="N", help="leave out the first N contests of steps")
    parser.add_argument("--seconds", type=float, default=WITHIN, help=f"for everything (default: {WITHIN})")
    parser.add_argument("--dataset", default="chest_xray", help="prepared data to train on (default: chest_xray)")
    parser.add_argument("--out", default="", metavar="FILE", help="default: results/bench, named by the device")
    options = parser.parse_args(arguments)
    options.parts = options.parts.split(",")
    if unknown := set(options.parts) - set(parts):
        parser.error(f"--parts holds {', '.join(sorted(unknown))}; choose among {', '.join(parts)}")
    if options.skip < 0:
        parser.error(f"--skip is {options.skip}, but must be 0 or more")
    if not 0 < options.seconds < math.inf:
        parser.error(f"--seconds is {options.seconds:g}, but must be a number above 0")
    if options.out and Path(options.out).exists():
        parser.error(f"{options.out} exists already; name a new file")
    return options
