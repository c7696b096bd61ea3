"""Everything that one call measured, as plain values for JSON."""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cxr_jax.bench.cases import OF_PYTORCH, RIVALS, Effort
from cxr_jax.bench.measure import Measurement, middle_half
from cxr_jax.runs.environment import describe_environment

SCHEMA_VERSION = 2
"""Of the file that `--json` names."""

CeilingsByThreads = Mapping[int, Mapping[str, float]]
"""The fields of `ceilings.Ceilings` for each number of cores."""


def describe(
    asked: Effort,
    ceilings: CeilingsByThreads,
    contests: Sequence[Sequence[Measurement]],
    results: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Returns what was asked, where it ran and what came out; rates are per second, memory in bytes, times in seconds.

    `asked` are the options of the command. `contests` are what `measure.run_contest` returned for each, `results` what
    `whole.measure_whole` did.
    """
    measurements = [entry for contest in contests for entry in contest]
    facts = [entry.facts for entry in measurements if entry.facts] + [entry for entry in results if "platform" in entry]
    devices = sorted({f"{fact['platform']} {fact['device']}" for fact in facts})
    environment = describe_environment(devices=devices, data_fingerprint="")
    for fact in facts:
        environment["versions"] |= fact.get("versions", {})
    return {
        "schema_version": SCHEMA_VERSION,
        "environment": environment,
        "asked": _anonymous(asked),
        "ceilings": [{"threads": threads, **values} for threads, values in ceilings.items()],
        "measurements": [_measurement(entry, ceilings) for entry in measurements],
        "ratios": [
            _ratio(ours, theirs)
            for ours, *opponents in contests
            for theirs in opponents
            if not (ours.error or theirs.error)
        ],
        "results": [{**result, "case": _anonymous(result["case"])} for result in results],
    }


def shares(measurement: Measurement, ceilings: CeilingsByThreads) -> dict[str, float | None]:
    """Returns operations and bytes a second, and how much of the measured ceilings they are.

    None where XLA counts nothing, and no shares of ceilings that are not known. Operations are held against the product
    of the case's own precision. The roofline bounds a program by whichever ceiling it is nearer to, so the larger share
    is that of the roofline.
    """
    ceiling = ceilings.get(measurement.case.threads, {})
    product, copy = ceiling.get(f"matmul_{measurement.case.precision}_flops"), ceiling.get("copy_bytes")
    counts = (measurement.facts.get(name) for name in ("flops", "bytes_accessed"))
    flops, copied = (None if count is None else count / statistics.median(measurement.seconds) for count in counts)
    return {
        "flops_per_second": flops,
        "share_of_matmul": None if flops is None or product is None else flops / product,
        "bytes_per_second": copied,
        "share_of_copy": None if copied is None or copy is None else copied / copy,
    }


def _measurement(measurement: Measurement, ceilings: CeilingsByThreads) -> dict[str, Any]:
    case = measurement.case
    described = {"name": case.name, "task": case.task, "way": case.way, "case": _anonymous(case)}
    if measurement.error:
        return described | {"facts": measurement.facts, "error": measurement.error}
    return described | {
        "facts": measurement.facts,
        "images_per_second": measurement.images_per_second,
        "middle_half": measurement.middle_half,
        "peak_memory_bytes": measurement.peak_memory_bytes,
        "device_peak_bytes": measurement.device_peak_bytes,
        **shares(measurement, ceilings),
        "seconds": measurement.seconds,
    }


def _ratio(ours: Measurement, theirs: Measurement) -> dict[str, Any]:
    """Returns how many times as fast as an opponent we were; `preload` is None unless that is a program not ours.

    The memory of a runtime of ONNX files is not compared: in its process JAX has made the file.
    """
    rival = theirs.case.implementation in RIVALS
    # of the device where both are known, otherwise of the processes
    peaks = ((getattr(ours, name), getattr(theirs, name)) for name in ("device_peak_bytes", "peak_memory_bytes"))
    return {
        "task": ours.case.task,
        "threads": ours.case.threads,
        "devices": ours.case.devices,
        "ours": ours.case.way,
        "opponent": theirs.case.way,
        "preload": Path(theirs.case.preload).name if rival else None,
        "times_as_fast": statistics.median(theirs.of_rounds),
        "middle_half": middle_half(theirs.of_rounds),
        "of_rounds": theirs.of_rounds,
        "memory": None
        if rival and theirs.case.implementation not in OF_PYTORCH
        else next((mine / other for mine, other in peaks if mine and other), None),
    }


def _anonymous(asked: Any) -> dict[str, Any]:
    """Returns the fields without the folders of files: where they lie says something of one machine only."""
    fields = dataclasses.asdict(asked)
    files = {"dataset", "weights", "preload", "json", "table"} & set(fields)
    return fields | {name: Path(fields[name]).name for name in files}
