"""`cxr-jax predict [RUN] FILES...`: probability and call for radiographs in files and folders."""

from __future__ import annotations

import contextlib
import csv
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cxr_jax.config.command_line import Option, Positional, parse
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.terminal import Terminal
from cxr_jax.vocabulary import CLASS_NAMES

if TYPE_CHECKING:
    from cxr_jax.data.sources.source import LeftOut

    Below = Callable[[Path], tuple[tuple[Path, ...], tuple[LeftOut, ...]]]
    """Finds the images in a folder, and tells what is left out."""

SUMMARY = "predict on files and folders, as a table, JSON, CSV or heat maps"

COLUMNS = (
    "file",
    "probability",
    "label",
    "threshold",
    "threshold_rule",
    "uncertain",
    "possible",
    "error_rate",
    "warnings",
    "compared_with_training",
    "model",
    "films",
    "disclaimer",
    "error",
    "map",
)
"""Of the CSV file."""


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    # folder of a trained run, or of an exported one; without it the network that comes with the package predicts
    run: Annotated[str, Positional("RUN")]
    # radiographs: JPEG, PNG or DICOM (CR or DX), 8 to 16 bit, of any size; or folders of them
    files: Annotated[tuple[str, ...], Positional("FILES...")] = ()
    json: bool = False  # print a JSON list with one object for each file in place of the table
    csv: Annotated[str, Option("FILE")] = ""  # write a table with one row for each file, too
    maps: Annotated[str, Option("FOLDER")] = ""  # write a heat map of what speaks for the call, one for each file
    # probability from which PNEUMONIA is called; by default the run's own
    threshold: Annotated[float | None, Option("T")] = None
    # how many images of each class may be told to be another one; a film that this leaves open is uncertain. One of
    # 0.01, 0.02, 0.05, 0.1 and 0.2; by default 0.05
    error_rate: Annotated[float | None, Option("R")] = None
    int8: bool = False  # of an exported network the one in 8 bits: faster on many processors, and a little different
    replace: bool = False  # replace what --csv and --maps name if it exists


@dataclass(frozen=True)
class Files:
    """The files that are to be predicted, in order."""

    names: tuple[str, ...]
    mistakes: dict[str, str]  # sentence by name, of those that cannot be read; told before the network is loaded


def main(arguments: list[str]) -> None:
    """Prints a prediction for every file that `arguments` name, each as soon as it is known.

    Raises UserError at the end if some file could not be predicted; its own sentence stands on standard error.
    """
    options = parse(Options, arguments, prog="cxr-jax predict", description=SUMMARY)
    from cxr_jax.bundle.record import is_bundle
    from cxr_jax.bundle.starter import STARTER
    from cxr_jax.data.sources.folder import radiographs_below
    from cxr_jax.runs.folder import RunFolder

    # every folder is walked once
    below = functools.cache(radiographs_below)
    names_images = _names_images(Path(options.run), below)
    if names_images:
        _require_no_network_among(options)
    if not names_images and not options.files:
        raise UserError("name at least one file or folder: cxr-jax predict [RUN] FILES...", EXIT_USAGE)
    place = STARTER if names_images else Path(options.run)
    if not is_bundle(place):
        RunFolder.open(place)
    # with --json standard output holds JSON alone
    terminal = Terminal(on_standard_error=options.json)
    files = _find((options.run, *options.files) if names_images else options.files, below, terminal)
    _require_free(options)
    map_paths = _map_paths(options.maps, files.names)
    _require_apart(options, files.names, map_paths)
    with terminal.waiting(f"Loading the {'starter network' if names_images else f'network of {options.run}'}"):
        from cxr_jax.serving.lines import Lines
        from cxr_jax.serving.loaded import load
        from cxr_jax.serving.predict import Threshold, predict_files

        loaded = load(place, int8=options.int8)
        model, reference, name = loaded.model, loaded.reference, loaded.name
        classes = model.descriptions[0].classes
        explain = loaded.explain if options.maps else None
        threshold = Threshold.of(model, options.threshold, options.error_rate)
    lines = Lines(threshold, classes, alone=len(files.names) == 1)
    predictions = predict_files(model, files.names, threshold, reference=reference)
    entries = []
    with _csv_writer(options.csv, classes) as write_row, terminal.track("Predicting", len(files.names)) as advance:
        if not options.json:
            terminal.say(lines.header())
        for prediction, map_path in zip(predictions, map_paths, strict=True):
            entry = prediction.as_json(threshold, name, loaded.films)
            if prediction.file in files.mistakes:
                entry["error"] = files.mistakes[prediction.file]
            elif prediction.error is not None:
                terminal.complain(prediction.error)
            elif map_path is not None:
                from cxr_jax.serving.maps import map_of

                resize = model.descriptions[0].resize
                drawn = map_of(explain, prediction, threshold, resize, classes=classes, films=loaded.films)
                drawn.save(map_path)
                entry["map"] = str(map_path)
            entries.append(entry)
            write_row(entry)
            if not options.json:
                for line in lines.of(prediction):
                    terminal.say(*line)
            advance(1)
    if options.json:
        import json

        # what an encoding lacks, JSON itself can escape
        encodes_all = (sys.stdout.encoding or "").lower().startswith("utf")
        print(json.dumps(entries, indent=2, ensure_ascii=not encodes_all))
    else:
        terminal.say(f"\n{lines.counts(entries)}")
        for sentence in lines.end(loaded):
            terminal.say(sentence)
    for place, what in ((options.csv, "Table"), (options.maps, "Heat maps of what speaks for each call")):
        if place:
            terminal.say(f"{what}: {place}")
    failures = sum("error" in entry for entry in entries)
    if failures:
        raise UserError(f"{failures} of {len(entries)} files could not be predicted")


