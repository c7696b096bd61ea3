"""A network's heat maps against boxes that readers drew: which boxes are scored, the maps, and the look at them."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from cxr_jax.config.loading import load_config
from cxr_jax.config.schema import Config
from cxr_jax.data.box_list import SIDES, DrawnBox, read_boxes
from cxr_jax.data.cache import encoded_images_at
from cxr_jax.data.decode import decode, decode_square
from cxr_jax.data.examples import Example
from cxr_jax.data.prepared import PreparedData, open_data_of_run
from cxr_jax.data.progress import Track, silently
from cxr_jax.data.split_loading import rows_of_split
from cxr_jax.errors import UserError
from cxr_jax.evaluation.localisation import BoxedMap, Localisation, judge_boxes, write_localisation
from cxr_jax.explain.heat_maps import BATCH_SIZE, heat_maps
from cxr_jax.explain.map_boxes import LEVELS, answer_of_map
from cxr_jax.explain.overlay import overlay, place_on_original
from cxr_jax.images.boxes import Box
from cxr_jax.images.clarity import clarified
from cxr_jax.inference.external import LEDGER, folder_of_films, require_unseen
from cxr_jax.inference.looks import record_localised_look
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.models.network import stage_names_of
from cxr_jax.runs.description import require_uncropped, require_whole_images
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.gallery import shrunk
from cxr_jax.runs.metrics_log import is_finished
from cxr_jax.terminal import as_typed

MOST_PICTURES = 12
"""How many maps are drawn, chosen by lot."""

LONGEST_SIDE = 512
"""Of a picture, in pixels."""

SLACK = 1.0
"""Pixels by which a box may reach over the edge of the image that it was drawn in: readers' boxes are rounded."""

_NAMED = 5
"""How many files or findings a sentence names."""


@dataclass(frozen=True)
class Asked:
    """What is to be scored.

    Attributes:
        boxes: file of the list.
        dataset: name or folder of prepared data; empty: those of the run.
        test: of the run's own data the test images, not those of validation; of others these alone, not all.
        side: of the square images that the boxes were drawn in, in pixels; 0: that of the prepared images.
        stage: whose maps; empty: the last.
    """

    boxes: Path
    dataset: str = ""
    test: bool = False
    side: int = 0
    stage: str = ""


@dataclass(frozen=True)
class Picture:
    """A radiograph with its map, made small enough for a page."""

    boxed: BoxedMap  # in pixels of the radiograph at its own size
    radiograph: np.ndarray  # RGB uint8 [h, w, 3], with the map laid over it


@dataclass(frozen=True)
class Localised:
    """What was found, where it is stored, and some pictures of it."""

    localisation: Localisation
    path: Path
    pictures: tuple[Picture, ...]
    notes: tuple[str, ...]  # on boxes that were not scored, in sentences


