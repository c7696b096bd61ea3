"""`cxr-jax prepare SOURCE`: store radiographs as records, with a data card."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cxr_jax.config.command_line import Option, Positional, parse
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.vocabulary import CLASS_NAMES, FINDINGS, NO_FINDING, PNEUMONIA, SUBTYPE_NAMES

if TYPE_CHECKING:
    from rich.table import Table

    from cxr_jax.data.prepared import PreparedData
    from cxr_jax.terminal import Terminal

SUMMARY = "store radiographs as records, with a data card"

LISTED = 10
"""How many files of a kind are printed; the data card lists all."""


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    # official folder, Kaggle or Mendeley zip, MedMNIST pneumoniamnist*.npz, any folder or zip of class folders; or the
    # folder of NIH ChestX-ray14, CheXpert, or the tuberculosis sets of Shenzhen and Montgomery, as they are published
    source: Annotated[str, Positional("[SOURCE]")] = ""
    # under which configs find the data; by default chest_xray for the releases of the radiographs, phantoms for drawn
    # images, nih, chexpert, shenzhen or montgomery for these, else the name of the source
    name: str = ""
    # names of the class folders, two or more, in the order in which predictions and reports list them; by default
    # NORMAL and PNEUMONIA, or all labels of --table; of findings which of them to learn
    classes: tuple[str, ...] = ()
    # CSV that says what the images in the folder SOURCE are; it may lie anywhere
    table: Annotated[str, Option("FILE")] = ""
    file_column: str = "file"  # of --table: paths below SOURCE, or file names that are there once
    # of --table: one column of class names, or one for each class, of which exactly one is 1 in a row
    label_columns: tuple[str, ...] = ("label",)
    group_column: str = ""  # of --table: what stands for a patient; without it no group is known
    split_column: str = ""  # of --table: train, val or test; without it the test split is cut by group
    # of --table: an image may show several of the classes, which are findings. --label-columns is then one column of
    # names joined by bars, such as Effusion|Mass, or one for each finding: 1 present, 0 absent, -1 uncertain, or blank
    findings: bool = False
    # what an uncertain label of findings counts as, by default unknown: it then carries no loss and is not judged
    uncertain: Literal["", "unknown", "present", "absent"] = ""
    # what a blank label of findings counts as; by default unknown, and in CheXpert absent
    blank: Literal["", "unknown", "present", "absent"] = ""
    # of --table: columns that are kept beside the labels and told in the data card, such as age, sex and view
    keep_columns: tuple[str, ...] = ()
    # three classes, normal, bacteria and virus, as file names of the Guangzhou radiographs tell them; images whose
    # names tell none are left out
    subtypes: bool = False
    # lung masks of the images, white on black, under the same names below this folder: train/NORMAL/a.png for
    # train/NORMAL/a.jpeg. Without SOURCE they are added to the data prepared under --name
    masks: Annotated[str, Option("FOLDER")] = ""
    replace: bool = False  # put this source in the place of other data under the same name
    download: bool = False  # fetch the Mendeley archive (1.2 GB, no account) and prepare it
    download_folder: str = ""  # where the archive is kept; by default downloads, beside the prepared data


def main(arguments: list[str]) -> None:
    """Prepares the source that `arguments` name and print its data card; UserError for every mistake in it."""
    options = parse(Options, arguments, prog="cxr-jax prepare", description=SUMMARY)
    if options.masks and options.name and not options.source and not options.download:
        _add_masks_alone(options)
        return
    if bool(options.source) == options.download:
        raise UserError("give either a SOURCE or --download: cxr-jax prepare SOURCE", EXIT_USAGE)
    _require_possible(options)

    from cxr_jax.terminal import Terminal

    terminal = Terminal()
    with terminal.waiting("Starting"):
        from cxr_jax.data.card import told_groups, told_passed_over
        from cxr_jax.data.download import MENDELEY, download
        from cxr_jax.data.preparation import prepare
        from cxr_jax.data.prepared import prepared_root
        from cxr_jax.data.sources import Columns, Policies
        from cxr_jax.runs.files import at_home

    if options.download:
        kept = at_home(options.download_folder) if options.download_folder else prepared_root().parent / "downloads"
        source = download(MENDELEY, kept, track=terminal.track)
    else:
        source = at_home(options.source)
    columns, policies = None, Policies(options.uncertain, options.blank)
    if options.table:
        columns = Columns(
            table=at_home(options.table),
            file=options.file_column,
            labels=options.label_columns,
            group=options.group_column,
            split=options.split_column,
            findings=options.findings,
            policies=policies,
            kept=options.keep_columns,
        )
    outcome = prepare(
        source,
        name=options.name or None,
        classes=options.classes,
        columns=columns,
        policies=policies if columns is None and policies != Policies() else None,
        subtypes=options.subtypes,
        replace_old=options.replace,
        track=terminal.track,
        waiting=terminal.waiting,
    )
    prepared = outcome.prepared
    if options.masks:
        prepared = _add_masks(prepared, options, terminal)
    # files beside the data set may have come since the card was written, perhaps by an earlier version
    stored = prepared.card
    groups = told_groups(stored, prepared.stored_examples())
    card = {**stored, **groups, "passed_over": told_passed_over(outcome.passed_over)}
    print_card(terminal, card)
    if (lost := outcome.lost_masks) is not None:
        terminal.say(
            f"{_counted(lost.count, 'mask')} of the earlier data belong to no image of these, and went with them; they "
            f"came from {lost.source}.",
            style="yellow",
        )
    path, name = prepared.path, card["name"]
    done = f"Prepared as {name!r} in" if outcome.fresh else f"Nothing to do: {name!r} was prepared from this source in"
    terminal.say(f"{done} {path}")
    terminal.say(f"Next: cxr-jax train quickstart --data.dataset {name}")


def _add_masks_alone(options: Options) -> None:
    """Adds masks to data that were prepared before."""
    from cxr_jax.terminal import Terminal

    terminal = Terminal()
    with terminal.waiting("Starting"):
        from cxr_jax.data.prepared import PreparedData
    for option, given in asdict(options).items():
        if option not in ("name", "masks", "replace") and given != getattr(Options, option):
            raise UserError(f"--{option.replace('_', '-')} is of a SOURCE: name that too, or leave it out", EXIT_USAGE)
    prepared = _add_masks(PreparedData.open(options.name), options, terminal)
    _say_masks(terminal, prepared.card)
    terminal.say(f"Next: cxr-jax train quickstart --data.dataset {prepared.card['name']} --data.region lungs")


def _add_masks(prepared: PreparedData, options: Options, terminal: Terminal) -> PreparedData:
    """Stores the masks beside prepared data, and returns these with what their card says now."""
    from cxr_jax.data.masks.preparation import add_masks
    from cxr_jax.data.prepared import PreparedData
    from cxr_jax.runs.files import at_home

    fresh = add_masks(prepared, at_home(options.masks), replace_old=options.replace, track=terminal.track)
    done = "The masks are" if fresh else "Nothing to do for the masks: they are"
    terminal.say(f"{done} beside the images in {prepared.path}")
    return PreparedData.open(prepared.path)


def _require_possible(options: Options) -> None:
    """Raises UserError for options that exclude each other or have no effect."""
    if options.subtypes and (options.classes or options.table):
        other = "--classes" if options.classes else "--table"
        raise UserError(f"--subtypes and {other} exclude each other: give one", EXIT_USAGE)
    if options.table and options.download:
        raise UserError("--table and --download exclude each other: give one", EXIT_USAGE)
    if not options.label_columns:
        raise UserError("--label-columns names no column: name one, or one for each class", EXIT_USAGE)
    if options.table and not options.findings and (options.uncertain or options.blank):
        raise UserError(
            "--uncertain and --blank are of findings: say --findings if an image may show several", EXIT_USAGE
        )
    for name in ("file_column", "label_columns", "group_column", "split_column", "findings", "keep_columns"):
        if not options.table and getattr(options, name) != getattr(Options, name):
            raise UserError(f"--{name.replace('_', '-')} is of a table: name it by --table", EXIT_USAGE)


def print_card(terminal: Terminal, card: dict[str, Any]) -> None:
    """Prints a data card: counts, cut, proof, files left out and what cannot be proven."""
    if card["phantom"]:
        terminal.say("PHANTOMS: drawn by a program, not radiographs of people.", style="bold yellow")
    terminal.show(_counts(card))
    same, groups = card["identical_files"], card["groups"]
    terminal.say(f"Groups: {groups['total']:,}, the largest with {_counted(groups['largest'], 'image')}.")
    terminal.say(f"Identical files: {_counted(same['sets'], 'set')}, {_counted(same['surplus'], 'surplus file')}.")
    _list(
        terminal,
        "sets of groups that hold identical files and were joined",
        [f"{' and '.join(entry['groups'])} ({', '.join(entry['files'])})" for entry in card["joined_groups"]],
    )
    terminal.say(f"Proof: {_proof(card['proof'])}")
    _say_files(terminal, card)
    for title, names in (
        ("in a folder that their names contradict (the folder counts)", card["contradicting_names"]),
        ("groups in two splits", card["proof"]["groups_in_two_splits"]),
        ("sets of identical files in two splits", map(", ".join, card["proof"]["identical_files_in_two_splits"])),
    ):
        _list(terminal, title, list(names))
    _say_masks(terminal, card)
    for note in card["notes"]:
        terminal.say(f"Note: {note}")
    terminal.say(f"Fingerprint: {card['fingerprint']}")


def _say_files(terminal: Terminal, card: dict[str, Any]) -> None:
    """Prints how many files of the source were taken, and which were left out and why."""
    from cxr_jax.data.card import left_out_in_all

    taken, left_out = card["images"], left_out_in_all(card)
    if not left_out:
        terminal.say(f"Files: all {taken:,} were taken.")
        return
    terminal.say(f"Files: {taken + left_out:,} found, {taken:,} taken, {left_out:,} left out.", style="yellow")
    groups = sorted(card.get("passed_over", ()), key=lambda group: -group["count"])
    for group in groups[:LISTED]:
        folder = "the top folder" if group["folder"] == "." else group["folder"]
        # one file is told by its name
        single = group["count"] == len(group["files"]) == 1
        where = group["files"][0] if single else f"{folder} ({_counted(group['count'], 'file')})"
        terminal.say(f"  {where}: {group['reason']}")
    if len(groups) > LISTED:
        more = sum(group["count"] for group in groups[LISTED:])
        terminal.say(f"  and {_counted(more, 'file')} elsewhere, see data_card.json")
    _list(terminal, "left out that cannot be read", [f"{e['file']}: {_reason(e)}" for e in card["left_out"]])


def _say_masks(terminal: Terminal, card: dict[str, Any]) -> None:
    """Prints how many images have a lung mask, which have none, and which masks belong to no image."""
    from cxr_jax.data.mask_record import mask_record

    found = mask_record(card)
    if found is None:
        return
    terminal.say(f"Lung masks: {found.images:,} of {card['images']:,} images have one.")
    _list(terminal, "without a mask, which training on a region leaves out", list(found.absent))
    if found.unmatched:
        terminal.say(
            f"{_counted(found.unmatched, 'mask')} of {found.source} belong to no image, such as "
            f"{found.unmatched_files[0]}",
            style="yellow",
        )


def _reason(entry: dict[str, str]) -> str:
    """Returns why an image was left out, without its name in front."""
    return entry["reason"].removeprefix(f"{entry['file']} ")


def _counted(count: int, thing: str) -> str:
    """Returns a number of things in words."""
    return f"{count:,} {thing}" if count == 1 else f"{count:,} {thing}s"


def _counts(card: dict[str, Any]) -> Table:
    """Returns the table of images and groups per split, and those of the validation cut."""
    from rich import box
    from rich.table import Table

    table = Table(title=f"{card['name']}: {card['images']:,} images", box=box.SIMPLE_HEAD)
    classes = tuple(card.get("classes", CLASS_NAMES))
    if card.get("kind") == FINDINGS:
        return _counts_by_finding(table, card, classes)
    table.add_column("split")
    if classes != CLASS_NAMES:
        return _counts_by_class(table, card, classes)
    for column in (*CLASS_NAMES, *SUBTYPE_NAMES[1:], "groups"):
        table.add_column(column, justify="right")
    for split, counts in card["counts"].items():
        subtypes = card["subtypes"][split]
        table.add_row(split, *_cells(subtypes, counts[CLASS_NAMES[PNEUMONIA]]), f"{card['groups'][split]:,}")
    cut = card["validation_cut"]
    for part, words in (("train", "train after cut"), ("val", "val cut from it")):
        subtypes = cut["subtypes"][part]
        pneumonia = cut["images"][part] - subtypes[SUBTYPE_NAMES[0]]
        table.add_row(words, *_cells(subtypes, pneumonia), f"{cut['groups'][part]:,}", style="dim")
    return table


def _counts_by_class(table: Table, card: dict[str, Any], classes: tuple[str, ...]) -> Table:
    """Returns the table with a column for each class, where they are not NORMAL and PNEUMONIA."""
    for column in (*classes, "groups"):
        table.add_column(column, justify="right")
    rows = [(split, card["counts"][split], card["groups"][split], "") for split in card["counts"]]
    cut = card["validation_cut"]
    for part, words in (("train", "train after cut"), ("val", "val cut from it")):
        rows.append((words, cut["classes"][part], cut["groups"][part], "dim"))
    for words, counts, groups, style in rows:
        table.add_row(words, *(f"{counts[name]:,}" for name in classes), f"{groups:,}", style=style)
    return table


def _counts_by_finding(table: Table, card: dict[str, Any], findings: tuple[str, ...]) -> Table:
    """Returns the table with a row for each finding: images that show it in each split, and those that are unknown.

    An image may stand in several rows.
    """
    cut, splits = card["validation_cut"], list(card["counts"])
    table.add_column("images that show")
    for column in (*splits, "unknown", "train after cut", "val cut from it"):
        table.add_column(column, justify="right")
    for name in findings:
        shown = [card["counts"][split][name] for split in splits]
        unknown = sum(card["unknown"][split][name] for split in splits)
        parts = [cut["classes"][part][name] for part in ("train", "val")]
        table.add_row(name, *(f"{count:,}" for count in (*shown, unknown, *parts)))
    without = (f"{card['without_findings'][split]:,}" for split in splits)
    table.add_row(NO_FINDING, *without, "", "", "", style="dim")
    table.add_row(
        "groups",
        *(f"{card['groups'][split]:,}" for split in splits),
        "",
        *(f"{cut['groups'][part]:,}" for part in ("train", "val")),
        style="dim",
    )
    return table


def _cells(subtypes: dict[str, int], pneumonia: int) -> list[str]:
    """Returns the counts of one row: both classes, then the subtypes of pneumonia."""
    return [f"{count:,}" for count in (subtypes["normal"], pneumonia, *(subtypes[s] for s in SUBTYPE_NAMES[1:]))]


def _proof(proof: dict[str, Any]) -> str:
    """Returns in words whether the splits are disjoint."""
    if proof["holds"]:
        return "no group and no identical file is in two splits."
    groups, sets = len(proof["groups_in_two_splits"]), len(proof["identical_files_in_two_splits"])
    return f"FAILED, {groups} groups and {sets} sets of identical files are in two splits; results will be too good."


def _list(terminal: Terminal, title: str, names: list[str]) -> None:
    """Prints up to LISTED names under a title that counts them, or nothing."""
    if not names:
        return
    terminal.say(f"{len(names):,} {title}:", style="yellow")
    for name in names[:LISTED]:
        terminal.say(f"  {name}")
    if len(names) > LISTED:
        terminal.say(f"  and {len(names) - LISTED:,} more, see data_card.json")
