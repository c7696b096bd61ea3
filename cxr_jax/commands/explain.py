"""`cxr-jax explain RUN [FILES...]`: Grad-CAM of radiographs, of errors or of all outcomes, and checks of the maps: by
what a map should do, or by boxes that readers drew.
"""

from __future__ import annotations

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

from cxr_jax.config.command_line import Option, Positional, parse
from cxr_jax.errors import EXIT_USAGE, UserError, suggestion
from cxr_jax.terminal import Terminal, as_typed
from cxr_jax.vocabulary import CLASS_NAMES, DISCLAIMER, FINDINGS

if TYPE_CHECKING:
    from cxr_jax.data.prepared import PreparedData
    from cxr_jax.explain.panel import Group, Tile
    from cxr_jax.explain.subjects import Subject, Subjects, Thresholds
    from cxr_jax.inference.restore import TrainedModel
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.serving.predict import Threshold

SUMMARY = "show by Grad-CAM what speaks for a class, or score maps by boxes"

DESCRIPTION = """Show by Grad-CAM what speaks for a class or a finding: in chosen radiographs, in the errors of a run or
in all four outcomes; or check whether the maps can be trusted, or find what readers have drawn boxes around.

Overlays at the size of the originals and a page with all of them go to the folder explanations of the run, where they
replace those of the same name: they can be computed again at any time. --check draws no map; it writes checks.json
there, with a verdict for each check, and the figures. --boxes takes a list in the layout of NIH's BBox_List_2017.csv;
it scores boxes from the maps and their hottest places, beside boxes that saw no image, and writes localisation.json."""

EACH = "all"
"""What --class takes where a map of each class is wanted."""

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
    # class whose evidence is shown, by default the one that was called; or a finding, by default the one of the highest
    # probability, and of a split all findings together. all makes a map for each, unless a class is called so
    explained: Annotated[str, Option("NAME", name="class")] = ""
    # when no files are named: the wrong calls, or true and false positives and negatives, of several exclusive classes
    # those of --class
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
    # score the maps of validation images by the boxes of this list, around findings
    boxes: Annotated[str, Option("FILE")] = ""
    # with --boxes: of all images of other prepared data, in their own ledger
    on: Annotated[str, Option("DATASET")] = ""
    # with --boxes: of the test images, which is one look more; with --on: of their test images alone
    test: bool = False
    # with --boxes: side in pixels of the square images that the boxes were drawn in, if not that of the prepared ones
    box_side: int = 0


@dataclass(frozen=True)
class Question:
    """What is asked about every radiograph."""

    threshold: Threshold
    stage: str
    explained: str | None  # empty: the class that was called, or the likeliest finding; None: each

    @property
    def thresholds(self) -> Thresholds:
        """From which probability PNEUMONIA is called, or each finding; None where the highest probability is called."""
        return self.threshold.value if self.threshold.of_findings is None else self.threshold.of_findings

    @property
    def called(self) -> str:
        """What has a probability, and from which one on it is called, in words."""
        if self.threshold.of_findings is not None:
            return f"the finding, each called from a threshold of its own on (rule: {self.threshold.rule})"
        if self.threshold.value is None:
            return f"the explained class; the class of {self.threshold.rule} is called"
        return f"PNEUMONIA, which is called from {self.threshold.value:.4f} on (rule: {self.threshold.rule})"


