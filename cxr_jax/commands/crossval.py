"""`cxr-jax crossval CONFIG --folds 5 --out FOLDER`: a network for each fold of train, and all judged out of fold."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cxr_jax.commands.train import described, terminal_for
from cxr_jax.config.command_line import Option, option_of, parse
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.terminal import Terminal, as_typed

if TYPE_CHECKING:
    from rich.table import Table

    from cxr_jax.config.loading import Given
    from cxr_jax.config.schema import Config
    from cxr_jax.data.prepared import PreparedData
    from cxr_jax.inference.out_of_fold import FoldPredictions
    from cxr_jax.runs.class_probabilities import ClassProbabilities
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.runs.predictions import Predictions
    from cxr_jax.sweeps.runs import SweepRun
    from cxr_jax.sweeps.sweep import Sweep

SUMMARY = "train a network for each fold of train, judge all out of fold, and make their ensemble"

RECORD, MARKDOWN, TABLE, ENSEMBLE = "crossval.json", "crossval.md", "out_of_fold.csv", "ensemble"
"""Files and a folder of --out, beside the folds; by the first it is known again."""


@dataclass(frozen=True)
class Options:
    """Options of the command; every field of the config is one too, such as --optimizer.learning-rate 0.02."""

    folds: int = 5  # how many networks are trained, each on all of train but its own fold
    # of the networks, their ensemble and the tables; what is finished there is kept, what was interrupted goes on
    out: Annotated[str, Option("FOLDER")] = ""
    # a finished cross-validation by the same config but for model.flip_average and model.shift_average: its networks
    # are copied and asked anew, and nothing is trained
    networks: Annotated[str, Option("FOLDER")] = ""
    jobs: int = 1  # trainings side by side: each has a GPU of its own, or its share of the cores


def main(arguments: list[str]) -> None:
    """Trains what the cross-validation that `arguments` name has left, judges it and makes the ensemble of its folds.

    The images of test play no part.

    Raises:
        UserError: a mistake in the config or the options; trainings failed; or a signal stopped them, with the exit
            code that `cxr-jax train` has for it.
    """
    terminal = terminal_for(arguments)
    terminal.say(f"Cross-validating {' '.join(arguments[:1])}")
    path, given = _parse(arguments, terminal)
    options, folder = given.options, Path(given.options.out)
    _check(options, arguments[0])
    from cxr_jax.data.prepared import PreparedData
    from cxr_jax.sweeps.folds import sweep_of_folds
    from cxr_jax.sweeps.runs import sweep_runs
    from cxr_jax.sweeps.training import require_trainable_where_left, train_all

    sweep = sweep_of_folds(path, given.config, options.folds)
    _refuse_without_effect(given, sweep.base.config)
    prepared = PreparedData.open(given.config.data.dataset)
    _tell_images(terminal, prepared, sweep)
    _begin(folder, path)
    runs = sweep_runs(sweep, folder)
    _require_own_ensemble([run.run for run in runs], folder / ENSEMBLE)
    if options.networks:
        _take_networks(terminal, Path(options.networks), runs)
    require_trainable_where_left(terminal, runs, "the folds")
    failed = train_all(terminal, runs, folder, options.jobs, as_typed("cxr-jax", "crossval", *arguments))
    if failed:
        for ended in failed:
            terminal.complain(f"{ended.job.name} failed: {ended.sentence} (log: {ended.job.log})")
        raise UserError(f"{len(failed)} of {len(runs)} folds failed, as told above; the same command tries them again")
    _judge(terminal, [run.run for run in runs], given.config, path.stem, prepared, folder)


def _parse(arguments: list[str], terminal: Terminal) -> tuple[Path, Given[Options]]:
    """Returns the config's file, and what it and the options say."""
    from cxr_jax.config.loading import load_with_options
    from cxr_jax.config.shipped import find_config

    prog = "cxr-jax crossval CONFIG"
    if not arguments or arguments[0].startswith("-"):
        parse(Options, arguments, prog=prog, description=described(prog, SUMMARY))
        raise UserError("name a config first: cxr-jax crossval CONFIG --folds 5 --out FOLDER", EXIT_USAGE)
    path = find_config(arguments[0])
    return path, load_with_options(path, arguments[1:], Options, prog=prog, description=SUMMARY, tell=terminal.say)


def _check(options: Options, config: str) -> None:
    """Raises UserError for options that say too little or lie out of range."""
    if not options.out:
        raise UserError(f"say where the folds go: {as_typed('cxr-jax', 'crossval', config)} --out FOLDER", EXIT_USAGE)
    for name, least in (("folds", 2), ("jobs", 1)):
        if getattr(options, name) < least:
            raise UserError(f"--{name} is {getattr(options, name)}, but must be {least} or more", EXIT_USAGE)


