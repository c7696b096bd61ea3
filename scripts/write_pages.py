#!/usr/bin/env python
"""Writes the pages that state figures: each is a template of `docs/pages`, filled from the files in `results`.

A template lies where its page lies: `docs/pages/results/flips/README.md.jinja` makes `results/flips/README.md`. One
that is named `PAGE.NAME.jinja` fills only the block from `<!-- NAME: begin -->` to `<!-- NAME: end -->` of its page. A
template states conditions of what it says in words by `{{ holds(...) }}`: where one fails, no page is written.

    .venv/bin/python scripts/write_pages.py            # writes all pages
    .venv/bin/python scripts/write_pages.py --check    # writes nothing; 1 if a page differs from its files
"""

from __future__ import annotations

import csv
import functools
import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateError

from cxr_jax.commands.publish import TABLE
from cxr_jax.errors import UserError, run_script
from cxr_jax.evaluation import seeds
from cxr_jax.evaluation.numbers import TO, number_text, with_deviation
from cxr_jax.reporting.comparison_cells import p_text
from cxr_jax.reporting.published import Published
from cxr_jax.reporting.tables import results_table, with_block
from cxr_jax.reporting.training_time import wall_seconds
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.ledger import read_looks
from cxr_jax.runs.metrics_log import read_metrics

ROOT = Path(__file__).resolve().parent.parent
TEMPLATES = "docs/pages"
SUFFIX = ".jinja"


class ClaimError(UserError):
    """What a page says in words is not so in the files."""


