#!/usr/bin/env python
"""Writes what the study of learning on came to, from its evaluated runs: docs/registered/continued.md is the plan.

    .venv/bin/python scripts/write_continued.py FOLDER

FOLDER holds origin/seed?, replay/seed? and plain/seed?, as scripts/continued_study makes them. It gets `new.json` and
`old.json`, comparisons of all arms with the origin on the new and on the old test images, and `README.md`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from cxr_jax.errors import UserError
from cxr_jax.evaluation.change import SHOWN
from cxr_jax.evaluation.comparison import compare
from cxr_jax.evaluation.comparison_record import Comparison, write_comparison
from cxr_jax.evaluation.numbers import TO, number_text, with_interval
from cxr_jax.evaluation.recipe_draws import Recipe
from cxr_jax.inference.change import NEW_BEFORE, OLD_AFTER, OLD_BEFORE
from cxr_jax.runs.files import write_text
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.predictions import read_predictions
from cxr_jax.vocabulary import DISCLAIMER

BEFORE, ARMS = "before", ("replay", "plain")


def main() -> None:
    """Compares the arms and writes the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    arms = {arm: [RunFolder.open(path) for path in sorted((folder / arm).glob("seed*"))] for arm in ("origin", *ARMS)}
    if len({len(runs) for runs in arms.values()}) != 1 or not arms["origin"]:
        counts = ", ".join(f"{len(runs)} of {arm}" for arm, runs in arms.items())
        raise UserError(f"{folder} has not the same number of runs of each arm ({counts}): finish the study first")
    parts: list[str] = []
    for which in ("new", "old"):
        found = compare(_recipes(arms, which), reference=BEFORE)
        write_comparison(folder / f"{which}.json", found)
        parts += _page(which, found)
    head = ["# Learning on from films of another hospital", "", "The plan is docs/registered/continued.md.", ""]
    write_text(folder / "README.md", "\n".join([*head, *parts, DISCLAIMER, ""]))
    print(f"{folder / 'README.md'} and both comparisons are written")


def _recipes(arms: dict[str, list[RunFolder]], which: str) -> list[Recipe]:
    """Returns what every arm predicted on the new or the old test images, with the networks before as a recipe."""
    first = arms[ARMS[0]]
    tables = {
        BEFORE: [run.change / (NEW_BEFORE if which == "new" else OLD_BEFORE) for run in first],
        **{
            arm: [run.predictions_of("test") if which == "new" else run.change / OLD_AFTER for run in arms[arm]]
            for arm in ARMS
        },
    }
    runs = {BEFORE: arms["origin"], **{arm: arms[arm] for arm in ARMS}}
    return [
        Recipe(name, tuple(map(read_predictions, paths)), tuple(map(_threshold, runs[name])))
        for name, paths in tables.items()
    ]


def _threshold(run: RunFolder) -> float:
    return read_json(run.operating_point)["threshold"]


def _page(which: str, found: Comparison) -> Sequence[str]:
    """Returns the section of one set of test images."""
    groups = "" if found.groups is None else f" of {found.groups:,} groups"
    seeds = next(iter(found.recipes.values())).seeds
    columns = ["metric", *found.recipes, *(f"{pair.first} − before" for pair in found.pairs)]
    lines = [
        f"## On the {which} test images",
        "",
        f"{found.images:,} images{groups}. Means over {seeds} seeds; differences to the networks before are paired, "
        "with intervals for other patients and other seeds.",
        "",
        f"| {' | '.join(columns)} |",
        "| --- |" + " ---: |" * (len(columns) - 1),
    ]
    for metric in SHOWN:
        key = metric if metric in found.endpoints else f"{metric}@operating_point"
        means = [summary.endpoints.get(key) for summary in found.recipes.values()]
        answers = [pair.endpoints.get(key) for pair in found.pairs]
        if key not in found.endpoints or None in means or None in answers:
            continue
        cells = [number_text(mean.mean) for mean in means]
        for answer in answers:
            interval = answer.over_seeds.interval if answer.over_seeds else answer.interval
            cells.append(with_interval(answer.difference, interval, "+.3f", word=TO))
        lines.append(f"| {found.endpoints[key].title} | " + " | ".join(cells) + " |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
