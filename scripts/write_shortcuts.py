#!/usr/bin/env python
"""Writes the page and the table of the study of shortcuts from its stored records.

    .venv/bin/python scripts/write_shortcuts.py                      # of results/shortcuts
    .venv/bin/python scripts/write_shortcuts.py FOLDER [RESAMPLES]

FOLDER holds what `cxr-jax publish runs/shortcuts/*/seed? --out FOLDER` puts there. It gets a block in `README.md` and
`shortcuts.csv`. What is not measured yet is named. docs/registered/shortcuts.md is the plan.
"""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxr_jax.errors import UserError, run_script
from cxr_jax.evaluation.comparison import compare
from cxr_jax.evaluation.comparison_record import Answer, EndpointSummary
from cxr_jax.evaluation.confidence import Confidence, confidence_of
from cxr_jax.evaluation.numbers import TO, measured_text, number_text
from cxr_jax.evaluation.occlusion import Occlusion, read_occlusion
from cxr_jax.evaluation.recipe_draws import Recipe
from cxr_jax.images.regions import REGIONS, WHOLE
from cxr_jax.reporting.comparison_cells import difference_text, mean_text
from cxr_jax.reporting.occlusion import REGION_TITLES
from cxr_jax.reporting.recipe_records import read_recipe
from cxr_jax.reporting.tables import markdown_table, write_block
from cxr_jax.runs.description import read_description
from cxr_jax.runs.files import write_text
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.recipes import find_recipes
from cxr_jax.sweeps.sweep import read_sweep
from cxr_jax.vocabulary import DISCLAIMER

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = "mask"
"""Region of the arm that all others are compared with."""

BLOCK = "study of shortcuts"
"""Name of the marks around what is written in the README; the text outside stays."""

WITHOUT_LUNGS = ("outside_box", "border")
"""Regions that show no lung, whose network should rank no better than that of the mask."""

TITLES = {**REGION_TITLES, WHOLE: "the radiograph"}
NOTHING = "–"


@dataclass(frozen=True)
class Arm:
    """One row: what the networks of a region reached on test."""

    region: str
    seeds: int
    roc_auc: EndpointSummary
    accuracy_at_rule: EndpointSummary | None
    accuracy_at_half: EndpointSummary
    difference: Answer | None  # of ROC-AUC to the reference; None of the reference itself


@dataclass(frozen=True)
class Study:
    """What the page tells."""

    arms: tuple[Arm, ...]
    images: int
    occlusions: tuple[tuple[str, Occlusion], ...]  # of the networks of whole images on test, by seed


def read_study(folder: Path, resamples: int) -> Study:
    """Returns what is published in `folder`.

    Raises:
        UserError: the reference is not among the arms, or a record is damaged.
    """
    found: dict[str, Recipe] = {}
    occlusions = []
    for files in find_recipes([str(folder)]) if folder.is_dir() else ():
        region = read_description(RunFolder(files.paths[0])).region
        found[region] = dataclasses.replace(read_recipe(files).recipe, name=region)
        for path in files.paths:
            record = RunFolder(path).occlusion_of("test")
            if record.is_file():
                occlusions.append((path.name, read_occlusion(record)))
    if REFERENCE not in found:
        raise UserError(f"{folder} holds no runs of the region {REFERENCE!r}, with which all are compared")
    masked = set(found[REFERENCE].tables[0].file)
    recipes = [_of_images(recipe, masked) for recipe in found.values()]
    compared = compare(recipes, Confidence(resamples=resamples), reference=REFERENCE)
    arms = []
    for region in (*REGIONS, WHOLE):
        if region not in found:
            continue
        summary = compared.recipes[region].endpoints
        pair = next((pair for pair in compared.pairs if pair.first == region), None)
        arms.append(
            Arm(
                region,
                compared.recipes[region].seeds,
                summary["roc_auc"],
                summary.get("accuracy@rule"),
                summary["accuracy@half"],
                pair.endpoints["roc_auc"] if pair else None,
            )
        )
    return Study(tuple(arms), compared.images, tuple(occlusions))


def _of_images(recipe: Recipe, files: set[str]) -> Recipe:
    """Returns a recipe with its predictions on these test images alone: those of the whole arm include all."""
    tables = tuple(table.select(np.array([file in files for file in table.file])) for table in recipe.tables)
    return dataclasses.replace(recipe, tables=tables)


def missing(study: Study) -> list[str]:
    """Returns what the registered sweep names and the study lacks: arms, seeds of arms, and looks at regions."""
    planned = read_sweep(ROOT / "configs" / "sweeps" / "shortcuts.toml")
    there = {arm.region: arm.seeds for arm in study.arms}
    lacking = []
    for variant in planned.variants:
        seeds = there.get(variant.config.data.region, 0)
        if seeds < len(planned.seeds):
            told = f" ({seeds} of {len(planned.seeds)} seeds)" if seeds else ""
            lacking.append(f"{TITLES[variant.config.data.region]}{told}")
    if len(study.occlusions) < len(planned.seeds):
        lacking.append("regions shown to networks of whole images")
    return lacking