def _refuse_without_effect(given: Given[Options], trained: Config) -> None:
    """Raises UserError if an option sets a field of the config that cross-validation sets itself or has no use for."""
    from cxr_jax.config.effect import refuse_without_effect
    from cxr_jax.config.overrides import values_of

    asked, used = values_of(given.config), values_of(trained)
    for key in given.changes:
        if asked[key] != used[key]:
            raise UserError(
                f"{option_of(key)} has no effect in cross-validation, which sets {key} to {json.dumps(used[key])}",
                EXIT_USAGE,
            )
    refuse_without_effect(trained, given.changes)


def _tell_images(terminal: Terminal, prepared: PreparedData, sweep: Sweep) -> None:
    """Prints what is shared out among the folds; UserError if there are too few groups for them."""
    from cxr_jax.data.findings import present_in
    from cxr_jax.data.split_loading import rows_of_split

    data = sweep.base.config.data
    held_out = len(rows_of_split(prepared, data, "val"))
    shared = [example for example in prepared.examples if example.split != "test"]
    counts = Counter(name for example in shared for name in present_in(example.label))
    classes = ", ".join(f"{counts[name]:,} {name}" for name in prepared.classes)
    groups = len({example.group for example in shared})
    terminal.say(
        f"All images but those of test: {len(shared):,} of {groups:,} groups ({classes}); {data.folds} folds of about "
        f"{held_out:,}"
    )
    config = sweep.base.config
    terminal.say(
        f"Each network is trained for {sum(phase.epochs for phase in config.resolved_phases())} epochs without "
        "stopping early, and its last state counts, so that nothing is chosen on the fold that it is judged on"
    )


def _begin(folder: Path, path: Path) -> None:
    """Marks the folder as that of cross-validation; UserError if it holds something else."""
    from cxr_jax.runs.files import is_begun, write_json

    if not is_begun(folder, "cross-validation", RECORD):
        write_json(folder / RECORD, {"config": path.name})


def _take_networks(terminal: Terminal, source: Path, runs: Sequence[SweepRun]) -> None:
    """Copies the network of every fold from the cross-validation at `source`, where it is not there yet."""
    from cxr_jax.runs.folder import RunFolder

    with terminal.waiting(f"Copying the networks of {source}"):
        from cxr_jax.inference.other_looks import with_other_looks

        for run in runs:
            if not run.begun:
                own = RunFolder.open(source / run.run.path.parent.name / run.run.path.name)
                with_other_looks(own, run.run.path, run.config)


def _judge(
    terminal: Terminal, runs: Sequence[RunFolder], config: Config, name: str, prepared: PreparedData, folder: Path
) -> None:
    """Predicts every image out of fold, judges that, writes the tables and makes the ensemble."""
    from cxr_jax.runs.files import write_json, write_text
    from cxr_jax.vocabulary import CLASS_NAMES, DISCLAIMER

    with terminal.waiting("Loading the networks"):
        from cxr_jax.inference.out_of_fold import predict_held_out

    found = predict_held_out(runs, prepared, terminal.track)
    _require_same_networks(found, folder / ENSEMBLE)
    usual = prepared.classes == CLASS_NAMES
    judged = (_judge_usual if usual else _judge_others)(terminal, found, config, name, prepared)
    judged.write(folder / TABLE)
    write_json(folder / RECORD, judged.record)
    write_text(folder / MARKDOWN, judged.markdown)
    with terminal.waiting("Making the ensemble of the folds"):
        ensemble = _ensemble(runs, found, judged, folder / ENSEMBLE)
    for table in judged.tables:
        terminal.show(table)
    for note in judged.notes:
        terminal.say(note)
    for written in (TABLE, MARKDOWN, RECORD):
        terminal.say(f"Written: {folder / written}")
    terminal.say(f"Next: {as_typed('cxr-jax', 'evaluate', ensemble.path)}")
    terminal.say(DISCLAIMER)


@dataclass(frozen=True)
class _Judged:
    """What is written and shown of the predictions out of fold."""

    write: Callable[[Path], None]  # writes the table of predictions
    write_point: Callable[[Path], None]  # writes the operating point
    record: dict[str, Any]
    markdown: str
    tables: list[Table]
    notes: list[str]


