#!/usr/bin/env python
"""Writes the page, the table and the figure of the study of networks from its stored records.

    .venv/bin/python scripts/write_networks.py                      # of results/networks
    .venv/bin/python scripts/write_networks.py FOLDER [RESAMPLES]

FOLDER holds what `cxr-jax publish runs/networks*/*/seed? --out FOLDER` puts there, and in `costs` the files of
`cxr-jax bench --json`. Its networks/base is the reference; results/networks takes that over from results/continued.
It gets a block in `README.md`, `networks.csv`, and `auc_against_cost` as PNG and SVG. What is not measured yet is left
out and named. docs/registered/networks.md is the plan.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from cxr_jax.errors import UserError, run_script
from cxr_jax.evaluation.comparison import compare
from cxr_jax.evaluation.comparison_record import Answer, Comparison, EndpointSummary
from cxr_jax.evaluation.confidence import Confidence, confidence_of
from cxr_jax.evaluation.numbers import number_text
from cxr_jax.reporting.comparison_cells import NOTHING, difference_text, mean_text
from cxr_jax.reporting.recipe_records import RecipeRecord, read_recipe
from cxr_jax.reporting.style import BLUE, GREEN, GREY, ORANGE, new_figure, save, styled
from cxr_jax.reporting.tables import markdown_table, write_block
from cxr_jax.runs.files import csv_text, write_text
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.recipes import RecipeFiles, find_recipes
from cxr_jax.sweeps.sweep import read_sweep
from cxr_jax.vocabulary import DISCLAIMER

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = "networks/base"
ORIGIN = ROOT / "results" / "continued" / "origin"
"""Runs of the reference's config that the study takes over from another one, as its registration says."""

KINDS = {"networks": "fine-tuned", "networks_scratch": "from scratch", "networks_probes": "probe"}
LOOKS = {"fine-tuned": (BLUE, "o"), "from scratch": (ORANGE, "s"), "probe": (GREEN, "^")}
MARGIN = 0.005
"""Of ROC-AUC, within which a network counts as good as the best: the registration's."""

BLOCK = "study of networks"
"""Name of the marks around what is written in the README; the text outside stays."""

SPEEDS = [(work, threads) for work in ("train", "inference") for threads in (1, 2)]

_NAMES_APART = 0.035
"""How far apart the names above the figure stand at least, as a share of its width."""


@dataclass(frozen=True)
class Arm:
    """One row: what an arm reached on test, and what it costs; None where that is not measured."""

    name: str
    kind: str
    network: str
    pixels: int
    seeds: int
    roc_auc: EndpointSummary
    accuracy_at_rule: EndpointSummary | None
    specificity_at_rule: EndpointSummary | None
    accuracy_at_half: EndpointSummary
    difference: Answer | None  # of ROC-AUC to the reference
    parameters: int | None
    multiply_adds: float | None
    minutes: float | None
    machine: str | None  # that it was trained on
    speeds: dict[tuple[str, int], float]  # images a second, by work and cores
    peak_memory: float | None  # bytes, of the training process on the most cores

    @property
    def title(self) -> str:
        """What the tables call it: `base` is another network in every sweep."""
        return f"{self.network.split()[0] if self.name == 'base' else self.name}, {self.kind}"


def read_arms(folder: Path, resamples: int, taken_over: Path | None = None) -> list[Arm]:
    """Returns every arm that is published in `folder`, the highest ROC-AUC of a kind first.

    The runs of the reference are those at `taken_over`, where that is given.

    Raises:
        UserError: there is none, the reference is not among them, or a record is damaged.
    """
    found = {kind: _recipes(folder, kind) for kind in KINDS if (folder / kind).is_dir()}
    if taken_over is not None:
        found["networks"] = [*find_recipes([f"{REFERENCE}={taken_over}"]), *found.get("networks", ())]
    records = {kind: [read_recipe(files) for files in recipes] for kind, recipes in found.items()}
    base = next((record for record in records.get("networks", ()) if record.recipe.name == REFERENCE), None)
    if base is None:
        raise UserError(f"{folder} holds no runs of {REFERENCE}, with which all are compared: publish them first")
    speeds, memory = _measured(folder / "costs")
    arms = []
    # networks with weights among themselves, all others in a comparison of their own: as registered
    others = [record for kind in KINDS if kind != "networks" for record in records.get(kind, ())]
    for members in (records["networks"], [base, *others]):
        compared = compare([record.recipe for record in members], Confidence(resamples=resamples), reference=REFERENCE)
        new = [record for record in members if record is not base or members is records["networks"]]
        arms += [_arm(record, compared, speeds, memory) for record in new]
    order = list(KINDS.values())
    return sorted(arms, key=lambda arm: (order.index(arm.kind), -arm.roc_auc.mean))


