"""The child process of one case: prepares it, takes its turns when told to, and says what they cost.

Talks in lines of JSON. The first line that it reads is a task. `{"ceilings": true}` is answered by one line, the fields
of `ceilings.Ceilings`. `{"case": {...}}` is answered by `{"ready": facts}`. Then come `{"steps": n, "seconds": s}`, the
arguments of `run_round`, answered by `{"seconds": [...]}`; at the end of its input it tells
`{"peak_memory_bytes": n, "device_peak_bytes": n or null}`. Whatever goes wrong is told as `{"failure": sentence}`.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cxr_jax.bench.cases import OF_PYTORCH, RIVALS, Case
from cxr_jax.bench.children import AS_INSTALLED
from cxr_jax.errors import UserError
from cxr_jax.process import available_cores, configure_process, peak_memory_bytes

WARM_UP_STEPS = 2

Message = dict[str, Any]


def main() -> None:
    """Serves the parent on the standard streams; what libraries print goes to standard error."""
    if AS_INSTALLED in sys.argv[1:]:
        configure_process()
    # whatever else is written to descriptor 1 must not be taken for an answer
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)
        try:
            for reply in serve(map(json.loads, sys.stdin)):
                print(json.dumps(reply), file=channel, flush=True)
        except Exception as error:
            print(json.dumps({"failure": tell(error)}), file=channel, flush=True)


def serve(requests: Iterator[Message]) -> Iterator[Message]:
    """Yields the answers to `requests`, as the module says. Raises UserError for a mistake in the task."""
    task = next(requests)
    if "ceilings" in task:
        from cxr_jax.bench.ceilings import measure_ceilings

        yield dataclasses.asdict(measure_ceilings())
        return
    case = Case(**task["case"])
    _require_preloaded(case.preload)
    if case.implementation in OF_PYTORCH:
        from cxr_jax.bench.rivals import prepare
    elif case.implementation in RIVALS:
        from cxr_jax.bench.runtimes import prepare
    else:
        from cxr_jax.bench.steps import prepare
    workload = prepare(case)
    for _ in range(WARM_UP_STEPS):
        workload.step()
    yield {"ready": {**workload.facts, "cores": available_cores()}}
    for request in requests:
        yield {"seconds": run_round(workload.step, **request)}
    yield {"peak_memory_bytes": peak_memory_bytes(), "device_peak_bytes": workload.device_peak_bytes()}


def run_round(
    step: Callable[[], None], *, steps: int, seconds: float, uncounted: int = 1, clock: str = "wall"
) -> list[float]:
    """Returns the seconds of each of at least `steps` steps that together take at least `seconds`.

    The `uncounted` steps before them are not: the caches hold what the other process left there. `clock` is one of
    `Effort`'s.
    """
    now = time.process_time if clock == "cpu" else time.perf_counter
    for _ in range(uncounted):
        step()
    taken: list[float] = []
    while len(taken) < steps or sum(taken) < seconds:
        began = now()
        step()
        taken.append(now() - began)
    return taken


def tell(error: Exception) -> str:
    """Returns `error` as a sentence."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "out of memory; a smaller batch or image size needs less"
    return f"unexpected {type(error).__name__}: {' '.join(str(error).split())}"[:300]


def _require_preloaded(library: str) -> None:
    """Raises UserError unless `library` is loaded: the loader passes over one that does not fit with a warning only."""
    maps = Path("/proc/self/maps")
    if library and maps.is_file() and str(Path(library).resolve()) not in maps.read_text():
        raise UserError(f"{library} could not be preloaded; give the path of a shared library for this machine.")


if __name__ == "__main__":
    main()