def _judge_usual(
    terminal: Terminal, found: Sequence[FoldPredictions], config: Config, name: str, prepared: PreparedData
) -> _Judged:
    """Judges the predictions of NORMAL and PNEUMONIA."""
    from cxr_jax.evaluation.confidence import Confidence
    from cxr_jax.evaluation.cross_validation import SCHEMA_VERSION, joined, judge_folds
    from cxr_jax.evaluation.operating_point import choose_operating_point, write_operating_point
    from cxr_jax.reporting.cross_validation import cross_validation_markdown, notes, terminal_table
    from cxr_jax.runs.predictions import write_predictions
    from cxr_jax.runs.records import fields_to_json

    tables = [fold.predictions for fold in found]
    everything = _in_order(joined(tables), prepared)
    point = choose_operating_point(everything, **asdict(config.operating_point))
    confidence = Confidence()
    with terminal.track("Resampling for the intervals", (len(tables) + 1) * confidence.resamples) as advance:
        judged = judge_folds(tables, point, confidence, advance)
    return _Judged(
        write=lambda path: write_predictions(path, everything),
        write_point=lambda path: write_operating_point(path, point),
        record={"schema_version": SCHEMA_VERSION, "config": name, **fields_to_json(judged)},
        markdown=cross_validation_markdown(judged, name),
        tables=[terminal_table(judged)],
        notes=notes(judged),
    )


def _judge_others(
    terminal: Terminal, found: Sequence[FoldPredictions], config: Config, name: str, prepared: PreparedData
) -> _Judged:
    """Judges the predictions of other classes, or of findings."""
    from cxr_jax.evaluation.class_cross_validation import joined_classes, judge_class_folds, resamples_of_folds
    from cxr_jax.evaluation.class_points import choose_class_points, write_class_points
    from cxr_jax.evaluation.confidence import Confidence
    from cxr_jax.evaluation.cross_validation import SCHEMA_VERSION
    from cxr_jax.reporting.class_cross_validation import class_markdown, class_notes, class_tables
    from cxr_jax.runs.class_predictions import write_class_predictions
    from cxr_jax.runs.records import fields_to_json

    tables = [fold.predictions for fold in found]
    everything = _in_order(joined_classes(tables), prepared)
    points = choose_class_points(everything, **asdict(config.operating_point))
    confidence = Confidence()
    resamples = resamples_of_folds(len(tables), len(prepared.classes), confidence)
    with terminal.track("Resampling for the intervals", resamples) as advance:
        judged = judge_class_folds(tables, everything, points, confidence, advance)
    return _Judged(
        write=lambda path: write_class_predictions(path, everything),
        write_point=lambda path: write_class_points(path, points),
        record={"schema_version": SCHEMA_VERSION, "config": name, **fields_to_json(judged)},
        markdown=class_markdown(judged, name),
        tables=class_tables(judged),
        notes=class_notes(judged),
    )


def _in_order(everything: Predictions | ClassProbabilities, prepared: PreparedData) -> Predictions | ClassProbabilities:
    """Returns the rows of all folds in the order of the prepared data."""
    import numpy as np

    row_of = {example.file: row for row, example in enumerate(prepared.examples)}
    return everything.select(np.argsort([row_of[file] for file in everything.file]))


def _require_own_ensemble(runs: Sequence[RunFolder], path: Path) -> None:
    """Raises UserError if the ensemble at `path` is of other runs, such as those of another seed."""
    from cxr_jax.runs.ensemble import is_ensemble, places_of
    from cxr_jax.runs.folder import RunFolder

    there = RunFolder(path)
    if is_ensemble(there) and [place.resolve() for place in places_of(there)] != [run.path.resolve() for run in runs]:
        raise UserError(
            f"{path} is made of other runs, {as_typed(places_of(there)[0])} among them: choose another --out for these"
        )


def _require_same_networks(found: Sequence[FoldPredictions], path: Path) -> None:
    """Raises UserError if the ensemble at `path` is of other networks than these predictions."""
    from cxr_jax.runs.ensemble import is_ensemble, read_ensemble
    from cxr_jax.runs.folder import RunFolder

    there, networks = RunFolder(path), [fold.checkpoint_sha256 for fold in found]
    if is_ensemble(there) and [member.sha256 for member in read_ensemble(there).members] != networks:
        raise UserError(
            f"{path} is made of other networks than those that stand beside it now: move it away, and give the same "
            "command again"
        )


def _ensemble(runs: Sequence[RunFolder], found: Sequence[FoldPredictions], judged: _Judged, path: Path) -> RunFolder:
    """Returns the ensemble of the folds, made if it is not there; its validation are the predictions out of fold."""
    from cxr_jax.inference.new_ensemble import make_ensemble
    from cxr_jax.runs.ensemble import is_ensemble
    from cxr_jax.runs.folder import RunFolder

    there = RunFolder(path)
    if is_ensemble(there):
        return there

    def fill(run: RunFolder) -> None:
        judged.write_point(run.operating_point)
        judged.write(run.predictions_of("val"))

    data = {"validation": "out_of_fold", "folds": len(runs), "fold": 0}
    return make_ensemble(runs, path, data=data, fill=fill)