def _recipes(folder: Path, kind: str) -> list[RecipeFiles]:
    return [dataclasses.replace(files, name=f"{kind}/{files.name}") for files in find_recipes([str(folder / kind)])]


def _measured(folder: Path) -> tuple[dict[tuple, float], dict[tuple, float]]:
    """Returns images a second by network, pixels, work and cores, and peak memory of training in bytes alike."""
    speeds, memory = {}, {}
    for path in sorted(folder.glob("*.json")):
        for entry in json.loads(path.read_text(encoding="utf-8")).get("measurements", ()):
            case = entry["case"]
            if case["implementation"] != "cxr_jax" or "images_per_second" not in entry:
                continue
            key = (case["model"], case["image_size"], case["work"], entry["facts"]["cores"])
            speeds[key], memory[key] = entry["images_per_second"], entry["peak_memory_bytes"]
    return speeds, memory


def _arm(record: RecipeRecord, compared: Comparison, speeds: Mapping, memory: Mapping) -> Arm:
    name = record.recipe.name
    summary = compared.recipes[name].endpoints
    network = read_json(RunFolder(record.paths[0]).network)
    which = (network["architecture"], network["image_size"])
    pair = next((pair for pair in compared.pairs if pair.first == name), None)
    trained = [bytes_ for threads in (2, 1) if (bytes_ := memory.get((*which, "train", threads))) is not None]
    return Arm(
        name=name.partition("/")[2],
        kind=KINDS[name.partition("/")[0]],
        network=f"{which[0]} up to {network['until']}" if network.get("until") else which[0],
        pixels=which[1],
        seeds=compared.recipes[name].seeds,
        roc_auc=summary["roc_auc"],
        accuracy_at_rule=summary.get("accuracy@rule"),
        specificity_at_rule=summary.get("specificity@rule"),
        accuracy_at_half=summary["accuracy@half"],
        difference=pair.endpoints["roc_auc"] if pair else None,
        parameters=record.costs.parameters,
        multiply_adds=record.costs.multiply_adds,
        minutes=record.costs.minutes,
        machine=record.costs.machine,
        speeds={speed: speeds[(*which, *speed)] for speed in SPEEDS if (*which, *speed) in speeds},
        peak_memory=next(iter(trained), None),
    )


def missing_arms(arms: Sequence[Arm]) -> list[str]:
    """Returns what the registered sweeps name and `arms` lack: arms, and seeds of arms."""
    there = {(arm.kind, arm.name): arm.seeds for arm in arms}
    lacking = []
    for sweep, kind in KINDS.items():
        planned = read_sweep(ROOT / "configs" / "sweeps" / f"{sweep}.toml")
        for variant in planned.variants:
            seeds = there.get((kind, variant.name), 0)
            if seeds < len(planned.seeds):
                lacking.append(f"{variant.name} ({kind}{f', {seeds} of {len(planned.seeds)} seeds' if seeds else ''})")
    return lacking


