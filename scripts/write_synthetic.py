#!/usr/bin/env python
"""Writes the page and the table of the study of synthetic normals from its stored records.

    .venv/bin/python scripts/write_synthetic.py                                     # of results/synthetic
    .venv/bin/python scripts/write_synthetic.py FOLDER [GENERATORS [RESAMPLES]]

FOLDER holds what `cxr-jax publish runs/synthetic/*/seed? --out FOLDER` puts there. It gets a block in `README.md` and
`synthetic.csv`. GENERATORS holds the folders of `cxr-jax synthesize`, whose judgement is copied into FOLDER, and
nothing that shows an image. What is not measured yet is named. docs/registered/synthetic.md is the plan.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr_jax.errors import UserError, run_script
from cxr_jax.evaluation.comparison import compare
from cxr_jax.evaluation.comparison_record import Answer, EndpointSummary
from cxr_jax.evaluation.confidence import Confidence, confidence_of
from cxr_jax.evaluation.intervals import Interval
from cxr_jax.evaluation.numbers import number_text
from cxr_jax.evaluation.recipe_draws import Recipe
from cxr_jax.evaluation.samples import SCHEMA_VERSION, JudgedSamples
from cxr_jax.reporting.comparison_cells import NOTHING, difference_text, mean_text
from cxr_jax.reporting.recipe_records import read_recipe
from cxr_jax.reporting.tables import markdown_table, write_block
from cxr_jax.runs.files import csv_text, write_bytes, write_text
from cxr_jax.runs.recipes import find_recipes
from cxr_jax.runs.records import read_record
from cxr_jax.sweeps.sweep import read_sweep
from cxr_jax.vocabulary import DISCLAIMER

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = "oversampling"
"""The arm that all others are compared with."""

GENERATORS = {"dcgan_64": "reduced_64", "dcgan_128": "reduced_128"}
"""Arms with samples, and the control of each: real normals without the detail that it cannot show."""

TITLES = {
    "base": "train as it is",
    "oversampling": "normals repeated",
    "reduced_64": "repeated ones at 64 pixels",
    "reduced_128": "repeated ones at 128 pixels",
    "dcgan_64": "DCGAN of 64 pixels",
    "dcgan_128": "DCGAN of 128 pixels",
    "clahe": "train as it is, CLAHE",
    "denoised": "train as it is, denoised",
}

ENDPOINTS = {
    "specificity@rule": ("specificity, %", ".1f", 100),
    "sensitivity@rule": ("sensitivity, %", ".1f", 100),
    "roc_auc": ("ROC-AUC", ".3f", 1),
    "accuracy@half": ("accuracy at 0.5, %", ".1f", 100),
}
"""Columns by endpoint: title, form and factor."""

PRIMARY, PRICE = "specificity@rule", "sensitivity@rule"
BLOCK = "study of synthetic normals"
"""Name of the marks around what is written in the README; the text outside stays."""

JUDGEMENTS = "generators"


@dataclass(frozen=True)
class Arm:
    """One row: what the networks of an arm reached on test, by endpoint; a value that does not exist is None."""

    name: str
    seeds: int
    reached: dict[str, EndpointSummary | None]
    differences: dict[str, Answer | None]  # to the reference; empty of the reference itself


@dataclass(frozen=True)
class Study:
    """What the page tells."""

    arms: tuple[Arm, ...]
    images: int
    generators: tuple[tuple[str, JudgedSamples], ...]


def read_study(folder: Path, resamples: int) -> Study:
    """Returns what is published in `folder`.

    Raises:
        UserError: the reference is not among the arms, or a record is damaged.
    """
    found = {}
    for files in find_recipes([str(folder)]) if folder.is_dir() else ():
        name = files.paths[0].parent.name
        if name in TITLES:
            found[name] = read_recipe(files).recipe
    if REFERENCE not in found:
        raise UserError(f"{folder} holds no runs of the arm {REFERENCE!r}, with which all are compared")
    recipes = [_named(found[name], name) for name in TITLES if name in found]
    compared = compare(recipes, Confidence(resamples=resamples), reference=REFERENCE)
    arms = []
    for name in (recipe.name for recipe in recipes):
        summary = compared.recipes[name]
        pair = next((pair for pair in compared.pairs if pair.first == name), None)
        arms.append(
            Arm(
                name,
                summary.seeds,
                {key: summary.endpoints.get(key) for key in ENDPOINTS},
                {key: pair.endpoints.get(key) for key in ENDPOINTS} if pair else {},
            )
        )
    judged = [(path.stem, read_judgement_of(path)) for path in sorted((folder / JUDGEMENTS).glob("*.json"))]
    return Study(tuple(arms), compared.images, tuple(judged))


def copy_judgements(generators: Path, folder: Path) -> None:
    """Copies the judgement of every generator; its pictures stay where they are. UserError if there is none."""
    found = sorted(generators.glob("*/evaluation.json"))
    if not found:
        raise UserError(f"{generators} holds no generator that was judged: name the folder that holds theirs")
    for path in found:
        read_judgement_of(path)
        write_bytes(folder / JUDGEMENTS / f"{path.parent.name}.json", path.read_bytes())


def read_judgement_of(path: Path) -> JudgedSamples:
    """Reads the judgement of a generator; UserError if it is damaged, or the record of something else."""
    return read_record(path, JudgedSamples, version=SCHEMA_VERSION, where="judgement", advice="copy it anew")


def missing(study: Study) -> list[str]:
    """Returns what the registered sweep names and the study lacks: arms, seeds of arms, judgements of generators."""
    planned = read_sweep(ROOT / "configs" / "sweeps" / "synthetic.toml")
    there, lacking = {arm.name: arm.seeds for arm in study.arms}, []
    for variant in planned.variants:
        seeds = there.get(variant.name, 0)
        if seeds < len(planned.seeds):
            told = f" ({seeds} of {len(planned.seeds)} seeds)" if seeds else ""
            lacking.append(f"{TITLES[variant.name]}{told}")
    judged = dict(study.generators)
    return lacking + [f"the judgement of the {TITLES[name]}" for name in GENERATORS if name not in judged]


def conclusion(study: Study) -> str:
    """Returns what the registration concludes of synthetic normals; that it cannot yet, where an arm lacks."""
    arms = {arm.name: arm for arm in study.arms}
    lacking = [TITLES[name] for name in (*GENERATORS, *GENERATORS.values()) if name not in arms]
    if lacking:
        return f"Nothing can be concluded yet: {', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} missing."
    ends = {name: _ends_of(arms[name], PRIMARY) for name in (*GENERATORS, *GENERATORS.values())}
    if any(interval is None for interval in ends.values()):
        return "Nothing can be concluded yet: a difference of specificity has no interval."
    told = "; ".join(f"{TITLES[name]}: {_points(arms[name], PRIMARY)}" for name in GENERATORS)
    better = [name for name in GENERATORS if ends[name].low > 0]
    if not better:
        most = max(ends[name].high for name in GENERATORS)
        return (
            "**No reduction of false positives by synthetic normals was found.** Points of specificity more than with "
            f"normals repeated: {told}. The intervals leave open up to {number_text(most, '+.1f', 100)} points."
        )
    sentences = [
        f"**Synthetic normals reduce false positives** ({' and '.join(TITLES[name] for name in better)}). Points of "
        f"specificity more than with normals repeated: {told}."
    ]
    for name in better:
        price, control = _ends_of(arms[name], PRICE), GENERATORS[name]
        if price is not None and price.high < 0:
            lost = _points(arms[name], PRICE)
            sentences.append(f"With the {TITLES[name]} missed pneumonia pays for this: sensitivity {lost} points.")
        if ends[control].low > 0:
            sentences.append(
                f"Real normals without detail do it as well ({TITLES[control]}: {_points(arms[control], PRIMARY)}), so "
                f"that nothing is owed to the {TITLES[name]}."
            )
    return " ".join(sentences)


def page(study: Study, resamples: int) -> str:
    """Returns the page as Markdown."""
    lacking = missing(study)
    told = f"Not measured yet: {', '.join(lacking)}.\n\n" if lacking else ""
    titles = [title for title, _, _ in ENDPOINTS.values()]
    first = "specificity less that of normals repeated"
    rows = [["arm", "seeds", *titles, first], *([TITLES[arm.name], str(arm.seeds), *_cells(arm)] for arm in study.arms)]
    return f"""## Do synthetic normals reduce false positives?

