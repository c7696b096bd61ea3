"""What was measured as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from cxr_jax.bench.measure import Measurement, Outcome, Ratio, middle_half
from cxr_jax.bench.record import CeilingsByThreads, shares

LEGEND = (
    "images/s: of the median step, and of its slower and faster quartile. Every step begins with uint8 images on the "
    "host and ends when all its results are there; warm-up and compilation are left out.\n"
    "compile: seconds to a program, with nothing kept from earlier. peak memory: largest resident set of the case's "
    "own process, nothing subtracted (on a GPU: largest use of the device).\n"
    "GFLOP/s, GB/s: operations, and bytes of operands and results, that XLA counts in the compiled program, by the "
    "median step; beside them the share of the ceilings (of the product in the case's precision, and of the copy), the "
    "larger of which is the share of the roofline. Bytes that stay in a cache can exceed the ceiling."
)


def render(outcomes: Sequence[Outcome], ceilings: CeilingsByThreads, machine: Mapping[str, Any]) -> Group:
    """Returns all tables of contests, the machine and its ceilings before them and the ratios below.

    `machine` is that of `runs.environment.describe_environment`.
    """
    ratios = [ratio for outcome in outcomes for ratio in outcome.ratios]
    parts = [_title(machine), *_surroundings(outcomes, ceilings), _measurements(outcomes, ceilings)]
    parts += [_failure(f"{e.case.task}, {e.case.way}", e.error) for o in outcomes for e in o.measurements if e.error]
    parts.append(Text(LEGEND, "dim"))
    return Group(*parts, *([_ratios(ratios), *_best_modes(outcomes)] if ratios else []))


def render_whole(results: Sequence[Mapping[str, Any]], machine: Mapping[str, Any]) -> Group:
    """Returns a paragraph for every epoch and start among the results of `whole.measure_whole`."""
    parts = [_title(machine)]
    for result in results:
        task = f"{result['task']}, {_cores(result['case'].threads)}"
        told = _start if result["work"] == "startup" else _epoch
        parts.append(_failure(task, result["error"]) if "error" in result else Text(f"{task}:\n{told(result)}"))
    return Group(*parts)


def _title(machine: Mapping[str, Any]) -> RenderableType:
    return Text(f"{machine['processor']}, {_cores(machine['cores'])}", "bold")


def _failure(what: str, error: str) -> RenderableType:
    return Text(f"{what}: {error}", "red")


def _surroundings(outcomes: Sequence[Outcome], ceilings: CeilingsByThreads) -> Iterator[Text]:
    """Yields a line for every kind of process, and one for the ceilings on every number of cores."""
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
        for entry in outcome.measurements:
            table.add_row(entry.case.task, entry.case.way, str(entry.case.threads), *_cells(entry, ceilings))
        table.add_section()
    return table


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
        _rate(rates["flops_per_second"], rates["share_of_matmul"]),
        _rate(rates["bytes_per_second"], rates["share_of_copy"]),
    ]


def _rate(value: float | None, share: float | None) -> str:
    return "-" if value is None or share is None else f"{value / 1e9:,.1f} ({share:.0%})"


def _ratios(ratios: Sequence[Ratio]) -> Table:
    table = Table("task", "ours", "against", *_right("cores", "times as fast", "middle half", "memory"))
    for ratio in ratios:
        low, high = middle_half(ratio.of_rounds)
        table.add_row(
            ratio.case.task,
            ratio.case.way,
            ratio.opponent.way,
            str(ratio.case.threads),
            Text(f"{ratio.value:.2f} x", "bold green" if ratio.value >= 1 else "bold red"),
            f"{low:.2f} to {high:.2f}",
            "-" if ratio.memory is None else f"{ratio.memory:.2f} x",
        )
    return table


def _best_modes(outcomes: Sequence[Outcome]) -> Iterator[Text]:
    """Yields a sentence for every task: how we stand against PyTorch at its best, with each allocator."""
    for outcome in outcomes:
        for preloaded in (False, True):
            timm = [entry for entry in outcome.ratios if entry.opponent.implementation == "timm"]
            ratios = [entry for entry in timm if bool(entry.opponent.preload) is preloaded]
            if ratios:
                best = min(ratios, key=lambda ratio: ratio.value)
                yield Text(
                    f"{best.case.task}, {_cores(best.case.threads)}: {best.value:.2f} times as fast as the best mode "
                    f"of {best.opponent.way}"
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
    lines = (
        f"  {meaning}: {result[kind]['seconds']:.2f} s to the end of the first step "
        f"({', '.join(f'{phase} {seconds:.2f} s' for phase, seconds in result[kind]['phases'].items())})"
        for kind, meaning in (("cold", "nothing compiled before"), ("cached", "compiled before"))
    )
    return "\n".join(lines)


def _right(*names: str) -> list[Column]:
    return [Column(name, justify="right") for name in names]


def _cores(count: int) -> str:
    return "1 core" if count == 1 else f"{count} cores"