def answer(arms: Sequence[Arm], lacking: Sequence[str]) -> str:
    """Returns what the registered rule recommends; where arms or speeds lack, that it cannot be said yet."""
    tuned = [arm for arm in arms if arm.kind == "fine-tuned"]
    if any("fine-tuned" in entry for entry in lacking):
        return "The question cannot be answered yet: arms of the fine-tuned networks are missing."
    best = max(tuned, key=lambda arm: arm.roc_auc.mean)
    near = [arm for arm in tuned if best.roc_auc.mean - arm.roc_auc.mean <= MARGIN]
    slow = [arm.network for arm in near if ("inference", 2) not in arm.speeds]
    if slow:
        return f"The question cannot be answered yet: the speed of inference is missing for {', '.join(slow)}."
    chosen = max(near, key=lambda arm: arm.speeds["inference", 2])
    names = ", ".join(arm.network for arm in near)
    return (
        f"Take **{chosen.network}** at {chosen.pixels} pixels. Its ROC-AUC is {_auc(chosen.roc_auc)}; the highest, of "
        f"{best.network}, is {_auc(best.roc_auc)}. Within {MARGIN:g} of the highest are {names}, and of these it "
        f"predicts the most images a second on two cores, {chosen.speeds['inference', 2]:.0f}."
    )


def measured_where(folder: Path) -> str:
    """Returns where and when the speeds in `folder` were measured, as a clause; empty without any."""
    environments = [read_json(path)["environment"] for path in sorted(folder.glob("*.json"))]
    processors = ", ".join(sorted({each["machine"]["processor"] for each in environments}))
    days = ", ".join(sorted({each["date"][:10] for each in environments}))
    return f" ([records](costs): {processors}, {days})" if environments else ""


def page(arms: Sequence[Arm], resamples: int, where: str = "") -> str:
    """Returns the page as Markdown; `where` is what `measured_where` returns."""
    lacking = missing_arms(arms)
    told = f"Not measured yet: {', '.join(lacking)}.\n\n" if lacking else ""
    results = ["arm", "network", "px", "seeds", "ROC-AUC", "minus MobileNetV2", "accuracy at the rule, %"]
    results += ["specificity at the rule, %", "accuracy at 0.5, %"]
    costs = [
        "arm",
        "parameters",
        "multiply-adds",
        "training, images/s, 1 / 2 cores",
        "inference, images/s, 1 / 2 cores",
    ]
    costs += ["peak memory", "minutes a run", "on"]
    return f"""## Which network should I use?

{answer(arms, lacking)}

![ROC-AUC on test against multiply-adds](auc_against_cost.png)

The plan was [registered](../../docs/registered/networks.md) before training. Official test images; the mean over seeds
± standard deviation, and the 95 % interval for other patients and, with several seeds, for other seeds. "The rule" sets
the threshold for 97.5 % sensitivity on validation; its intervals draw validation anew too. Differences are to
MobileNetV2 (`base` of the fine-tuned), p-values corrected by Holm: fine-tuned networks together, all others together.
{resamples:,} resamples at least. This block is written by `scripts/write_networks.py`.

{told}### On test

{markdown_table([results, *map(_result_row, arms)])}
### Costs

{markdown_table([costs, *map(_cost_row, arms)])}
Parameters with two classes; multiply-adds of one forward pass. Speed and peak memory are of `cxr-jax bench`{where}:
training in bfloat16, all layers, and inference in float32, 32 images a step. Minutes are of a run with its
validations, on the machine named behind them, which was busy, on one core or more: they say what happened, and do not
compare networks.

{DISCLAIMER}"""


def _result_row(arm: Arm) -> list[str]:
    shares = [_share(value) for value in (arm.accuracy_at_rule, arm.specificity_at_rule, arm.accuracy_at_half)]
    own = [arm.title, arm.network, str(arm.pixels), str(arm.seeds)]
    return [*own, _auc(arm.roc_auc), NOTHING if arm.difference is None else difference_text(arm.difference), *shares]


def _cost_row(arm: Arm) -> list[str]:
    def pair(work: str) -> str:
        return " / ".join(_number(arm.speeds.get((work, threads)), ".1f") for threads in (1, 2))

    return [
        arm.title,
        _number(arm.parameters, ".2f", 1e-6, " M"),
        _number(arm.multiply_adds, ".2f", 1e-9, " G"),
        pair("train"),
        pair("inference"),
        _number(arm.peak_memory, ".1f", 1e-9, " GB"),
        _number(arm.minutes, ".1f"),
        arm.machine or NOTHING,
    ]


def _number(value: float | None, form: str, factor: float = 1, unit: str = "") -> str:
    return NOTHING if value is None else number_text(value, form, factor) + unit