class Results:
    """The figures of a results folder, as templates ask for them."""

    def __init__(self, folder: Path) -> None:
        """Reads from `folder` whenever something is asked for."""
        self._folder = folder

    @functools.cache  # noqa: B019  one object lives as long as the program
    def file(self, name: str) -> Any:
        """Returns what a JSON file holds, or the rows of a CSV file, each a mapping from column to text."""
        path = self._folder / name
        if path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                return list(csv.DictReader(file))
        return json.loads(path.read_text(encoding="utf-8"))

    @functools.cache  # noqa: B019
    def runs(self, *recipes: str) -> list[str]:
        """Returns the folders of the runs of these recipes, by their names below the results folder.

        Without recipes they are those that are compared: studies that have a page of their own are no part of them.
        """
        folders = [path.parent for path in sorted(self._folder.rglob("evaluation.json"))]
        names = [folder.relative_to(self._folder).as_posix() for folder in folders]
        return [name for name in names if self._is_of(name, recipes or self.compared())]

    def compared(self) -> tuple[str, ...]:
        """Returns the names of the recipes that are compared with each other."""
        return tuple(self.file("comparison/comparison.json")["recipes"])

    def _is_of(self, run: str, recipes: Iterable[str]) -> bool:
        return any(run.startswith(f"{recipe}/") for recipe in recipes)

    def folds(self, arm: str) -> list[str]:
        """Returns the recipes of the networks of a cross-validation, one for each fold, by their order."""
        return sorted(path.relative_to(self._folder).as_posix() for path in (self._folder / arm).glob("fold?"))

    def each(self, recipes: str | Iterable[str], path: str, file: str = "evaluation.json") -> list[Any]:
        """Returns what stands at the dotted `path` of a file of every run of the recipes, in the order of runs.

        What was judged at 0.5 stands at `at_one_half` only where the threshold is another.
        """
        chosen = self.runs(recipes) if isinstance(recipes, str) else self.runs(*recipes)
        return [_at(self.file(f"{run}/{file}"), path) for run in chosen]

    def recipe(self, name: str, endpoint: str) -> Any:
        """Returns mean, deviation and interval of an endpoint over the seeds of a recipe."""
        return self.file("comparison/comparison.json")["recipes"][name]["endpoints"][endpoint]

    def pair(self, first: str, second: str, endpoint: str, study: str = "comparison") -> dict[str, Any]:
        """Returns the difference `first` minus `second` in an endpoint, with its interval and p-value.

        They are over seeds, where the study that compared them has several.
        """
        for pair in self.file(f"{study}/comparison.json")["pairs"]:
            if {pair["first"], pair["second"]} == {first, second}:
                found = pair["endpoints"][endpoint]
                over = found["over_seeds"] or found
                bounds = (over["interval"]["low"], over["interval"]["high"])
                sign = 1 if pair["first"] == first else -1
                low, high = sorted(sign * bound for bound in bounds)
                return {"difference": sign * found["difference"], "low": low, "high": high, **_p_values(over)}
        raise ClaimError(f"{study}/comparison.json has no pair of {first} and {second}")

    def shares(self, recipes: Iterable[str]) -> list[float]:
        """Returns the share of the threshold in the fall of balanced accuracy from validation to test, run by run."""
        drops = self.each(recipes, "shift.drop")
        return [drop["operating_point"] / drop["total"] for drop in drops]

    def audits(
        self, measure: str | None = None, verdict: str | None = None, recipes: Iterable[str] = ()
    ) -> list[dict[str, Any]]:
        """Returns the audits of false positives in which a test was possible, those with a verdict if it is named."""
        quality = [self.file(f"{run}/quality.json")["audit"] for run in self.runs(*recipes)]
        tested = [audit["false_positives"] for audit in quality if audit and audit["false_positives"]]
        tested = [audit for audit in tested if audit["measures"]["mean"]["verdict"] != "not tested"]
        return [audit for audit in tested if measure is None or audit["measures"][measure]["verdict"] == verdict]

    def differences(self, recipe: str, measure: str) -> list[float]:
        """Returns how much higher a measure is in false positives than in true negatives, run by run."""
        return self.each(recipe, f"audit.false_positives.measures.{measure}.difference", "quality.json")

    def checks(self) -> list[dict[str, Any]]:
        """Returns run and verdicts of every committed check of heat maps; `passed` is True where all passed."""
        found = [path.parent.parent for path in sorted(self._folder.rglob("explanations/checks.json"))]
        names = [folder.relative_to(self._folder).as_posix() for folder in found]
        names = [name for name in names if self._is_of(name, self.compared())]
        verdicts = {name: self.file(f"{name}/explanations/checks.json")["checks"] for name in names}
        return [{"run": name, "passed": all(check["passes"] for check in found)} for name, found in verdicts.items()]

    def check(self, run: str, name: str, label: str) -> Any:
        """Returns value and bounds of one check of the heat maps for one class."""
        checks = self.file(f"{run}/explanations/checks.json")["checks"]
        return next(check["numbers"][label] for check in checks if check["name"] == name)

    def baseline(self, name: str) -> Any:
        """Returns the metrics on test of a rule that sees measures of the picture alone."""
        return self.file("moderate_crops/seed0/quality.json")["baselines"][name]["test"]

    def sharpness(self, images: str, percentile: int) -> float:
        """Returns a percentile of sharpness of some images, as stored with the comparison of validation cuts."""
        rows = self.file("validation_cuts/sharpness.csv")
        return next(float(row[f"percentile {percentile}"]) for row in rows if row["images"] == images)

    def variant(self, sweep: str, name: str) -> float:
        """Returns by how much ROC-AUC on validation is higher in a variant than in the base of a sweep, of one seed."""
        variants = self.file(f"{sweep}/sweep.json")["variants"]
        return next(row["figures"]["roc_auc"]["difference"]["value"] for row in variants if row["name"] == name)

    def table_of_runs(self, folder: str, *published: tuple[str, float]) -> str:
        """Returns the table that `cxr-jax publish` keeps in the README of a folder, within its marks."""
        runs = [self._folder / name for name in self.runs(folder)]
        table = results_table(runs, [Published(name, accuracy=accuracy) for name, accuracy in published])
        return with_block("", TABLE, table).strip()

    def minutes(self, recipe: str) -> list[float]:
        """Returns the minutes that the runs of a recipe took, steps and validations, run by run."""
        return [wall_seconds(read_metrics(self._folder / run / "metrics.jsonl")) / 60 for run in self.runs(recipe)]

    def lines(self, run: str, kind: str) -> list[dict[str, Any]]:
        """Returns the lines of one kind of what training measured."""
        return read_metrics(self._folder / run / "metrics.jsonl", (kind,))

    def stopped_early(self, *recipes: str) -> list[int]:
        """Returns the steps after which runs ended because validation had not improved."""
        ends = [self.lines(run, "end")[-1] for run in self.runs(*recipes)]
        return [end["step"] for end in ends if end["reason"] == "patience"]

    def ended(self, run: str) -> str:
        """Returns after how many steps a run ended, and why."""
        end = self.lines(run, "end")[-1]
        return f"{end['step']} ({'patience' if end['reason'] == 'patience' else 'the end'})"

    def looks(self, run: str) -> list[dict[str, Any]]:
        """Returns the looks of a run at the test split."""
        return read_looks(RunFolder(self._folder / run))

    def times_as_fast(self, task: str, *words: str, without: str = "libtcmalloc") -> list[float]:
        """Returns, for each contest with PyTorch in a task, how fast we are beside its fastest mode with `words`."""
        found = []
        for path in sorted((self._folder / "bench").glob("*.json")):
            ratios = [ratio for ratio in self.file(f"bench/{path.name}").get("ratios", []) if ratio["task"] == task]
            asked = [ratio for ratio in ratios if all(word in ratio["opponent"] for word in ("timm", *words))]
            found.append([ratio["times_as_fast"] for ratio in asked if not without or without not in ratio["opponent"]])
        return [min(ratios) for ratios in found if ratios]

    def rivals(self, task: str, mode: str) -> list[float]:
        """Returns, for each contest in a task, the images a second of PyTorch's fastest mode as installed."""
        found = []
        for path in sorted((self._folder / "bench").glob("*.json")):
            measured = self.file(f"bench/{path.name}").get("measurements", [])
            found.append([entry["images_per_second"] for entry in measured if _is_rival(entry["case"], task, mode)])
        return [max(speeds) for speeds in found if speeds]

    def cut(self, name: str) -> str:
        """Returns the cells of a row on one way to cut a validation split."""
        rows = [row for row in self.file("validation_cuts/cuts.csv") if row["cut"] == name]
        columns = {"ROC-AUC": 3, "sensitivity": "%", "specificity": "%", "specificity at 97.5 % sensitivity": "%"}
        return " | ".join(span([float(row[column]) for row in rows], form) for column, form in columns.items())


