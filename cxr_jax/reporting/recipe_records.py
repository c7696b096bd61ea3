"""What the runs of a recipe say of themselves: predictions, operating points, costs, and looks at the test set."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cxr_jax.errors import UserError
from cxr_jax.evaluation.class_points import ClassPoints, choose_class_points, read_class_points
from cxr_jax.evaluation.compare_classes import ClassRecipe
from cxr_jax.evaluation.operating_point import OperatingPoint, choose_operating_point, read_operating_point
from cxr_jax.evaluation.pooled_audit import PooledAudit, pool_audits
from cxr_jax.evaluation.quality import MeasureDefinition, read_quality
from cxr_jax.evaluation.quality_audit import ERROR_KINDS
from cxr_jax.evaluation.recipe_draws import Recipe, Ruled
from cxr_jax.explain.record import MapChecks, read_checks
from cxr_jax.reporting.training_time import images_per_second, wall_seconds
from cxr_jax.reporting.wording import counted
from cxr_jax.runs.class_predictions import read_any_predictions
from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.runs.ensemble import is_ensemble, read_ensemble
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.ledger import read_looks
from cxr_jax.runs.metrics_log import read_metrics
from cxr_jax.runs.predictions import Predictions, SplitRows, rows_of
from cxr_jax.runs.recipes import RecipeFiles
from cxr_jax.terminal import as_typed

if TYPE_CHECKING:
    from cxr_jax.models.head import Pooling

_SEEDS = {("training", "seed"), ("data", "split_seed")}


@dataclass(frozen=True)
class Costs:
    """What a recipe costs; None where the runs do not say.

    Attributes:
        parameters: of the network.
        multiply_adds: of its forward pass on one image of the size that it is trained on.
        images_per_second: of training in its slowest phase, the mean over runs of the median over iterations.
        minutes: of training, validation included, the mean over runs.
        machine: processor, cores and devices; of several machines all.
    """

    parameters: int | None = None
    multiply_adds: float | None = None
    images_per_second: float | None = None
    minutes: float | None = None
    machine: str | None = None


@dataclass(frozen=True)
class RecipeRecord:
    """A recipe as it was run.

    Attributes:
        recipe: predictions and operating points, by seed.
        paths: run folder or table of every seed.
        rule: how the operating points were chosen; None without them.
        chosen_anew: True if they were chosen when the record was read, False if the runs had fixed them.
        looks: evaluations on test that the ledger of every run counts; None where a run keeps none.
        costs: what training it cost.
        left_out: sentences about tables whose rows are not all of test.
        measures: what is measured of the images, by name; empty without audits.
        audits: by kind, what errors go with, over all seeds; empty where a run keeps none, or operating points were
            chosen anew.
        checks: of the heat maps of those runs that keep some.
    """

    recipe: Recipe
    paths: tuple[Path, ...]
    rule: str | None
    chosen_anew: bool
    looks: tuple[int, ...] | None
    costs: Costs
    left_out: tuple[str, ...] = ()
    measures: Mapping[str, MeasureDefinition] = field(default_factory=dict)
    audits: Mapping[str, PooledAudit] = field(default_factory=dict)
    checks: tuple[MapChecks, ...] = ()


def read_recipe(files: RecipeFiles, rule: Mapping[str, Any] | None = None) -> RecipeRecord:
    """Returns what the runs and tables of a recipe hold.

    Args:
        files: where they are.
        rule: arguments of `choose_operating_point`, by which the operating point of every run that has validation
            predictions is chosen anew on them; None for the one that the run keeps.

    Raises:
        UserError: a run was not evaluated, a file is damaged, or the runs are not seeds of one recipe.
    """
    runs = [RunFolder(path) if path.is_dir() else None for path in files.paths]
    rows = [_read_table(path) for path in files.paths]
    tables = tuple(entry.predictions for entry in rows)
    folders = [run for run in runs if run is not None]
    _check_seeds(files, folders, tables)
    of_classes = isinstance(tables[0], ClassProbabilities)
    points = [None if run is None else _operating_point(run, rule, of_classes=of_classes) for run in runs]
    known = [point for point in points if point is not None]
    complete = len(known) == len(points)
    trained = [run for run in folders if run.config.is_file()]
    audited = rule is None and len(folders) == len(runs) and all(run.quality.is_file() for run in folders)
    qualities = [read_quality(run.quality) for run in folders] if audited else []
    return RecipeRecord(
        recipe=(_class_recipe if of_classes else _recipe)(files.name, tables, folders, known if complete else None),
        paths=files.paths,
        rule=", ".join(dict.fromkeys(_told(one) for point in known for one in _alone(point))) if complete else None,
        chosen_anew=rule is not None,
        looks=_looks(runs),
        costs=_costs(trained) if len(trained) == len(runs) else Costs(),
        left_out=tuple(
            f"{path}: {part.sentence}" for path, part in zip(files.paths, rows, strict=True) if part.left_out
        ),
        measures=qualities[0].measures if qualities else {},
        audits={kind: pool_audits([entry.audit[kind] for entry in qualities]) for kind in ERROR_KINDS if qualities},
        checks=tuple(checks for run in folders if (checks := read_checks(run)) is not None),
    )


def _read_table(path: Path) -> SplitRows:
    """Returns the predictions on test of a run folder, or those of a table; UserError if there are none."""
    if path.is_file():
        return rows_of("test", read_any_predictions(path), path)
    run = RunFolder(path)
    if run.config.is_file():
        run = RunFolder.open(path)
    if not run.predictions_of("test").is_file():
        raise UserError(f"{path} has not been evaluated; run {as_typed('cxr-jax', 'evaluate', Path(path))} first")
    return SplitRows(read_any_predictions(run.predictions_of("test")), {})


def _recipe(
    name: str, tables: tuple[Predictions, ...], runs: Sequence[RunFolder], points: Sequence[OperatingPoint] | None
) -> Recipe:
    """Returns the recipe of NORMAL and PNEUMONIA; `points` are None where a run has none."""
    if points is None:
        return Recipe(name, tables)
    validation = _validation(runs)
    rule = None if validation is None else Ruled(validation, tuple(points))
    return Recipe(name, tables, thresholds=tuple(point.threshold for point in points), rule=rule)


def _class_recipe(
    name: str, tables: tuple[ClassProbabilities, ...], runs: Sequence[RunFolder], points: Sequence[ClassPoints] | None
) -> ClassRecipe:
    """Returns the recipe of other classes or of findings; `points` are None where a run has none."""
    if points is None:
        return ClassRecipe(name, tables)
    return ClassRecipe(name, tables, points=tuple(points), validation=_validation(runs))


def _check_seeds(
    files: RecipeFiles, runs: Sequence[RunFolder], tables: Sequence[Predictions | ClassProbabilities]
) -> None:
    """Raises UserError if the runs of a recipe differ in more than their seed, or two are the same."""
    configs = [(run, _flat(run.read_config())) for run in runs if run.config.is_file()]
    for run, config in configs[1:]:
        first_run, first = configs[0]
        # A field that only one version of cxr_jax knew of says nothing about the recipe.
        differing = [key for key in first if key in config and key not in _SEEDS and config[key] != first[key]]
        if differing:
            names = ", ".join(".".join(key) for key in differing[:3])
            raise UserError(
                f"{first_run.path} and {run.path} are not seeds of one recipe, they differ in {names}: "
                "put them into different folders, or name them apart as NAME=PATH"
            )
    for index, table in enumerate(tables):
        for other in range(index):
            same = table.file == tables[other].file and np.array_equal(_scores(table), _scores(tables[other]))
            if same:
                raise UserError(
                    f"{files.paths[other]} and {files.paths[index]} hold the same predictions: a copy is no second seed"
                )


def _scores(table: Predictions | ClassProbabilities) -> np.ndarray:
    return table.probability if isinstance(table, Predictions) else table.probabilities


def _flat(values: Mapping[str, Any], above: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    flat: dict[tuple[str, ...], Any] = {}
    for name, value in values.items():
        flat |= _flat(value, (*above, name)) if isinstance(value, Mapping) else {(*above, name): value}
    return flat


def _operating_point(
    run: RunFolder, rule: Mapping[str, Any] | None, *, of_classes: bool
) -> OperatingPoint | ClassPoints | None:
    if rule is None:
        read = read_class_points if of_classes else read_operating_point
        return read(run.operating_point) if run.operating_point.is_file() else None
    if not run.predictions_of("val").is_file():
        return None
    choose = choose_class_points if of_classes else choose_operating_point
    return choose(read_any_predictions(run.predictions_of("val")), **rule)


def _alone(point: OperatingPoint | ClassPoints) -> Sequence[OperatingPoint]:
    """Returns the operating point of every class."""
    return [point] if isinstance(point, OperatingPoint) else list(point.classes.values())


def _validation(runs: Sequence[RunFolder]) -> tuple[Any, ...] | None:
    """Returns the predictions that operating points are chosen on; None where a run keeps none."""
    if any(not run.predictions_of("val").is_file() for run in runs):
        return None
    return tuple(read_any_predictions(run.predictions_of("val")) for run in runs)


def _told(point: OperatingPoint) -> str:
    """Returns in a few words how a threshold was chosen."""
    parameters = point.parameters or {}
    return {
        "fixed": f"{point.threshold:g} fixed beforehand",
        "youden": "Youden on validation",
        "sensitivity": f"sensitivity {100 * parameters.get('target_sensitivity', float('nan')):g} % on validation",
        "cost_ratio": f"cost ratio {parameters.get('cost_ratio', float('nan')):g} on validation",
    }.get(point.rule, point.rule)


def _looks(runs: Sequence[RunFolder | None]) -> tuple[int, ...] | None:
    if any(run is None or not run.ledger.is_file() for run in runs):
        return None
    return tuple(len(read_looks(run)) for run in runs if run is not None)


def _costs(runs: Sequence[RunFolder]) -> Costs:
    networks = [_network(run) for run in runs if run.network.is_file() or is_ensemble(run)]
    lines = [read_metrics(run.metrics) for run in runs if run.metrics.is_file()]
    speeds = [speed for speed in map(images_per_second, lines) if speed is not None]
    machines = [_machine(read_json(run.environment)) for run in runs if run.environment.is_file()]
    network = networks[0] if networks else {}
    return Costs(
        parameters=network.get("parameters"),
        multiply_adds=_multiply_adds(network),
        images_per_second=_mean(speeds),
        minutes=_mean([wall_seconds(run) / 60 for run in lines]),
        machine="; ".join(dict.fromkeys(filter(None, machines))) or None,
    )


def _network(run: RunFolder) -> dict[str, Any]:
    """Returns what is known of a run's network; of an ensemble, of the networks of its members together."""
    if not is_ensemble(run):
        return read_json(run.network)
    return {"parameters": sum(member.parameters for member in read_ensemble(run).members)}


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None


