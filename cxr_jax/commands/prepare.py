"""`cxr-jax prepare SOURCE`: store radiographs as records, with a data card."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import FlagCreatePairsOff, Positional, arg

from cxr_jax.config.command_line import parse
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.vocabulary import CLASS_NAMES, SUBTYPE_NAMES

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SUMMARY = "store radiographs as records, with a data card"

LISTED = 10
"""How many files of a kind are printed; the data card lists all."""


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    # official folder, Kaggle or Mendeley zip, MedMNIST pneumoniamnist*.npz, or any folder of class folders
    source: Annotated[Positional[str], arg(metavar="SOURCE")] = ""
    # under which configs find the data; by default chest_xray for the releases of the radiographs, phantoms for drawn
    # images, else the name of the source
    name: str = ""
    replace: FlagCreatePairsOff[bool] = False  # put this source in the place of other data under the same name
    download: FlagCreatePairsOff[bool] = False  # fetch the Mendeley archive (1.2 GB, no account) and prepare it
    download_folder: str = ""  # where the archive is kept; by default downloads, beside the prepared data


def main(arguments: list[str]) -> None:
    """Prepare the source that `arguments` name and print its data card; UserError for every mistake in it."""
    options = parse(Options, arguments, prog="cxr-jax prepare", description=SUMMARY)
    if bool(options.source) == options.download:
        raise UserError("give either a SOURCE or --download: cxr-jax prepare SOURCE", EXIT_USAGE)

    from pathlib import Path

    from rich.console import Console

    from cxr_jax.data.download import MENDELEY, download
    from cxr_jax.data.preparation import prepare
    from cxr_jax.data.prepared import prepared_root
    from cxr_jax.reporting.live import track_in_terminal

    console = Console()
    track = track_in_terminal(console)
    if options.download:
        kept = Path(options.download_folder) if options.download_folder else prepared_root().parent / "downloads"
        source = download(MENDELEY, kept.expanduser(), track=track)
    else:
        source = Path(options.source).expanduser()
    outcome = prepare(source, name=options.name or None, replace_old=options.replace, track=track)
    print_card(console, outcome.prepared.card)
    path, name = outcome.prepared.path, outcome.prepared.card["name"]
    done = f"Prepared as {name!r} in" if outcome.fresh else f"Nothing to do: {name!r} was prepared from this source in"
    _say(console, f"{done} {path}")


def print_card(console: Console, card: dict[str, Any]) -> None:
    """Print a data card: counts, cut, proof, files left out and what cannot be proven."""
    if card["phantom"]:
        _say(console, "PHANTOMS: drawn by a program, not radiographs of people.", style="bold yellow")
    console.print(_counts(card))
    same, groups = card["identical_files"], card["groups"]
    _say(console, f"Groups: {groups['total']:,}, the largest with {groups['largest']} images.")
    _say(console, f"Identical files: {same['sets']} sets, {same['surplus']} surplus files.")
    _say(console, f"Proof: {_proof(card['proof'])}")
    for title, names in (
        ("left out", [f"{entry['file']}: {entry['reason']}" for entry in card["left_out"]]),
        ("in a folder that their names contradict (the folder counts)", card["contradicting_names"]),
        ("groups in two splits", card["proof"]["groups_in_two_splits"]),
        ("sets of identical files in two splits", map(", ".join, card["proof"]["identical_files_in_two_splits"])),
    ):
        _list(console, title, list(names))
    for note in card["notes"]:
        _say(console, f"Note: {note}")
    _say(console, f"Fingerprint: {card['fingerprint']}")


def _counts(card: dict[str, Any]) -> Table:
    """Return the table of images and groups per split, and those of the validation cut."""
    from rich import box
    from rich.table import Table

    table = Table(title=f"{card['name']}: {card['images']:,} images", box=box.SIMPLE_HEAD)
    table.add_column("split")
    for column in (*CLASS_NAMES, *SUBTYPE_NAMES[1:], "groups"):
        table.add_column(column, justify="right")
    for split, classes in card["counts"].items():
        subtypes = card["subtypes"][split]
        table.add_row(split, *_cells(subtypes, classes["PNEUMONIA"]), f"{card['groups'][split]:,}")
    cut = card["validation_cut"]
    for part, words in (("train", "train after cut"), ("val", "val cut from it")):
        subtypes = cut["subtypes"][part]
        pneumonia = cut["images"][part] - subtypes[SUBTYPE_NAMES[0]]
        table.add_row(words, *_cells(subtypes, pneumonia), f"{cut['groups'][part]:,}", style="dim")
    return table


def _cells(subtypes: dict[str, int], pneumonia: int) -> list[str]:
    """Return the counts of one row: both classes, then the subtypes of pneumonia."""
    return [f"{count:,}" for count in (subtypes["normal"], pneumonia, *(subtypes[s] for s in SUBTYPE_NAMES[1:]))]


def _proof(proof: dict[str, Any]) -> str:
    """Return in words whether the splits are disjoint."""
    if proof["holds"]:
        return "no group and no identical file is in two splits."
    groups, sets = len(proof["groups_in_two_splits"]), len(proof["identical_files_in_two_splits"])
    return f"FAILED, {groups} groups and {sets} sets of identical files are in two splits; results will be too good."


def _list(console: Console, title: str, names: list[str]) -> None:
    """Print up to LISTED names under a title that counts them, or nothing."""
    if not names:
        return
    _say(console, f"{len(names):,} {title}:", style="yellow")
    for name in names[:LISTED]:
        _say(console, f"  {name}")
    if len(names) > LISTED:
        _say(console, f"  and {len(names) - LISTED:,} more, see data_card.json")


def _say(console: Console, text: str, style: str = "") -> None:
    """Print a line as it is: brackets in file names are no markup."""
    console.print(text, style=style or None, markup=False, highlight=False, soft_wrap=True)
