"""`cxr-jax explain RUN [FILES...]`: Grad-CAM of chosen radiographs, or of a run's worst errors."""

from __future__ import annotations

import hashlib
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from cxr_jax.config.command_line import parse
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.vocabulary import CLASS_NAMES, DISCLAIMER, NORMAL, PNEUMONIA

if TYPE_CHECKING:
    import numpy as np

    from cxr_jax.data.prepared import PreparedData
    from cxr_jax.explain.case import Case
    from cxr_jax.explain.panel import Tile
    from cxr_jax.inference.restore import TrainedModel
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.serving.predict import Threshold

SUMMARY = "show by Grad-CAM what speaks for a class"

DESCRIPTION = """Show by Grad-CAM what speaks for a class, in chosen radiographs or in the worst errors of a run.

Overlays at the size of the originals and a page with all of them go to the folder explanations of the run, where they
replace those of the same name: they can be computed again at any time."""

_CHUNK = 16
"""Radiographs that are held at their original size together."""


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    run: Annotated[Positional[str], arg(metavar="RUN")]  # folder of a trained run
    # radiographs, or names of images in the prepared data; without any, the most confident errors of a split
    files: Annotated[Positional[tuple[str, ...]], arg(metavar="[FILES...]")] = ()
    # stage of the network, such as blocks.5; by default the last
    stage: Annotated[str, arg(metavar="NAME")] = ""
    # class whose evidence is shown, NORMAL or PNEUMONIA; by default the one that was called
    explained: Annotated[str, arg(name="class", metavar="NAME")] = ""
    count: int = 12  # how many errors, when no files are named
    split: Literal["test", "val"] = "test"  # of the errors, when no files are named


@dataclass(frozen=True)
class Subject:
    """A radiograph to be explained, still encoded."""

    file: str
    data: bytes
    label: str | None  # the true class, where it is known
    probability: float | None = None  # where it stands in the run's predictions already


@dataclass(frozen=True)
class Question:
    """What is asked about every radiograph."""

    threshold: Threshold
    stage: str
    explained: str  # empty: the class that was called


def main(arguments: list[str]) -> None:
    """Draw explanations as `arguments` say.

    Raises UserError for every mistake in them; if a file cannot be explained, at the end, and its own sentence stands
    on standard error.
    """
    options = parse(Options, arguments, prog="cxr-jax explain", description=DESCRIPTION)
    explained = options.explained.upper()
    if explained not in ("", *CLASS_NAMES):
        raise UserError(f"there is no class {options.explained}; the classes are {', '.join(CLASS_NAMES)}", EXIT_USAGE)
    if options.count < 1:
        raise UserError(f"--count is {options.count}, but must be 1 or more", EXIT_USAGE)

    from cxr_jax.inference.restore import restore_run
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.serving.predict import Threshold

    run = RunFolder.open(options.run)
    trained = restore_run(run)
    question = Question(Threshold.of(trained), options.stage or trained.model().stage_names[-1], explained)
    if options.files:
        subjects, failures = _chosen(run, options.files)
        title, page = "chosen radiographs", "panel-files.png"
    else:
        subjects, title = _worst(run, options.split, options.count, question.threshold.value)
        failures, page = 0, "panel.png" if options.split == "test" else f"panel-{options.split}.png"
        print(f"{title[0].upper()}{title[1:]}")
    tiles, undecodable = _explain(run, trained, subjects, question)
    failures += undecodable
    if tiles:
        _draw_page(run, trained, tiles, question, title, page)
    print(DISCLAIMER)
    if failures:
        raise UserError(f"{failures} of {len(options.files)} files could not be explained")


def _worst(run: RunFolder, split: str, count: int, threshold: float) -> tuple[list[Subject], str]:
    """Return the most confident errors on a split, and what they are in words."""
    from cxr_jax.data.cache import encoded_images_at
    from cxr_jax.data.prepared import open_data_of_run
    from cxr_jax.explain.selection import select_worst
    from cxr_jax.runs.predictions import read_predictions

    if not run.predictions_of(split).is_file():
        raise UserError(f"{run.path} has no predictions on {split}: run cxr-jax evaluate {run.path} first")
    prepared = open_data_of_run(run)
    predictions = read_predictions(run.predictions_of(split))
    selection = select_worst(predictions, threshold, count)
    if selection.errors:
        title = f"the most confident of {selection.errors} wrong calls among {len(predictions)} on {split}"
    else:
        title = f"no call on {split} is wrong, so the least certain of {len(predictions)} are shown"
    rows_by_file = {example.file: row for row, example in enumerate(prepared.examples)}
    chosen = predictions.select(selection.rows)
    missing = [file for file in chosen.file if file not in rows_by_file]
    if missing:
        raise UserError(
            f"{missing[0]} of {run.predictions_of(split)} is not in {prepared.path}: evaluate the run again"
        )
    images = encoded_images_at(prepared, [rows_by_file[file] for file in chosen.file])
    subjects = [
        Subject(file, data, CLASS_NAMES[label], float(probability))
        for file, data, label, probability in zip(chosen.file, images, chosen.label, chosen.probability, strict=True)
    ]
    return subjects, title


def _chosen(run: RunFolder, files: tuple[str, ...]) -> tuple[list[Subject], int]:
    """Return the files that can be read, and how many cannot; the sentence of each goes to standard error."""
    from cxr_jax.data.prepared import open_data_of_run

    try:
        prepared = open_data_of_run(run)
    except UserError:
        # Files explain themselves; only their true class stays unknown.
        prepared = None
    subjects = []
    for file in files:
        try:
            subjects.append(_find(file, prepared))
        except UserError as error:
            print(f"cxr-jax: {error}", file=sys.stderr)
    return subjects, len(files) - len(subjects)


