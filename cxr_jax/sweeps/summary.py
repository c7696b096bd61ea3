"""What the finished runs of a sweep reached on validation: every figure over the seeds of every variant."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_jax.errors import UserError
from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.confidence import LEVEL
from cxr_jax.evaluation.intervals import Interval
from cxr_jax.evaluation.metrics import metric_value
from cxr_jax.evaluation.operating_point import choose_threshold
from cxr_jax.evaluation.paired import difference_by_seed
from cxr_jax.evaluation.seeds import Spread, spread
from cxr_jax.images.regions import WHOLE
from cxr_jax.reporting.training_time import wall_seconds
from cxr_jax.runs.class_predictions import classes_of_table
from cxr_jax.runs.description import read_description
from cxr_jax.runs.files import write_json
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.metrics_log import read_metrics
from cxr_jax.runs.predictions import read_predictions
from cxr_jax.runs.records import to_json
from cxr_jax.sweeps.runs import SweepRun
from cxr_jax.sweeps.sweep import BASE, Sweep, Variant
from cxr_jax.training.progress import is_better
from cxr_jax.vocabulary import CLASS_NAMES, FINDINGS

SCHEMA_VERSION = 1

# Numbers of a validation line that say where it stands, and not how good the network is.
_POSITION = {"step", "epoch", "seconds"}


@dataclass(frozen=True)
class RunResult:
    """One finished run, at the checkpoint that it stands for."""

    step: int | None  # of that checkpoint; None if no validation was the best of the run
    figures: dict[str, float]
    minutes: float  # of training, validations included
    data_fingerprint: str


@dataclass(frozen=True)
class FigureDifference:
    """How much a figure of a variant lies above the base's, paired over `seeds`; None where there is no such answer."""

    value: float
    interval: Interval | None
    p_value: float | None
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Figure:
    """A figure over the seeds of a variant, its values by seed, and its difference to the base."""

    mean: float
    deviation: float | None  # None for a single seed
    values: dict[str, float]
    difference: FigureDifference | None  # None for the base itself, and without a seed in common


@dataclass(frozen=True)
class SeedRun:
    """One run of a variant, at the checkpoint that it stands for."""

    step: int | None
    minutes: float


@dataclass(frozen=True)
class VariantSummary:
    """What the finished runs of a variant reached.

    Attributes:
        name: of the variant.
        changes: of its config beside the base's, by dotted key.
        seeds: of the finished runs.
        minutes: of training, over the seeds; None where no run is finished.
        figures: by their names.
        runs: by seed.
    """

    name: str
    changes: dict[str, Any]
    seeds: tuple[int, ...]
    minutes: Spread | None
    figures: dict[str, Figure]
    runs: dict[str, SeedRun]


@dataclass(frozen=True)
class Summary:
    """What sweep.json holds.

    Attributes:
        sweep: name of the sweep's file.
        config: name of the base's config.
        split: that the figures are of.
        monitor: the figure that variants are sorted by.
        checkpoints: those that runs stand for, `best` or `last`.
        level: of the intervals.
        planned: how many runs the sweep has.
        finished: how many of them are.
        unfinished: names of the others.
        no_longer_named: by variant, how many runs the folder has that are not, or no longer, in the sweep.
        different_data: names of data sets of which runs saw different versions.
        other_validation: names of variants that were validated on other images than the base.
        variants: the best of the monitored figure first.
        mean_over: what roc_auc is the mean over: findings, or classes; empty of NORMAL and PNEUMONIA, which have one.
    """

    sweep: str
    config: str
    split: str
    monitor: str
    checkpoints: tuple[str, ...]
    level: float
    planned: int
    finished: int
    unfinished: tuple[str, ...]
    no_longer_named: dict[str, int]
    different_data: tuple[str, ...]
    other_validation: tuple[str, ...]
    variants: tuple[VariantSummary, ...]
    mean_over: str = ""


