#!/usr/bin/env python
"""Writes what the study of learning on came to, from its evaluated runs: docs/registered/continued.md is the plan.

    .venv/bin/python scripts/write_continued.py FOLDER [FILMS]

FOLDER holds origin/seed?, replay/seed?, plain/seed? and averaged/seed?, as scripts/continued_study makes them or
`cxr-jax publish` copies them. It gets `new.json` and `old.json`, comparisons of all arms with the origin on the new
and on the old test images, and a block in `README.md`. FILMS is the table of scripts/nih_pneumonia_table.py: by its
ages, sexes and views the ROC-AUC is told apart, and what it says of the new test images is kept as `films.csv`. Of
tables `warned/ARM_seed?.csv` of `cxr-jax predict`, `warned.csv` counts the films that are unlike those that a network
knows.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from cxr_jax.data.attributes import attributes_of, parts_of
from cxr_jax.errors import UserError, run_script
from cxr_jax.evaluation.change import SHOWN
from cxr_jax.evaluation.comparison import compare
from cxr_jax.evaluation.comparison_record import Comparison, RecipeSummary, write_comparison
from cxr_jax.evaluation.numbers import TO, number_text, range_text, with_interval
from cxr_jax.evaluation.recipe_draws import Recipe
from cxr_jax.inference.change import NEW_BEFORE, OLD_AFTER, OLD_BEFORE
from cxr_jax.reporting.tables import markdown_table, write_block
from cxr_jax.runs.files import csv_text, write_text
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.predictions import read_predictions
from cxr_jax.vocabulary import DISCLAIMER

BEFORE, ARMS = "before", ("replay", "plain", "averaged")
WANTED, MOST_LOST = 0.70, 0.01
"""ROC-AUC on the new test images that an arm should reach, and how much of that on the old ones it may lose."""

FILMS, WARNED = "films.csv", "warned.csv"
UNLIKE = "unlike the radiographs that this network learned from"
"""How the warning by the network's features begins."""

BLOCK = "study of learning on"
"""Name of the marks around what is written in the README; the text outside stays."""


def main(arguments: Sequence[str]) -> None:
    """Compares the arms and writes the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("films", type=Path, nargs="?", help="table of the films, with age, sex and view")
    options = parser.parse_args(arguments)
    folder = options.folder
    arms = {arm: [RunFolder.open(path) for path in sorted((folder / arm).glob("seed*"))] for arm in ("origin", *ARMS)}
    if len({len(runs) for runs in arms.values()}) != 1 or not arms["origin"]:
        counts = ", ".join(f"{len(runs)} of {arm}" for arm, runs in arms.items())
        raise UserError(f"{folder} has not the same number of runs of each arm ({counts}): finish the study first")
    recipes = {which: _recipes(arms, which) for which in ("new", "old")}
    found = {which: compare(of_which, reference=BEFORE) for which, of_which in recipes.items()}
    for which, comparison in found.items():
        write_comparison(folder / f"{which}.json", comparison)
    if options.films is not None:
        _keep_films(options.films, folder / FILMS, recipes["new"])
    parts = [*_answers(found["new"], found["old"]), *_page("new", found["new"]), *_page("old", found["old"])]
    if (folder / "warned").is_dir():
        _count_warned(folder / "warned", folder / WARNED)
    if (folder / WARNED).is_file():
        parts += _warned(folder / WARNED)
    if (folder / FILMS).is_file():
        parts += _by_attribute(folder / FILMS, recipes["new"])
    readme = folder / "README.md"
    title = "Learning on from films of another hospital"
    write_block(readme, BLOCK, "\n".join([*parts, DISCLAIMER, ""]), title=title)
    print(f"{readme} and both comparisons are written")


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


def _answers(new: Comparison, old: Comparison) -> Iterator[str]:
    """Yields what the registered targets came to, and what `plain` came to beside them."""
    for arm, way in (("replay", "learning on with replay"), ("averaged", "averaging with the networks before")):
        reached = new.recipes[arm].endpoints["roc_auc"]
        answer = next(pair for pair in old.pairs if pair.first == arm).endpoints["roc_auc"]
        assert reached is not None
        met = "is met" if reached.mean >= WANTED else f"is missed by {WANTED - reached.mean:.3f}"
        held = answer.ends is not None and answer.ends.low > -MOST_LOST
        missed = answer.difference < -MOST_LOST
        verdict = "is kept" if held else "is missed" if missed else "is not shown to be kept"
        yield (
            f"- **After {way}**, the ROC-AUC on the new films is {_of(new, arm)}. The target of {WANTED:g} {met}. "
            f"On the official test images it changed by {_difference(old, arm)}. The target, a loss of at most "
            f"{MOST_LOST:g}, {verdict}."
        )
    yield (
        f"- **Without replay** the ROC-AUC is {_of(new, 'plain')} on the new films, and changed by "
        f"{_difference(old, 'plain')} on the old ones."
    )
    yield ""


def _of(found: Comparison, recipe: str) -> str:
    return _told(found.recipes[recipe])


def _told(recipe: RecipeSummary) -> str:
    """Returns the ROC-AUC of a recipe with its interval."""
    summary = recipe.endpoints["roc_auc"]
    return "–" if summary is None else with_interval(summary.mean, summary.interval, ".3f", word=TO)


def _difference(found: Comparison, recipe: str) -> str:
    answer = next(pair for pair in found.pairs if pair.first == recipe).endpoints["roc_auc"]
    return with_interval(answer.difference, answer.ends, "+.3f", word=TO)


def _page(which: str, found: Comparison) -> Sequence[str]:
    """Returns the section of one set of test images."""
    groups = "" if found.groups is None else f" of {found.groups:,} groups"
    seeds = next(iter(found.recipes.values())).seeds
    rows = [["metric", *found.recipes, *(f"{pair.first} − before" for pair in found.pairs)]]
    for metric in SHOWN:
        key = metric if metric in found.endpoints else f"{metric}@operating_point"
        means = [summary.endpoints.get(key) for summary in found.recipes.values()]
        answers = [pair.endpoints.get(key) for pair in found.pairs]
        if key not in found.endpoints or None in means or None in answers:
            continue
        cells = [number_text(mean.mean) for mean in means]
        cells += [with_interval(answer.difference, answer.ends, "+.3f", word=TO) for answer in answers]
        rows.append([found.endpoints[key].title, *cells])
    return [
        f"## On the {which} test images",
        "",
        f"{found.images:,} images{groups}. Means over {seeds} seeds; differences to the networks before are paired, "
        "with intervals for other patients and other seeds.",
        "",
        markdown_table(rows),
    ]


def _keep_films(source: Path, target: Path, recipes: Sequence[Recipe]) -> None:
    """Writes age, sex and view of the new test images."""
    wanted = {Path(file).name for file in recipes[0].tables[0].file}
    columns = ("file", "age", "sex", "view")
    with source.open(encoding="utf-8", newline="") as file:
        rows = [[row[name] for name in columns] for row in csv.DictReader(file) if row["file"] in wanted]
    write_text(target, csv_text([columns, *rows]))


def _count_warned(tables: Path, target: Path) -> None:
    """Writes how many films of each table `predict` warned of by the network's features."""
    rows: list[Sequence[object]] = [("arm", "seed", "films", "unlike")]
    for path in sorted(tables.glob("*_seed*.csv")):
        arm, _, seed = path.stem.rpartition("_seed")
        with path.open(encoding="utf-8", newline="") as file:
            warnings = [row["warnings"] for row in csv.DictReader(file)]
        rows.append((arm, seed, len(warnings), sum(UNLIKE in warning for warning in warnings)))
    write_text(target, csv_text(rows))


