"""`cxr-jax explain RUN [FILES...]`: Grad-CAM of radiographs, of errors or of all outcomes, and checks of the maps."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

from cxr_jax.config.command_line import Option, Positional, parse
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.terminal import Terminal, as_typed
from cxr_jax.vocabulary import CLASS_NAMES, DISCLAIMER

if TYPE_CHECKING:
    import numpy as np

    from cxr_jax.data.prepared import PreparedData
    from cxr_jax.explain.case import Case
    from cxr_jax.explain.panel import Group, Tile
    from cxr_jax.explain.subjects import Subject, Subjects
    from cxr_jax.inference.restore import TrainedModel
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.serving.predict import Threshold

SUMMARY = "show by Grad-CAM what speaks for a class"

DESCRIPTION = """Show by Grad-CAM what speaks for a class: in chosen radiographs, in the errors of a run or in all four
outcomes; or check whether the maps can be trusted.

Overlays at the size of the originals and a page with all of them go to the folder explanations of the run, where they
replace those of the same name: they can be computed again at any time. --check draws no map; it writes checks.json
there, with a verdict for each check, and the figures."""

_CHUNK = 16
"""Radiographs that are held at their original size together."""


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    run: Annotated[str, Positional("RUN")]  # folder of a trained run
    # radiographs, or names of images in the prepared data; without any, the most confident errors of a split
    files: Annotated[tuple[str, ...], Positional("[FILES...]")] = ()
    # stage of the network, such as blocks.5; by default the last
    stage: Annotated[str, Option("NAME")] = ""
    # class whose evidence is shown, NORMAL or PNEUMONIA; by default the one that was called
    explained: Annotated[str, Option("NAME", name="class")] = ""
    # when no files are named: the wrong calls, or true and false positives and negatives
    cases: Literal["errors", "outcomes"] = "errors"
    # how they are chosen: furthest from the threshold, of median confidence, nearest to the threshold, by lot
    rule: Literal["confident", "typical", "uncertain", "random"] = "confident"
    count: int = 12  # how many errors, or images of all outcomes together
    split: Literal["test", "val"] = "test"  # of these cases
    # check the maps on validation: weights drawn anew, insertion, deletion, agreement of runs, lungs, border
    check: bool = False
    images: int = 32  # how many validation images the maps are checked on
    # runs of the same recipe that maps should agree with
    seeds: Annotated[tuple[str, ...], Option("RUN")] = ()


@dataclass(frozen=True)
class Question:
    """What is asked about every radiograph."""

    threshold: Threshold
    stage: str
    explained: str  # empty: the class that was called


def main(arguments: list[str]) -> None:
    """Draws explanations as `arguments` say.

    Raises UserError for every mistake in them; if a file cannot be explained, at the end, and its own sentence stands
    on standard error.
    """
    options = parse(Options, arguments, prog="cxr-jax explain", description=DESCRIPTION)
    explained = options.explained.upper()
    _require_possible(options, explained)

    terminal = Terminal()
    with terminal.waiting(f"Restoring the network of {options.run}"):
        from cxr_jax.inference.restore import restore_run
        from cxr_jax.models.network import stage_names_of
        from cxr_jax.runs.description import require_uncropped, require_usual_classes, require_whole_images
        from cxr_jax.runs.folder import RunFolder
        from cxr_jax.serving.predict import Threshold

        run = RunFolder.open(options.run)
        trained = restore_run(run)
        require_usual_classes(trained.description.classes, "cxr-jax explain")
        if not options.check:
            require_whole_images(trained.descriptions, "cxr-jax explain without --check")
            require_uncropped(trained.descriptions, "cxr-jax explain without --check")
        stage = options.stage or stage_names_of(trained.model())[-1]
        question = Question(Threshold.of(trained), stage, explained)
    if options.check:
        _check(terminal, run, trained, options, question)
        return
    failures = 0
    if options.files:
        subjects, failures = _chosen(run, options.files)
        groups = [("", len(subjects))]
        title, page = "chosen radiographs", "panel-files.png"
    else:
        found = _from_split(run, options, question.threshold.value)
        subjects, groups, title = found.subjects, found.groups, found.title
        split, cases = ("" if options.split == "test" else "-val"), ("" if options.cases == "errors" else "-outcomes")
        page = f"panel{split}{cases}.png"
        terminal.say(f"{title[0].upper()}{title[1:]}")
    tiles, undecodable = _explain(terminal, run, trained, subjects, question)
    failures += undecodable
    if any(tiles):
        _draw_page(terminal, run, trained, _grouped(tiles, groups), question, title, page)
        terminal.say(f"Next: {as_typed('cxr-jax', 'explain', run.path, '--check')}")
    terminal.say(DISCLAIMER)
    if failures:
        raise UserError(f"{failures} of {len(options.files)} files could not be explained")


def _require_possible(options: Options, explained: str) -> None:
    """Raises UserError if the options contradict each other or cannot be."""
    if explained not in ("", *CLASS_NAMES):
        raise UserError(f"there is no class {options.explained}; the classes are {', '.join(CLASS_NAMES)}", EXIT_USAGE)
    for name in ("count", "images"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}, but must be 1 or more", EXIT_USAGE)
    if options.check and options.files:
        raise UserError("--check takes its images from validation: name no files with it", EXIT_USAGE)
    if options.seeds and not options.check:
        raise UserError("--seeds names runs to check the maps against: add --check", EXIT_USAGE)


def _check(terminal: Terminal, run: RunFolder, trained: TrainedModel, options: Options, question: Question) -> None:
    """Checks the maps on validation; store, draws and print what was found, and writes a report anew that exists."""
    from cxr_jax.config.loading import load_config
    from cxr_jax.data.prepared import open_data_of_run
    from cxr_jax.data.split_loading import load_split, masks_of_split
    from cxr_jax.explain.checks import check_maps, make_sample
    from cxr_jax.explain.record import write_checks
    from cxr_jax.inference.restore import restore_run
    from cxr_jax.reporting.explanations import checks_table, draw_checks, overlap_text
    from cxr_jax.reporting.report import write_report_anew
    from cxr_jax.runs.folder import RunFolder

    others = [restore_run(RunFolder.open(path)) for path in options.seeds]
    prepared, data = open_data_of_run(run), load_config(run.config).data
    validation = load_split(prepared, data, "val", track=terminal.track)
    masks = None
    if prepared.masks is not None and data.crop == "none":
        masks = masks_of_split(prepared, data, "val", "cxr-jax explain", track=terminal.track)
    explained = CLASS_NAMES.index(question.explained) if question.explained else None
    threshold = question.threshold.value
    sample = make_sample(trained, validation, options.images, threshold=threshold, explained=explained, masks=masks)
    found = check_maps(trained, sample, question.stage, others=others, track=terminal.track)
    findings = found.record()
    path = write_checks(run, findings)
    if found.cascade is not None:
        examples = found.cascade.examples
        draw_checks(run.figures, findings, found.original[: len(examples)], examples)
    if report := write_report_anew(run):
        terminal.say(f"Report: {report}")
    terminal.show(checks_table(findings))
    for verdict in found.verdicts:
        terminal.say(f"{verdict.check.title}: {verdict.told}")
    if told := overlap_text(findings):
        terminal.say(told)
    terminal.say(f"Checks: {path}")
    terminal.say(DISCLAIMER)


def _from_split(run: RunFolder, options: Options, threshold: float) -> Subjects:
    """Returns the cases that the options ask for."""
    from cxr_jax.explain.subjects import errors_of_split, outcomes_of_split

    if options.cases == "outcomes":
        return outcomes_of_split(run, options.split, threshold, max(options.count // 4, 1), options.rule)
    return errors_of_split(run, options.split, threshold, options.count, options.rule)


def _chosen(run: RunFolder, files: tuple[str, ...]) -> tuple[list[Subject], int]:
    """Returns the files that can be read, and how many cannot; the sentence of each goes to standard error."""
    from cxr_jax.data.prepared import open_data_of_run

    try:
        prepared = open_data_of_run(run)
    except UserError:
        # Files explain themselves; only their true class stays unknown.
        prepared = None
    subjects = []
    for file in files:
        try:
            subjects.append(find_subject(file, prepared))
        except UserError as error:
            Terminal().complain(str(error))
    return subjects, len(files) - len(subjects)


def find_subject(file: str, prepared: PreparedData | None) -> Subject:
    """Returns a file on disk or an image of the prepared data, with its true class where the prepared data knows it.

    Raises:
        UserError: there is no such file or image, the name is that of several images, or the file cannot be read.
    """
    from cxr_jax.data.cache import encoded_images_at
    from cxr_jax.data.decode import without_header
    from cxr_jax.explain.subjects import Subject
    from cxr_jax.serving.radiograph import read_bytes

    examples = prepared.examples if prepared else ()
    if Path(file).exists():
        data = read_bytes(Path(file))
        content = hashlib.sha256(without_header(data, name=file)).hexdigest()
        return Subject(file, data, next((example.label for example in examples if example.sha256 == content), None))
    rows = [row for row, example in enumerate(examples) if file in (example.file, PurePosixPath(example.file).name)]
    if not rows:
        where = f", nor is there an image of this name in {prepared.path}" if prepared else ""
        raise UserError(f"{file} does not exist{where}")
    if len(rows) > 1:
        names = ", ".join(examples[row].file for row in rows[:3])
        raise UserError(f"{file} is the name of {len(rows)} images in {prepared.path}: name one of {names}")
    return Subject(examples[rows[0]].file, encoded_images_at(prepared, rows)[0], examples[rows[0]].label)


def _explain(
    terminal: Terminal, run: RunFolder, trained: TrainedModel, subjects: list[Subject], question: Question
) -> tuple[list[Tile | None], int]:
    """Writes an overlay for every subject; returns their tiles, None where a page has no room or decoding failed.

    The second value is how many could not be decoded.
    """
    import numpy as np

    from cxr_jax.explain.case import picture_names
    from cxr_jax.explain.cases import explain_cases
    from cxr_jax.explain.panel import MOST_TILES, make_tile
    from cxr_jax.serving.radiograph import read_radiograph

    names = picture_names([subject.file for subject in subjects])
    tiles: list[Tile | None] = [None] * len(subjects)
    drawn = failures = 0
    with terminal.track("Explaining", len(subjects)) as advance:
        for start in range(0, len(subjects), _CHUNK):
            kept, radiographs = [], []
            for row in range(start, min(start + _CHUNK, len(subjects))):
                try:
                    radiographs.append(read_radiograph(subjects[row].data, subjects[row].file, trained.description))
                    kept.append(row)
                except UserError as error:
                    failures += 1
                    advance(1)
                    terminal.complain(str(error))
            if not kept:
                continue
            squares = [radiograph.square for radiograph in radiographs]
            found = explain_cases(
                trained,
                [subjects[row] for row in kept],
                np.stack(squares),
                threshold=question.threshold.value,
                stage=question.stage,
                explained=question.explained,
            )
            for row, radiograph, (case, heat) in zip(kept, radiographs, found, strict=True):
                picture = _write_overlay(terminal, run, trained, names[row], radiograph.grey, case, heat)
                if drawn < MOST_TILES:
                    tiles[row] = make_tile(case, radiograph.grey, picture)
                    drawn += 1
                advance(1)
    return tiles, failures


def _write_overlay(
    terminal: Terminal,
    run: RunFolder,
    trained: TrainedModel,
    name: str,
    grey: np.ndarray,
    case: Case,
    heat: np.ndarray,
) -> np.ndarray:
    """Writes the captioned overlay of one case, says so, and returns the overlay without its caption."""
    import cv2

    from cxr_jax.explain.case import with_caption
    from cxr_jax.explain.overlay import overlay, place_on_original
    from cxr_jax.runs.files import write_bytes

    picture = overlay(grey, place_on_original(heat, *grey.shape, trained.description.resize))
    encoded = cv2.imencode(".png", cv2.cvtColor(with_caption(picture, case.sentences()), cv2.COLOR_RGB2BGR))[1]
    path = run.explanations / f"{name}-{case.explained}-{case.stage}.png"
    write_bytes(path, encoded.tobytes())
    blank = f"; blank: nothing at {case.stage} speaks for {case.explained}" if case.blank else ""
    terminal.say(f"{path}: {case.headline()} ({case.probability:.4f}){blank}")
    return picture


def _grouped(tiles: list[Tile | None], groups: list[tuple[str, int]]) -> list[Group]:
    """Returns the tiles that there are under their headings; `groups` are those of `Subjects`."""
    from cxr_jax.explain.panel import Group

    rest = iter(tiles)
    taken = [(heading, [next(rest) for _ in range(count)]) for heading, count in groups]
    return [Group(heading, [tile for tile in found if tile is not None]) for heading, found in taken]


def _draw_page(
    terminal: Terminal,
    run: RunFolder,
    trained: TrainedModel,
    groups: list[Group],
    question: Question,
    title: str,
    page: str,
) -> None:
    """Writes the page of all cases; a report that exists already is written again, to show it."""
    from cxr_jax.explain.panel import draw_groups, gallery_of
    from cxr_jax.reporting.report import write_report_anew
    from cxr_jax.runs.files import atomic_path
    from cxr_jax.runs.folder import read_json
    from cxr_jax.runs.gallery import write_gallery

    threshold = question.threshold
    notes = [
        f"{trained.description.title} of {run.name}, step {trained.step}. In brackets the probability of "
        f"PNEUMONIA, which is called from {threshold.value:.4f} on (rule: {threshold.rule}).",
        "Grad-CAM shows where evidence for a class was found, not why, and not where disease is.",
        DISCLAIMER,
    ]
    if run.data_card.is_file() and read_json(run.data_card).get("phantom"):
        notes.insert(0, "Trained on phantoms: images drawn by a program, no patients.")
    title = f"Grad-CAM at {question.stage}: {title}"
    figure = draw_groups(groups, title, notes)
    with atomic_path(run.explanations / page) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    write_gallery(run.explanations / page, gallery_of(groups, title))
    terminal.say(f"Page: {run.explanations / page}")
    if report := write_report_anew(run):
        terminal.say(f"Report: {report}")
