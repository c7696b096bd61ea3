"""Works that are no contest: an epoch, a start, the depthwise convolutions; one case after the other."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from cxr_jax.bench.cases import Backend, DepthwiseCase, EpochCase, Precision, StartupCase
from cxr_jax.bench.children import ask_depthwise, ask_epoch
from cxr_jax.bench.record import CeilingsByThreads
from cxr_jax.bench.startup import measure_startup
from cxr_jax.errors import UserError

WholeWork = Literal["epoch", "startup", "depthwise"]


@dataclass(frozen=True)
class WorkPlan:
    """Everything that one call measures: all combinations of the lists that the work knows."""

    work: WholeWork
    models: tuple[str, ...]
    image_sizes: tuple[int, ...]
    batch_sizes: tuple[int, ...]
    threads: tuple[int, ...]
    backends: tuple[Backend, ...] = ("jit",)
    precisions: tuple[Precision, ...] = ("float32",)
    devices: int = 0
    dataset: str = "chest_xray"
    weights: str = ""
    steps: int = 0  # of an epoch; 0: all
    rounds: int = 1  # of a start

    def cases(self) -> Iterator[EpochCase | StartupCase | DepthwiseCase]:
        """The cases in order."""
        grid = itertools.product(self.models, self.image_sizes, self.batch_sizes, self.threads)
        for model, image_size, batch_size, threads in grid:
            shared = {"model": model, "image_size": image_size, "batch_size": batch_size, "threads": threads}
            if self.work == "startup":
                yield StartupCase(**shared, dataset=self.dataset, weights=self.weights)
            elif self.work == "depthwise":
                yield from (DepthwiseCase(**shared, precision=precision) for precision in self.precisions)
            else:
                yield from (
                    EpochCase(
                        **shared,
                        dataset=self.dataset,
                        steps=self.steps,
                        backend=backend,
                        precision=precision,
                        devices=self.devices,
                    )
                    for precision, backend in itertools.product(self.precisions, self.backends)
                )


def measure_works(plan: WorkPlan, ceilings: CeilingsByThreads, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Measure every case; each result has `work`, `task`, `case` and its figures, or an `error` in their place."""
    results = []
    for case in plan.cases():
        tell(f"measuring {case.task}")
        result: dict[str, Any] = {"work": plan.work, "task": case.task, "case": dataclasses.asdict(case)}
        try:
            result |= _figures(case, plan, ceilings, tell)
        except UserError as error:
            result["error"] = str(error)
        results.append(result)
    return results


def _figures(
    case: EpochCase | StartupCase | DepthwiseCase,
    plan: WorkPlan,
    ceilings: CeilingsByThreads,
    tell: Callable[[str], None],
) -> dict[str, Any]:
    if isinstance(case, EpochCase):
        return ask_epoch(case)
    if isinstance(case, StartupCase):
        return measure_startup(case, plan.rounds, tell)
    return {"rows": list(ask_depthwise(case, ceilings[case.threads]["copy_bytes"]))}
