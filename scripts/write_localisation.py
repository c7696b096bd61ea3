#!/usr/bin/env python
"""Writes the figures of results/localisation from its stored records.

    .venv/bin/python scripts/write_localisation.py                   # of results/localisation
    .venv/bin/python scripts/write_localisation.py FOLDER

FOLDER holds a folder for each network, with its `localisation.json`. It gets a block in `README.md`; the text outside
of the block stays.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from cxr_jax.errors import run_script
from cxr_jax.evaluation.localisation import ALL, CENTRED, MEAN, Localisation, Part, Rate, Score, read_localisation
from cxr_jax.evaluation.numbers import TO, measured_text
from cxr_jax.reporting.tables import markdown_table, write_block

ROOT = Path(__file__).resolve().parent.parent

BLOCK = "localisation"
"""Name of the marks around what is written in the README."""

NETWORKS = {
    "pneumonia": "The network of children's films",
    "findings": "The demonstration of Wang et al. 2017",
}
"""The folders, and what their networks are called."""

SHOWN = (("IoBB", 0.1), ("IoBB", 0.25), ("IoBB", 0.5), ("IoU", 0.1), ("IoU", 0.3), ("IoU", 0.5), ("pointing", 0.0))


def block(records: dict[str, Localisation]) -> str:
    """Returns the tables and sentences about all networks."""
    return "\n\n".join(text for name, record in records.items() for text in _of_network(NETWORKS[name], record))


def _of_network(title: str, record: Localisation) -> Iterator[str]:
    yield f"### {title}"
    left_out = sum(record.left_out.values())
    yield (
        f"{record.architecture}, step {record.step:,}, maps at `{record.stage}`; network "
        f"`{record.checkpoint_sha256[:12]}`; {len(record.files)} images; {left_out} boxes left out. Looked at on "
        f"{record.date[:10]}."
    )
    for part in _told(record.parts):
        yield _counts(part)
        header = ["rule", "found", "share", "FP", CENTRED, MEAN, f"share less that of the {MEAN}"]
        yield markdown_table([header, *(_row(part.score(*rule)) for rule in SHOWN)]).rstrip()
        yield _verdict(part)


def _told(parts: Sequence[Part]) -> list[Part]:
    """Returns the parts that have a table: all together, and findings with boxes of several patients."""
    return [part for part in parts if part.name == ALL or part.groups > 2]


def _counts(part: Part) -> str:
    name = "All findings" if part.name == ALL else part.name
    return (
        f"**{name}**: {part.boxes} boxes in {part.images} images of {part.groups} patients, {part.maps} maps of which "
        f"{part.blank} are blank. A place by lot lies in a box with a chance of {part.covered:.1%}."
    )


def _row(score: Score) -> list[str]:
    rule = "pointing" if score.kind == "pointing" else f"{score.kind} > {score.limit:g}"
    false = "" if score.network.false_positives is None else f"{score.network.false_positives:.2f}"
    share = measured_text(score.network.share, ".0%", word=TO)
    chance = [_of(score.chance[name]) for name in (CENTRED, MEAN)]
    return [rule, _of(score.network), share, false, *chance, measured_text(score.more[MEAN], "+.0%", word=TO)]


def _of(rate: Rate) -> str:
    return f"{rate.found} of {rate.of}"


def _verdict(part: Part) -> str:
    """Returns by which rules the network does better or worse than the mean box, by their intervals."""
    better, worse = [], []
    for rule in SHOWN:
        score = part.score(*rule)
        interval = score.more[MEAN].interval
        if interval is not None and interval.low > 0:
            better.append(_row(score)[0])
        if interval is not None and interval.high < 0:
            worse.append(_row(score)[0])
    if not better and not worse:
        return "By none of these rules can the network be told from the mean box, which saw no image."
    parts = [f"{word} by {', '.join(rules)}" for word, rules in (("better", better), ("worse", worse)) if rules]
    return f"Beside the mean box, which saw no image, the network does {'; and '.join(parts)}. By the others no " + (
        "difference can be told."
    )


def main(arguments: Sequence[str]) -> None:
    """Writes the block; UserError if it cannot be made."""
    folder = Path(arguments[0]) if arguments else ROOT / "results" / "localisation"
    found = {name: folder / name / "localisation.json" for name in NETWORKS if (folder / name).is_dir()}
    records = {name: read_localisation(path) for name, path in found.items()}
    write_block(folder / "README.md", BLOCK, block(records), title="Maps against boxes")
    print(f"Written: {folder / 'README.md'}")


if __name__ == "__main__":
    run_script(main)