def write_summary(path: Path, summary: Summary) -> None:
    """Writes sweep.json atomically; UserError as in `write_json`."""
    write_json(path, {"schema_version": SCHEMA_VERSION, **to_json(summary)})


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
    """Returns specificity at the highest threshold that reaches `target` sensitivity, both on validation.

    Of other classes than NORMAL and PNEUMONIA there is no such figure.
    """
    path = run.predictions_of("val")
    if not path.is_file() or classes_of_table(path):
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
    """Returns every variant with its figures, the best of the base's monitored figure first.

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
    variants = [_variant(variant, results[variant.name], results[BASE]) for variant in sweep.variants]
    return Summary(
        sweep=sweep.path.name,
        config=sweep.config.name,
        split="validation",
        monitor=monitor,
        checkpoints=tuple(sorted({variant.config.validation.checkpoint for variant in sweep.variants})),
        level=LEVEL,
        planned=len(runs),
        finished=len(finished),
        unfinished=tuple(run.name for run in runs if run not in finished),
        no_longer_named=_no_longer_named(sweep, folder),
        different_data=_different_data(sweep, results),
        other_validation=_other_validation(sweep),
        variants=_sorted(variants, monitor),
        mean_over=_mean_over(finished),
    )


def _mean_over(runs: Sequence[SweepRun]) -> str:
    """Returns what the ROC-AUC of runs is the mean over, as `Summary` has it."""
    described = next((read_description(run.run) for run in runs if run.run.network.is_file()), None)
    if described is None or described.classes == CLASS_NAMES:
        return ""
    return "findings" if described.kind == FINDINGS else "classes"


def _variant(variant: Variant, results: Mapping[int, RunResult], base: Mapping[int, RunResult]) -> VariantSummary:
    names = dict.fromkeys(name for result in results.values() for name in result.figures)
    minutes = [result.minutes for result in results.values()]
    return VariantSummary(
        name=variant.name,
        changes=variant.changes,
        seeds=tuple(results),
        minutes=spread(minutes) if minutes else None,
        figures={name: _figure(name, results, None if results is base else base) for name in names},
        runs={str(seed): SeedRun(result.step, result.minutes) for seed, result in results.items()},
    )


def _figure(name: str, results: Mapping[int, RunResult], base: Mapping[int, RunResult] | None) -> Figure:
    values = {seed: result.figures[name] for seed, result in results.items() if name in result.figures}
    shared = [seed for seed in values if base is not None and seed in base and name in base[seed].figures]
    difference = None
    if shared:
        found = difference_by_seed([values[seed] for seed in shared], [base[seed].figures[name] for seed in shared])
        difference = FigureDifference(found.value, found.interval, found.p_value, tuple(shared))
    over = spread(list(values.values()))
    return Figure(over.mean, over.deviation, {str(seed): value for seed, value in values.items()}, difference)


def _sorted(variants: Sequence[VariantSummary], monitor: str) -> tuple[VariantSummary, ...]:
    """Returns the best mean of the monitored figure first; variants without it come last, in their order."""

    def compare(one: VariantSummary, other: VariantSummary) -> int:
        first, second = (entry.figures.get(monitor) for entry in (one, other))
        if first is None or second is None:
            return (first is None) - (second is None)
        if is_better(monitor, first.mean, second.mean):
            return -1
        return int(is_better(monitor, second.mean, first.mean))

    return tuple(sorted(variants, key=functools.cmp_to_key(compare)))


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


def _different_data(sweep: Sweep, results: Mapping[str, Mapping[int, RunResult]]) -> tuple[str, ...]:
    """Names of data sets of which runs saw different versions, so that they do not compare."""
    seen: dict[str, set[str]] = {}
    for variant in sweep.variants:
        seen.setdefault(variant.config.data.dataset, set()).update(
            result.data_fingerprint for result in results[variant.name].values()
        )
    return tuple(name for name, fingerprints in seen.items() if len(fingerprints) > 1)


def _other_validation(sweep: Sweep) -> tuple[str, ...]:
    """Names of the variants whose validation split is cut in another way than the base's, or lacks other images."""
    data = [variant.config.data for variant in sweep.variants]
    cuts = [(config.dataset, config.region == WHOLE, config.cut()) for config in data]
    return tuple(variant.name for variant, own in zip(sweep.variants, cuts, strict=True) if own != cuts[0])
