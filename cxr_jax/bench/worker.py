"""The child process of one case: prepares it, takes its turns when told to, and says what they cost.

Talks in lines of JSON. The first line that it reads is a task. `{"ceilings": true}` is answered by one
line, the fields of `ceilings.Ceilings`. The answer to
`{"case": {...}, "warm_up": n}` is `{"ready": facts}`. Then come `{"steps": n, "seconds": s}`, the arguments of
`run_round`, answered by `{"seconds": [...]}`, and `{"trace": folder}`, answered by `{"traced": folder}`; at the end of
its input it tells `{"peak_memory_bytes": n, "device_peak_bytes": n or null}`. Whatever goes wrong is told as
`{"failure": sentence}`.
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
from typing import Any

from cxr_jax.bench.cases import Case
from cxr_jax.bench.children import AS_INSTALLED, available_cores
from cxr_jax.errors import UserError
from cxr_jax.process import allocator_applies, configure_process

TRACED_STEPS = 3

Message = dict[str, Any]


def main() -> None:
    """Serves the parent on the standard streams; what libraries print goes to standard error."""
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
            serve(map(json.loads, sys.stdin), reply, describe_allocator(os.environ, as_installed=as_installed))
        except Exception as error:
            reply({"failure": tell(error)})


def serve(requests: Iterable[Message], reply: Callable[[Message], None], allocator: str = "") -> None:
    """Carries out the task that `requests` begin with, as the module says. Raises UserError for a mistake in it."""
    requests = iter(requests)
    task = next(requests)
    if "ceilings" in task:
        from cxr_jax.bench.ceilings import measure_ceilings

        reply(dataclasses.asdict(measure_ceilings()))
    else:
        _serve_case(Case(**task["case"]), task["warm_up"], requests, reply, allocator)


def _serve_case(
    case: Case, warm_up: int, requests: Iterable[Message], reply: Callable[[Message], None], allocator: str
) -> None:
    _require_preloaded(case.preload)
    if case.implementation == "timm":
        from cxr_jax.bench.rivals import prepare
    else:
        from cxr_jax.bench.steps import prepare
    workload = prepare(case)
    for _ in range(warm_up):
        workload.step()
    reply({"ready": {**workload.facts, "cores": available_cores(), "allocator": allocator}})
    for request in requests:
        if "trace" in request:
            import jax

            with jax.profiler.trace(request["trace"]):
                for _ in range(TRACED_STEPS):
                    workload.step()
            reply({"traced": request["trace"]})
        else:
            reply({"seconds": run_round(workload.step, **request)})
    reply({"peak_memory_bytes": peak_memory_bytes(), "device_peak_bytes": workload.device_peak_bytes()})


def run_round(step: Callable[[], None], *, steps: int, seconds: float, uncounted: int = 1) -> list[float]:
    """Returns the seconds of each of at least `steps` steps that together take at least `seconds`.

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


def tell(error: Exception) -> str:
    """Returns `error` as a sentence."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "out of memory; a smaller batch or image size needs less"
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"[:300]


def describe_allocator(environment: Mapping[str, str], *, as_installed: bool) -> str:
    """Returns which memory allocator this process uses, `environment` being what it began with."""
    preloaded = re.split("[: ]+", environment.get("LD_PRELOAD", "").strip())
    if preloaded != [""]:
        return "preloaded " + ", ".join(Path(library).name for library in preloaded)
    settings = [part for part in [environment.get("GLIBC_TUNABLES", "")] if part]
    if as_installed and allocator_applies(dict(environment)):
        settings.append("freed memory kept")
    return ", ".join(settings) or "default"


def peak_memory_bytes() -> int:
    """Returns the largest resident set that this process has had, in bytes, nothing subtracted.

    Linux keeps the mark of the program itself; its `ru_maxrss`, used elsewhere, also counts the program that ran in
    the process before it was replaced.
    """
    status = Path("/proc/self/status")
    match = re.search(r"VmHWM:\s*(\d+) kB", status.read_text()) if status.is_file() else None
    if match:
        return int(match[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _require_preloaded(library: str) -> None:
    """Raises UserError unless `library` is loaded: the loader passes over one that does not fit with a warning only."""
    maps = Path("/proc/self/maps")
    if library and maps.is_file() and str(Path(library).resolve()) not in maps.read_text():
        raise UserError(f"{library} could not be preloaded; give the path of a shared library for this machine.")


if __name__ == "__main__":
    main()
