"""From a source to prepared data: inspected, cut where it has no splits, stored as records with a data card."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from cxr_jax.data.card import SPLITS_CUT, build_card
from cxr_jax.data.chest_xray.owners import unnamed_owners
from cxr_jax.data.class_names import require_class_names, require_names
from cxr_jax.data.classes import SUBTYPE_CLASSES, classed_by_subtype
from cxr_jax.data.decode import without_header
from cxr_jax.data.examples import Example, write_examples
from cxr_jax.data.file_names import parse_file_name
from cxr_jax.data.inspection import UNCUT, Inspection, inspect
from cxr_jax.data.masks.carried import LostMasks, carry_masks
from cxr_jax.data.prepared import CARD, RECORDS, TABLE, PreparedData, folder_of, prepared_root
from cxr_jax.data.progress import Track, Waiting, silently, unseen
from cxr_jax.data.sources import Columns, Entry, PassedOver, Policies, Reader, Source, find_source, holds_findings
from cxr_jax.data.sources.layout import OFFICIAL_FOLDER, require_training_images
from cxr_jax.data.splits import cut_by_group, joined_by_content
from cxr_jax.errors import UserError
from cxr_jax.runs import files
from cxr_jax.runs.locks import held, remove_stale
from cxr_jax.vocabulary import FINDINGS, Kind

TEST_FRACTION = 0.2
"""Share of the groups that becomes the test split of a source without splits."""

TEST_SEED = 0

REPLACED_PREFIX = ".replaced-"
"""Begins the name of data that others are about to replace; the process may be killed before they do."""

DOWNLOADS = "downloads"
"""A folder that TFDS insists on making, though nothing is downloaded."""


@dataclass(frozen=True)
class Outcome:
    """What `prepare` did."""

    prepared: PreparedData
    fresh: bool  # False: the same source had been prepared before, and nothing was done
    passed_over: tuple[PassedOver, ...]  # what the source holds now beside its data set
    lost_masks: LostMasks | None = None  # of the data that were replaced


def prepare(
    path: Path,
    *,
    name: str | None = None,
    classes: tuple[str, ...] = (),
    columns: Columns | None = None,
    policies: Policies | None = None,
    subtypes: bool = False,
    replace_old: bool = False,
    track: Track = silently,
    waiting: Waiting = unseen,
) -> Outcome:
    """Stores the radiographs at `path` under `name`, unless that was done before.

    Args:
        path: folder, zip or MedMNIST .npz.
        name: the name of the data in configs. The default is `chest_xray` for the releases of the Guangzhou
            radiographs, `phantoms` for drawn images, and otherwise the name of the file or folder; `_subtypes` is
            added to it where they are the classes.
        classes: names of the class folders or of the labels of a table, in their order. The default is NORMAL and
            PNEUMONIA, or all that the table names.
        columns: of a table that says what the images in the folder `path` are.
        policies: what is made of uncertain and blank labels of a published set.
        subtypes: make the subtypes that file names tell the classes: normal, bacteria and virus.
        replace_old: put the new data in the place of other data under the same name. Lung masks of these stay with
            the images that are in both.
        track: shows progress.
        waiting: shows work whose end is not known, such as listing a folder.

    Raises:
        UserError: no such source, nothing readable in it, names that cannot be classes, a class without training
            images, other data under that name, no space or no permission.
    """
    if classes and not holds_findings(path, columns):
        require_class_names(classes)
    prepared_root()  # before a slow source is listed for nothing
    with waiting(f"Looking through {path}"):
        source = find_source(path, classes, columns, policies)
    require_names(source.listing.classes, source.listing.kind)
    if subtypes and source.listing.kind == FINDINGS:
        raise UserError(f"--subtypes are of pneumonia, and {path} tells findings that occur together: leave it out")
    name = name or default_name(source, path) + ("_subtypes" if subtypes else "")
    folder = folder_of(name)
    told = {"kind": source.kind, "path": str(path.resolve()), "stamp": source.listing.stamp}
    if columns is not None:
        told["table"] = {**asdict(columns), "table": str(columns.table.resolve())}
    _tidy_up(folder)
    if (folder / CARD).is_file() and not replace_old:
        prepared = PreparedData.open(folder)
        wanted = SUBTYPE_CLASSES if subtypes else source.listing.classes
        same = all(prepared.card["source"][entry] == told[entry] for entry in ("kind", "stamp"))
        if same and (prepared.classes, prepared.kind) == (wanted, source.listing.kind):
            return Outcome(prepared, fresh=False, passed_over=source.listing.passed_over)
        if same:
            raise UserError(
                f"{name!r} was prepared from this source with other classes, {', '.join(prepared.classes)}: choose "
                "another --name, or put these in their place with --replace"
            )
        raise UserError(
            f"{name!r} was prepared from {prepared.card['source']['path']} in another state or from another place: "
            "choose another --name, or put this source in its place with --replace"
        )
    if folder.exists() and not (folder / CARD).is_file():
        raise UserError(f"{folder} is in the way and is not prepared data: choose another --name or remove it")
    aside = lost_masks = None
    with files.atomic_path(folder) as unfinished:
        unfinished.mkdir()
        with held(unfinished, "another process took it"):
            _store(source, name, told, unfinished, subtypes, track, waiting)
            if (folder / CARD).is_file():
                lost_masks = carry_masks(PreparedData(folder), PreparedData(unfinished))
        if replace_old and folder.exists():
            aside = folder.with_name(f"{REPLACED_PREFIX}{folder.name}")
            folder.rename(aside)
    if aside is not None:
        shutil.rmtree(aside, ignore_errors=True)
    prepared = PreparedData.open(folder)
    return Outcome(prepared, fresh=True, passed_over=source.listing.passed_over, lost_masks=lost_masks)


def _tidy_up(folder: Path) -> None:
    """Deletes what preparations that were killed left beside `folder`, and puts back data that one had set aside."""
    remove_stale(folder.parent)
    aside = folder.with_name(f"{REPLACED_PREFIX}{folder.name}")
    if aside.exists():
        with files.writing(folder):
            if folder.exists():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                aside.rename(folder)


def default_name(source: Source, path: Path) -> str:
    """Returns the name under which a source is stored unless another is asked for; UserError if none can be made."""
    if source.listing.name:
        return source.listing.name
    if source.listing.phantom:
        return "phantoms"
    if all(parse_file_name(PurePosixPath(entry.file).name) for entry in source.listing.entries):
        return OFFICIAL_FOLDER
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.resolve().stem).strip("-._")
    if not name:
        raise UserError(f"no name can be made of {path}: give one with --name")
    return name


def _store(
    source: Source,
    name: str,
    told: dict[str, Any],
    folder: Path,
    subtypes: bool,
    track: Track,
    waiting: Waiting,
) -> None:
    """Writes records, table and data card of `source` to the new `folder`."""
    classes, kind = source.listing.classes, source.listing.kind
    with contextlib.ExitStack() as stack:
        # an array is summed up before any row of it is believed
        with waiting("Checking the array") if source.kind == "npz" else contextlib.nullcontext():
            reader = stack.enter_context(source.opened())
        inspection = inspect(reader, source.listing.entries, track, classes, kind)
        if not inspection.examples:
            raise UserError(f"{told['path']} holds no readable image; the first one: {inspection.left_out[0].reason}")
        if subtypes:
            inspection, classes = classed_by_subtype(inspection), SUBTYPE_CLASSES
        require_training_images(inspection.entries, told["path"], classes, kind)
        whole, joined = joined_by_content(inspection.examples)
        inspection = replace(inspection, examples=whole)
        entries, examples, cut = _with_splits(inspection, kind)
        _write_records(reader, entries, examples, (classes, kind), folder, track)
    write_examples(folder / TABLE, examples)
    notes = (*source.listing.notes, *cut)
    listing = source.listing
    card = build_card(
        name,
        told,
        inspection,
        examples,
        classes=classes,
        kind=kind,
        joined=joined,
        passed_over=listing.passed_over,
        notes=notes,
        phantom=listing.phantom,
    )
    files.write_json(folder / CARD, card)


def _with_splits(inspection: Inspection, kind: Kind) -> tuple[list[Entry], list[Example], list[str]]:
    """Returns entries and examples in the order of the records, and sentences on how they were split."""
    if inspection.examples[0].split != UNCUT:
        return list(inspection.entries), list(inspection.examples), []
    tested = cut_by_group(inspection.examples, TEST_FRACTION, TEST_SEED)
    rows = sorted(range(len(tested)), key=lambda row: tested[row])
    examples = [replace(inspection.examples[row], split="test" if tested[row] else "train") for row in rows]
    strata = "the rarest finding of an image" if kind == FINDINGS else "class and subtype"
    note = SPLITS_CUT.format(share=TEST_FRACTION, strata=strata, seed=TEST_SEED)
    return [inspection.entries[row] for row in rows], examples, [note]


def _write_records(
    reader: Reader,
    entries: Sequence[Entry],
    examples: Sequence[Example],
    classes: tuple[tuple[str, ...], Kind],
    folder: Path,
    track: Track,
) -> None:
    """Writes the TFDS data set below `folder`."""
    import tensorflow_datasets as tfds

    from cxr_jax.data.chest_xray.builder import ChestXray

    tfds.disable_progress_bar()
    with track("Storing", len(entries)) as advance:
        watched = _Watched(reader, examples, advance)
        builder = ChestXray(
            reader=watched,
            entries=entries,
            examples=examples,
            classes=classes[0],
            kind=classes[1],
            data_dir=folder / RECORDS,
        )
        try:
            with unnamed_owners():
                builder.download_and_prepare(download_dir=folder / DOWNLOADS)
        except Exception as error:
            # TFDS wraps what its generator raises into other words and types.
            raise watched.failure or _cause(error) from error
    shutil.rmtree(folder / DOWNLOADS, ignore_errors=True)


class _Watched:
    """A reader that reports every image, checks that it is what was inspected, and remembers what failed."""

    def __init__(self, reader: Reader, examples: Sequence[Example], advance: Callable[[int], None]) -> None:
        self._reader, self._advance = reader, advance
        self._sha256 = {example.file: example.sha256 for example in examples}
        self.failure: UserError | None = None

    def read(self, entry: Entry) -> bytes:
        """Returns the encoded image as it is stored; UserError if it can no longer be read."""
        try:
            data = without_header(self._reader.read(entry), name=entry.file)
            if hashlib.sha256(data).hexdigest() != self._sha256[entry.file]:
                raise UserError(f"{entry.file} changed while it was being prepared: prepare again")
        except UserError as error:
            self.failure = UserError(str(error))
            raise
        self._advance(1)
        return data


def _cause(error: Exception) -> Exception:
    """Returns the OSError that led to `error`, or `error` itself."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno is not None:
            return seen
        # The writer of ArrayRecord files is not Python: it tells what the system said in the middle of its own words.
        for number in files.FULL | files.FORBIDDEN:
            if isinstance(seen, RuntimeError) and os.strerror(number) in str(seen):
                return OSError(number, os.strerror(number))
        seen = seen.__cause__ or seen.__context__
    return error