def conclusion(study: Study) -> str:
    """Returns what the registration concludes from the arms without lungs; that it cannot yet, where one lacks."""
    arms = {arm.region: arm for arm in study.arms}
    lacking = [TITLES[region] for region in WITHOUT_LUNGS if region not in arms]
    if lacking:
        return f"Nothing can be concluded yet: {' and '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} missing."
    ends = {region: arms[region].difference.ends for region in WITHOUT_LUNGS}
    if any(interval is None for interval in ends.values()):
        return "Nothing can be concluded yet: a difference to the mask has no interval."
    better = [region for region in WITHOUT_LUNGS if ends[region].low > 0]
    told = "; ".join(f"{TITLES[region]}: {difference_text(arms[region].difference)}" for region in WITHOUT_LUNGS)
    if better:
        names = " and ".join(TITLES[region] for region in better)
        return (
            "**These radiographs give the diagnosis away outside the lungs, beyond the outline of these.** A network "
            f"that never saw a lung ranks better than one that saw the mask alone ({names}). ROC-AUC less that of the "
            f"mask: {told}."
        )
    most = max(ends[region].high for region in WITHOUT_LUNGS)
    return (
        "No shortcut outside the lungs was found beyond their outline. ROC-AUC less that of the mask: "
        f"{told}. The intervals leave open differences of up to {number_text(most, '+.3f')}."
    )


def page(study: Study, resamples: int) -> str:
    """Returns the page as Markdown."""
    lacking = missing(study)
    told = f"Not measured yet: {', '.join(lacking)}.\n\n" if lacking else ""
    header = ["shown", "seeds", "ROC-AUC", "less that of the mask", "accuracy at the rule, %", "accuracy at 0.5, %"]
    rows = [header, *([TITLES[arm.region], str(arm.seeds), *_cells(arm)] for arm in study.arms)]
    return f"""## Does it need to see lungs?

{conclusion(study)}

The plan was [registered](../../docs/registered/shortcuts.md) before training. One recipe, trained and judged on one
region of every radiograph, by lung masks; what is not shown is one grey. {study.images:,} official test images that
have a mask; the mean over seeds ± standard deviation, and the 95 % interval for other patients and other seeds.
Differences are paired, p-values corrected by Holm. "The rule" sets the threshold for 97.5 % sensitivity on validation.
{resamples:,} resamples at least. This block is written by `scripts/write_shortcuts.py`.

{told}{markdown_table(rows)}
{_occluded(study.occlusions)}
Masks: "COVID-19 Chest X-ray dataset", V7 Labs, CC BY 4.0; radiographs: Kermany et al. 2018, CC BY 4.0.

{DISCLAIMER}"""


def _cells(arm: Arm) -> list[str]:
    rule = NOTHING if arm.accuracy_at_rule is None else mean_text(arm.accuracy_at_rule, ".1f", 100)
    difference = NOTHING if arm.difference is None else difference_text(arm.difference)
    return [mean_text(arm.roc_auc, ".3f", 1), difference, rule, mean_text(arm.accuracy_at_half, ".1f", 100)]


def _occluded(occlusions: Sequence[tuple[str, Occlusion]]) -> str:
    """Returns the section on networks of whole images that are shown regions; nothing where none was."""
    if not occlusions:
        return ""
    rows = [["shown", *(seed for seed, _ in occlusions)]]
    rows.append([TITLES[WHOLE], *(measured_text(found.whole.roc_auc, word=TO) for _, found in occlusions)])
    for number, entry in enumerate(occlusions[0][1].regions):
        cells = []
        for _, found in occlusions:
            region = found.regions[number]
            own = number_text(region.level.roc_auc.value or float("nan"))
            cells.append(f"{own}; {measured_text(region.roc_auc, '+.3f', word=TO)}")
        rows.append([TITLES[entry.region], *cells])
    return f"""
### Networks of whole radiographs, shown regions

ROC-AUC on the same test images, and less that of these very networks on whole ones, paired, with the 95 % interval for
other patients. They never saw such images in training, so a fall does not show that they need what was hidden.

{markdown_table(rows)}
"""


def table(study: Study) -> str:
    """Returns the figures of the arms as CSV."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["region", "seeds", "roc_auc", "low", "high", "difference", "difference_low", "difference_high"])
    for arm in study.arms:
        own, found = arm.roc_auc.interval, arm.difference
        ends = found.ends if found else None
        writer.writerow(
            [
                arm.region,
                arm.seeds,
                arm.roc_auc.mean,
                *((own.low, own.high) if own else ("", "")),
                found.difference if found else "",
                *((ends.low, ends.high) if ends else ("", "")),
            ]
        )
    return out.getvalue()


def main(arguments: Sequence[str]) -> None:
    """Writes the page and the table; UserError if they cannot be made."""
    folder = Path(arguments[0]) if arguments else ROOT / "results" / "shortcuts"
    resamples = confidence_of(*arguments[1:2]).resamples
    study = read_study(folder, resamples)
    write_text(folder / "shortcuts.csv", table(study))
    write_block(folder / "README.md", BLOCK, page(study, resamples), title="Shortcuts, measured with lung masks")
    print(f"Written: {folder / 'shortcuts.csv'}\nWritten: {folder / 'README.md'}")


if __name__ == "__main__":
    run_script(main)
