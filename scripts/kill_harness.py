#!/usr/bin/env python
"""Kill training with SIGKILL at random moments, resume it, and compare the end with that of a run left alone.

A real `cxr-jax train` of the smallest network on phantoms is killed several times on its way, by turns while it starts
and compiles, inside an epoch, during a validation, while a checkpoint is written, and at the border of two phases or
the end. Once it has come to its end, checkpoints (parameters, statistics, optimizer) and every line of the metrics,
timings aside, must be those of the undisturbed run to the bit; and no kill may cost a checkpoint that was complete.

    .venv/bin/python scripts/kill_harness.py --kills 30
    .venv/bin/python scripts/kill_harness.py --kills 5 --scenarios pmap cached-features --seed 7
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from cxr_jax.checkpoints import read_newest, saved_steps
from cxr_jax.config.command_line import parse
from cxr_jax.errors import UserError, run_script
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.metrics_log import read_metrics

KINDS = ("first compile", "inside an epoch", "validation", "checkpoint write", "phase border")
"""What a kill is meant to hit. Between two phases, or at the end of the last, is a phase border."""

START = "start-up"
"""What a kill hits that comes before training: imports and data."""

TIMINGS = {"seconds", "images_per_second"}
VALIDATION_EVERY = 4
LONGEST_SESSION = 600.0
"""Seconds after which a training that neither ends nor meets its kill counts as hanging."""

_COMMON = f"""
[data]
dataset = "phantoms"
image_size = 32
validation_fraction = 0.4
{{data}}
[model]
name = "mobilenetv2_tiny"
dropout = 0.2
[optimizer]
learning_rate = 0.02
[training]
epochs = 4
batch_size = 8
evaluation_batch_size = 2
[validation]
every_iterations = {VALIDATION_EVERY}
{{validation}}
[parallel]
backend = "{{backend}}"
devices = 2
[augmentation]
horizontal_flip = {{flip}}
rotation = {{rotation}}
{{phases}}
"""
_HEAD_THEN_ALL = """
[[phases]]
name = "head"
epochs = 2
trainable = ["classifier"]
batch_norm = "frozen"
[[phases]]
name = "all"
epochs = 2
{last}
"""
_PLAIN = {"data": 'balancing = "barnett"', "validation": "", "flip": 0.5, "rotation": 5, "phases": ""}
# features of a frozen backbone are computed once where nothing is random; the images are mapped from the disk
_CACHED = {"data": 'validation = "official"', "flip": 0, "rotation": 0} | {
    "phases": _HEAD_THEN_ALL.format(last="[phases.augmentation]\nhorizontal_flip = 0.5")
}
_TWO_PHASES = {"validation": "patience = 5", "phases": _HEAD_THEN_ALL.format(last="")}
SCENARIOS = {
    "jit": _PLAIN | {"backend": "jit"},
    "pmap": _PLAIN | {"backend": "pmap"},
    "jit-two-phases": _PLAIN | _TWO_PHASES | {"backend": "jit"},
    "pmap-two-phases": _PLAIN | _TWO_PHASES | {"backend": "pmap"},
    "cached-features": _PLAIN | _CACHED | {"backend": "jit"},
}
"""The config of each scenario; all but the last hold the images, balanced and augmented, in memory."""


@dataclass(frozen=True)
class Options:
    """How often, and what, to kill."""

    kills: int = 30  # shared out among the scenarios
    scenarios: tuple[str, ...] = tuple(SCENARIOS)
    seed: int = 0  # of the moments


@dataclass(frozen=True)
class Aim:
    """The moment of a kill: so long after the so-manieth occasion of a kind."""

    kind: str
    occasion: int
    delay: float  # seconds


@dataclass
class Watch:
    """What can be seen of a run from outside."""

    run: RunFolder
    step: int = 0  # that the launch goes on from
    complete: int = 0  # newest complete checkpoint of the last look
    occasions: int = 0
    _there: bool = False

    def __post_init__(self) -> None:
        self.step = self.complete = max(saved_steps(self.run.checkpoints / "last"), default=0)
        self._events = self._count_events()
        self._file = self._stat()

    def state(self) -> str:
        """What the process is at, or was when it died: one of KINDS or START."""
        self.complete = max([self.complete, *saved_steps(self.run.checkpoints / "last")])
        if self._count_events() == self._events:
            return START
        line = self._newest_line()
        if line is None:
            return "first compile"
        if any(self.run.checkpoints.glob("*/*orbax-checkpoint-tmp*")):
            return "checkpoint write"
        at_end = _is_end_of_phase(line)
        if line["kind"] == "train":
            due = line["step"] % VALIDATION_EVERY == 0 or at_end
            return "validation" if due else "inside an epoch"
        return "phase border" if at_end or line["kind"] == "end" else "inside an epoch"

    def meets(self, aim: Aim) -> bool:
        """True once the aim's occasion has come; to be asked all the time."""
        there = self.state() == aim.kind
        # a new occasion begins where the state does
        self.occasions += there and not self._there
        self._there = there
        return self.occasions >= aim.occasion

    def _newest_line(self) -> dict | None:
        """The newest line that this launch wrote."""
        inode, size = self._stat()
        if not size or (inode, size) == self._file:
            return None
        # what a killed launch left behind is taken out before the first line of this one, by a new file
        with self.run.metrics.open("rb") as file:
            file.seek(max(0, size - 1000))
            lines = file.read().split(b"\n")[:-1]
        line = json.loads(lines[-1]) if lines else {"step": 0}
        return line if line["step"] > self.step or line.get("kind") == "end" else None

    def _count_events(self) -> int:
        return sum(1 for _ in self.run.tensorboard.glob("events*"))

    def _stat(self) -> tuple[int, int]:
        try:
            found = self.run.metrics.stat()
        except FileNotFoundError:
            return 0, 0
        return found.st_ino, found.st_size