def localise(run: RunFolder, trained: TrainedModel, asked: Asked, *, track: Track = silently) -> Localised:
    """Scores the maps of a run by the boxes of a list, adds the look to a ledger, and stores the record.

    `trained` is its network.

    Raises:
        UserError: the network has no stages, or saw parts of images; its data are not here; the list is no
            list of boxes, or none of its boxes can be scored; or training has not ended, and test is asked for.
    """
    config = load_config(run.config)
    require_whole_images(trained.descriptions, "cxr-jax explain --boxes")
    require_uncropped(trained.descriptions, "cxr-jax explain --boxes")
    stage = asked.stage or stage_names_of(trained.model())[-1]
    prepared = PreparedData.open(asked.dataset) if asked.dataset else open_data_of_run(run)
    if asked.dataset and read_json(run.environment).get("data_fingerprint") == prepared.fingerprint:
        raise UserError(f"{asked.dataset} is what {run.path} was trained on: leave --on out")
    listed = read_boxes(asked.boxes, trained.description.classes)
    images_of = _images_of(asked)
    if images_of == "test" and not asked.dataset and not is_finished(run.metrics):
        raise UserError(
            f"training of {run.path} is not finished, and --test would spend a look at test on it: go on with "
            f"{as_typed('cxr-jax', 'train', run.config, '--out', run.path, '--resume')}"
        )
    rows = _rows_by_name(prepared, {entry.file for entry in listed.boxes})
    kept, left_out, notes = _scored(listed.boxes, rows, prepared, config, trained, asked)
    if asked.dataset:
        require_unseen(run, prepared, sorted({rows[entry.file] for entry in kept}), test_alone=asked.test)
    maps, pictures = _maps(trained, prepared, kept, rows, stage, track)
    localisation = Localisation(
        dataset=prepared.card["name"],
        images_of=images_of,
        phantom=bool(prepared.card["phantom"]),
        architecture=trained.title,
        step=trained.step,
        checkpoint_sha256=trained.checkpoint_sha256,
        stage=stage,
        levels=LEVELS,
        left_out=left_out,
        files=tuple(sorted({entry.file for entry in maps})),
        parts=judge_boxes(maps),
        date=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
    )
    folder, ledger = run.path, None
    if asked.dataset:
        folder = folder_of_films(run, prepared, test_alone=asked.test)
        ledger = folder / LEDGER
    if asked.dataset or images_of == "test":
        # before anything of test can be seen, so that no look goes uncounted
        images = frozenset(prepared.examples[rows[name]].sha256 for name in localisation.files)
        record_localised_look(run, config, prepared, trained, images, localisation, ledger)
    path = folder / ("localisation-val.json" if images_of == "val" else "localisation.json")
    write_localisation(path, localisation)
    return Localised(localisation, path, pictures, notes)


def _images_of(asked: Asked) -> str:
    """Returns whose images are looked at."""
    if asked.test:
        return "test"
    return "all" if asked.dataset else "val"


def _rows_by_name(prepared: PreparedData, wanted: Collection[str]) -> dict[str, int]:
    """Returns the rows of prepared images by their names without folders; UserError if a wanted one is of several."""
    names = [PurePosixPath(example.file).name for example in prepared.examples]
    twice = sorted(name for name, count in Counter(names).items() if count > 1 and name in wanted)
    if twice:
        raise UserError(f"{_few(twice)} names several images of {prepared.path}: a box has to be of one")
    return {name: row for row, name in enumerate(names)}


def _scored(
    boxes: Sequence[DrawnBox],
    rows: dict[str, int],
    prepared: PreparedData,
    config: Config,
    trained: TrainedModel,
    asked: Asked,
) -> tuple[list[DrawnBox], dict[str, int], tuple[str, ...]]:
    """Returns the boxes that are scored, in pixels of the prepared images; how many are left out, by the reason; and
    sentences about these.

    Raises:
        UserError: none is left, or one lies outside its image.
    """
    classes, images_of, examples = trained.description.classes, _images_of(asked), prepared.examples
    if images_of == "val":
        own = rows_of_split(prepared, config.data, "val")
        chosen = {PurePosixPath(examples[row].file).name for row in own}
    else:
        chosen = {name for name, row in rows.items() if images_of == "all" or examples[row].split == "test"}
    reasons = {"not prepared": [], "no class of the run": [], "of other images": []}
    kept = []
    for entry in boxes:
        if entry.file not in rows:
            reasons["not prepared"].append(entry.file)
        elif entry.finding not in classes:
            reasons["no class of the run"].append(entry.finding)
        elif entry.file not in chosen:
            reasons["of other images"].append(entry.file)
        else:
            kept.append(_on_image(entry, prepared.examples[rows[entry.file]], asked))
    outside = "validation: --test looks at those of test" if images_of == "val" else "test"
    sentences = {
        "not prepared": f"are of images that are not in {prepared.card['name']}",
        "no class of the run": f"are of findings that the run does not know ({', '.join(classes)} are its classes)",
        "of other images": f"are of images outside {outside}",
    }
    notes = tuple(
        f"{len(found)} of {len(boxes)} boxes {sentences[reason]}: {_few(found)}"
        for reason, found in reasons.items()
        if found
    )
    if not kept:
        raise UserError(f"no box of {asked.boxes} can be scored: {'; '.join(notes)}")
    return kept, {reason: len(found) for reason, found in reasons.items() if found}, notes


