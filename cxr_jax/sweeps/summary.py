"""What the finished runs of a sweep reached on validation: every figure over the seeds of every variant."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_jax.errors import UserError
from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.confidence import LEVEL
from cxr_jax.evaluation.metrics import metric_value
from cxr_jax.evaluation.operating_point import choose_threshold
from cxr_jax.evaluation.paired import difference_by_seed
from cxr_jax.evaluation.seeds import spread
from cxr_jax.reporting.training_time import wall_seconds
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.metrics_log import read_metrics
from cxr_jax.runs.predictions import read_predictions
from cxr_jax.sweeps.runs import SweepRun
from cxr_jax.sweeps.sweep import BASE, Sweep
from cxr_jax.training.progress import is_better

SCHEMA_VERSION = 1

# Numbers of a validation line that say where it stands, and not how good the network is.
_POSITION = {"step", "epoch", "seconds"}

Summary = dict[str, Any]


@dataclass(frozen=True)
class RunResult:
    """One finished run, at the checkpoint that it stands for."""

    step: int | None  # of that checkpoint; None if no validation was the best of the run
    figures: dict[str, float]
    minutes: float  # of training, validations included
    data_fingerprint: str


def read_result(run: SweepRun) -> RunResult:
    """Returns what metrics.jsonl says of the validation split at the run's checkpoint, every number of that line.

    A run that holds predictions on validation has its specificity at the config's target sensitivity there as well.

    Raises:
        UserError: a file of the run is damaged.
    """
    lines = read_metrics(run.run.metrics, ("validation", "end"))
    best = run.config.validation.checkpoint == "best"
    at_checkpoint = [line for line in lines if line["kind"] == "validation" and (line.get("best") or not best)]
    line = at_checkpoint[-1] if at_checkpoint else {}
    figures = {name: float(value) for name, value in line.items() if name not in _POSITION and _is_number(value)}
    environment = read_json(run.run.environment) if run.run.environment.is_file() else {}
    return RunResult(
        step=line.get("step"),
        figures=figures | _stored_figures(run.run, run.config.operating_point.target_sensitivity),
        minutes=wall_seconds(lines) / 60,
        data_fingerprint=str(environment.get("data_fingerprint", "")),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _stored_figures(run: RunFolder, target: float) -> dict[str, float]:
    """Returns specificity at the highest threshold that reaches `target` sensitivity, both on validation."""
    path = run.predictions_of("val")
    if not path.is_file():
        return {}
    table = read_predictions(path)
    try:
        threshold = choose_threshold(table.probability, table.label, rule="sensitivity", target_sensitivity=target)
    except UserError:
        # no image of one of the classes
        return {}
    value = metric_value("specificity", Cases.unweighted(table.label, table.probability, threshold))
    return {} if value is None else {f"specificity_at_sensitivity_{target:g}": value}


def summarise(sweep: Sweep, runs: Sequence[SweepRun], folder: Path) -> Summary:
    """Returns what sweep.json holds: every variant with its figures, the best of the base's monitored figure first.

    Args:
        sweep: the sweep.
        runs: all of its runs; those that are not finished are only counted.
        folder: of the sweep, searched for runs of variants that the sweep no longer names.

    Raises:
        UserError: a file of a finished run is damaged.
    """
    finished = [run for run in runs if run.finished]
    results: dict[str, dict[int, RunResult]] = {variant.name: {} for variant in sweep.variants}
    for run in finished:
        results[run.variant][run.seed] = read_result(run)
    monitor = sweep.base.config.validation.monitor
    variants = [
        {"name": variant.name, "changes": variant.changes, **_variant(results[variant.name], results[BASE])}
        for variant in sweep.variants
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "sweep": sweep.path.name,
        "config": sweep.config.name,
        "split": "validation",
        "monitor": monitor,
        "checkpoints": sorted({variant.config.validation.checkpoint for variant in sweep.variants}),
        "level": LEVEL,
        "planned": len(runs),
        "finished": len(finished),
        "unfinished": [run.name for run in runs if run not in finished],
        "no_longer_named": _no_longer_named(sweep, folder),
        "different_data": _different_data(sweep, results),
        "other_validation": _other_validation(sweep),
        "variants": _sorted(variants, monitor),
    }


def _variant(results: Mapping[int, RunResult], base: Mapping[int, RunResult]) -> dict[str, Any]:
    """Returns seeds, minutes and figures of one variant."""
    names = dict.fromkeys(name for result in results.values() for name in result.figures)
    minutes = [result.minutes for result in results.values()]
    return {
        "seeds": list(results),
        "minutes": dataclasses.asdict(spread(minutes)) if minutes else None,
        "figures": {name: _figure(name, results, None if results is base else base) for name in names},
        "runs": {str(seed): {"step": result.step, "minutes": result.minutes} for seed, result in results.items()},
    }


def _figure(name: str, results: Mapping[int, RunResult], base: Mapping[int, RunResult] | None) -> dict[str, Any]:
    values = {seed: result.figures[name] for seed, result in results.items() if name in result.figures}
    shared = [seed for seed in values if base is not None and seed in base and name in base[seed].figures]
    difference = None
    if shared:
        found = difference_by_seed([values[seed] for seed in shared], [base[seed].figures[name] for seed in shared])
        interval = None if found.interval is None else {"low": found.interval.low, "high": found.interval.high}
        difference = {"value": found.value, "interval": interval, "p_value": found.p_value, "seeds": shared}
    return {
        **dataclasses.asdict(spread(list(values.values()))),
        "values": {str(seed): value for seed, value in values.items()},
        "difference": difference,
    }


def _sorted(variants: Sequence[dict[str, Any]], monitor: str) -> list[dict[str, Any]]:
    """Returns the best mean of the monitored figure first; variants without it come last, in their order."""

    def compare(one: dict[str, Any], other: dict[str, Any]) -> int:
        first, second = (entry["figures"].get(monitor, {}).get("mean") for entry in (one, other))
        if first is None or second is None:
            return (first is None) - (second is None)
        return -1 if is_better(monitor, first, second) else int(is_better(monitor, second, first))

    return sorted(variants, key=functools.cmp_to_key(compare))


def _no_longer_named(sweep: Sweep, folder: Path) -> dict[str, int]:
    """Returns how many runs there are of variants and seeds that are in the folder and not, or no longer, in the
    sweep.
    """
    known = {(variant.name, f"seed{seed}") for variant in sweep.variants for seed in sweep.seeds}
    found: dict[str, int] = {}
    for config in sorted(folder.glob(f"*/seed*/{RunFolder(folder).config.name}")):
        variant, seed = config.parent.parent.name, config.parent.name
        if (variant, seed) not in known:
            found[variant] = found.get(variant, 0) + 1
    return found


def _different_data(sweep: Sweep, results: Mapping[str, Mapping[int, RunResult]]) -> list[str]:
    """Names of data sets of which runs saw different versions, so that they do not compare."""
    seen: dict[str, set[str]] = {}
    for variant in sweep.variants:
        seen.setdefault(variant.config.data.dataset, set()).update(
            result.data_fingerprint for result in results[variant.name].values()
        )
    return [name for name, fingerprints in seen.items() if len(fingerprints) > 1]


def _other_validation(sweep: Sweep) -> list[str]:
    """Names of the variants whose validation split is cut in another way than the base's."""
    cuts = [(variant.config.data.dataset, variant.config.data.cut()) for variant in sweep.variants]
    return [variant.name for variant, own in zip(sweep.variants, cuts, strict=True) if own != cuts[0]]