def main(arguments: list[str]) -> None:
    """Draws explanations as `arguments` say.

    Raises UserError for every mistake in them; if a file cannot be explained, at the end, and its own sentence stands
    on standard error.
    """
    options = parse(Options, arguments, prog="cxr-jax explain", description=DESCRIPTION)
    _require_possible(options)
    terminal = Terminal()
    if options.boxes:
        _score_by_boxes(terminal, options)
        return
    with terminal.waiting(f"Restoring the network of {options.run}"):
        from cxr_jax.explain.case import picture_names
        from cxr_jax.inference.restore import restore_run
        from cxr_jax.models.network import stage_names_of
        from cxr_jax.runs.description import require_uncropped, require_whole_images
        from cxr_jax.runs.folder import RunFolder
        from cxr_jax.serving.predict import Threshold

        run = RunFolder.open(options.run)
        explained = _explained_class(run, options)
        trained = restore_run(run)
        if not options.check:
            require_whole_images(trained.descriptions, "cxr-jax explain without --check")
            require_uncropped(trained.descriptions, "cxr-jax explain without --check")
        stage = options.stage or stage_names_of(trained.model())[-1]
        question = Question(Threshold.of(trained), stage, explained)
    if options.check:
        from cxr_jax.reporting.map_checks import tell_checks

        how = {"images": options.images, "seeds": options.seeds, "explained": explained}
        tell_checks(run, trained, terminal, threshold=question.threshold.value, stage=stage, **how)
        return
    failures = 0
    if options.files:
        subjects, failures = _chosen(run, options.files)
        groups = [("", len(subjects))]
        title, page = "chosen radiographs", "panel-files.png"
    else:
        found = _from_split(run, options, question)
        subjects, groups, title = found.subjects, found.groups, found.title
        split, cases = ("" if options.split == "test" else "-val"), ("" if options.cases == "errors" else "-outcomes")
        page = f"panel{split}{cases}.png"
        terminal.say(f"{title[0].upper()}{title[1:]}")
    names = picture_names([subject.file for subject in subjects])
    if question.explained is None:
        classes = trained.description.classes
        subjects = [dataclasses.replace(s, asked=each, probability=None) for s in subjects for each in classes]
        names = [name for name in names for _ in classes]
        groups = [(heading, count * len(classes)) for heading, count in groups]
        question = dataclasses.replace(question, explained="")
    tiles, undecodable = _explain(terminal, run, trained, list(zip(subjects, names, strict=True)), question)
    failures += undecodable
    if any(tiles):
        from cxr_jax.reporting.explained_cases import draw_page

        draw_page(terminal, run, trained, _grouped(tiles, groups), question.stage, question.called, title, page)
        boxes = "" if question.threshold.of_findings is None else ", or --boxes FILE where readers have drawn boxes"
        terminal.say(f"Next: {as_typed('cxr-jax', 'explain', run.path, '--check')}{boxes}")
    terminal.say(DISCLAIMER)
    if failures:
        raise UserError(f"{failures} of {len(options.files)} files could not be explained")


def _require_possible(options: Options) -> None:
    """Raises UserError if the options contradict each other or cannot be."""
    for name in ("count", "images"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name} is {getattr(options, name)}, but must be 1 or more", EXIT_USAGE)
    if options.check and options.files:
        raise UserError("--check takes its images from validation: name no files with it", EXIT_USAGE)
    if options.seeds and not options.check:
        raise UserError("--seeds names runs to check the maps against: add --check", EXIT_USAGE)
    if options.boxes and (options.check or options.files or options.explained):
        raise UserError("--boxes names images and findings itself: leave FILES, --class and --check out", EXIT_USAGE)
    if not options.boxes and (options.on or options.test or options.box_side):
        raise UserError("--on, --test and --box-side are for --boxes: add that", EXIT_USAGE)
    if options.box_side < 0:
        raise UserError(f"--box-side is {options.box_side}, but must be a number of pixels above 0", EXIT_USAGE)


def _explained_class(run: RunFolder, options: Options) -> str | None:
    """Returns the class of the run that is to be explained, empty where none is named, None where each is.

    Raises:
        UserError: there is no such class, or none is named where one must be.
    """
    from cxr_jax.runs.description import read_description
    from cxr_jax.runs.ensemble import is_ensemble

    if is_ensemble(run):
        # whoever restores it says what to do
        return ""
    description = read_description(run)
    known = {"": "", EACH: None, **{name.lower(): name for name in description.classes}}
    asked = options.explained.lower()
    if options.check and known.get(asked, asked) is None:
        raise UserError(f"--check explains one class in each image: name it, or leave --class {EACH} out", EXIT_USAGE)
    several = description.classes != CLASS_NAMES and description.kind != FINDINGS
    if options.cases == "outcomes" and several and not known.get(asked, asked):
        classes = " or ".join(description.classes)
        raise UserError(f"--cases outcomes asks whether one class is called: name it by --class, {classes}", EXIT_USAGE)
    if asked not in known:
        hint = suggestion(options.explained, description.classes)
        hint = hint or f"; the classes are {', '.join(description.classes)}"
        raise UserError(f"there is no class {options.explained}{hint}", EXIT_USAGE)
    return known[asked]


