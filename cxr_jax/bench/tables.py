"""What was measured as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

LEGEND = (
    "images/s: of the median step, and of the slower and the faster quartile, without warm-up and compilation.\n"
    "peak memory: largest resident set of the case's own process (on a GPU: largest use of the device).\n"
    "GFLOP/s, GB/s: what XLA counts in the program, by the median step, and its share of the ceiling; the larger "
    "share is that of the roofline. Bytes that stay in a cache can exceed the ceiling."
)


def render(record: Mapping[str, Any]) -> Group:
    """Returns all that `record.describe` holds: machine and ceilings, figures and failures, and the ratios below."""
    machine, measurements, ratios = record["environment"]["machine"], record["measurements"], record["ratios"]
    parts = [Text(f"{machine['processor']}, {_cores(machine['cores'])}", "bold"), *_surroundings(record)]
    for result in record["results"]:
        told = _start if result["work"] == "startup" else _epoch
        if "error" not in result:
            parts.append(Text(f"{result['name']}, {_cores(result['case']['threads'])}:\n{told(result)}"))
    if measurements:
        parts.append(_measurements(measurements))
    failed = [entry for entry in (*measurements, *record["results"]) if "error" in entry]
    parts += [Text(f"{entry['name']}: {entry['error']}", "red") for entry in failed]
    if measurements:
        parts.append(Text(LEGEND, "dim"))
    return Group(*parts, *([_ratios(ratios), *_best_modes(ratios)] if ratios else []))


def _surroundings(record: Mapping[str, Any]) -> Iterator[Text]:
    """Yields a line for every kind of process, and one for the ceilings on every number of cores."""
    described: dict[str, None] = {}
    for entry in record["measurements"]:
        if facts := entry["facts"]:
            versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
            where = f"{facts['devices']} x {facts['platform']} {facts['device']}, {versions}"
            described[f"{entry['way']}: {where}, products {facts['products']}"] = None
    yield from map(Text, described)
    for values in record["ceilings"]:
        yield Text(
            f"Ceilings on {_cores(values['threads'])}: product {values['matmul_float32_flops'] / 1e9:,.0f} GFLOP/s in "
            f"float32, {values['matmul_bfloat16_flops'] / 1e9:,.0f} from bfloat16; "
            f"copy {values['copy_bytes'] / 1e9:,.1f} GB/s"
        )


def _measurements(measurements: Sequence[Mapping[str, Any]]) -> Table:
    figures = ("cores", "images/s", "middle half", "compile", "peak memory", "GFLOP/s (of product)", "GB/s (of copy)")
    table = Table("task", "by", *_right(*figures))
    for entry, following in zip_longest(measurements, measurements[1:]):
        ends = following is not None and following["task"] != entry["task"]
        table.add_row(entry["task"], entry["way"], str(entry["case"]["threads"]), *_cells(entry), end_section=ends)
    return table


def _cells(entry: Mapping[str, Any]) -> list[Text | str]:
    if "error" in entry:
        return [Text("failed", "red")]
    slow, fast = entry["middle_half"]
    compile_seconds = entry["facts"]["compile_seconds"]
    memory = entry["device_peak_bytes"] or entry["peak_memory_bytes"]
    return [
        Text(f"{entry['images_per_second']:,.1f}", "bold"),
        f"{slow:,.1f} to {fast:,.1f}",
        "-" if compile_seconds is None else f"{compile_seconds:.1f} s",
        f"{memory / 2**20:,.0f} MiB",
        _rate(entry["flops_per_second"], entry["share_of_matmul"]),
        _rate(entry["bytes_per_second"], entry["share_of_copy"]),
    ]


def _rate(value: float | None, share: float | None) -> str:
    return "-" if value is None or share is None else f"{value / 1e9:,.1f} ({share:.0%})"


def _ratios(ratios: Sequence[Mapping[str, Any]]) -> Table:
    table = Table("task", "ours", "against", *_right("cores", "times as fast", "middle half", "memory"))
    for ratio in ratios:
        value, (low, high) = ratio["times_as_fast"], ratio["middle_half"]
        table.add_row(
            ratio["task"],
            ratio["ours"],
            ratio["opponent"],
            str(ratio["threads"]),
            Text(f"{value:.2f} x", "bold green" if value >= 1 else "bold red"),
            f"{low:.2f} to {high:.2f}",
            "-" if ratio["memory"] is None else f"{ratio['memory']:.2f} x",
        )
    return table


def _best_modes(ratios: Sequence[Mapping[str, Any]]) -> Iterator[Text]:
    """Yields a sentence for every task: how we stand against each program at its best, with each allocator."""
    best: dict[tuple, Mapping[str, Any]] = {}
    for ratio in ratios:
        mode = ratio["task"], ratio["threads"], ratio["preload"], ratio["opponent"].split(",")[0]
        if ratio["preload"] is not None and ratio["times_as_fast"] <= best.get(mode, ratio)["times_as_fast"]:
            best[mode] = ratio
    for (task, threads, *_), ratio in best.items():
        yield Text(
            f"{task}, {_cores(threads)}: {ratio['times_as_fast']:.2f} times as fast as the best mode of "
            f"{ratio['opponent']}"
        )


def _epoch(result: Mapping[str, Any]) -> str:
    return (
        f"  {result['steps']} steps in {result['epoch_seconds']:.2f} s, validation left out: "
        f"{result['images_per_second']:,.1f} images/s\n"
        f"  {result['ratio']:.3f} x the bare steps, which take {result['pure_seconds']:.2f} s "
        f"(within the steps {result['ratio_of_steps']:.3f} x)\n"
        f"  saving after the last validation {result['finish_seconds']:.2f} s, "
        f"validation {result['validation_seconds']:.2f} s"
    )


def _start(result: Mapping[str, Any]) -> str:
    return "\n".join(
        f"  {meaning}: {result[kind]['seconds']:.2f} s to the end of the first step (before training "
        f"{result[kind]['before_training']:.2f} s, compiling and first step "
        f"{result[kind]['compiling_and_first_step']:.2f} s)"
        for kind, meaning in (("cold", "nothing compiled before"), ("cached", "compiled before"))
    )


def _right(*names: str) -> list[Column]:
    return [Column(name, justify="right") for name in names]


def _cores(count: int) -> str:
    return "1 core" if count == 1 else f"{count} cores"
