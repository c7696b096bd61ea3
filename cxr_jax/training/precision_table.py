"""Which way through a network is the faster one on a CPU, as `cxr-jax bench --table` has measured it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from cxr_jax.errors import UserError
from cxr_jax.models.registry import ARCHITECTURES
from cxr_jax.runs.files import write_json

SHIPPED = "measured_precisions.json"
"""The table that `training.precision = "auto"` reads: a file of this package."""

FEWER = {"avx512_bf16": "avx512", "avx512": "avx2"}
"""The instructions that a processor with other ones has too, the nearest first."""

SPOKEN = {"avx512_bf16": "AVX-512 BF16", "avx512": "AVX-512", "avx2": "AVX2", "neon": "NEON"}
"""What people call the instructions of the native kernels."""


@dataclass(frozen=True)
class Row:
    """One contest of a training step in bf16 by the native kernels with one in float32 through XLA."""

    instructions: str  # of the kernels, as `kernel_instructions` names them
    network: str
    times_as_fast: float  # bf16 over float32, the median of the rounds
    image_size: int  # side in pixels
    batch_size: int
    threads: int
    clock: str  # wall; cpu: the time of the process alone; user: that without the time of the operating system
    processor: str
    held: str  # what held both ways to fewer instructions than the processor has; empty: nothing
    date: str  # ISO


@dataclass(frozen=True)
class Verdict:
    """The faster way, and why it is thought so, as a clause."""

    natively: bool
    why: str


def shipped_rows() -> list[Row]:
    """Returns the table of this package."""
    return _rows_of(json.loads(resources.files(__package__).joinpath(SHIPPED).read_text(encoding="utf-8")))


def faster_way(rows: Sequence[Row], instructions: str, network: str) -> Verdict:
    """Returns the faster way for `network`, from what was measured nearest to it.

    A row of the same instructions is nearer than one of fewer instructions of the same kind, and among those a row of
    the same network is nearer than one of another network of its class. Where neither is measured, all networks
    measured with the instructions must agree on the kernels. In every other case the way is float32 through XLA.
    """
    spoken = SPOKEN.get(instructions)
    if spoken is None:
        return Verdict(False, "no measurement of native kernels on such a processor")
    measured = next((level for level in _levels(instructions) if any(row.instructions == level for row in rows)), None)
    if measured is None:
        return Verdict(False, f"the native kernels have not been timed with {spoken}")
    where = spoken if measured == instructions else f"{SPOKEN[measured]}, the nearest to {spoken} that was measured,"
    there = [row for row in rows if row.instructions == measured]
    for row in (*_of_network(there, network), *_of_class(there, network)):
        of = row.network if row.network == network else f"{row.network}, the nearest to {network} that was measured,"
        times = f"{row.times_as_fast:.2f} times as fast as float32 through XLA"
        return Verdict(row.times_as_fast > 1, f"on {where} bf16 by native kernels trains {of} {times}")
    if all(row.times_as_fast > 1 for row in there):
        return Verdict(True, f"on {where} it trains each of {len(there)} measured networks faster than float32 does")
    return Verdict(False, f"on {where} {network} was not measured, and other networks differ")


def add_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes the table at `path` with `rows` in place of those of the same instructions and network.

    Raises UserError if there is a file that is no such table, or it cannot be written.
    """
    try:
        before = _rows_of(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else []
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is no table of precisions; name such a table, or a new file") from error
    table = {(row.instructions, row.network): row for row in (*before, *rows)}
    write_json(path, {"rows": [dataclasses.asdict(table[key]) for key in sorted(table)]})


def _rows_of(table: Any) -> list[Row]:
    return [Row(**row) for row in table["rows"]]


def _levels(instructions: str) -> Iterator[str]:
    level: str | None = instructions
    while level is not None:
        yield level
        level = FEWER.get(level)


def _of_network(rows: Sequence[Row], network: str) -> list[Row]:
    return [row for row in rows if row.network == network]


def _of_class(rows: Sequence[Row], network: str) -> list[Row]:
    built = _class_of(network)
    return [row for row in rows if built is not None and _class_of(row.network) is built]


def _class_of(network: str) -> Any:
    known = ARCHITECTURES.get(network)
    return None if known is None else getattr(known.build, "func", known.build)
