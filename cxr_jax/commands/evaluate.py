"""`cxr-jax evaluate RUN`: predict validation and test, judge them, and draw the figures and the report.

Several runs are evaluated as one ensemble, which is a run like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cxr_jax.config.command_line import Option, Positional, parse
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.terminal import Terminal, as_typed
from cxr_jax.vocabulary import CLASS_NAMES

if TYPE_CHECKING:
    from cxr_jax.config.schema import Config
    from cxr_jax.data.prepared import PreparedData
    from cxr_jax.evaluation.change import Changes
    from cxr_jax.evaluation.class_judgement import ClassJudgement
    from cxr_jax.evaluation.judgement import Judgement
    from cxr_jax.evaluation.quality import ImageQuality
    from cxr_jax.inference.two_class_evaluation import Judged
    from cxr_jax.runs.class_probabilities import ClassProbabilities
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.runs.predictions import Predictions

SUMMARY = "predict a run's validation and test images, judge them, draw the figures and the report"


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    # folder of a trained run or of an ensemble; several runs become an ensemble, the mean of their logits
    runs: Annotated[tuple[str, ...], Positional("RUN...")] = ()
    out: Annotated[str, Option("FOLDER")] = ""  # new folder of the ensemble of several runs
    copy: bool = False  # --out gets copies of their networks, and needs the runs no more
    stored: bool = False  # judge the stored predictions again: no network runs, no look is added
    # judge the run on films of another source, prepared under this name: at its threshold, in a ledger of their own
    on: Annotated[str, Option("DATASET")] = ""
    # measure the run on images degraded in eleven ways at five severities: those of validation, or with --test of test
    degraded: bool = False
    # show the run regions of the images alone, as the lung masks beside the data tell them, and compare with whole ones
    occluded: bool = False
    # with --degraded or --occluded: the test images, which is one look more; with --on: the test images alone, not all
    test: bool = False
    reference: Annotated[str, Option("RUN")] = ""  # with --degraded: the run that errors are told relative to
    unfinished: bool = False  # look at test though training has not come to its end


@dataclass(frozen=True)
class Evaluation:
    """What is printed of an evaluation."""

    run: RunFolder
    judgement: Judgement | ClassJudgement
    quality: ImageQuality | None  # None where the classes are not NORMAL and PNEUMONIA
    stored: bool  # no look at test was added
    changes: Changes | None = None  # of a run that learned on


def main(arguments: list[str]) -> None:
    """Evaluates the run that `arguments` name, or the ensemble of the runs, and prints the result.

    Raises:
        UserError: as `evaluate`.
    """
    options = parse(Options, arguments, prog="cxr-jax evaluate", description=SUMMARY)
    terminal = Terminal()
    if options.degraded or options.occluded or options.on:
        _check(options)
        (_evaluate_on if options.on else _evaluate_changed)(options, terminal)
        return
    print_evaluation(terminal, evaluate(options, terminal))


def evaluate(options: Options, terminal: Terminal) -> Evaluation:
    """Evaluates a run, or the ensemble of several runs.

    The threshold is fixed on validation and stored before the first prediction on test is made; every look at test is
    added to the run's ledger. With `--stored` the tables of an earlier evaluation are judged again. Everything is on
    the disk when the result is returned.

    Raises:
        UserError: the run or its data cannot be read, or training has not ended and `--unfinished` is not given.
    """
    _check(options)
    terminal.say(f"Evaluating {', '.join(options.runs)}")
    from cxr_jax.config.loading import load_config
    from cxr_jax.data.prepared import open_data_of_run
    from cxr_jax.evaluation.conformal import read_conformal
    from cxr_jax.evaluation.judged_sets import judge_uncertainty, write_uncertainty
    from cxr_jax.evaluation.judgement import write_judgement
    from cxr_jax.evaluation.quality import write_quality
    from cxr_jax.inference.image_quality import judge_quality
    from cxr_jax.inference.two_class_evaluation import judge_stored, predict_and_judge
    from cxr_jax.runs.ensemble import members_of
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.runs.locks import evaluating

    named = [RunFolder.open(path) for path in options.runs]
    if not (options.stored or options.unfinished):
        for run in (member for entry in named for member in members_of(entry)):
            _require_finished(run)
    run = named[0] if len(named) == 1 else _join(named, options, terminal)
    config = load_config(run.config)
    prepared = open_data_of_run(run)
    if prepared.classes != CLASS_NAMES:
        with evaluating(run):
            return _evaluate_classes(run, config, prepared, options, terminal)
    with evaluating(run):
        judged = (judge_stored if options.stored else predict_and_judge)(run, config, prepared, terminal)
        write_judgement(run.evaluation, judged.judgement)
        point = judged.judgement.operating_point
        uncertainty = judge_uncertainty(read_conformal(run.conformal), judged.test, point.threshold)
        write_uncertainty(run.uncertainty, uncertainty)
        changes = _compared_with_origin(run, prepared, judged.test, options, terminal)
        quality = judge_quality(prepared, config, judged.validation, judged.test, point, run, terminal)
        write_quality(run.quality, quality)
        _draw(run, prepared, config, judged, quality, terminal)
    return Evaluation(run, judged.judgement, quality, options.stored, changes)


def _evaluate_classes(
    run: RunFolder, config: Config, prepared: PreparedData, options: Options, terminal: Terminal
) -> Evaluation:
    """Evaluates a run whose classes are not NORMAL and PNEUMONIA."""
    with terminal.waiting("Starting JAX"):
        from cxr_jax.inference.class_evaluation import evaluate_classes
        from cxr_jax.runs.metrics_log import read_metrics
    judged = evaluate_classes(run, config, prepared, terminal, stored=options.stored)
    changes = _compared_with_origin(run, prepared, judged.test, options, terminal)
    with terminal.track("Drawing the figures and the report", 2) as advance:
        from cxr_jax.reporting.class_figures import draw_class_evaluation
        from cxr_jax.reporting.report import write_report

        lines = read_metrics(run.metrics) if run.metrics.is_file() else None
        draw_class_evaluation(run.figures, judged.judgement, judged.test, lines)
        advance(1)
        write_report(run)
        advance(1)
    return Evaluation(run, judged.judgement, None, options.stored, changes)


def _compared_with_origin(
    run: RunFolder,
    prepared: PreparedData,
    test: Predictions | ClassProbabilities,
    options: Options,
    terminal: Terminal,
) -> Changes | None:
    """Returns what a run gained and forgot by learning on; None for one that did not."""
    from cxr_jax.runs.continued import is_continued

    if not is_continued(run):
        return None
    from cxr_jax.inference.change import compare_with_origin

    return compare_with_origin(run, prepared, test, terminal, stored=options.stored)


def _evaluate_changed(options: Options, terminal: Terminal) -> None:
    """Measures a run on degraded images or on regions of them, stores what is found, and prints it."""
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.runs.locks import evaluating
    from cxr_jax.vocabulary import DISCLAIMER

    terminal.say(f"Evaluating {options.runs[0]} on {'degraded images' if options.degraded else 'regions of images'}")
    run = RunFolder.open(options.runs[0])
    if options.test and not options.unfinished:
        _require_finished(run)
    with evaluating(run):
        with terminal.waiting("Loading the network"):
            from cxr_jax.reporting.changed_images import tell_degraded, tell_occluded

        if options.degraded:
            tell_degraded(run, terminal, on_test=options.test, reference=options.reference)
        else:
            tell_occluded(run, terminal, on_test=options.test)
    terminal.say(DISCLAIMER)


def _evaluate_on(options: Options, terminal: Terminal) -> None:
    """Judges a run on films of another source, stores record and report, and prints what it is worth there."""
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.runs.locks import evaluating
    from cxr_jax.runs.trained_on import told_films
    from cxr_jax.vocabulary import DISCLAIMER

    terminal.say(f"Evaluating {options.runs[0]} on {options.on}")
    run = RunFolder.open(options.runs[0])
    with evaluating(run):
        with terminal.waiting("Loading the network"):
            from cxr_jax.inference.external import evaluate_on
            from cxr_jax.reporting.external import external_lines
            from cxr_jax.reporting.report import write_report

        found = evaluate_on(run, options.on, test_alone=options.test, track=terminal.track)
        for line in external_lines(found.external):
            terminal.say(line)
        terminal.say(told_films(run))
        terminal.say(f"Record: {found.folder}")
        if run.evaluation.is_file():
            write_report(run)
            terminal.say(f"Report: {run.report}")
    terminal.say(DISCLAIMER)


def _check(options: Options) -> None:
    """Raises UserError for options that say too little or contradict each other."""
    if not options.runs:
        raise UserError("name a run: cxr-jax evaluate RUN", EXIT_USAGE)
    if options.on and (options.degraded or options.occluded or options.stored or options.copy or options.out):
        raise UserError("--on goes with --test alone", EXIT_USAGE)
    if options.on and len(options.runs) != 1:
        raise UserError("--on judges one run: name one", EXIT_USAGE)
    changed = "--degraded" if options.degraded else "--occluded"
    if options.degraded and options.occluded:
        raise UserError("--degraded and --occluded are two measurements: make one after the other", EXIT_USAGE)
    if options.test and not (options.degraded or options.occluded or options.on):
        raise UserError("--test is for --degraded, --occluded and --on: add one of them", EXIT_USAGE)
    if options.reference and not options.degraded:
        raise UserError("--reference is for --degraded: add that", EXIT_USAGE)
    if (options.degraded or options.occluded) and len(options.runs) != 1:
        raise UserError(f"{changed} measures one run: name one", EXIT_USAGE)
    if (options.degraded or options.occluded) and (options.stored or options.copy or options.out):
        alone = "--test and --reference alone" if options.degraded else "--test alone"
        raise UserError(f"{changed} goes with {alone}", EXIT_USAGE)
    several = len(options.runs) > 1
    if several and options.stored:
        raise UserError("--stored judges one run again: name one, or the folder of an ensemble", EXIT_USAGE)
    if several and not options.out:
        raise UserError(
            f"{len(options.runs)} runs are evaluated as one ensemble: say by --out FOLDER where it goes, or evaluate "
            "one run at a time",
            EXIT_USAGE,
        )
    if not several and (options.out or options.copy):
        option = "--out" if options.out else "--copy"
        raise UserError(f"{option} is for the ensemble of several runs: name two or more", EXIT_USAGE)


def _join(runs: list[RunFolder], options: Options, terminal: Terminal) -> RunFolder:
    """Makes the ensemble of several runs, and returns its folder."""
    from cxr_jax.runs.ensemble import is_ensemble, read_ensemble
    from cxr_jax.runs.folder import RunFolder

    if is_ensemble(RunFolder(Path(options.out))):
        raise UserError(
            f"{options.out} is an ensemble already: {as_typed('cxr-jax', 'evaluate', Path(options.out))} evaluates it, "
            "and another goes into another folder"
        )
    with terminal.waiting(f"Making an ensemble of {len(runs)} runs"):
        from cxr_jax.inference.new_ensemble import make_ensemble

        run = make_ensemble(runs, Path(options.out), copy=options.copy)
    terminal.say(f"{as_typed(run.path)} is the {read_ensemble(run).title}")
    return run


def _require_finished(run: RunFolder) -> None:
    """Raises UserError if training has not come to its end: a look at test would be spent on half a network."""
    from cxr_jax.runs.metrics_log import is_finished, read_metrics

    if is_finished(run.metrics):
        return
    steps = [line["step"] for line in read_metrics(run.metrics)] if run.metrics.is_file() else []
    reached = f"it stopped after step {steps[-1]:,}" if steps else "it has made no step"
    raise UserError(
        f"training of {run.path} is not finished, {reached}: go on with "
        f"{as_typed('cxr-jax', 'train', run.config, '--out', run.path, '--resume')}, or spend a look at "
        "test on it with --unfinished"
    )


def _draw(
    run: RunFolder,
    prepared: PreparedData,
    config: Config,
    judged: Judged,
    quality: ImageQuality,
    terminal: Terminal,
) -> None:
    """Draws every figure, and writes the report around them."""
    from cxr_jax.data.split_loading import load_split
    from cxr_jax.runs.metrics_log import read_metrics

    images = load_split(prepared, config.data, "test", track=terminal.track).images
    phantoms = bool(prepared.card["phantom"])
    threshold = judged.judgement.operating_point.threshold
    with terminal.track("Drawing the figures and the report", 4) as advance:
        from cxr_jax.reporting.figures import draw_evaluation
        from cxr_jax.reporting.pictures import draw_pictures
        from cxr_jax.reporting.quality_figures import draw_quality
        from cxr_jax.reporting.report import write_report

        lines = read_metrics(run.metrics) if run.metrics.is_file() else None
        draw_evaluation(run.figures, judged.judgement, judged.test, judged.validation, lines)
        advance(1)
        draw_quality(run.figures, quality, judged.judgement)
        advance(1)
        draw_pictures(run.figures, images, judged.test, threshold, phantoms=phantoms)
        advance(1)
        write_report(run)
        advance(1)


def print_evaluation(terminal: Terminal, evaluation: Evaluation) -> None:
    """Prints the table of figures, what belongs beside it, and where report and figures are."""
    from cxr_jax.evaluation.numbers import measured_text
    from cxr_jax.reporting.change import change_lines
    from cxr_jax.reporting.looks import told_look, told_stored, told_together
    from cxr_jax.reporting.quality import over_exposure_text
    from cxr_jax.reporting.tables import judgement_table
    from cxr_jax.runs.ensemble import first_network
    from cxr_jax.runs.ledger import read_looks
    from cxr_jax.vocabulary import DISCLAIMER

    run, quality = evaluation.run, evaluation.quality
    if quality is None:
        from cxr_jax.reporting.class_tables import show_class_judgement

        show_class_judgement(terminal, evaluation.judgement)
    else:
        terminal.show(judgement_table(evaluation.judgement))
        if (told := over_exposure_text(quality, "false_positives")) is not None:
            terminal.say(told)
        if (baseline := quality.baselines.get("all_measures")) is not None:
            area = measured_text(baseline.test["roc_auc"])
            terminal.say(f"Image quality alone, without a network: ROC-AUC {area} on test.")
    if evaluation.changes is not None:
        for line in change_lines(evaluation.changes):
            terminal.say(line)
    looks = read_looks(run)
    terminal.say(told_stored(run) if evaluation.stored else told_look(len(looks)))
    if looks and (told := told_together(looks)) is not None:
        terminal.say(f"All runs on this machine together have {told}.")
    terminal.say(f"Report:  {run.report}\nFigures: {run.figures}")
    terminal.say(f"Next: open the report in a browser, or {as_typed('cxr-jax', 'explain', first_network(run))}")
    terminal.say(DISCLAIMER)