def _few(names: Sequence[str]) -> str:
    """Returns the different names, shortened to the first few."""
    different = sorted(Counter(names))
    more = f" and {len(different) - _NAMED} more" if len(different) > _NAMED else ""
    return ", ".join(different[:_NAMED]) + more


def _on_image(entry: DrawnBox, example: Example, asked: Asked) -> DrawnBox:
    """Returns a box in pixels of its prepared image; UserError if it lies outside."""
    width, height = (asked.side, asked.side) if asked.side else (example.width, example.height)
    if not entry.box.lies_in(width, height, SLACK):
        advice = (
            "correct it"
            if asked.side
            else "say by --box-side how large the images were that the boxes were drawn in (those of NIH: 1024)"
        )
        raise UserError(
            f"{asked.boxes}, row {entry.row}, columns {','.join(SIDES)}: the box reaches from ({entry.box.left:g}, "
            f"{entry.box.top:g}) to ({entry.box.right:g}, {entry.box.bottom:g}), outside {entry.file} of {width} x "
            f"{height} pixels: {advice}"
        )
    scaled = entry.box.scaled(example.width / width, example.height / height)
    return DrawnBox(entry.file, entry.finding, scaled, entry.row)


def _maps(
    trained: TrainedModel,
    prepared: PreparedData,
    boxes: Sequence[DrawnBox],
    rows: dict[str, int],
    stage: str,
    track: Track,
) -> tuple[list[BoxedMap], tuple[Picture, ...]]:
    """Returns the map of every image and finding that has a box, with its boxes, and pictures of some."""
    drawn: dict[tuple[str, str], list[Box]] = {}
    for entry in boxes:
        drawn.setdefault((entry.file, entry.finding), []).append(entry.box)
    keys, classes = sorted(drawn), trained.description.classes
    shown = set(np.random.default_rng(0).permutation(len(keys))[:MOST_PICTURES].tolist())
    maps: list[BoxedMap] = []
    pictures: list[Picture] = []
    with track("Explaining", len(keys)) as advance:
        for start in range(0, len(keys), BATCH_SIZE):
            chunk = keys[start : start + BATCH_SIZE]
            radiographs = _decoded(trained, prepared, [rows[file] for file, _ in chunk])
            # the last chunk is filled up, so that one program does for all
            filled = np.resize(np.arange(len(chunk)), min(BATCH_SIZE, len(keys)))
            squares = np.stack([radiographs[row][1] for row in filled])
            explained = np.array([classes.index(chunk[row][1]) for row in filled])
            heat = heat_maps(trained, squares, explained, stage, batch_size=BATCH_SIZE).heat
            for number, (key, (grey, _), small) in enumerate(zip(chunk, radiographs, heat, strict=False), start):
                placed = place_on_original(small, *grey.shape, trained.description.resize)
                height, width = grey.shape
                group = prepared.examples[rows[key[0]]].group
                entry = BoxedMap(*key, group, width, height, tuple(drawn[key]), answer_of_map(placed))
                maps.append(entry)
                if number in shown:
                    pictures.append(Picture(entry, shrunk(overlay(grey, placed), LONGEST_SIDE)))
                advance(1)
    return maps, tuple(pictures)


def _decoded(trained: TrainedModel, prepared: PreparedData, rows: list[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns the radiographs of some rows, each uint8 [H, W], with the square that the network sees."""
    description, found = trained.description, []
    size = (description.image_size, description.resize, description.interpolation)
    for row, data in zip(rows, encoded_images_at(prepared, rows), strict=True):
        name = prepared.examples[row].file
        decoded = decode(data, name=name)
        square = decode_square(data, *size, name=name, decoded=decoded)
        found.append((decoded.grey, clarified(square, description.clarify)))
    return found
