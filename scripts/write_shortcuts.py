#!/usr/bin/env python
"""Writes the page and the table of the study of shortcuts from its stored records.

    .venv/bin/python scripts/write_shortcuts.py                      # of results/shortcuts
    .venv/bin/python scripts/write_shortcuts.py FOLDER [RESAMPLES]

FOLDER holds what `cxr-jax publish runs/shortcuts/*/seed? --out FOLDER` puts there. It gets a block in `README.md` and
`shortcuts.csv`, and `shortcuts` as PNG and SVG. What is not measured yet is named. The plan is
docs/registered/shortcuts.md.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cxr_jax.errors import UserError, run_script
from cxr_jax.evaluation.comparison import compare
from cxr_jax.evaluation.comparison_record import Answer, EndpointSummary
from cxr_jax.evaluation.confidence import Confidence, confidence_of
from cxr_jax.evaluation.judgement import read_judgement
from cxr_jax.evaluation.numbers import TO, measured_text, number_text
from cxr_jax.evaluation.occlusion import Occlusion, read_occlusion
from cxr_jax.evaluation.recipe_draws import Recipe
from cxr_jax.explain.record import MapChecks, read_checks
from cxr_jax.images.regions import REGIONS, WHOLE
from cxr_jax.reporting.comparison_cells import NOTHING, difference_text, mean_text
from cxr_jax.reporting.occlusion import REGION_TITLES
from cxr_jax.reporting.recipe_records import read_recipe
from cxr_jax.reporting.style import BLUE, ORANGE, new_figure, save, styled
from cxr_jax.reporting.tables import markdown_table, write_block
from cxr_jax.runs.description import read_description
from cxr_jax.runs.files import csv_text, write_text
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

AT_RULE = ("accuracy", "sensitivity", "specificity")
TITLES = {**REGION_TITLES, WHOLE: "the radiograph"}


@dataclass(frozen=True)
class Arm:
    """One row: what the networks of a region reached on test."""

    region: str
    seeds: int
    roc_auc: EndpointSummary
    at_rule: tuple[EndpointSummary | None, ...]  # what AT_RULE names
    accuracy_at_half: EndpointSummary
    difference: Answer | None  # of ROC-AUC to the reference; None of the reference itself
    on_validation: float  # ROC-AUC, the mean over seeds


@dataclass(frozen=True)
class Study:
    """What the page tells."""

    arms: tuple[Arm, ...]
    images: int
    occlusions: tuple[tuple[str, Occlusion], ...]  # of the networks of whole images on test, by seed
    checks: tuple[tuple[str, MapChecks], ...]  # of the heat maps of the networks of whole images, by seed


def read_study(folder: Path, resamples: int) -> Study:
    """Returns what is published in `folder`.

    Raises:
        UserError: the reference is not among the arms, or a record is damaged.
    """
    found: dict[str, Recipe] = {}
    areas: dict[str, list[float]] = {}
    occlusions, checks = [], []
    for files in find_recipes([str(folder)]) if folder.is_dir() else ():
        region = read_description(RunFolder(files.paths[0])).region
        found[region] = dataclasses.replace(read_recipe(files).recipe, name=region)
        runs = [RunFolder(path) for path in files.paths]
        areas[region] = [read_judgement(run.evaluation).validation.metrics["roc_auc"].value for run in runs]
        for run in runs:
            if (record := run.occlusion_of("test")).is_file():
                occlusions.append((run.name, read_occlusion(record)))
            if region == WHOLE and (checked := read_checks(run)) is not None:
                checks.append((run.name, checked))
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
                tuple(summary.get(f"{name}@rule") for name in AT_RULE),
                summary["accuracy@half"],
                pair.endpoints["roc_auc"] if pair else None,
                statistics.fmean(areas[region]),
            )
        )
    return Study(tuple(arms), compared.images, tuple(occlusions), tuple(checks))


def _of_images(recipe: Recipe, files: set[str]) -> Recipe:
    """Returns a recipe with its predictions on these test images alone: those of the whole arm include all."""
    tables = tuple(table.select(np.array([file in files for file in table.file])) for table in recipe.tables)
    return dataclasses.replace(recipe, tables=tables)


def missing(study: Study) -> list[str]:
    """Returns what the registered sweep names and the study lacks: arms, seeds, looks at regions, and heat maps."""
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
    if len(study.checks) < len(planned.seeds):
        lacking.append("heat maps of networks of whole images")
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
    header = ["shown", "seeds", "ROC-AUC", "less that of the mask", "ROC-AUC on validation"]
    header += [*(f"{name} at the rule, %" for name in AT_RULE), "accuracy at 0.5, %"]
    rows = [header, *([TITLES[arm.region], str(arm.seeds), *_cells(arm)] for arm in study.arms)]
    return f"""## Does it need to see lungs?

