"""The child process of a start: `cxr-jax train` itself, watched until its first step is done, and ended there.

Run as `python -m cxr_jax.bench.launch TASK`, TASK being JSON: `began`, when the parent started it by `time.time()`;
`threads`, the cores that it is held to; `arguments` of `cxr-jax`; `result`, the file that it writes. What it does
between is what the console command does, with a clock around some functions.
"""

from __future__ import annotations

import functools
import importlib
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from cxr_jax.bench.worker import hold_to_cores
from cxr_jax.process import configure_process

IMPORTED = (
    "cxr_jax.commands.train",
    "cxr_jax.config.loading",
    "cxr_jax.config.command_line",
    "cxr_jax.data.prepared",
    "cxr_jax.data.split_loading",
    "cxr_jax.reporting.live",
    "cxr_jax.training.processes",
    "cxr_jax.training.run",
    "cxr_jax.training.network",
    "tyro",
    "tensorboardX",
)
"""What `cxr-jax train` imports before its first step."""

WATCHED = {
    "config": ("cxr_jax.commands.train:_parse", "cxr_jax.config.loading:load_config"),
    "data": ("cxr_jax.data.split_loading:load_split",),
    "weights": ("cxr_jax.training.network:build_network",),
    "run folder": ("cxr_jax.commands.train:_begin_run",),
    "compile training step": ("cxr_jax.training.run:compile_train_step",),
    "compile evaluation step": ("cxr_jax.training.run:compile_logits",),
    "state": ("cxr_jax.training.run:new_state", "cxr_jax.training.run:replicate"),
}
"""The functions in which each part of a start is spent, as module:name, where they are looked up."""

PHASES = ("interpreter", "imports", *WATCHED, "first step", "rest")
"""`first step` is from the last of the compilations and the state to the end of the step, `rest` all that is left."""


class Stopwatch:
    """Wall time by phase since `began`, a time of `time.time()`; a phase inside another counts for the outer one."""

    def __init__(self, began: float) -> None:
        self.began, self.seconds = began, defaultdict[str, float](float)
        self.last_end = began
        self._running = False

    def spent(self, phase: str, since: float) -> None:
        """The time from `since` to now was spent on `phase`."""
        self.last_end = time.time()
        self.seconds[phase] += self.last_end - since

    def watch(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """`function`, its time counted for `phase`."""

        @functools.wraps(function)
        def watched(*arguments: Any, **options: Any) -> Any:
            if self._running:
                return function(*arguments, **options)
            self._running, since = True, time.time()
            try:
                return function(*arguments, **options)
            finally:
                self._running = False
                self.spent(phase, since)

        return watched

    def report(self) -> dict[str, Any]:
        """Seconds in all and by phase, the time since the last phase being the first step."""
        self.spent("first step", self.last_end)
        total = self.last_end - self.began
        phases = {phase: self.seconds[phase] for phase in PHASES}
        return {"seconds": total, "phases": phases | {"rest": total - sum(phases.values())}}


EVENTS = {
    "/jax/core/compile/jaxpr_trace_duration": "trace_seconds",
    "/jax/core/compile/jaxpr_to_mlir_module_duration": "lower_seconds",
    "/jax/core/compile/backend_compile_duration": "compile_seconds",
}
"""What jax tells of a compilation; the last, which is told of a program found in the cache too, counts programs."""


class CompilationCount:
    """How many programs jax has compiled or found in its cache, and how long it took."""

    def __init__(self) -> None:
        self.facts: dict[str, float] = {"programs": 0, "found": 0, **dict.fromkeys(EVENTS.values(), 0.0)}

    def listen(self) -> None:
        """Have jax tell from now on."""
        import jax

        jax.monitoring.register_event_duration_secs_listener(self.on_duration)
        jax.monitoring.register_event_listener(self.on_event)

    def on_duration(self, event: str, seconds: float, **_: Any) -> None:
        """Something took `seconds`."""
        if event in EVENTS:
            self.facts[EVENTS[event]] += seconds
            self.facts["programs"] += EVENTS[event] == "compile_seconds"

    def on_event(self, event: str, **_: Any) -> None:
        """Something happened."""
        self.facts["found"] += event == "/jax/compilation_cache/cache_hits"


def main() -> None:
    """Carry out the task of the command line; ends with the exit code of `cxr-jax` if there is no first step."""
    task = json.loads(sys.argv[1])
    hold_to_cores(task["threads"])
    configure_process()
    stopwatch = Stopwatch(task["began"])
    stopwatch.spent("interpreter", task["began"])
    since = time.time()
    for name in IMPORTED:
        importlib.import_module(name)
    stopwatch.spent("imports", since)
    count = CompilationCount()
    count.listen()
    _watch(stopwatch, lambda: _end(task["result"], stopwatch.report() | {"compilation": count.facts}))
    # looked up by name: this is the console command, which stands above all rooms
    sys.exit(importlib.import_module("cxr_jax.cli").main(task["arguments"]))


def _watch(stopwatch: Stopwatch, end: Callable[[], None]) -> None:
    """Put clocks around the functions of `WATCHED`, and `end` after the first step."""
    for phase, places in WATCHED.items():
        for place in places:
            module, _, name = place.partition(":")
            module = importlib.import_module(module)
            setattr(module, name, stopwatch.watch(phase, getattr(module, name)))
    from cxr_jax.reporting.live import TerminalObserver

    TerminalObserver.on_train = lambda observer, line: end()


def _end(result: str, report: dict[str, Any]) -> NoReturn:
    """Write `report` and leave at once: what training has begun besides is of no use to anybody."""
    Path(result).write_text(json.dumps(report), encoding="utf-8")
    os._exit(0)


if __name__ == "__main__":
    main()
