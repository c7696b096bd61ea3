"""`cxr-jax bench`: speed and memory of the training step and of inference."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import FlagCreatePairsOff, arg

from cxr_jax.config.command_line import parse
from cxr_jax.errors import EXIT_USAGE, UserError

if TYPE_CHECKING:
    from cxr_jax.bench.cases import Plan
    from cxr_jax.bench.measure import Effort

SUMMARY = "measure speed and memory, beside stock convolutions or PyTorch"

_Switch = FlagCreatePairsOff[bool]
_List = Annotated[str, arg(metavar="A,B,...")]


@dataclass(frozen=True)
class Options:
    """All combinations of the lists are measured, each in a process of its own."""

    models: _List = "mobilenetv2_100"
    sizes: _List = "224"  # sides of the images in pixels
    batches: _List = "32"  # images in a step
    work: Literal["train", "inference", "both"] = "both"
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
    rounds: int = 5  # turns of each process
    steps: int = 3  # fewest steps of a turn
    seconds: float = 1.0  # shortest time of a turn
    trace: Annotated[str, arg(metavar="FOLDER")] = ""  # leave a profiler trace of each of our programs there
    json: Annotated[str, arg(metavar="FILE")] = ""  # write everything there, each step's time included


def main(arguments: list[str]) -> None:
    """Measure what `arguments` ask for and print it as tables.

    Raises UserError at the end if some case failed; the others are printed and written all the same.
    """
    options = parse(Options, arguments, prog="cxr-jax bench", description=SUMMARY)
    plan, effort = _plan(options), _effort(options)
    if options.json:
        _require_new(Path(options.json))

    import sys

    from rich.console import Console

    from cxr_jax.bench.children import ask_ceilings
    from cxr_jax.bench.measure import run_contest
    from cxr_jax.bench.record import describe
    from cxr_jax.bench.tables import render
    from cxr_jax.runs.files import write_json

    trace = Path(options.trace).absolute() if options.trace else None
    with Console(stderr=True).status("measuring the machine") as status:
        ceilings = {threads: ask_ceilings(threads) for threads in plan.threads}
        outcomes = [run_contest(contest, effort, status.update, trace=trace) for contest in plan.contests()]
    record = describe(plan, effort, ceilings, outcomes)
    # A pipe has no width: lines are then as long as their content, so that figures can be found in them.
    Console(width=None if sys.stdout.isatty() else 10_000).print(
        render(outcomes, ceilings, record["environment"]["machine"])
    )
    if options.json:
        write_json(options.json, record)
    failures = [entry for outcome in outcomes for entry in outcome.measurements if entry.error]
    if failures:
        first = failures[0]
        raise UserError(
            f"{len(failures)} measurements failed, first {first.case.task}, {first.case.way}: {first.error}"
        )


def _plan(options: Options) -> Plan:
    """What to measure; UserError for whatever cannot work at all."""
    from cxr_jax.bench.cases import Plan
    from cxr_jax.bench.rivals import require_timm
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
    if options.against is None and (options.compile or options.preload):
        raise UserError("--compile and --preload change how PyTorch runs; add --against timm", EXIT_USAGE)
    if options.preload and not Path(options.preload).is_file():
        raise UserError(f"there is no file {options.preload} to preload")
    if options.against is not None:
        require_timm()
    return Plan(
        models=models,
        image_sizes=_numbers("sizes", options.sizes, 16, 2048),
        batch_sizes=_numbers("batches", options.batches, 1, 2**20),
        works=("train", "inference") if options.work == "both" else (options.work,),
        backends=backends,
        precisions=precisions,
        threads=_threads(options.threads),
        devices=_at_least("devices", options.devices, 0),
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
        steps=_at_least("steps", options.steps, 1),
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