def _p_values(over_seeds: Mapping[str, Any]) -> dict[str, float]:
    return {name: over_seeds[name] for name in ("p_value", "adjusted_p_value")}


def _is_rival(case: Mapping[str, Any], task: str, mode: str) -> bool:
    """Returns whether a case of a contest is PyTorch's in that task and mode, with nothing preloaded."""
    name = f"{case['model']}, {case['image_size']} px, batch {case['batch_size']}, {case['work']}"
    return (case["implementation"], case["backend"], case["preload"], name) == ("timm", mode, "", task)


def _at(value: Any, path: str) -> Any:
    for name in path.split("."):
        if name == "at_one_half" and value[name] is None:
            continue
        value = value[int(name)] if isinstance(value, list) else value[name]
    return value


def form_of(form: int | str) -> tuple[str, float]:
    """Returns format and factor of `form`: so many decimals, or a share in percent or points ("%" or "points")."""
    return (f".{form}f", 1) if isinstance(form, int) else (".1f", 100)


def unit(form: int | str) -> str:
    """Returns what follows a number of that form."""
    return " %" if form == "%" else ""


def shown(value: float, form: int | str = 3) -> str:
    """Returns one value as text."""
    return number_text(value, *form_of(form)) + unit(form)


def spread(values: list[float], form: int | str = 3) -> str:
    """Returns mean ± standard deviation over runs, the value alone of one run."""
    found = seeds.spread(values)
    return with_deviation(found.mean, found.deviation, *form_of(form)) + unit(form)


def span(values: Any, form: int | str = 3) -> str:
    """Returns the lowest to the highest of some values, or of the `low` and `high` of an interval."""
    values = [values["low"], values["high"]] if isinstance(values, Mapping) else values
    ends = [number_text(value, *form_of(form)) for value in (min(values), max(values))]
    return TO.join(dict.fromkeys(ends)) + unit(form)


def p_value(value: float) -> str:
    """Returns "= 0.015" or "< 0.001"."""
    text = p_text(value)
    return text if text.startswith("<") else f"= {text}"


def cells(confusion: list[list[int]]) -> str:
    """Returns TN, FP, FN and TP as cells of a row."""
    return " | ".join(str(count) for row in confusion for count in row)


def holds(condition: bool, claim: str) -> str:
    """Returns nothing where a claim holds; raises ClaimError where it does not."""
    if not condition:
        raise ClaimError(claim)
    return ""


def render(root: Path) -> dict[Path, str]:
    """Returns the text of every page below `root` for which there is a template.

    Raises:
        ClaimError: a condition of a page does not hold, or a figure is not there; the template is named.
    """
    templates = root / TEMPLATES
    environment = Environment(
        loader=FileSystemLoader(templates),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
    )
    environment.filters |= {"shown": shown, "spread": spread, "span": span, "p": p_value, "mean": statistics.fmean}
    environment.filters["signed"] = lambda value, decimals=3: number_text(value, f"+.{decimals}f")
    environment.filters["points"] = lambda share, decimals=1: number_text(share, f".{decimals}f", 100)
    environment.filters["signed_points"] = lambda share, decimals=1: number_text(share, f"+.{decimals}f", 100)
    environment.filters["pair_of"] = lambda part: (part["value"], part["rates"]["roc_auc"])
    environment.filters["complement"] = lambda share: 1 - share
    results = Results(root / "results")
    names = [name for name in vars(Results) if not name.startswith("_")]
    environment.globals |= {"holds": holds, "cells": cells, **{name: getattr(results, name) for name in names}}
    pages: dict[Path, str] = {}
    for template in sorted(templates.rglob(f"*{SUFFIX}")):
        name = template.relative_to(templates).as_posix()
        page, block = root / name.removesuffix(SUFFIX), ""
        if page.suffix != ".md":
            page, block = page.with_suffix(""), page.suffix[1:]
        try:
            text = environment.get_template(name).render()
        except (UserError, TemplateError, LookupError, TypeError, OSError, ValueError) as error:
            raise ClaimError(f"{TEMPLATES}/{name}: {error!r}") from error
        if block:
            text = with_block(pages.get(page) or page.read_text(encoding="utf-8"), block, text.strip())
        pages[page] = text
    return pages


def main(arguments: Sequence[str], root: Path = ROOT) -> int:
    """Writes the pages below `root`, or checks them with `--check`; 1 if one differs. ClaimError if one cannot be."""
    pages = render(root)
    stale = [page for page, text in pages.items() if not page.is_file() or page.read_text(encoding="utf-8") != text]
    for page in stale:
        if "--check" not in arguments:
            page.write_text(pages[page], encoding="utf-8")
        print(f"{page.relative_to(root)} {'differs from its files' if '--check' in arguments else 'written'}")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    run_script(main)