def _find(file: str, prepared: PreparedData | None) -> Subject:
    """Return a file on disk or an image of the prepared data, with its true class where the prepared data knows it."""
    from cxr_jax.data.cache import encoded_images_at
    from cxr_jax.data.decode import without_header
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
    run: RunFolder, trained: TrainedModel, subjects: list[Subject], question: Question
) -> tuple[list[Tile], int]:
    """Write an overlay for every subject; return the tiles of the page, and how many could not be decoded."""
    from cxr_jax.explain.panel import MOST_TILES, make_tile
    from cxr_jax.serving.radiograph import read_radiograph

    names = _picture_names([subject.file for subject in subjects])
    tiles, failures = [], 0
    for start in range(0, len(subjects), _CHUNK):
        kept, radiographs = [], []
        for subject, name in list(zip(subjects, names, strict=True))[start : start + _CHUNK]:
            try:
                radiographs.append(read_radiograph(subject.data, subject.file, trained.description))
                kept.append((subject, name))
            except UserError as error:
                failures += 1
                print(f"cxr-jax: {error}", file=sys.stderr)
        if not kept:
            continue
        squares = [radiograph.square for radiograph in radiographs]
        found = _cases(trained, [subject for subject, _ in kept], squares, question)
        for (_, name), radiograph, (case, heat) in zip(kept, radiographs, found, strict=True):
            picture = _write_overlay(run, trained, name, radiograph.grey, case, heat)
            if len(tiles) < MOST_TILES:
                tiles.append(make_tile(case, radiograph.grey, picture))
    return tiles, failures


def _cases(
    trained: TrainedModel, subjects: list[Subject], squares: list[np.ndarray], question: Question
) -> list[tuple[Case, np.ndarray]]:
    """Return what the network calls each subject, with its heat map [h, w]."""
    import numpy as np

    from cxr_jax.evaluation.cases import calls_of
    from cxr_jax.explain.case import Case
    from cxr_jax.explain.heat_maps import heat_maps
    from cxr_jax.runs.predictions import probability_of

    images = np.stack(squares)
    computed = probability_of(trained.logits(images))
    known = [subject.probability for subject in subjects]
    probability = np.array([c if k is None else k for c, k in zip(computed, known, strict=True)])
    called = np.where(calls_of(probability, question.threshold.value), PNEUMONIA, NORMAL)
    explained = np.full_like(called, CLASS_NAMES.index(question.explained)) if question.explained else called
    maps = heat_maps(trained, images, explained, question.stage)
    return [
        (
            Case(
                file=subject.file,
                label=subject.label,
                called=CLASS_NAMES[called[row]],
                probability=float(probability[row]),
                threshold=question.threshold.value,
                explained=CLASS_NAMES[explained[row]],
                stage=question.stage,
                blank=bool(maps.blank[row]),
            ),
            maps.heat[row],
        )
        for row, subject in enumerate(subjects)
    ]


def _write_overlay(
    run: RunFolder, trained: TrainedModel, name: str, grey: np.ndarray, case: Case, heat: np.ndarray
) -> np.ndarray:
    """Write the captioned overlay of one case, say so, and return the overlay without its caption."""
    import cv2

    from cxr_jax.explain.case import with_caption
    from cxr_jax.explain.overlay import overlay, place_on_original
    from cxr_jax.runs.files import write_bytes

    picture = overlay(grey, place_on_original(heat, *grey.shape, trained.description.resize))
    encoded = cv2.imencode(".png", cv2.cvtColor(with_caption(picture, case.sentences()), cv2.COLOR_RGB2BGR))[1]
    path = run.explanations / f"{name}-{case.explained}-{case.stage}.png"
    write_bytes(path, encoded.tobytes())
    blank = f"; blank: nothing at {case.stage} speaks for {case.explained}" if case.blank else ""
    print(f"{path}: {case.headline()} ({case.probability:.4f}){blank}")
    return picture


def _picture_names(files: list[str]) -> list[str]:
    """Return a name for every file: its own without the ending, numbered where several have the same."""
    stems = [PurePosixPath(file).stem for file in files]
    seen: Counter[str] = Counter()
    names = []
    for stem in stems:
        seen[stem] += 1
        names.append(stem if seen[stem] == 1 else f"{stem}-{seen[stem]}")
    return names


def _draw_page(
    run: RunFolder, trained: TrainedModel, tiles: list[Tile], question: Question, title: str, page: str
) -> None:
    """Write the page of all cases; a report that exists already is written again, to show it."""
    from cxr_jax.explain.panel import draw_panel
    from cxr_jax.reporting.report import write_report
    from cxr_jax.runs.files import atomic_path
    from cxr_jax.runs.folder import read_json

    threshold = question.threshold
    notes = [
        f"{trained.description.architecture} of {run.name}, step {trained.step}. In brackets the probability of "
        f"PNEUMONIA, which is called from {threshold.value:.4f} on (rule: {threshold.rule}).",
        "Grad-CAM shows where evidence for a class was found, not why, and not where disease is.",
        DISCLAIMER,
    ]
    if run.data_card.is_file() and read_json(run.data_card).get("phantom"):
        notes.insert(0, "Trained on phantoms: images drawn by a program, no patients.")
    figure = draw_panel(tiles, f"Grad-CAM at {question.stage}: {title}", notes)
    with atomic_path(run.explanations / page) as temporary:
        figure.savefig(temporary, format="png", dpi=150)
    print(f"Page: {run.explanations / page}")
    if run.report.is_file() and run.evaluation.is_file():
        print(f"Report: {write_report(run)}")
