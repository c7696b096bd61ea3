"""The measurements as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group
from rich.table import Column, Table
from rich.text import Text

from cxr_jax.bench.measure import Measurement, Outcome, Ratio
from cxr_jax.bench.record import CeilingsByThreads, shares

LEGEND = (
    "images/s: of the median step, and of its slower and faster quartile. Every step begins with uint8 images on the "
    "host and ends when all its results are there; warm-up and compilation are left out.\n"
    "compile: seconds to a program, with nothing kept from earlier. peak memory: largest resident set of the case's "
    "own process from its start to its end, nothing subtracted (on a GPU: largest use of the device): interpreter, "
    "libraries, compiler, parameters and activations.\n"
    "GFLOP/s, GB/s: operations, and bytes of operands and results, that XLA counts in the compiled program, by the "
    "median step; beside them the share of the ceilings (of the product in the case's precision, and of the copy), the "
    "larger of which is the share of the roofline. Operations "
    "that only one lowering does are counted for it alone, and bytes that stay in a cache can exceed the ceiling."
)


def render(outcomes: Sequence[Outcome], ceilings: CeilingsByThreads, machine: Mapping[str, Any]) -> Group:
    """All tables, with the machine and its ceilings before them and what the columns mean below.

    `machine` is that of `runs.environment.describe_environment`.
    """
    title = Text(f"{machine['processor']}, {_cores(machine['cores'])}", "bold")
    parts = [title, *_surroundings(outcomes, ceilings), _measurements(outcomes, ceilings), *_failures(outcomes)]
    ratios = [ratio for outcome in outcomes for ratio in outcome.ratios]
    if ratios:
        parts += [_ratios(ratios), *_best_modes(outcomes)]
    if len(ceilings) > 1 and any(not entry.error for outcome in outcomes for entry in outcome.measurements):
        parts.append(_scaling(outcomes))
    return Group(*parts, Text(LEGEND, "dim"))


def _surroundings(outcomes: Sequence[Outcome], ceilings: CeilingsByThreads) -> Iterator[Text]:
    """A line for every kind of process, and one for the ceilings on every number of cores."""
    described: dict[str, None] = {}
    for measurement in (entry for outcome in outcomes for entry in outcome.measurements if entry.facts):
        facts = measurement.facts
        versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
        described[
            f"{measurement.case.way}: {facts['devices']} x {facts['platform']} {facts['device']}, {versions}, "
            f"products {facts['products']}, allocator {facts['allocator']}"
        ] = None
    yield from map(Text, described)
    for threads, values in ceilings.items():
        yield Text(
            f"Ceilings on {_cores(threads)}: product {values['matmul_float32_flops'] / 1e9:,.0f} GFLOP/s in float32, "
            f"{values['matmul_bfloat16_flops'] / 1e9:,.0f} from bfloat16; copy {values['copy_bytes'] / 1e9:,.1f} GB/s"
        )


def _measurements(outcomes: Sequence[Outcome], ceilings: CeilingsByThreads) -> Table:
    figures = ("cores", "images/s", "middle half", "compile", "peak memory", "GFLOP/s (of product)", "GB/s (of copy)")
    table = Table("task", "by", *_right(*figures))
    for outcome in outcomes:
        for measurement in outcome.measurements:
            table.add_row(
                measurement.case.task,
                measurement.case.way,
                str(measurement.case.threads),
                *_cells(measurement, ceilings),
            )
        table.add_section()
    return table


def _failures(outcomes: Sequence[Outcome]) -> Iterator[Text]:
    for measurement in (entry for outcome in outcomes for entry in outcome.measurements if entry.error):
        yield Text(f"{measurement.case.task}, {measurement.case.way}: {measurement.error}", "red")


def _cells(measurement: Measurement, ceilings: CeilingsByThreads) -> list[Text | str]:
    if measurement.error:
        return [Text("failed", "red")]
    slow, fast = measurement.middle_half
    compile_seconds = measurement.facts["compile_seconds"]
    memory = measurement.device_peak_bytes or measurement.peak_memory_bytes
    rates = shares(measurement, ceilings)
    return [
        Text(f"{measurement.images_per_second:,.1f}", "bold"),
        f"{slow:,.1f} to {fast:,.1f}",
        "-" if compile_seconds is None else f"{compile_seconds:.1f} s",
        f"{memory / 2**20:,.0f} MiB",
        _rate(rates["flops_per_second"], rates["share_of_matmul"], ",.1f"),
        _rate(rates["bytes_per_second"], rates["share_of_copy"], ",.1f"),
    ]


def _rate(value: float | None, share: float | None, form: str) -> str:
    return "-" if value is None or share is None else f"{value / 1e9:{form}} ({share:.0%})"


def _ratios(ratios: Sequence[Ratio]) -> Table:
    table = Table("task", "ours", "against", *_right("cores", "times as fast", "rounds", "memory"))
    for ratio in ratios:
        table.add_row(
            ratio.case.task,
            ratio.case.way,
            ratio.opponent.way,
            str(ratio.case.threads),
            Text(f"{ratio.value:.2f} x", "bold green" if ratio.value >= 1 else "bold red"),
            f"{min(ratio.of_rounds):.2f} to {max(ratio.of_rounds):.2f}",
            "-" if ratio.memory is None else f"{ratio.memory:.2f} x",
        )
    return table


def _best_modes(outcomes: Sequence[Outcome]) -> Iterator[Text]:
    """A sentence for every task: how we stand against PyTorch at its best, as installed and with another allocator."""
    for outcome in outcomes:
        for preloaded in (False, True):
            ratios = [
                ratio
                for ratio in outcome.ratios
                if ratio.opponent.implementation == "timm" and bool(ratio.opponent.preload) is preloaded
            ]
            if ratios:
                best = min(ratios, key=lambda ratio: ratio.value)
                yield Text(
                    f"{best.case.task}, {_cores(best.case.threads)}: {best.value:.2f} times as fast as the best mode "
                    f"of {best.opponent.way}"
                )


def _scaling(outcomes: Sequence[Outcome]) -> Table:
    """Images a second on every number of cores, as multiples of the fewest."""
    table = Table("task", "by", *_right("cores", "images/s", "scaling"))
    series: dict[tuple[str, str], list[Measurement]] = {}
    for measurement in (entry for outcome in outcomes for entry in outcome.measurements if not entry.error):
        series.setdefault((measurement.case.task, measurement.case.way), []).append(measurement)
    for (task, way), measurements in series.items():
        ordered = sorted(measurements, key=lambda measurement: measurement.case.threads)
        for measurement in ordered:
            table.add_row(
                task,
                way,
                str(measurement.case.threads),
                f"{measurement.images_per_second:,.1f}",
                f"{measurement.images_per_second / ordered[0].images_per_second:.2f} x",
            )
        table.add_section()
    return table


def _right(*names: str) -> list[Column]:
    return [Column(name, justify="right") for name in names]


def _cores(count: int) -> str:
    return "1 core" if count == 1 else f"{count} cores"