def _machine(environment: Mapping[str, Any]) -> str:
    """Returns the machine of environment.json in a few words, empty if it says nothing."""
    machine = environment.get("machine") or {}
    known = {"cores", "processor"} <= set(machine)
    cores = f"{counted(machine['cores'], 'cores')} of {machine['processor']}" if known else ""
    kinds = [str(device).partition(" ") for device in environment.get("devices") or []]
    devices = [kind or platform for platform, _, kind in kinds if platform != "cpu"]
    accelerators = [f"{devices.count(device)} x {device}" for device in dict.fromkeys(devices)]
    return ", ".join(filter(None, [*accelerators, cores]))


def _multiply_adds(network: Mapping[str, Any]) -> float | None:
    """Returns the multiply-adds of the network that network.json describes; None if it is not known here."""
    try:
        size = len(network["classes"]), network["image_size"], network.get("until", "")
        parts = network.get("pooling", "average"), network.get("transition", 0), network.get("denoiser", 0)
        return _measured(network["architecture"], *size, *parts)
    except (KeyError, TypeError, UserError):
        return None


@functools.cache
def _measured(
    architecture: str, classes: int, image_size: int, until: str, pooling: Pooling, transition: int, denoiser: int
) -> float:
    # jax, whose import takes seconds, is needed for nothing else here.
    from cxr_jax.models.head import Head
    from cxr_jax.models.size import size_of

    head = Head(pooling=pooling, transition=transition)
    size = size_of(architecture, classes=classes, image_size=image_size, until=until, head=head, denoiser=denoiser)
    return size.multiply_adds
