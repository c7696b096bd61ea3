"""Epochs, starts and depthwise convolutions as tables for the terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

Result = Mapping[str, Any]

EPOCH_LEGEND = (
    "epoch: from the beginning of the first step to the end of training, batches, log, checkpoints, TensorBoard and "
    "progress bar included, validation left out. bare steps: as many runs of the same compiled step on batches at "
    "hand, half of them right before and half right after. within steps: the part of the epoch inside the steps. "
    "saving: what came after the last validation; in a part of an epoch it weighs more than in a whole one. peak "
    "memory: largest resident set of the process, nothing subtracted."
)
STARTUP_LEGEND = (
    "Seconds from the start of the process to the end of the first step, medians by phase. cold: nothing compiled "
    "before; cached: with what the cold start left. interpreter: Python, started twice where huge pages are asked for. "
    "The kernel's cache of files is left as it is. programs: compiled, or found in the cache."
)
DEPTHWISE_LEGEND = (
    "Milliseconds of one convolution, and as multiples of its floor: its operands read and its result written once at "
    "the measured speed of a copy. What fits in a cache can be faster than that. All: each layer as often as the "
    "network holds it."
)
DIRECTIONS = ("forward", "input_gradient", "weight_gradient")


def render_works(results: Sequence[Result], machine: Mapping[str, Any]) -> Group:
    """The results of `record.describe_works` as tables; `machine` is that of its environment."""
    parts: list[RenderableType] = [Text(f"{machine['processor']}, {machine['cores']} cores", "bold")]
    renderers: dict[str, Callable[[Sequence[Result]], Iterator[RenderableType]]] = {
        "epoch": _epochs,
        "startup": _startups,
        "depthwise": _depthwise,
    }
    for work, render in renderers.items():
        chosen = [result for result in results if result["work"] == work and "error" not in result]
        if chosen:
            parts += render(chosen)
    parts += [Text(f"{result['task']}: {result['error']}", "red") for result in results if "error" in result]
    return Group(*parts)


def _epochs(results: Sequence[Result]) -> Iterator[RenderableType]:
    figures = ("steps", "epoch", "bare steps", "ratio", "within steps", "saving", "validation", "images/s", "memory")
    table = Table("task", *(Column(name, justify="right") for name in ("cores", *figures)))
    for result in results:
        names = ("epoch_seconds", "pure_seconds")
        epoch, pure = (f"{result[name]:.2f} s" for name in names)
        table.add_row(
            result["task"],
            str(result["case"]["threads"]),
            str(result["steps"]),
            epoch,
            pure,
            Text(f"{result['ratio']:.3f} x", "bold"),
            f"{result['ratio_of_steps']:.3f} x",
            f"{result['finish_seconds']:.2f} s",
            f"{result['validation_seconds']:.2f} s",
            f"{result['images_per_second']:,.1f}",
            f"{result['peak_memory_bytes'] / 2**20:,.0f} MiB",
        )
    yield from (table, Text(EPOCH_LEGEND, "dim"))


def _startups(results: Sequence[Result]) -> Iterator[RenderableType]:
    for result in results:
        cold, cached = result["cold"], result["cached"]
        table = Table("phase", Column("cold", justify="right"), Column("cached", justify="right"), title=result["task"])
        for phase, seconds in cold["phases"].items():
            table.add_row(phase, f"{seconds:.2f} s", f"{cached['phases'][phase]:.2f} s")
        table.add_section()
        table.add_row("in all", Text(f"{cold['seconds']:.2f} s", "bold"), Text(f"{cached['seconds']:.2f} s", "bold"))
        counts = (side["rounds"][0]["compilation"] for side in (cold, cached))
        table.add_row("programs", *(f"{count['programs']:.0f}, {count['found']:.0f} found" for count in counts))
        yield table
    yield Text(STARTUP_LEGEND, "dim")


def _depthwise(results: Sequence[Result]) -> Iterator[RenderableType]:
    for result in results:
        columns = ("times", "floor", *(direction.replace("_", " ") for direction in DIRECTIONS))
        table = Table("layer", "lowering", *(Column(name, justify="right") for name in columns), title=result["task"])
        for row in result["rows"]:
            cells = [Text(row["error"], "red")] if "error" in row else _milliseconds(row["seconds"], row)
            table.add_row(row["layer"], row["lowering"], str(row["count"]), f"{1e3 * row['floor_seconds']:.3f}", *cells)
        table.add_section()
        for lowering, total in totals(result["rows"]).items():
            floor = f"{1e3 * total['floor_seconds']:.3f}"
            table.add_row("all", lowering, "", floor, *_milliseconds(total["seconds"], total))
        yield table
    yield Text(DEPTHWISE_LEGEND, "dim")


def totals(rows: Sequence[Result]) -> dict[str, dict[str, Any]]:
    """Seconds of each direction and of the floor over the whole network, by lowering; without one that failed."""
    added: dict[str, dict[str, Any]] = {}
    failed = {row["lowering"] for row in rows if "error" in row}
    for row in (row for row in rows if row["lowering"] not in failed):
        total = added.setdefault(row["lowering"], {"floor_seconds": 0.0, "seconds": dict.fromkeys(DIRECTIONS, 0.0)})
        total["floor_seconds"] += row["count"] * row["floor_seconds"]
        for direction in DIRECTIONS:
            total["seconds"][direction] += row["count"] * row["seconds"][direction]
    return added


def _milliseconds(seconds: Mapping[str, float], row: Result) -> list[str]:
    return [f"{1e3 * value:.3f} ({value / row['floor_seconds']:.1f} x)" for value in seconds.values()]