def _auc(summary: EndpointSummary) -> str:
    return mean_text(summary, ".3f", 1)


def _share(summary: EndpointSummary | None) -> str:
    return NOTHING if summary is None else mean_text(summary, ".1f", 100)


def table(arms: Sequence[Arm]) -> str:
    """Returns every figure of the page as CSV."""
    names = ["arm", "kind", "network", "pixels", "seeds"]
    names += ["parameters", "multiply_adds", "minutes", "machine", "peak_memory"]
    measures = ["roc_auc", "accuracy_at_rule", "specificity_at_rule", "accuracy_at_half"]
    speeds = [f"{work}_{threads}" for work, threads in SPEEDS]
    ends = [f"{measure}{end}" for measure in measures for end in ("", "_low", "_high")]
    rows = [[*names, *ends, *speeds]]
    for arm in arms:
        own = [arm.name, *(getattr(arm, name) for name in names[1:])]
        values: list[Any] = []
        for summary in (getattr(arm, measure) for measure in measures):
            interval = summary.interval if summary else None
            values += [
                summary.mean if summary else None,
                *((interval.low, interval.high) if interval else (None, None)),
            ]
        rows.append([*own, *values, *(arm.speeds.get(speed) for speed in SPEEDS)])
    return csv_text(rows)


def figure(arms: Sequence[Arm]) -> Figure:
    """Returns ROC-AUC with its interval over the multiply-adds of one image, of every arm whose cost is known."""
    with styled():
        drawn = new_figure(6.5, 4.6)
        axes = drawn.subplots()
        for kind, (colour, marker) in LOOKS.items():
            shown = [arm for arm in arms if arm.kind == kind and arm.multiply_adds is not None]
            for number, arm in enumerate(shown):
                # a probe costs what its network costs, and stands a little beside it
                x = arm.multiply_adds / 1e9 * (1.05 if kind == "probe" else 1)
                y, interval = arm.roc_auc.mean, arm.roc_auc.interval
                reach = [[y - interval.low], [interval.high - y]] if interval else None
                label = kind if number == 0 else None
                axes.errorbar(x, y, reach, color=colour, fmt=marker, markersize=6, elinewidth=1, label=label)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("Multiply-adds of one image, billions")
        axes.set_ylabel("ROC-AUC on test, 95 % interval")
        axes.margins(x=0.08)
        _name_networks(axes, arms)
        drawn.legend(loc="outside lower center", ncols=len(LOOKS))
    return drawn


def _name_networks(axes: Axes, arms: Sequence[Arm]) -> None:
    """Writes the networks' names above the axes, each over its multiply-adds, moved apart where they are too near."""
    costs = {arm.network.partition(" ")[0]: arm.multiply_adds / 1e9 for arm in arms if arm.multiply_adds is not None}
    to_axes = axes.transData + axes.transAxes.inverted()
    place = -math.inf
    for name, cost in sorted(costs.items(), key=lambda entry: entry[1]):
        x = to_axes.transform((cost, axes.get_ylim()[0]))[0]
        place = max(x, place + _NAMES_APART)
        axes.plot([x, place], [1, 1.03], color=GREY, linewidth=0.6, transform=axes.transAxes, clip_on=False)
        axes.text(place, 1.04, name, rotation=50, fontsize=8, rotation_mode="anchor", transform=axes.transAxes)


def main(arguments: Sequence[str]) -> None:
    """Writes the page, the table and the figure; UserError if they cannot be made."""
    folder = Path(arguments[0]) if arguments else ROOT / "results" / "networks"
    resamples = confidence_of(*arguments[1:2]).resamples
    arms = read_arms(folder, resamples, None if arguments else ORIGIN)
    written = [*save(figure(arms), folder, "auc_against_cost"), folder / "networks.csv", folder / "README.md"]
    write_text(folder / "networks.csv", table(arms))
    told = page(arms, resamples, measured_where(folder / "costs"))
    write_block(folder / "README.md", BLOCK, told, title="The study of networks")
    for path in written:
        print(f"Written: {path}")


if __name__ == "__main__":
    run_script(main)
