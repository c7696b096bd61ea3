"""`cxr-jax bench`: speed and memory of the training step and of inference, of an epoch, and of the start."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import FlagCreatePairsOff, arg

from cxr_jax.config.command_line import parse
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import RenderableType

    from cxr_jax.bench.cases import Plan
    from cxr_jax.bench.measure import Effort
    from cxr_jax.bench.record import CeilingsByThreads
    from cxr_jax.bench.works import WorkPlan

SUMMARY = "measure speed and memory, beside stock convolutions or PyTorch"

STEP_WORKS = ("train", "inference", "both")

WITHOUT_EFFECT = {
    "startup": ("backends", "precisions", "devices", "steps"),
    "depthwise": ("backends", "devices", "dataset", "steps"),
}
"""Options that these works do not know."""

FEWEST_STEPS = 3
"""Of a turn."""

Measured = tuple[dict[str, "Any"], "RenderableType", list[str]]
"""The record, the table, and a line for each failure."""

_Switch = FlagCreatePairsOff[bool]
_List = Annotated[str, arg(metavar="A,B,...")]


@dataclass(frozen=True)
class Options:
    """All combinations of the lists are measured, each in a process of its own."""

    models: _List = "mobilenetv2_100"
    sizes: _List = "224"  # sides of the images in pixels
    batches: _List = "32"  # images in a step
    # both: the steps of train and inference; epoch: an epoch of real training beside its bare steps; startup: seconds
    # from the command to the first step; depthwise: the depthwise convolutions alone beside their floor
    work: Literal["train", "inference", "both", "epoch", "startup", "depthwise"] = "both"
    backends: _List = "jit"  # what compiles the training step: jit, pmap, or both, which then take turns
    precisions: _List = "float32"  # of our activations: float32, bfloat16, or both, which then take turns
    # cores that the processes are held to: by default all, and with several numbers the scaling is shown
    threads: _List = ""
    devices: int = 0  # devices that share a batch; on a CPU that many are made; 0: all that there are
    plain: _Switch = False  # the same network with stock convolutions, as nnx.Conv has them, takes turns with ours
    # the same work in PyTorch takes turns with ours: channels_last, float32 and bfloat16 autocast
    against: Annotated[Literal["timm"] | None, arg(metavar="timm")] = None
    compile: _Switch = False  # with --against: torch.compile too
    # with --against: PyTorch with this library preloaded, such as libtcmalloc, too
    preload: Annotated[str, arg(metavar="PATH")] = ""
    rounds: int = 5  # turns of each process; starts with and without compiled programs
    steps: int = 0  # fewest steps of a turn (0: 3); steps of an epoch (0: all)
    seconds: float = 1.0  # shortest time of a turn
    dataset: str = "chest_xray"  # with epoch and startup: prepared data to train on
    # with startup: weights to begin with
    weights: Annotated[str, arg(metavar="FILE")] = ""
    trace: Annotated[str, arg(metavar="FOLDER")] = ""  # leave a profiler trace of each of our programs there
    json: Annotated[str, arg(metavar="FILE")] = ""  # write everything there, each step's time included


def main(arguments: list[str]) -> None:
    """Measure what `arguments` ask for and print it as tables.

    Raises UserError at the end if some case failed; the others are printed and written all the same.
    """
    options = parse(Options, arguments, prog="cxr-jax bench", description=SUMMARY)
    Terminal(on_standard_error=True).say(f"Measuring {options.work} of {options.models}, in processes of their own")
    measure = _measure_steps if options.work in STEP_WORKS else _measure_works
    plan = _plan(options) if options.work in STEP_WORKS else _work_plan(options)
    effort = _effort(options)
    if options.json:
        _require_new(Path(options.json))

    import sys

    from rich.console import Console

    from cxr_jax.bench.children import ask_ceilings
    from cxr_jax.runs.files import write_json

    with Console(stderr=True).status("measuring the machine") as status:
        needed = () if options.work in ("epoch", "startup") else plan.threads
        ceilings = {threads: ask_ceilings(threads) for threads in needed}
        record, table, failures = measure(options, plan, effort, ceilings, status.update)
    # A pipe has no width: lines are then as long as their content, so that figures can be found in them.
    Console(width=None if sys.stdout.isatty() else 10_000).print(table)
    if options.json:
        write_json(options.json, record)
    if failures:
        raise UserError(f"{len(failures)} measurements failed, first {failures[0]}")


def _measure_steps(
    options: Options, plan: Plan, effort: Effort, ceilings: CeilingsByThreads, tell: Callable[[str], None]
) -> Measured:
    """Contests of training and inference."""
    from cxr_jax.bench.measure import run_contest
    from cxr_jax.bench.record import describe
    from cxr_jax.bench.tables import render

    trace = Path(options.trace).absolute() if options.trace else None
    outcomes = [run_contest(contest, effort, tell, trace=trace) for contest in plan.contests()]
    record = describe(plan, effort, ceilings, outcomes)
    failed = [entry for outcome in outcomes for entry in outcome.measurements if entry.error]
    failures = [f"{entry.case.task}, {entry.case.way}: {entry.error}" for entry in failed]
    return record, render(outcomes, ceilings, record["environment"]["machine"]), failures


def _measure_works(
    options: Options, plan: WorkPlan, effort: Effort, ceilings: CeilingsByThreads, tell: Callable[[str], None]
) -> Measured:
    """Epochs, starts or depthwise convolutions."""
    del options, effort
    from cxr_jax.bench.record import describe_works
    from cxr_jax.bench.work_tables import render_works
    from cxr_jax.bench.works import measure_works

    results = measure_works(plan, ceilings, tell)
    record = describe_works(plan, results, ceilings)
    failures = [f"{result['task']}: {result['error']}" for result in results if "error" in result]
    return record, render_works(results, record["environment"]["machine"]), failures


def _grid(options: Options) -> dict[str, Any]:
    """The lists that every work has; UserError for a mistake in one of them."""
    from cxr_jax.models.registry import find_architecture

    models = _names("models", options.models)
    for model in models:
        find_architecture(model)
    backends = _names("backends", options.backends)
    unknown = set(backends) - {"jit", "pmap"}
    if unknown:
        raise UserError(f"--backends holds {', '.join(sorted(unknown))}; choose among jit and pmap", EXIT_USAGE)
    precisions = _names("precisions", options.precisions)
    if set(precisions) - {"float32", "bfloat16"}:
        raise UserError(f"--precisions is {options.precisions!r}; choose among float32 and bfloat16", EXIT_USAGE)
    return {
        "models": models,
        "image_sizes": _numbers("sizes", options.sizes, 16, 2048),
        "batch_sizes": _numbers("batches", options.batches, 1, 2**20),
        "backends": backends,
        "precisions": precisions,
        "threads": _threads(options.threads),
        "devices": _at_least("devices", options.devices, 0),
    }


def _work_plan(options: Options) -> WorkPlan:
    """What to measure of a work that is no contest; UserError for whatever cannot work at all."""
    from cxr_jax.bench.works import WorkPlan

    asked = [name for name in ("plain", "against", "compile", "preload", "trace") if getattr(options, name)]
    if asked:
        raise UserError(f"--{asked[0]} needs --work train, inference or both", EXIT_USAGE)
    if options.weights and options.work != "startup":
        raise UserError("--weights needs --work startup", EXIT_USAGE)
    for name in WITHOUT_EFFECT.get(options.work, ()):
        if getattr(options, name) != getattr(Options, name):
            raise UserError(f"--{name} has no effect with --work {options.work}; leave it out", EXIT_USAGE)
    grid = _grid(options)
    if options.work != "depthwise":
        from cxr_jax.data.prepared import PreparedData

        PreparedData.open(options.dataset)
    if options.weights:
        from cxr_jax.models.pretrained import find_weights

        find_weights(options.weights, grid["models"][0])
    steps = int(_at_least("steps", options.steps, 0))
    return WorkPlan(
        options.work, **grid, dataset=options.dataset, weights=options.weights, steps=steps, rounds=options.rounds
    )


def _plan(options: Options) -> Plan:
    """What to measure of steps; UserError for whatever cannot work at all."""
    from cxr_jax.bench.cases import Plan
    from cxr_jax.bench.rivals import require_timm

    grid = _grid(options)
    if options.weights:
        raise UserError("--weights needs --work startup", EXIT_USAGE)
    if options.against is None and (options.compile or options.preload):
        raise UserError("--compile and --preload change how PyTorch runs; add --against timm", EXIT_USAGE)
    if options.preload and not Path(options.preload).is_file():
        raise UserError(f"there is no file {options.preload} to preload")
    if options.against is not None:
        require_timm()
    return Plan(
        **grid,
        works=("train", "inference") if options.work == "both" else (options.work,),
        plain=options.plain,
        against_timm=options.against is not None,
        torch_compile=options.compile,
        preload=str(Path(options.preload).absolute()) if options.preload else "",
    )


def _require_new(path: Path) -> None:
    """Raise UserError now, rather than after all is measured, if `path` cannot be written."""
    import os

    if path.exists():
        raise UserError(f"{path} exists already; name a new file for --json.")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{folder} cannot be written; choose another place for --json.")


def _effort(options: Options) -> Effort:
    from cxr_jax.bench.measure import Effort

    return Effort(
        warm_up=2,
        rounds=_at_least("rounds", options.rounds, 1),
        steps=_at_least("steps", options.steps, 0) or FEWEST_STEPS,
        seconds=_at_least("seconds", options.seconds, 0),
    )


def _threads(listed: str) -> tuple[int, ...]:
    import os

    from cxr_jax.bench.worker import available_cores

    cores = available_cores()
    threads = _numbers("threads", listed, 1, cores) if listed else (cores,)
    if threads != (cores,) and not hasattr(os, "sched_setaffinity"):
        raise UserError("This system cannot hold a process to some of its cores; leave --threads out.")
    return threads


def _names(option: str, listed: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in listed.split(",")))
    if "" in names:
        raise UserError(f"--{option} is {listed!r}, but must be names with commas between them.", EXIT_USAGE)
    return names


def _numbers(option: str, listed: str, least: int, most: int) -> tuple[int, ...]:
    names = _names(option, listed)
    if not all(name.isdecimal() and least <= int(name) <= most for name in names):
        raise UserError(f"--{option} is {listed!r}, but must be whole numbers from {least} to {most}.", EXIT_USAGE)
    return tuple(map(int, names))


def _at_least(option: str, value: float, least: int) -> float:
    if not least <= value < math.inf:
        raise UserError(f"--{option} is {value}, but must be a number from {least} up.", EXIT_USAGE)
    return value