def _warned(path: Path) -> Iterator[str]:
    """Yields the shares of the new test films that are warned of, by arm."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    told = []
    for arm in ("origin", *ARMS):
        shares = [100 * int(row["unlike"]) / int(row["films"]) for row in rows if row["arm"] == arm]
        if shares:
            told.append(
                f"{BEFORE if arm == 'origin' else arm} {range_text(min(shares), max(shares), '.1f', word=TO)} %"
            )
    told_of = ", ".join(told)
    yield f"`predict` warns of a new test film as unlike those that the network learned from: {told_of} of them."
    yield ""


def _by_attribute(films: Path, recipes: Sequence[Recipe]) -> Iterator[str]:
    """Yields the section on the new test images by view, age and sex; parts of one class are left out."""
    with films.open(encoding="utf-8", newline="") as file:
        known = {row["file"]: attributes_of(tuple(row.items())) for row in csv.DictReader(file)}
    first = recipes[0].tables[0]
    rows = [["ROC-AUC", "films", "PNEUMONIA", *(recipe.name for recipe in recipes)]]
    within: list[tuple[str, str, RecipeSummary]] = []
    for attribute, parts in parts_of([known[Path(file).name] for file in first.file]).items():
        for value, mask in parts.items():
            labels = first.label[mask]
            if len(np.unique(labels)) < 2:
                continue
            files = {file for file, taken in zip(first.file, mask, strict=True) if taken}
            found = compare([_only(recipe, files) for recipe in recipes], reference=BEFORE)
            told = [_told(found.recipes[recipe.name]) for recipe in recipes]
            rows.append([f"{attribute} {value}", str(len(labels)), str(int(labels.sum())), *told])
            if attribute == "view":
                within += [(arm, value, found.recipes[arm]) for arm in ("replay", "averaged")]
    yield from ("## By view, age and sex", "", "Of the new test images, each part ranked by itself.", "")
    yield markdown_table(rows)
    for arm, value, summary in within:
        endpoint = summary.endpoints["roc_auc"]
        if endpoint is not None and endpoint.interval is not None and endpoint.interval.low <= 0.5:
            yield (
                f"Within {value} views the interval of `{arm}` reaches 0.5: the view may be part of what it learned."
            )
    yield ""


def _only(recipe: Recipe, files: set[str]) -> Recipe:
    """Returns a recipe's predictions of some images, without thresholds."""
    tables = tuple(table.select(np.array([file in files for file in table.file])) for table in recipe.tables)
    return Recipe(recipe.name, tables)


if __name__ == "__main__":
    run_script(main)
