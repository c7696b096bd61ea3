"""`cxr-jax judge TABLE.csv`: judge a predictions table that any program made."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cxr_jax.config.command_line import Positional, parse, require_judging_options
from cxr_jax.config.schema import OperatingPointConfig
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.terminal import Terminal
from cxr_jax.vocabulary import DISCLAIMER

if TYPE_CHECKING:
    from cxr_jax.evaluation.class_judgement import ClassJudgement
    from cxr_jax.evaluation.judgement import Judgement
    from cxr_jax.evaluation.operating_point import OperatingPoint
    from cxr_jax.runs.class_probabilities import ClassProbabilities
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.runs.predictions import Predictions

SUMMARY = "judge a predictions table made by any program"

ALIGNMENT = "alignment.json"
"""File of --out with what --align-to tells."""


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    # CSV with label (NORMAL, PNEUMONIA or 0, 1) and probability (of PNEUMONIA) or logit_NORMAL, logit_PNEUMONIA; file,
    # group, subtype and split if known; where there is a split, rows of test are judged. Of other classes that exclude
    # each other: label (their names, or numbers from 0) and a column probability_NAME or logit_NAME for each.
    # Of findings that occur together: for each a column label_NAME (1, 0, or empty if unknown) and one of these
    table: Annotated[str, Positional("TABLE")]
    # the same program's predictions on validation images: calibration and rules need them; rows of val are taken
    validation: str = ""
    # rule fixed: called PNEUMONIA at or above; of other classes each has this threshold
    threshold: float = OperatingPointConfig.threshold
    rule: Literal["fixed", "youden", "sensitivity", "cost_ratio"] = "fixed"  # how to choose the threshold on validation
    # rule sensitivity: the highest threshold that reaches it
    target_sensitivity: float = OperatingPointConfig.target_sensitivity
    # rule cost_ratio: how many false alarms a missed pneumonia is worth
    cost_ratio: float = OperatingPointConfig.cost_ratio
    # share of PNEUMONIA that somebody declares for the images that are judged: tells also what the threshold reaches
    # once their probabilities are aligned with validation's, without labels and each half by the other; 0: not declared
    align_to: float = 0.0
    # of a table of classes that exclude each other: judges fewer, each made of those that it names, as in
    # NORMAL=normal PNEUMONIA=bacteria+virus; images of classes that are not named are left out
    merge: tuple[str, ...] = ()
    resamples: int = Confidence.resamples  # of the group bootstrap
    out: str = ""  # new or empty folder for evaluation.json, figures and report.html; by default nothing is written


def main(arguments: list[str]) -> None:
    """Judges the table that `arguments` name; UserError for every mistake in it or in the options."""
    options = parse(Options, arguments, prog="cxr-jax judge", description=SUMMARY)
    terminal = Terminal()
    # before the table is read, of which a mistake in the options says nothing
    _check(options)
    if not _of_two_classes(options):
        if options.align_to:
            raise UserError(
                f"--align-to declares a share of PNEUMONIA, and {options.table} has other classes: leave it out",
                EXIT_USAGE,
            )
        _print_classes(terminal, *judge_class_table(options, terminal))
    else:
        judgement, folder = judge_table(options, terminal)
        _print(terminal, judgement, folder)
        if options.align_to:
            _align(terminal, options, judgement, folder)
    terminal.say(DISCLAIMER)


def judge_any_table(options: Options, terminal: Terminal) -> Judgement | ClassJudgement:
    """Returns what is to be said of the table that `options` name, of two classes or others; UserError as below."""
    _check(options)
    judge = judge_table if _of_two_classes(options) else judge_class_table
    return judge(options, terminal)[0]


def judge_table(options: Options, terminal: Terminal) -> tuple[Judgement, RunFolder | None]:
    """Returns what is to be said of the table that `options` name, and the folder where it is kept, if they ask for it.

    Raises:
        UserError: a mistake in the table or in the options.
    """
    _check(options)
    terminal.say(f"Judging {options.table}")
    from cxr_jax.evaluation.judge import judge, resamples_in_all
    from cxr_jax.runs.folder import RunFolder

    test = _read(options, "test", terminal)
    validation = _read(options, "val", terminal) if options.validation else None
    # refused before the work, so that nobody waits for an answer that cannot be kept
    folder = RunFolder.create(options.out) if options.out else None
    point = _operating_point(options, validation)
    confidence = Confidence(resamples=options.resamples)
    resamples = resamples_in_all(confidence, with_validation=validation is not None)
    with terminal.track("Resampling for the intervals", resamples) as advance:
        judgement = judge(
            validation,
            test,
            point.threshold,
            operating_point=point,
            confidence=confidence,
            advance=advance,
        )
    if folder is not None:
        with terminal.waiting("Drawing the figures and the report"):
            _write(folder, judgement, test, validation)
    return judgement, folder


def judge_class_table(options: Options, terminal: Terminal) -> tuple[ClassJudgement, RunFolder | None]:
    """Returns what is to be said of a table of K classes; else as `judge_table`."""
    terminal.say(f"Judging {options.table}")
    from cxr_jax.evaluation.class_points import choose_class_points, fixed_class_points
    from cxr_jax.evaluation.judge_classes import class_resamples_in_all, judge_classes
    from cxr_jax.runs.folder import RunFolder

    test = _read_classes(options, "test", terminal)
    validation = _read_classes(options, "val", terminal) if options.validation else None
    if validation is not None and validation.KIND != test.KIND:
        raise UserError(
            f"{options.table} and {options.validation} are of different kinds: both need columns label_NAME"
        )
    if validation is not None and validation.classes != test.classes:
        raise UserError(
            f"{options.validation} has the classes {', '.join(validation.classes)}, and {options.table} has "
            f"{', '.join(test.classes)}: both need the same, in the same order"
        )
    folder = RunFolder.create(options.out) if options.out else None
    if validation is None:
        points = fixed_class_points(test.classes, options.threshold)
    else:
        told = {name: getattr(options, name) for name in ("threshold", "target_sensitivity", "cost_ratio")}
        points = choose_class_points(validation, rule=options.rule, **told)
    confidence = Confidence(resamples=options.resamples)
    resamples = class_resamples_in_all(confidence, len(test.classes), with_validation=validation is not None)
    with terminal.track("Resampling for the intervals", resamples) as advance:
        judgement = judge_classes(validation, test, points, confidence=confidence, advance=advance)
    if folder is not None:
        with terminal.waiting("Drawing the figures and the report"):
            _write_classes(folder, judgement, test, validation)
    return judgement, folder


def _print_classes(terminal: Terminal, judgement: ClassJudgement, folder: RunFolder | None) -> None:
    from cxr_jax.reporting.class_tables import show_class_judgement

    show_class_judgement(terminal, judgement)
    _print_end(terminal, folder)


@contextmanager
def as_file(table: str | Path | Mapping[str, Sequence[Any]] | None, called: str) -> Iterator[str]:
    """Yields the path of a table; that of a CSV file of its columns, if these are given, `called` so in errors."""
    if table is None or isinstance(table, (str, Path)):
        yield "" if table is None else str(table)
        return
    from cxr_jax.runs.predictions import write_columns

    with tempfile.TemporaryDirectory(prefix="cxr-jax-") as folder:
        path = Path(folder) / "table.csv"
        try:
            write_columns(path, dict(table.items()))
            yield str(path)
        except UserError as error:
            raise UserError(str(error).replace(str(path), called), error.code) from error


def _print(terminal: Terminal, judgement: Judgement, folder: RunFolder | None) -> None:
    from cxr_jax.reporting.tables import judgement_table

    terminal.show(judgement_table(judgement))
    _print_end(terminal, folder)


def _print_end(terminal: Terminal, folder: RunFolder | None) -> None:
    """Prints where the result is kept."""
    if folder is None:
        terminal.say("Nothing was written. --out FOLDER keeps the result, with figures and a report.")
    else:
        terminal.say(f"Report: {folder.report}\nOpen it in a browser.")


def _align(terminal: Terminal, options: Options, judgement: Judgement, folder: RunFolder | None) -> None:
    """Prints what the threshold reaches on aligned probabilities, and writes it beside the judgement where one is kept.

    Raises:
        UserError: the images are all of one group, which has no halves.
    """
    from cxr_jax.evaluation.alignment import ASSUMPTION, judge_aligned
    from cxr_jax.reporting.tables import alignment_table
    from cxr_jax.runs.files import write_json
    from cxr_jax.runs.judged_rows import read_two_classes
    from cxr_jax.runs.records import fields_to_json

    test, validation = (
        read_two_classes(_path(options, split), split, _merged(options)).predictions for split in ("test", "val")
    )
    threshold, confidence = judgement.operating_point.threshold, judgement.confidence
    if len(test.cluster_names()) < 2:
        raise UserError(f"--align-to needs two groups or more, and {options.table} has one")
    with terminal.track("Resampling for the intervals after alignment", confidence.resamples) as advance:
        aligned = judge_aligned(validation, test, threshold, options.align_to, confidence, advance)
    terminal.show(alignment_table(aligned))
    terminal.say(f"{ASSUMPTION}.")
    if folder is not None:
        path = folder.path / ALIGNMENT
        write_json(path, {"assumption": ASSUMPTION, **fields_to_json(aligned)})
        terminal.say(f"Written: {path}")


def _check(options: Options) -> None:
    """Raises UserError for options that contradict each other or lie out of range."""
    if not 0 <= options.threshold <= 1:
        raise UserError(f"--threshold is {options.threshold}, but must be from 0 to 1", EXIT_USAGE)
    if not 0 <= options.align_to < 1:
        raise UserError(
            f"--align-to is {options.align_to}, but must be 0 (not declared), or above 0 and below 1", EXIT_USAGE
        )
    if options.align_to and not options.validation:
        raise UserError(
            "--align-to brings probabilities to where validation's lie: name its table with --validation", EXIT_USAGE
        )
    require_judging_options(options.target_sensitivity, options.cost_ratio, options.resamples)
    if options.rule != "fixed" and options.threshold != Options.threshold:
        raise UserError(f"--threshold and --rule {options.rule} exclude each other: give one", EXIT_USAGE)
    if options.rule != "fixed" and not options.validation:
        raise UserError(
            f"the rule {options.rule} chooses the threshold on validation: name its table with --validation", EXIT_USAGE
        )


def _merged(options: Options) -> Mapping[str, tuple[str, ...]]:
    from cxr_jax.runs.merged_classes import parse_merged

    return parse_merged(options.merge) if options.merge else {}


def _of_two_classes(options: Options) -> bool:
    """Returns True where NORMAL and PNEUMONIA are judged, in the table or as merged."""
    from cxr_jax.runs.class_predictions import classes_of_table
    from cxr_jax.runs.merged_classes import makes_two_classes

    merged = _merged(options)
    return makes_two_classes(merged) if merged else not classes_of_table(options.table)


def _read(options: Options, split: str, terminal: Terminal) -> Predictions:
    """Returns what is judged of test or of validation, and says what is left out; UserError as in `judged_rows`."""
    from cxr_jax.runs.judged_rows import read_two_classes

    rows = read_two_classes(_path(options, split), split, _merged(options))
    rows.tell(terminal.say)
    return rows.predictions


def _read_classes(options: Options, split: str, terminal: Terminal) -> ClassProbabilities:
    """Returns the same of other classes than NORMAL and PNEUMONIA."""
    from cxr_jax.runs.judged_rows import read_other_classes

    rows = read_other_classes(_path(options, split), split, _merged(options))
    rows.tell(terminal.say)
    return rows.predictions


def _path(options: Options, split: str) -> str:
    return options.table if split == "test" else options.validation


def _write_classes(
    folder: RunFolder, judgement: ClassJudgement, test: ClassProbabilities, validation: ClassProbabilities | None
) -> None:
    """Writes judgement, tables, figures and report of K classes into the folder."""
    from cxr_jax.evaluation.judgement import write_judgement
    from cxr_jax.reporting.class_figures import draw_class_evaluation
    from cxr_jax.reporting.report import write_report
    from cxr_jax.runs.class_predictions import write_class_predictions

    write_class_predictions(folder.predictions_of("test"), test)
    if validation is not None:
        write_class_predictions(folder.predictions_of("val"), validation)
    write_judgement(folder.evaluation, judgement)
    draw_class_evaluation(folder.figures, judgement, test)
    write_report(folder)


def _operating_point(options: Options, validation: Predictions | None) -> OperatingPoint:
    from cxr_jax.evaluation.operating_point import OperatingPoint, choose_operating_point

    if validation is None:
        return OperatingPoint(threshold=options.threshold, parameters={"threshold": options.threshold})
    return choose_operating_point(
        validation,
        rule=options.rule,
        threshold=options.threshold,
        target_sensitivity=options.target_sensitivity,
        cost_ratio=options.cost_ratio,
    )


def _write(folder: RunFolder, judgement: Judgement, test: Predictions, validation: Predictions | None) -> None:
    """Writes judgement, tables, figures and report into the folder."""
    from cxr_jax.evaluation.judgement import write_judgement
    from cxr_jax.reporting.figures import draw_evaluation
    from cxr_jax.reporting.report import write_report
    from cxr_jax.runs.predictions import write_predictions

    write_predictions(folder.predictions_of("test"), test)
    if validation is not None:
        write_predictions(folder.predictions_of("val"), validation)
    write_judgement(folder.evaluation, judgement)
    draw_evaluation(folder.figures, judgement, test, validation)
    write_report(folder)