{conclusion(study)}

The plan was [registered](../../docs/registered/synthetic.md) before training. {study.images:,} official test images;
the mean over seeds ± standard deviation, and the 95 % interval for other patients and other seeds, not for other
generators. The threshold is the rule's for 97.5 % sensitivity on validation. Differences are paired, p-values corrected
by Holm. {resamples:,} resamples at least. This block is written by `scripts/write_synthetic.py`.

{told}{markdown_table(rows)}
{_judged(study.generators)}
Radiographs: Kermany et al. 2018, CC BY 4.0. Samples are no radiographs, and none is shown here.

{DISCLAIMER}"""


def _cells(arm: Arm) -> list[str]:
    cells = []
    for key, (_, form, factor) in ENDPOINTS.items():
        summary = arm.reached[key]
        cells.append(NOTHING if summary is None else mean_text(summary, form, factor))
    found = arm.differences.get(PRIMARY)
    return [*cells, NOTHING if found is None else difference_text(found, "+.1f", 100)]


def _judged(generators: Sequence[tuple[str, JudgedSamples]]) -> str:
    """Returns the section on the samples of each generator; nothing where none was judged."""
    if not generators:
        return ""
    told = "\n".join(
        f"- {TITLES.get(name, name)}, {judged.samples:,} samples of {judged.training_images:,} images: "
        + " ".join(judged.verdict)
        for name, judged in generators
    )
    return f"\n### The samples\n\n{told}\n"


def _named(recipe: Recipe, name: str) -> Recipe:
    return dataclasses.replace(recipe, name=name)


def _ends_of(arm: Arm, endpoint: str) -> Interval | None:
    """Returns the interval of the difference to the reference; None where there is none."""
    found = arm.differences[endpoint]
    return None if found is None else found.ends


def _points(arm: Arm, endpoint: str) -> str:
    """Returns the difference of a share to the reference, in points."""
    return difference_text(arm.differences[endpoint], "+.1f", 100)


def table(study: Study) -> str:
    """Returns the figures of the arms as CSV."""
    rows = [["arm", "seeds", "endpoint", "mean", "low", "high", "difference", "difference_low", "difference_high"]]
    for arm in study.arms:
        for key in ENDPOINTS:
            own, found = arm.reached[key], arm.differences.get(key)
            interval, ends = own.interval if own else None, found.ends if found else None
            rows.append(
                [
                    arm.name,
                    arm.seeds,
                    key,
                    own.mean if own else "",
                    *((interval.low, interval.high) if interval else ("", "")),
                    found.difference if found else "",
                    *((ends.low, ends.high) if ends else ("", "")),
                ]
            )
    return csv_text(rows)


def main(arguments: Sequence[str]) -> None:
    """Writes the page and the table; UserError if they cannot be made."""
    folder = Path(arguments[0]) if arguments else ROOT / "results" / "synthetic"
    resamples = confidence_of(*arguments[2:3]).resamples
    if len(arguments) > 1:
        copy_judgements(Path(arguments[1]), folder)
    study = read_study(folder, resamples)
    write_text(folder / "synthetic.csv", table(study))
    write_block(folder / "README.md", BLOCK, page(study, resamples), title="Synthetic normals and clarified images")
    print(f"Written: {folder / 'synthetic.csv'}\nWritten: {folder / 'README.md'}")


if __name__ == "__main__":
    run_script(main)
