"""`cxr-jax bench`: speed and memory of the training step and of inference, of an epoch, and of the start."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cxr_jax.config.command_line import Option, parse
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.terminal import Terminal

if TYPE_CHECKING:
    from cxr_jax.bench.cases import Effort, Plan

SUMMARY = "measure speed and memory, beside stock convolutions or PyTorch"

FEWEST_STEPS = 3
"""Of a turn."""

TURN_LIMIT = 120.0
"""Seconds of a turn."""

OF_STEPS = ("plain", "against", "compile", "preload", "trace")
"""Options that an epoch and a start do not know."""

UNKNOWN_TO_A_START = ("backends", "precisions", "devices", "steps")

_Switch = bool
_List = Annotated[str, Option("A,B,...")]


@dataclass(frozen=True)
class Options:
    """All combinations of the lists are measured, each in a process of its own."""

    models: _List = "mobilenetv2_100"
    sizes: _List = "224"  # sides of the images in pixels
    batches: _List = "32"  # images in a step
    # both: the steps of train and inference; epoch: an epoch of real training beside its bare steps; startup: seconds
    # from the command to the first step
    work: Literal["train", "inference", "both", "epoch", "startup"] = "both"
    backends: _List = "jit"  # what compiles the training step: jit, pmap, or both, which then take turns
    precisions: _List = "float32"  # of our activations: float32, bfloat16, or both, which then take turns
    threads: _List = ""  # cores that the processes are held to; by default all
    devices: int = 0  # devices that share a batch; on a CPU that many are made; 0: all that there are
    plain: _Switch = False  # the same network with stock convolutions, as nnx.Conv has them, takes turns with ours
    # the same work in PyTorch takes turns with ours: channels_last, float32 and bfloat16 autocast
    against: Annotated[Literal["timm"] | None, Option("timm")] = None
    compile: _Switch = False  # with --against: torch.compile too
    # with --against: PyTorch with this library preloaded, such as libtcmalloc, too
    preload: Annotated[str, Option("PATH")] = ""
    rounds: int = 5  # turns of each process; starts with and without compiled programs
    steps: int = 0  # fewest steps of a turn (0: 3); steps of an epoch (0: all)
    seconds: float = 1.0  # shortest time of a turn
    # seconds after which a turn is given up and its case passed over (0: 120; an epoch or a start then has no limit)
    limit: float = 0.0
    dataset: str = "chest_xray"  # with epoch and startup: prepared data to train on
    weights: Annotated[str, Option("FILE")] = ""  # with startup: weights to begin with
    trace: Annotated[str, Option("FOLDER")] = ""  # leave a profiler trace of each of our programs there
    json: Annotated[str, Option("FILE")] = ""  # write everything there, each step's time included


def main(arguments: list[str]) -> None:
    """Measures what `arguments` ask for and prints it as tables.

    Raises UserError at the end if some case failed; the others are printed and written all the same.
    """
    options = parse(Options, arguments, prog="cxr-jax bench", description=SUMMARY)
    terminal = Terminal()
    terminal.say(f"Measuring {options.work} of {options.models}, in processes of their own")
    plan, effort = plan_of(options), effort_of(options)
    if options.json:
        _require_new(Path(options.json))
    failures = _measure(options, plan, effort, terminal)
    terminal.say(f"written to {options.json}" if options.json else "Nothing is written; --json FILE keeps the figures.")
    if failures:
        raise UserError(f"{len(failures)} measurements failed, first {failures[0]}")


def _measure(options: Options, plan: Plan, effort: Effort, terminal: Terminal) -> list[str]:
    """Measures, writes what is known after every contest, and shows all; returns a line for each failure."""
    from cxr_jax.bench.children import ask_ceilings
    from cxr_jax.bench.measure import Outcome, run_contest
    from cxr_jax.bench.record import describe
    from cxr_jax.bench.tables import render, render_whole
    from cxr_jax.bench.whole import measure_whole
    from cxr_jax.runs.files import write_json

    whole = plan.works[0] in ("epoch", "startup")
    trace = Path(options.trace).absolute() if options.trace else None
    ceilings: dict[int, dict[str, float]] = {}
    for threads in () if whole else plan.threads:
        with terminal.waiting(f"measuring the machine on {threads} of its cores"):
            ceilings[threads] = ask_ceilings(threads)
    outcomes: list[Outcome] = []
    results: list[dict[str, Any]] = []
    for contest in plan.contests():
        if whole:
            results.append(measure_whole(contest.case, effort, terminal))
        else:
            outcomes.append(run_contest(contest, effort, terminal, trace))
        record = describe(plan, effort, ceilings, outcomes, results)
        if options.json:
            write_json(options.json, record)
    machine = record["environment"]["machine"]
    terminal.show(render_whole(results, machine) if whole else render(outcomes, ceilings, machine))
    failed = [entry for outcome in outcomes for entry in outcome.measurements if entry.error]
    return [f"{entry.case.task}, {entry.case.way}: {entry.error}" for entry in failed] + [
        f"{result['task']}: {result['error']}" for result in results if "error" in result
    ]


def plan_of(options: Options) -> Plan:
    """Returns what to measure; UserError for whatever cannot work at all."""
    from cxr_jax.bench.cases import Plan
    from cxr_jax.bench.rivals import require_timm
    from cxr_jax.models.registry import find_architecture

    _require_fitting(options)
    models = _names("models", options.models)
    for model in models:
        find_architecture(model)
    whole = options.work in ("epoch", "startup")
    if whole:
        from cxr_jax.data.prepared import PreparedData

        PreparedData.open(options.dataset)
    if options.weights:
        from cxr_jax.models.pretrained import find_weights

        find_weights(options.weights, models[0])
    if options.preload and not Path(options.preload).is_file():
        raise UserError(f"there is no file {options.preload} to preload")
    if options.against is not None:
        require_timm()
    return Plan(
        models=models,
        image_sizes=_numbers("sizes", options.sizes, 16, 2048),
        batch_sizes=_numbers("batches", options.batches, 1, 2**20),
        works=("train", "inference") if options.work == "both" else (options.work,),
        backends=_choices("backends", options.backends, ("jit", "pmap")),
        threads=_threads(options.threads),
        devices=int(_at_least("devices", options.devices, 0)),
        plain=options.plain,
        against_timm=options.against is not None,
        precisions=_choices("precisions", options.precisions, ("float32", "bfloat16")),
        torch_compile=options.compile,
        preload=str(Path(options.preload).absolute()) if options.preload else "",
        dataset=options.dataset if whole else "",
        weights=options.weights,
        steps=int(_at_least("steps", options.steps, 0)) if options.work == "epoch" else 0,
    )


def effort_of(options: Options) -> Effort:
    """Returns how long to measure; UserError for a number out of bounds."""
    from cxr_jax.bench.cases import Effort

    limit = _at_least("limit", options.limit, 0)
    return Effort(
        warm_up=2,
        rounds=int(_at_least("rounds", options.rounds, 1)),
        steps=int(_at_least("steps", options.steps, 0)) or FEWEST_STEPS,
        seconds=_at_least("seconds", options.seconds, 0),
        limit=limit if limit or options.work in ("epoch", "startup") else TURN_LIMIT,
    )


def _require_fitting(options: Options) -> None:
    """Raises UserError for options that do not go together."""
    if options.work in ("epoch", "startup"):
        asked = [name for name in OF_STEPS if getattr(options, name)]
        if asked:
            raise UserError(f"--{asked[0]} needs --work train, inference or both", EXIT_USAGE)
    elif options.against is None and (options.compile or options.preload):
        raise UserError("--compile and --preload change how PyTorch runs; add --against timm", EXIT_USAGE)
    if options.weights and options.work != "startup":
        raise UserError("--weights needs --work startup", EXIT_USAGE)
    for name in UNKNOWN_TO_A_START if options.work == "startup" else ():
        if getattr(options, name) != getattr(Options, name):
            raise UserError(f"--{name} has no effect with --work startup; leave it out", EXIT_USAGE)


def _require_new(path: Path) -> None:
    """Raises UserError now, rather than after all is measured, if `path` cannot be written."""
    if path.exists():
        raise UserError(f"{path} exists already; name a new file for --json.")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{folder} cannot be written; choose another place for --json.")


def _threads(listed: str) -> tuple[int, ...]:
    from cxr_jax.bench.children import available_cores

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


def _choices(option: str, listed: str, known: tuple[str, str]) -> tuple[str, ...]:
    names = _names(option, listed)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise UserError(f"--{option} holds {', '.join(unknown)}; choose among {' and '.join(known)}", EXIT_USAGE)
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
