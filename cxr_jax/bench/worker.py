"""The child process of one case: prepares it, runs rounds when told to, and says what they cost.

Talks in lines of JSON. The first line that it reads is a task. `{"ceilings": {"threads": n}}` and `{"epoch": {...}}`
are answered by one line, the fields of `ceilings.Ceilings` and what `epoch.run_epoch` returns; `{"depthwise": {...},
"copy_bytes": b}` by `{"row": {...}}` for each row of `depthwise.measure_depthwise` and `{"rows": n}` after the last.
The answer to a case, `{"case": {...}, "warm_up": n}`, is `{"ready": facts}`. Then come `{"steps": n, "seconds": s}`,
the arguments of `run_round`, answered by `{"seconds": [...]}`, and `{"trace": folder}`, answered by `{"traced":
folder}`; at the end of its input it tells `{"peak_memory_bytes": n, "device_peak_bytes": n or null}`. Whatever goes
wrong is told as `{"failure": sentence}`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr_jax.bench.cases import Case, DepthwiseCase, EpochCase
from cxr_jax.errors import UserError
from cxr_jax.process import allocator_applies, configure_process

if TYPE_CHECKING:
    from cxr_jax.bench.workload import Workload

AS_INSTALLED = "as-installed"
"""Argument that asks for the settings which the console entry point makes; PyTorch runs without them."""

TRACED_STEPS = 3

Message = dict[str, Any]


def main() -> None:
    """Serve the parent on the standard streams; what libraries print goes to standard error."""
    as_installed = AS_INSTALLED in sys.argv[1:]
    if as_installed:
        configure_process()
    # whatever else is written to descriptor 1 must not be taken for an answer
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)

        def reply(message: Message) -> None:
            channel.write(json.dumps(message) + "\n")
            channel.flush()

        try:
            serve(map(json.loads, sys.stdin), reply, as_installed=as_installed)
        except Exception as error:
            reply({"failure": tell(error)})


def serve(requests: Iterable[Message], reply: Callable[[Message], None], *, as_installed: bool) -> None:
    """Carry out the task that `requests` begin with, as the module says. Raises UserError for a mistake in it.

    `as_installed` says that the process has been configured as the console entry point does it.
    """
    requests = iter(requests)
    task = next(requests)
    for name, serve_whole in WHOLE_TASKS.items():
        if name in task:
            hold_to_cores(task[name]["threads"])
            serve_whole(task, reply)
            return
    case = Case(**task["case"])
    hold_to_cores(case.threads)
    _require_preloaded(case.preload)
    workload = _prepare(case)
    for _ in range(task["warm_up"]):
        workload.step()
    allocator = describe_allocator(os.environ, as_installed=as_installed)
    reply({"ready": {**workload.facts, "cores": available_cores(), "allocator": allocator}})
    for request in requests:
        if "trace" in request:
            _trace(workload.step, request["trace"])
            reply({"traced": request["trace"]})
        else:
            reply({"seconds": run_round(workload.step, **request)})
    reply({"peak_memory_bytes": peak_memory_bytes(), "device_peak_bytes": workload.device_peak_bytes()})


def _serve_ceilings(task: Message, reply: Callable[[Message], None]) -> None:
    from cxr_jax.bench.ceilings import measure_ceilings

    reply(dataclasses.asdict(measure_ceilings()))


def _serve_depthwise(task: Message, reply: Callable[[Message], None]) -> None:
    from cxr_jax.bench.depthwise import measure_depthwise

    rows = 0
    for row in measure_depthwise(DepthwiseCase(**task["depthwise"]), task["copy_bytes"]):
        reply({"row": row})
        rows += 1
    reply({"rows": rows})


def _serve_epoch(task: Message, reply: Callable[[Message], None]) -> None:
    from cxr_jax.bench.epoch import run_epoch

    reply(run_epoch(EpochCase(**task["epoch"])) | {"peak_memory_bytes": peak_memory_bytes()})


WHOLE_TASKS = {"ceilings": _serve_ceilings, "depthwise": _serve_depthwise, "epoch": _serve_epoch}
"""Tasks that are carried out without further requests."""


def tell(error: Exception) -> str:
    """`error` as a sentence."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "out of memory; a smaller batch or image size needs less"
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"[:300]


def hold_to_cores(count: int) -> None:
    """Let this process and the threads that it will start run on the first `count` of its cores only.

    jax and torch count those cores when they start their threads, so this comes before they are imported.
    """
    if count < available_cores():
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_allocator(environment: Mapping[str, str], *, as_installed: bool) -> str:
    """Which memory allocator this process uses, `environment` being what it began with."""
    preloaded = re.split("[: ]+", environment.get("LD_PRELOAD", "").strip())
    if preloaded != [""]:
        return "preloaded " + ", ".join(Path(library).name for library in preloaded)
    settings = [part for part in [environment.get("GLIBC_TUNABLES", "")] if part]
    if as_installed and allocator_applies(dict(environment)):
        settings.append("freed memory kept")
    return ", ".join(settings) or "default"


def peak_memory_bytes() -> int:
    """The largest resident set that this process has had, in bytes: program, compiler, parameters and activations.

    Linux keeps the mark of the program itself; its `ru_maxrss`, used elsewhere, also counts the program that ran in
    the process before it was replaced.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        match = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        if match:
            return int(match[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _prepare(case: Case) -> Workload:
    if case.implementation == "timm":
        from cxr_jax.bench.rivals import prepare
    else:
        from cxr_jax.bench.steps import prepare
    return prepare(case)


def run_round(step: Callable[[], None], *, steps: int, seconds: float, uncounted: int = 1) -> list[float]:
    """Seconds of each of at least `steps` steps that together take at least `seconds`.

    The `uncounted` steps before them are not: the caches hold what the other process left there.
    """
    for _ in range(uncounted):
        step()
    taken: list[float] = []
    while len(taken) < steps or sum(taken) < seconds:
        began = time.perf_counter()
        step()
        taken.append(time.perf_counter() - began)
    return taken


def _require_preloaded(library: str) -> None:
    """Raise UserError unless `library` is loaded: the loader passes over one that does not fit with a warning only."""
    maps = Path("/proc/self/maps")
    if library and maps.is_file() and str(Path(library).resolve()) not in maps.read_text():
        raise UserError(f"{library} could not be preloaded; give the path of a shared library for this machine.")


def _trace(step: Callable[[], None], folder: str) -> None:
    import jax

    with jax.profiler.trace(folder):
        for _ in range(TRACED_STEPS):
            step()


if __name__ == "__main__":
    main()
