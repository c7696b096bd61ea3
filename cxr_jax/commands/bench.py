"""`cxr-jax bench`: speed and memory of the training step and of inference, of an epoch, and of the start."""

from __future__ import annotations

import importlib.util
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal

from cxr_jax.bench.cases import OF_PYTORCH, RIVALS, Case, Contest, Effort
from cxr_jax.config.command_line import Option, parse
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.terminal import Terminal

SUMMARY = "measure speed and memory, beside stock convolutions or PyTorch"

OF_STEPS = ("plain", "against", "rival_precisions", "compile", "contiguous", "preload", "steps", "seconds", "clock")
"""Options that have no effect on an epoch and on a start."""

UNKNOWN_TO_A_START = ("backends", "precisions", "devices")

_WAYS_OF_RUNTIMES = (("onnxruntime", "float32"), ("openvino", "float32"), ("openvino", "bfloat16"))

_List = Annotated[str, Option("A,B,...")]


@dataclass(frozen=True)
class Options(Effort):
    """All combinations of the lists are measured, each in a process of its own."""

    models: _List = "mobilenetv2_100"  # networks, as cxr-jax models lists them
    sizes: _List = "224"  # sides of the images in pixels
    batches: _List = "32"  # images in a step
    # both: the steps of train and inference; epoch: an epoch of real training beside its bare steps; startup: seconds
    # from the command to the first step
    work: Literal["train", "inference", "both", "epoch", "startup"] = "both"
    backends: _List = "jit"  # what compiles the training step: jit, pmap, or both, which then take turns
    precisions: _List = "float32"  # of our activations: float32, bfloat16, or both, which then take turns
    threads: _List = ""  # cores that the processes are held to; by default all
    devices: int = 0  # devices that share a batch; on a CPU that many are made; 0: all that there are
    plain: bool = False  # the same network with stock convolutions, as nnx.Conv has them, takes turns with ours
    # the same work by other programs takes turns with ours: timm (PyTorch, channels_last); of inference also zentorch,
    # which compiles timm's for AMD's processors, and onnxruntime and openvino, which run the network as cxr-jax export
    # writes it
    against: _List = ""
    rival_precisions: _List = "float32,bfloat16"  # with --against timm or zentorch: of PyTorch, the second by autocast
    compile: bool = False  # with --against timm: torch.compile too
    contiguous: bool = False  # with --against timm: images and weights with the channels first too
    # with --against timm: PyTorch with this library preloaded, such as libtcmalloc, too
    preload: Annotated[str, Option("PATH")] = ""
    dataset: str = "chest_xray"  # with epoch and startup: prepared data to train on
    weights: Annotated[str, Option("FILE")] = ""  # with startup: weights to begin with
    json: Annotated[str, Option("FILE")] = ""  # write everything there, each step's time included
    # with --work train --precisions bfloat16,float32: write into this table which is the faster; training.precision =
    # "auto" goes by such a table, cxr_jax/training/measured_precisions.json
    table: Annotated[str, Option("FILE")] = ""


def main(arguments: list[str]) -> None:
    """Measures what `arguments` ask for and prints it as tables.

    Raises UserError at the end if some case failed; the others are printed and written all the same.
    """
    from cxr_jax.bench.tables import render

    options = parse(Options, arguments, prog="cxr-jax bench", description=SUMMARY)
    terminal = Terminal()
    terminal.say(f"Measuring {options.work} of {options.models}, in processes of their own")
    contests = contests_of(options)
    if options.json:
        _require_new(Path(options.json))
    record = _measure(options, contests, terminal)
    terminal.show(render(record))
    terminal.say(f"written to {options.json}" if options.json else "Nothing is written; --json FILE keeps the figures.")
    failed = [entry for entry in (*record["measurements"], *record["results"]) if "error" in entry]
    if failed:
        raise UserError(f"{len(failed)} measurements failed, first {failed[0]['name']}: {failed[0]['error']}")