{conclusion(study)}

![ROC-AUC on test by what of the radiograph a network sees](shortcuts.png)

In orange what shows no lung; the dotted line is the mask itself. The plan was
[registered](../../docs/registered/shortcuts.md) before training. One recipe, trained and judged on one region of every
radiograph, by lung masks; what is not shown is one grey. {study.images:,} official test images that have a mask; the
mean over seeds ± standard deviation, and the 95 % interval for other patients and other seeds. Differences are paired,
p-values corrected by Holm. "The rule" sets the threshold for 97.5 % sensitivity on validation.
{resamples:,} resamples at least. This block is written by `scripts/write_shortcuts.py`.

{told}{markdown_table(rows)}
{_occluded(study.occlusions)}{_checked(study.checks)}
Masks: "COVID-19 Chest X-ray dataset", V7 Labs, CC BY 4.0; radiographs: Kermany et al. 2018, CC BY 4.0.

{DISCLAIMER}"""


def _cells(arm: Arm) -> list[str]:
    rule = [NOTHING if summary is None else mean_text(summary, ".1f", 100) for summary in arm.at_rule]
    difference = NOTHING if arm.difference is None else difference_text(arm.difference)
    areas = [mean_text(arm.roc_auc, ".3f", 1), difference, number_text(arm.on_validation)]
    return [*areas, *rule, mean_text(arm.accuracy_at_half, ".1f", 100)]


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


def _checked(checks: Sequence[tuple[str, MapChecks]]) -> str:
    """Returns the section on heat maps of networks of whole images; nothing where none was checked."""
    if not checks:
        return ""
    rows = [["check", *(seed for seed, _ in checks)]]
    for name in ("lungs", "pointing", "border"):
        found = [verdict for _, record in checks for verdict in record.checks if verdict.check.name == name]
        # an earlier version knew fewer checks
        if len(found) == len(checks):
            rows.append([found[0].check.title, *(f"{verdict.word}: {verdict.told}" for verdict in found)])
    return f"""
### Heat maps of networks of whole radiographs, by the masks

On {checks[0][1].images:,} validation images a network, Grad-CAM of the called class. `explain --check` says how each is
judged.

{markdown_table(rows)}
"""


def figure(study: Study) -> Figure:
    """Returns ROC-AUC on test with its interval, of what each arm sees."""
    with styled():
        drawn = new_figure(6.5, 2.8)
        axes = drawn.subplots()
        for place, arm in enumerate(study.arms):
            mean, ends = arm.roc_auc.mean, arm.roc_auc.interval
            reach = [[mean - ends.low], [ends.high - mean]] if ends else None
            colour = ORANGE if arm.region in WITHOUT_LUNGS else BLUE
            axes.errorbar(mean, place, xerr=reach, color=colour, fmt="o", markersize=6, elinewidth=1.5)
        reference = next(arm for arm in study.arms if arm.region == REFERENCE)
        axes.axvline(reference.roc_auc.mean, color="0.6", linestyle=":", linewidth=1)
        axes.set_yticks(range(len(study.arms)), [TITLES[arm.region] for arm in study.arms])
        axes.margins(y=0.15)
        axes.invert_yaxis()
        axes.set_xlabel("ROC-AUC on test, 95 % interval")
    return drawn


def table(study: Study) -> str:
    """Returns the figures of the arms as CSV."""
    names = ["region", "seeds", "roc_auc", "low", "high", "difference", "difference_low", "difference_high"]
    rows = [[*names, "roc_auc_on_validation", *(f"{name}_at_rule" for name in AT_RULE), "accuracy_at_half"]]
    for arm in study.arms:
        own, found = arm.roc_auc.interval, arm.difference
        ends = found.ends if found else None
        rows.append(
            [
                arm.region,
                arm.seeds,
                arm.roc_auc.mean,
                *((own.low, own.high) if own else ("", "")),
                found.difference if found else "",
                *((ends.low, ends.high) if ends else ("", "")),
                arm.on_validation,
                *("" if summary is None else summary.mean for summary in arm.at_rule),
                arm.accuracy_at_half.mean,
            ]
        )
    return csv_text(rows)


def main(arguments: Sequence[str]) -> None:
    """Writes the page and the table; UserError if they cannot be made."""
    folder = Path(arguments[0]) if arguments else ROOT / "results" / "shortcuts"
    resamples = confidence_of(*arguments[1:2]).resamples
    study = read_study(folder, resamples)
    write_text(folder / "shortcuts.csv", table(study))
    write_block(folder / "README.md", BLOCK, page(study, resamples), title="Shortcuts, measured with lung masks")
    for path in (*save(figure(study), folder, "shortcuts"), folder / "shortcuts.csv", folder / "README.md"):
        print(f"Written: {path}")


if __name__ == "__main__":
    run_script(main)