def _is_end_of_phase(line: dict) -> bool:
    """True for the last step of a phase that runs to its end; every phase here has two epochs, a lone one four."""
    return line.get("epoch") in ({4.0} if line.get("phase") == "train" else {2.0, 4.0})


@dataclass
class Harness:
    """The data, the configs and the tally of one invocation."""

    folder: Path
    random: np.random.Generator
    hits: Counter = field(default_factory=Counter)  # (scenario, what was hit)
    launches: int = 0

    def prepare(self) -> None:
        """Draw phantoms, prepare them and write the configs."""
        self._command("phantoms", self.folder / "phantoms", "--count", 160, "--smallest", 48, "--largest", 64)
        self._command("prepare", self.folder / "phantoms")
        for name, values in SCENARIOS.items():
            (self.folder / f"{name}.toml").write_text(_COMMON.format(**values), encoding="utf-8")

    def kill_and_compare(self, scenario: str, kills: int) -> list[str]:
        """Kill runs of `scenario` so often; returns a sentence for everything that came out otherwise."""
        whole = RunFolder(self.folder / f"{scenario}-undisturbed")
        self.launch(scenario, whole, None)
        faults: list[str] = []
        aims, number, done = self._aims(), 0, 0
        aim = next(aims)
        while done < kills:
            number += 1
            run = RunFolder(self.folder / f"{scenario}-{number}")
            struck: list[str] = []
            while hit := self.launch(scenario, run, aim if done < kills else None):
                done += 1
                self.hits[scenario, hit] += 1
                struck.append(f"{hit} (aimed at {aim.kind})")
                print(f"  {scenario}: kill {done} of {kills}, {struck[-1]}", flush=True)
                faults += [f"{run.name}: {sentence}" for sentence in self._losses(run)]
                aim = next(aims)
            faults += [f"{run.name}, killed in {', '.join(struck)}: {entry}" for entry in differences(whole, run)]
            # a moment that did not come is tried once more as it begins, then passed over
            aim = replace(aim, occasion=1, delay=0.0) if aim.delay else next(aims)
        return faults

    def launch(self, scenario: str, run: RunFolder, aim: Aim | None) -> str | None:
        """Train or resume `run`; returns what the kill hit, or None if the run came to its end."""
        self.launches += 1
        begun = run.config.is_file()
        # a compilation is only met where nothing is compiled yet; what a kill leaves in that cache is read again
        cold = aim is not None and aim.kind == "first compile"
        cache = run.path.parent / f"{run.name}-cache" if cold or self._has_own_cache(run) else self.folder / "cache"
        self._watch = watch = Watch(run)
        output = self.folder / f"{run.name}.log"
        with output.open("ab") as log:
            process = subprocess.Popen(
                self._train(scenario, run, resume=begun), env=self._environment(cache), stdout=log, stderr=log
            )
            try:
                self._wait(process, watch, aim)
            finally:
                process.kill()
                process.wait()
        if process.returncode > 0:
            said = output.read_text(encoding="utf-8").strip().splitlines()[-1:]
            raise RuntimeError(f"training of {run.name} ended by itself with {process.returncode}: {' '.join(said)}")
        return watch.state() if process.returncode < 0 else None

    def _wait(self, process: subprocess.Popen, watch: Watch, aim: Aim | None) -> None:
        """Return when the process has ended or the moment of the kill has come."""
        deadline = time.monotonic() + LONGEST_SESSION
        while process.poll() is None:
            if time.monotonic() > deadline:
                raise RuntimeError(f"training of {watch.run.name} hangs: no end in {LONGEST_SESSION:.0f} s")
            if aim is None:
                time.sleep(0.1)
            elif watch.meets(aim):
                time.sleep(aim.delay)
                return
            else:
                time.sleep(0.0005)

    def _aims(self) -> Iterator[Aim]:
        """Every kind equally often, in a random order, at random moments."""
        longest = dict(zip(KINDS, (1.5, 0.01, 0.004, 0.02, 0.2), strict=True))
        while True:
            for kind in self.random.permutation(KINDS):
                once = kind in ("first compile", "phase border")
                occasion = 1 if once else int(self.random.integers(1, 4))
                yield Aim(str(kind), occasion, float(self.random.uniform(0, longest[kind])))

    def _losses(self, run: RunFolder) -> list[str]:
        """Sentences about complete checkpoints that the kill destroyed; none if all is well."""
        if not self._watch.complete:
            return []
        told: list[str] = []
        newest = read_newest(run.checkpoints / "last", told.append).step
        return told + [f"step {self._watch.complete} was complete, now {newest} is"] * (newest < self._watch.complete)

    def _has_own_cache(self, run: RunFolder) -> bool:
        return (run.path.parent / f"{run.name}-cache").is_dir()

    def _train(self, scenario: str, run: RunFolder, *, resume: bool) -> list[str]:
        command = [sys.executable, "-m", "cxr_jax", "train", f"{self.folder / scenario}.toml", "--out", str(run.path)]
        return [*command, "--resume"] if resume else command

    def _command(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "cxr_jax", *map(str, arguments)]
        subprocess.run(command, env=self._environment(self.folder / "cache"), check=True, stdout=subprocess.DEVNULL)

    def _environment(self, cache: Path) -> dict[str, str]:
        return os.environ | {
            "CXR_COMPILATION_CACHE": str(cache),
            "CXR_JAX_ALLOCATOR": "off",
            "CXR_PREPARED_DIR": str(self.folder / "prepared"),
            "JAX_NUM_CPU_DEVICES": "2",
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
            "JAX_PLATFORMS": "cpu",
        }