def _measure(options: Options, contests: Sequence[Contest], terminal: Terminal) -> dict[str, Any]:
    """Returns the record of all contests; what is known is written after each of them, and after every opponent."""
    from cxr_jax.bench.children import ask_ceilings
    from cxr_jax.bench.measure import Measurement, run_contest
    from cxr_jax.bench.precisions import rows_of
    from cxr_jax.bench.record import describe
    from cxr_jax.bench.whole import measure_whole
    from cxr_jax.runs.files import write_json
    from cxr_jax.training.precision_table import add_rows

    whole, effort = options.work in ("epoch", "startup"), replace(options, limit=limit_of(options))
    ceilings: dict[int, dict[str, float]] = {}
    for threads in () if whole else dict.fromkeys(contest.case.threads for contest in contests):
        with terminal.waiting(f"measuring the machine on {threads} of its cores"):
            ceilings[threads] = ask_ceilings(threads)
    measured: list[list[Measurement]] = []
    results: list[dict[str, Any]] = []

    def keep(known: Sequence[Measurement] = ()) -> dict[str, Any]:
        record = describe(effort, ceilings, [*measured, known] if known else measured, results)
        if options.json:
            write_json(options.json, record)
        return record

    for contest in contests:
        if whole:
            results.append(measure_whole(contest.case, effort, terminal))
        else:
            measured.append(run_contest(contest, effort, terminal, keep))
            if options.table:
                add_rows(Path(options.table), rows_of(measured[-1:], effort))
        record = keep()
    return record


def contests_of(options: Options) -> list[Contest]:
    """Returns what to measure: all combinations of the lists. Raises UserError for whatever cannot work at all."""
    from cxr_jax.data.prepared import PreparedData
    from cxr_jax.export.runtimes import installed_runtimes
    from cxr_jax.models.pretrained import find_weights
    from cxr_jax.models.registry import find_architecture
    from cxr_jax.porting.requirements import require_timm
    from cxr_jax.process import available_cores

    _require_fitting(options)
    models = _names("models", options.models)
    for model in models:
        find_architecture(model)
    if options.work in ("epoch", "startup"):
        PreparedData.open(options.dataset)
    if options.weights:
        find_weights(options.weights, models[0])
    if options.preload and not Path(options.preload).is_file():
        raise UserError(f"there is no file {options.preload} to preload")
    rivals = _rivals(options)
    for rival in rivals:
        if rival in OF_PYTORCH:
            require_timm(f"--against {rival}")
        elif rival not in installed_runtimes():
            raise UserError(f"{rival} is not installed: pip install 'cxr-jax[runtimes]' brings it")
    if "zentorch" in rivals and importlib.util.find_spec("zentorch") is None:
        raise UserError("zentorch is not installed; pip install the release of zentorch that was made for this torch")
    cores = available_cores()
    shared = product(
        models,
        _numbers("sizes", options.sizes, 16, 2048),
        _numbers("batches", options.batches, 1, 2**20),
        ("train", "inference") if options.work == "both" else (options.work,),
        threads := _numbers("threads", options.threads or str(cores), 1, cores),
    )
    if threads != (cores,) and not hasattr(os, "sched_setaffinity"):
        raise UserError("This system cannot hold a process to some of its cores; leave --threads out.")
    backends = _names("backends", options.backends, ("jit", "pmap"))
    precisions = _names("precisions", options.precisions, ("float32", "bfloat16"))
    return [contest for values in shared for contest in _contests(Case(*values), options, backends, precisions)]


def _contests(
    case: Case, options: Options, backends: tuple[str, ...], precisions: tuple[str, ...]
) -> Iterator[Contest]:
    """Yields our ways of `case`; of steps all but the first are opponents, as are stock convolutions and PyTorch."""
    if case.work == "startup":
        yield Contest(replace(case, dataset=options.dataset, weights=options.weights))
        return
    # evaluation runs under jit whatever the training step is compiled by
    ways = product(precisions, ("jit",) if case.work == "inference" else backends)
    ours = [replace(case, precision=way[0], backend=way[1], devices=options.devices) for way in ways]
    if case.work == "epoch":
        yield from (Contest(replace(entry, dataset=options.dataset)) for entry in ours)
        return
    rivals = _rivals(options)
    plain = [replace(ours[0], implementation="plain")] if options.plain else []
    preloads = ("", str(Path(options.preload).absolute())) if options.preload else ("",)
    layouts = ("channels_last", "contiguous") if options.contiguous else ("channels_last",)
    of_pytorch = _names("rival-precisions", options.rival_precisions, ("float32", "bfloat16"))
    modes = product(preloads, layouts, ("eager", "compile") if options.compile else ("eager",), of_pytorch)
    timm = [
        replace(case, implementation="timm", preload=preload, layout=layout, backend=backend, precision=precision)
        for preload, layout, backend, precision in (modes if "timm" in rivals else ())
    ]
    inference_by_zentorch = case.work == "inference" and "zentorch" in rivals
    zentorch = [
        replace(case, implementation="zentorch", preload=preload, backend="compile", precision=precision)
        for preload, precision in (product(preloads, of_pytorch) if inference_by_zentorch else ())
    ]
    runtimes = [
        replace(case, implementation=implementation, backend="onnx", precision=precision)
        for implementation, precision in _WAYS_OF_RUNTIMES
        if implementation in rivals and case.work == "inference"
    ]
    yield Contest(ours[0], (*ours[1:], *plain, *timm, *zentorch, *runtimes))