def _score_by_boxes(terminal: Terminal, options: Options) -> None:
    """Scores the maps of a run by the boxes of a list, stores what is found, and prints it."""
    from cxr_jax.runs.files import at_home
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.runs.locks import evaluating

    run = RunFolder.open(options.run)
    with evaluating(run):
        with terminal.waiting("Starting JAX"):
            from cxr_jax.explain.localise import Asked
            from cxr_jax.reporting.localisation import tell_localisation

        asked = Asked(at_home(options.boxes), options.on, options.test, options.box_side, options.stage)
        tell_localisation(run, asked, terminal)
    terminal.say(DISCLAIMER)


def _from_split(run: RunFolder, options: Options, question: Question) -> Subjects:
    """Returns the cases that the options ask for."""
    from cxr_jax.explain.subjects import errors_of_split, outcomes_of_split

    name = question.explained or ""
    if options.cases == "outcomes":
        each = max(options.count // 4, 1)
        return outcomes_of_split(run, options.split, question.thresholds, each, options.rule, name)
    return errors_of_split(run, options.split, question.thresholds, options.count, options.rule, name)


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
    terminal: Terminal, run: RunFolder, trained: TrainedModel, named: list[tuple[Subject, str]], question: Question
) -> tuple[list[Tile | None], int]:
    """Writes an overlay for every subject, called by the name beside it.

    Returns their tiles, None where a page has no room or decoding failed.

    The second value is how many could not be decoded.
    """
    import numpy as np

    from cxr_jax.explain.cases import explain_cases
    from cxr_jax.explain.panel import MOST_TILES, make_tile
    from cxr_jax.reporting.explained_cases import write_overlay
    from cxr_jax.serving.radiograph import read_radiograph

    subjects, names = [subject for subject, _ in named], [name for _, name in named]
    tiles: list[Tile | None] = [None] * len(subjects)
    drawn, failed = 0, set()
    with terminal.track("Explaining", len(subjects)) as advance:
        for start in range(0, len(subjects), _CHUNK):
            kept, radiographs = [], []
            for row in range(start, min(start + _CHUNK, len(subjects))):
                try:
                    radiographs.append(read_radiograph(subjects[row].data, subjects[row].file, trained.description))
                    kept.append(row)
                except UserError as error:
                    advance(1)
                    # a file whose classes are all explained is told once
                    if subjects[row].file not in failed:
                        terminal.complain(str(error))
                    failed.add(subjects[row].file)
            if not kept:
                continue
            squares = [radiograph.square for radiograph in radiographs]
            found = explain_cases(
                trained,
                [subjects[row] for row in kept],
                np.stack(squares),
                threshold=question.thresholds,
                stage=question.stage,
                explained=question.explained,
            )
            for row, radiograph, (case, heat) in zip(kept, radiographs, found, strict=True):
                picture = write_overlay(terminal, run, trained, names[row], radiograph.grey, case, heat)
                if drawn < MOST_TILES:
                    tiles[row] = make_tile(case, radiograph.grey, picture)
                    drawn += 1
                advance(1)
    return tiles, len(failed)


def _grouped(tiles: list[Tile | None], groups: list[tuple[str, int]]) -> list[Group]:
    """Returns the tiles that there are under their headings; `groups` are those of `Subjects`."""
    from cxr_jax.explain.panel import Group

    rest = iter(tiles)
    taken = [(heading, [next(rest) for _ in range(count)]) for heading, count in groups]
    return [Group(heading, [tile for tile in found if tile is not None]) for heading, found in taken]
