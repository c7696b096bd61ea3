"""What contests of bf16 by the native kernels with float32 through XLA say, as rows of the table of precisions."""

from __future__ import annotations

import datetime
import os
import statistics
from collections.abc import Sequence

from cxr_jax.bench.cases import Effort
from cxr_jax.bench.measure import Measurement
from cxr_jax.errors import UserError
from cxr_jax.runs.environment import processor_name
from cxr_jax.training.precision_table import Row

HOLDING = ("CXX", "XLA_FLAGS")
"""Variables by which both ways are held to fewer instructions than the processor has."""


def rows_of(contests: Sequence[Sequence[Measurement]], effort: Effort) -> list[Row]:
    """Returns a row for every contest that did not fail; UserError if one had no native kernels."""
    # a contest whose first case failed has no other
    pairs = [contest[:2] for contest in contests if not any(measured.error for measured in contest[:2])]
    return [_row(ours, theirs, effort) for ours, theirs in pairs]


def _row(ours: Measurement, theirs: Measurement, effort: Effort) -> Row:
    ratio = statistics.median(theirs.of_rounds)
    by_kernels = ours if ours.case.precision == "bfloat16" else theirs
    case, facts = by_kernels.case, by_kernels.facts
    if not facts["native_kernels"]:
        raise UserError(f"{case.model} has no native kernels here, so --table has nothing to compare")
    return Row(
        instructions=facts["instructions"],
        network=case.model,
        times_as_fast=round(ratio if by_kernels is ours else 1 / ratio, 3),
        image_size=case.image_size,
        batch_size=case.batch_size,
        threads=case.threads,
        clock=effort.clock,
        processor=processor_name(),
        held=", ".join(f"{name}={os.environ[name]}" for name in HOLDING if os.environ.get(name)),
        date=datetime.date.today().isoformat(),
    )