def _rivals(options: Options) -> tuple[str, ...]:
    return _names("against", options.against, RIVALS) if options.against else ()


def limit_of(options: Options) -> float:
    """Returns the seconds after which a turn, an epoch or a start is given up (120 for a turn by default); 0: never."""
    return options.limit or (0.0 if options.work in ("epoch", "startup") else 120.0)


def _require_fitting(options: Options) -> None:
    """Raises UserError for options out of bounds, and for those that do not go together."""
    bounds = {"rounds": 1, "steps": 1, "seconds": 0, "limit": 0, "devices": 0}
    for name, least in bounds.items():
        if not least <= getattr(options, name) < math.inf:
            raise UserError(f"--{name} is {getattr(options, name)}, but must be a number from {least} up.", EXIT_USAGE)
    for name in (name for name in vars(options) if getattr(options, name) != getattr(Options, name)):
        if options.work in ("epoch", "startup") and name in OF_STEPS:
            raise UserError(f"--{name.replace('_', '-')} needs --work train, inference or both", EXIT_USAGE)
        if options.work == "startup" and name in UNKNOWN_TO_A_START:
            raise UserError(f"--{name} has no effect with --work startup; leave it out", EXIT_USAGE)
    rivals = _rivals(options)
    if "timm" not in rivals and (options.compile or options.contiguous or options.preload):
        sentence = "--compile, --contiguous and --preload change how PyTorch runs; add --against timm"
        raise UserError(sentence, EXIT_USAGE)
    if not set(OF_PYTORCH) & set(rivals) and options.rival_precisions != Options.rival_precisions:
        raise UserError("--rival-precisions are those of PyTorch; add --against timm", EXIT_USAGE)
    if options.work == "train" and (runtimes := [name for name in rivals if name != "timm"]):
        raise UserError(f"{' and '.join(runtimes)} cannot train; leave out --work, or ask for inference", EXIT_USAGE)
    if options.table and (options.work != "train" or set(options.precisions.split(",")) != {"bfloat16", "float32"}):
        raise UserError("--table needs --work train --precisions bfloat16,float32", EXIT_USAGE)
    if options.table and "," in options.backends:
        raise UserError("--table compares two precisions: name one of --backends", EXIT_USAGE)
    if options.clock == "cpu" and options.threads != "1":
        raise UserError("--clock cpu needs --threads 1: the threads of a process wait for each other", EXIT_USAGE)
    if options.weights and options.work != "startup":
        raise UserError("--weights needs --work startup", EXIT_USAGE)


def _require_new(path: Path) -> None:
    """Raises UserError now, rather than after all is measured, if `path` cannot be written."""
    if path.exists():
        raise UserError(f"{path} exists already; name a new file for --json.")
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise UserError(f"{folder} cannot be written; choose another place for --json.")


def _names(option: str, listed: str, known: tuple[str, ...] = ()) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in listed.split(",")))
    if "" in names:
        raise UserError(f"--{option} is {listed!r}, but must be names with commas between them.", EXIT_USAGE)
    unknown = [name for name in names if known and name not in known]
    if unknown:
        raise UserError(
            f"--{option} holds {', '.join(unknown)}; choose among {', '.join(known[:-1])} and {known[-1]}", EXIT_USAGE
        )
    return names


def _numbers(option: str, listed: str, least: int, most: int) -> tuple[int, ...]:
    names = _names(option, listed)
    if not all(name.isdecimal() and least <= int(name) <= most for name in names):
        raise UserError(f"--{option} is {listed!r}, but must be whole numbers from {least} to {most}.", EXIT_USAGE)
    return tuple(map(int, names))