def _require_no_network_among(options: Options) -> None:
    """Raises UserError if a run or a bundle stands behind the first image: it is meant, and not the starter network."""
    for name in options.files:
        if Path(name).is_dir() and _holds_network(Path(name)):
            kind = "a folder" if Path(options.run).is_dir() else "a file"
            raise UserError(
                f"{options.run} is {kind}, not the folder of a run; name the run first: cxr-jax predict {name} FILES..."
            )


def _holds_network(folder: Path) -> bool:
    """Returns whether a folder is that of a run or of a bundle."""
    from cxr_jax.bundle.record import is_bundle
    from cxr_jax.runs.folder import RunFolder

    return is_bundle(folder) or RunFolder(folder).config.is_file()


def _names_images(path: Path, below: Below) -> bool:
    """Returns whether the first argument is an image, or a folder of them, so that no run is named."""
    from cxr_jax.data.decode import IMAGE_SUFFIXES

    if path.is_dir():
        return not _holds_network(path) and bool(below(path)[0])
    # of a file that is missing the name alone tells what it would be
    return path.exists() or path.name.lower().endswith(IMAGE_SUFFIXES)


def _find(given: tuple[str, ...], below: Below, terminal: Terminal) -> Files:
    """Returns the files that are named or lie in folders that are named, and tells what is left out or missing.

    Raises:
        UserError: no file is left that can be read.
    """
    from cxr_jax.serving.radiograph import require_file

    names: list[str] = []
    mistakes = {}
    for name in given:
        if Path(name).is_dir():
            images, left_out = below(Path(name))
            names += map(str, images)
            for reason, count in Counter(entry.reason for entry in left_out).items():
                terminal.say(f"{name}: {count:,} {'file' if count == 1 else 'files'} left out ({reason})")
            if not images:
                mistakes[name] = f"the folder {name} holds no JPEG, PNG or DICOM files"
                names.append(name)
            continue
        names.append(name)
        try:
            require_file(Path(name))
        except UserError as error:
            mistakes[name] = str(error)
    # a file that is named twice, or lies in a folder that is named too, is predicted once
    unique = tuple(dict.fromkeys(names))
    if len(mistakes) == len(unique) == 1:
        raise UserError(next(iter(mistakes.values())))
    for sentence in mistakes.values():
        terminal.complain(sentence)
    if len(mistakes) == len(unique):
        raise UserError(f"none of {len(unique)} files can be read, as told above")
    return Files(unique, mistakes)


def _require_free(options: Options) -> None:
    """Raises UserError if something stands already where results are to be written, unless it may be replaced."""
    table, maps = Path(options.csv), Path(options.maps)
    if options.csv and table.is_dir():
        raise UserError(f"--csv {table} is a folder: name a file, such as {table / 'predictions.csv'}")
    if options.csv and table.exists() and not options.replace:
        raise UserError(f"{table} exists already; choose another name, or replace it by --replace")
    if options.maps and maps.exists() and not maps.is_dir():
        raise UserError(f"--maps {maps} is a file: name a folder for the heat maps")
    if options.maps and maps.is_dir() and any(maps.iterdir()) and not options.replace:
        raise UserError(f"{maps} is not empty; choose another folder, or replace what it holds by --replace")


def _require_apart(options: Options, names: Sequence[str], map_paths: Sequence[Path | None]) -> None:
    """Raises UserError if a result would be written over a radiograph that is read."""
    read = {Path(name).resolve(): name for name in names}
    written = {path.resolve(): "--maps" for path in map_paths if path is not None}
    if options.csv:
        written[Path(options.csv).resolve()] = "--csv"
    for place in read.keys() & written.keys():
        raise UserError(f"{written[place]} would write over {read[place]}, which is read: name another place")


def _map_paths(folder: str, names: tuple[str, ...]) -> list[Path | None]:
    """Returns where the heat map of every file goes; None for each where none is wanted."""
    if not folder:
        return [None] * len(names)
    from cxr_jax.explain.case import picture_names

    return [Path(folder) / f"{name}.png" for name in picture_names(names)]


@contextlib.contextmanager
def _csv_writer(path: str, classes: tuple[str, ...]) -> Iterator[Any]:
    """Yields a function that appends an entry to the CSV file at `path`, on the disk at once; it does nothing without.

    An interrupted command leaves the rows that were known.
    """
    if not path:
        yield lambda entry: None
        return
    from cxr_jax.runs.files import writing

    with writing(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        # bytes of a file name that are no text are escaped
        with Path(path).open("w", encoding="utf-8", errors="backslashreplace", newline="", buffering=1) as file:
            of_classes = () if classes == CLASS_NAMES else tuple(f"probability_{name}" for name in classes)
            columns = (*COLUMNS[:2], *of_classes, *COLUMNS[2:])
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()

            def write(entry: dict[str, Any]) -> None:
                row = {**entry, **_joined(entry)}
                each = row.pop("probabilities", {})
                # the findings are the label, and their thresholds do not change from row to row
                for name in ("findings", "thresholds"):
                    row.pop(name, None)
                writer.writerow({**row, **{f"probability_{name}": value for name, value in each.items()}})

            yield write


def _joined(entry: dict[str, Any]) -> dict[str, str]:
    """Returns the lists of an entry as cells of a table."""
    lists = {name: value for name, value in entry.items() if isinstance(value, list)}
    return {name: "; ".join(value) for name, value in lists.items()}