def differences(whole: RunFolder, resumed: RunFolder) -> list[str]:
    """A sentence for everything in which `resumed` is not `whole`, timings aside; none if they are equal to the bit."""
    found = []
    for folder in ("last", "best"):
        left, right = (read_newest(run.checkpoints / folder, found.append) for run in (whole, resumed))
        if left.step != right.step:
            found.append(f"{folder} is of step {right.step} instead of {left.step}")
        if _untimed(left.details) != _untimed(right.details):
            found.append(f"{folder} says {_untimed(right.details)} instead of {_untimed(left.details)}")
        for name in sorted(left.arrays.keys() | right.arrays.keys()):
            if _bytes(left.arrays.get(name)) != _bytes(right.arrays.get(name)):
                found.append(f"{name} differs in {folder}")
    lines = [[_untimed(line) for line in read_metrics(run.metrics)] for run in (whole, resumed)]
    if len(lines[0]) != len(lines[1]):
        found.append(f"the metrics have {len(lines[1])} lines instead of {len(lines[0])}")
    for number, (left, right) in enumerate(zip(*lines, strict=False), start=1):
        if left != right:
            found.append(f"line {number} of the metrics is {right} instead of {left}")
            break
    return found


def _untimed(values: dict) -> dict:
    return {name: value for name, value in values.items() if name not in TIMINGS}


def _bytes(array: object) -> tuple | None:
    if array is None:
        return None
    value = np.asarray(array)
    return str(value.dtype), value.shape, value.tobytes()


def main(arguments: Sequence[str]) -> int:
    """Print what was hit and what differed; 0 if nothing did."""
    options = parse(Options, arguments, prog="kill_harness.py", description=__doc__)
    for name in options.scenarios:
        if name not in SCENARIOS:
            raise UserError(f"there is no scenario {name}; there are {', '.join(SCENARIOS)}")
    began, faults = time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="kill-harness-") as folder:
        harness = Harness(Path(folder), np.random.default_rng(options.seed))
        harness.prepare()
        for index, scenario in enumerate(options.scenarios):
            kills = len(range(index, options.kills, len(options.scenarios)))
            if kills:
                faults += harness.kill_and_compare(scenario, kills)
    columns = [START, *KINDS]
    print(f"{'scenario':<17}", *(f"{column:>{len(column) + 1}}" for column in columns))
    for scenario in options.scenarios:
        print(
            f"{scenario:<17}", *(f"{harness.hits[scenario, column]:>{len(column) + 1}}" for column in columns), sep=" "
        )
    total = sum(harness.hits.values())
    print(f"{total} kills, {harness.launches} starts, {time.monotonic() - began:.0f} s: ", end="")
    print("every run ended as if undisturbed" if not faults else f"{len(faults)} faults")
    for fault in faults:
        print(f"FAULT {fault}")
    return 1 if faults else 0


if __name__ == "__main__":
    run_script(main)
