"""Everything that one call measured, as plain values for JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr_jax.bench.cases import Case, Effort, Plan
from cxr_jax.bench.measure import Measurement, Outcome, Ratio
from cxr_jax.runs.environment import describe_environment

SCHEMA_VERSION = 1
"""Of the file that `--json` names."""

CeilingsByThreads = Mapping[int, Mapping[str, float]]
"""The fields of `ceilings.Ceilings` for each number of cores."""


def describe(
    plan: Plan,
    effort: Effort,
    ceilings: CeilingsByThreads,
    outcomes: Sequence[Outcome],
    results: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Returns what was asked, where it ran and what came out; rates are per second, memory in bytes, times in seconds.

    `outcomes` are those of contests, `results` those of `whole.measure_whole`.
    """
    measurements = [entry for outcome in outcomes for entry in outcome.measurements]
    facts = [entry.facts for entry in measurements if entry.facts] + [entry for entry in results if "platform" in entry]
    devices = sorted({f"{fact['platform']} {fact['device']}" for fact in facts})
    environment = describe_environment(devices=devices, data_fingerprint="")
    for fact in facts:
        environment["versions"] |= fact.get("versions", {})
    record: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "environment": environment,
        "plan": _anonymous(plan),
        "effort": dataclasses.asdict(effort),
        "ceilings": [{"threads": threads, **values} for threads, values in ceilings.items()],
    }
    if results:
        return record | {"results": [{**result, "case": _anonymous(result["case"])} for result in results]}
    return record | {
        "measurements": [_measurement(entry, ceilings) for entry in measurements],
        "ratios": [_ratio(ratio) for outcome in outcomes for ratio in outcome.ratios],
    }


def shares(measurement: Measurement, ceilings: CeilingsByThreads) -> dict[str, float | None]:
    """Returns operations and bytes a second, and how much of the measured ceilings they are.

    None where XLA counts nothing, and no shares of ceilings that are not known. Operations are held against the product
    of the case's own precision. The roofline bounds a program by whichever ceiling it is nearer to, so the larger share
    is that of the roofline.
    """
    ceiling = ceilings.get(measurement.case.threads, {})
    product, copy = ceiling.get(f"matmul_{measurement.case.precision}_flops"), ceiling.get("copy_bytes")
    flops, copied = measurement.rate_of("flops"), measurement.rate_of("bytes_accessed")
    return {
        "flops_per_second": flops,
        "share_of_matmul": None if flops is None or product is None else flops / product,
        "bytes_per_second": copied,
        "share_of_copy": None if copied is None or copy is None else copied / copy,
    }


def _measurement(measurement: Measurement, ceilings: CeilingsByThreads) -> dict[str, Any]:
    described = {"case": _anonymous(measurement.case), "facts": measurement.facts}
    if measurement.error:
        return described | {"error": measurement.error}
    return described | {
        "images_per_second": measurement.images_per_second,
        "middle_half": measurement.middle_half,
        "peak_memory_bytes": measurement.peak_memory_bytes,
        "device_peak_bytes": measurement.device_peak_bytes,
        **shares(measurement, ceilings),
        "seconds": measurement.seconds,
    }


def _anonymous(asked: Case | Plan) -> dict[str, Any]:
    """Returns the fields without the folders of files: where they lie says something of one machine only."""
    fields = dataclasses.asdict(asked)
    return fields | {name: Path(fields[name]).name for name in ("dataset", "weights", "preload")}


def _ratio(ratio: Ratio) -> dict[str, Any]:
    return {
        "task": ratio.case.task,
        "threads": ratio.case.threads,
        "devices": ratio.case.devices,
        "ours": ratio.case.way,
        "opponent": ratio.opponent.way,
        "times_as_fast": ratio.value,
        "of_rounds": ratio.of_rounds,
        "memory": ratio.memory,
    }
