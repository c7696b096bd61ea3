#!/usr/bin/env python
"""Writes the page, the tables and the figure of the study of degraded films from its stored records.

    .venv/bin/python scripts/write_degraded.py                      # of results/networks
    .venv/bin/python scripts/write_degraded.py FOLDER [RESAMPLES]

FOLDER holds what `cxr-jax publish runs/networks/*/seed? runs/base_again --out FOLDER` puts there; the fine-tuned
networks are read from its `networks`. All are compared with `base_again` on degraded films. Uncertain calls of `base`
are those of networks/base; results/networks takes these over from results/continued. FOLDER gets a block in
`README.md`, `degraded.csv`, `uncertain.csv`, and `degraded` as PNG and SVG. docs/registered/degraded.md is the plan.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cxr_jax.errors import UserError, run_script
from cxr_jax.evaluation.confidence import Confidence, confidence_of
from cxr_jax.evaluation.intervals import Interval
from cxr_jax.evaluation.judged_sets import SetsOf, Uncertainty, read_uncertainty
from cxr_jax.evaluation.measures import Measured
from cxr_jax.evaluation.numbers import TO, interval_text, number_text, range_text, with_interval
from cxr_jax.evaluation.robustness import Robustness, mean_error, read_robustness, with_wrong_calls
from cxr_jax.reporting.comparison_cells import NOTHING
from cxr_jax.reporting.style import BLUE, GREEN, GREY, INK, ORANGE, SKY, new_figure, save, styled
from cxr_jax.reporting.tables import markdown_table, write_block
from cxr_jax.runs.description import read_description
from cxr_jax.runs.files import csv_text, write_text
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.ledger import read_looks
from cxr_jax.runs.predictions import read_predictions
from cxr_jax.runs.recipes import find_recipes
from cxr_jax.vocabulary import DISCLAIMER

ROOT = Path(__file__).resolve().parent.parent
ORIGIN = ROOT / "results" / "continued" / "origin"
"""Runs of `base` that the study of networks takes over from another one."""

REFERENCE, AGAIN = "base", "base_again"
BLOCK = "study of degraded films"
"""Name of the marks around what is written in the README; the text outside stays."""

PROMISED = 0.05
"""The error rate of the sets, for each class, that the page tells of."""

MOST_UNLIKE = 0.05
"""Share of the test images as they are that may lie beyond the limit of the features."""

ROWS = ("NORMAL", "PNEUMONIA", "bacteria", "virus")
COLOURS = (INK, BLUE, ORANGE, GREEN, SKY, GREY)
RATES = ("roc_auc", "sensitivity", "specificity", "covered", "uncertain", "unlike")


@dataclass(frozen=True)
class Degraded:
    """A network on degraded films: its record, and the difference to the reference in an interval for all networks."""

    arm: str
    network: str
    record: Robustness
    widened: Interval | None  # of the mean error less the reference's; None of the reference itself

    def mean(self, rate: str) -> float | None:
        """Returns the mean of a rate over all levels; None where it is not measured."""
        found = [getattr(level, rate) for level in self.record.levels]
        return None if None in found else statistics.fmean(each.value for each in found)


@dataclass(frozen=True)
class Study:
    """What the page tells."""

    degraded: tuple[Degraded, ...]  # the reference first, then the smallest mean error first
    uncertain: dict[str, tuple[Uncertainty, ...]]  # by arm, of each seed
    same_reference: bool  # whether the reference is the network whose figures on test as it is are published


def read_study(folder: Path, resamples: int) -> Study:
    """Returns what is published in `folder`; the runs of `base` are those of `ORIGIN`, where it has none itself.

    Raises:
        UserError: the reference was not measured on degraded films or has no look at test, or a record is damaged.
    """
    reference = RunFolder(folder / AGAIN)
    if not reference.robustness_of("test").is_file():
        raise UserError(f"{reference.path} has no record of degraded films of test: measure and publish it first")
    given = [] if (folder / "networks" / REFERENCE).is_dir() else [f"{REFERENCE}={ORIGIN}"]
    arms = {files.name: files.paths for files in find_recipes([*given, str(folder / "networks")])}
    runs = {name: RunFolder(paths[0]) for name, paths in arms.items() if name != REFERENCE}
    measured = {name: run for name, run in runs.items() if run.robustness_of("test").is_file()}
    base = read_robustness(reference.robustness_of("test"))
    level = 1 - 0.05 / max(1, len(measured))
    others = [_degraded(name, run, base, Confidence(level, resamples)) for name, run in measured.items()]
    first = Degraded(REFERENCE, read_description(reference).architecture, base, None)
    uncertain = {name: tuple(read_uncertainty(RunFolder(path).uncertainty) for path in arms[name]) for name in arms}
    looks = read_looks(RunFolder(arms[REFERENCE][0]))
    if not looks:
        raise UserError(f"{arms[REFERENCE][0]} has no look at test in its ledger: publish it again")
    published = looks[0]["checkpoint_sha256"]
    ordered = sorted(others, key=lambda each: each.record.mean_error or 0)
    return Study((first, *ordered), uncertain, published == base.checkpoint_sha256)


def _degraded(name: str, run: RunFolder, base: Robustness, confidence: Confidence) -> Degraded:
    record, images = read_robustness(run.robustness_of("test")), read_predictions(run.predictions_of("test"))
    wrong = np.array([record.wrong[file] for file in images.file])
    less = with_wrong_calls(record, images, wrong, base, confidence).less_reference
    return Degraded(name, read_description(run).architecture, record, less.interval if less else None)


def told_errors(degraded: Sequence[Degraded]) -> list[str]:
    """Returns whether each network loses more or less than the reference, by the interval for all networks."""
    told = []
    for each in degraded[1:]:
        if each.widened is None or each.record.less_reference is None:
            told.append(f"{each.network} cannot be compared with the reference.")
            continue
        less = f"{with_interval(each.record.less_reference.value, each.widened, '+.1f', 100, word=TO)} points"
        if each.widened.low <= 0 <= each.widened.high:
            told.append(f"{each.network}: no difference to {degraded[0].network} is shown, {less}.")
        else:
            word = "more" if each.widened.low > 0 else "fewer"
            told.append(f"**{each.network} makes {word} errors than {degraded[0].network}**, {less}.")
    return told


def is_broken(rows: Sequence[SetsOf]) -> bool:
    """Returns True where coverage lies below its promise on average, and in every seed with its interval."""
    ends = [row.covered.interval for row in rows]
    below = all(interval is not None and interval.high < 1 - PROMISED for interval in ends)
    return below and statistics.fmean(row.covered.value for row in rows) < 1 - PROMISED


def told_promise(uncertain: dict[str, tuple[Uncertainty, ...]]) -> list[str]:
    """Returns for each class in which networks the promise is broken."""
    told = []
    for name in ROWS[:2]:
        broken = [arm for arm, seeds in uncertain.items() if is_broken(_rows(seeds, name))]
        where = f"broken by {', '.join(broken)}" if broken else "not shown to be broken by any network"
        told.append(f"For {name} it is {where}.")
    return told


def _rows(seeds: Sequence[Uncertainty], name: str, error_rate: float = PROMISED) -> list[SetsOf]:
    return [seed.at(error_rate).of(name) for seed in seeds]


def page(study: Study) -> str:
    """Returns the page as Markdown."""
    base = study.degraded[0]
    same = "It is the same network as the published one." if study.same_reference else "**It is another network.**"
    unlike = [each for each in study.degraded if each.record.clean.unlike is not None]
    above = [each.network for each in unlike if each.record.clean.unlike.value > MOST_UNLIKE]
    warned = f"More than that are beyond it for {', '.join(above)}." if above else "No network has more."
    return f"""## Degraded films

The plan was [registered](../../docs/registered/degraded.md) before a network was shown a degraded film of test. One
network each, of seed 0: {base.record.images} test images, as they are and degraded in {len(base.record.kinds)} ways at
five severities each, called at the threshold for 97.5 % sensitivity on validation. The error is 1 minus balanced
accuracy. `base` was trained again, because its weights were not kept. {same}

{" ".join(told_errors(study.degraded))}

The intervals in these sentences are for other patients, and are widened for {max(1, len(study.degraded) - 1)}
comparisons (Bonferroni); those of the table are 95 %. One seed stands for each network: nothing is said of other seeds.

![Mean error by severity](degraded.png)

{markdown_table(_error_rows(study.degraded))}
The mean corruption error is relative to `base` (Hendrycks and Dietterich 2019). Mean error by kind, in per cent:

{markdown_table(_kind_rows(study.degraded))}
### Calls that are left open

A call is uncertain where the class called is not the only possible one at the error rate of {100 * PROMISED:g} %
([how](../../docs/uncertainty.md)). Promised are {100 - 100 * PROMISED:g} % of each class covered, on films like those
of validation. The official test images are not like them. {" ".join(told_promise(study.uncertain))}

On test as it is, per cent, the mean over seeds and their range. "Wrong" is called wrongly without the word uncertain:

{markdown_table(_uncertain_rows(study.uncertain))}
On degraded films, per cent of all images, the mean over kinds and severities. "Unlike" is beyond the limit of the
features:

{markdown_table(_doubt_rows(study.degraded))}
At most {100 * MOST_UNLIKE:g} % of the test images as they are should be beyond the limit of the features. {warned}

Other error rates stand in `uncertain.csv`, and every level in `degraded.csv`. This block is written by
`scripts/write_degraded.py`.

{DISCLAIMER}"""


def _error_rows(degraded: Sequence[Degraded]) -> list[list[str]]:
    header = [
        "arm",
        "network",
        "error as they are, %",
        "mean error, %",
        "less that of `base`",
        "mean corruption error, %",
    ]
    rows = [header]
    for each in degraded:
        record = each.record
        mean = with_interval(record.mean_error, record.mean_error_interval, ".1f", 100, word=TO)
        less, relative = record.less_reference, record.mean_corruption_error
        more = NOTHING if less is None else with_interval(less.value, less.interval, "+.1f", 100, word=TO)
        share = NOTHING if relative is None else number_text(relative, ".0f", 100)
        rows.append([each.arm, each.network, number_text(record.clean.error, ".1f", 100), mean, more, share])
    return rows


def _kind_rows(degraded: Sequence[Degraded]) -> list[list[str]]:
    kinds = degraded[0].record.kinds
    worst_first = sorted(kinds, key=lambda kind: -degraded[0].record.error_of(kind))
    header = ["", *(each.arm for each in degraded)]
    rows = [[kind, *(number_text(each.record.error_of(kind), ".1f", 100) for each in degraded)] for kind in worst_first]
    return [header, *rows]


def _uncertain_rows(uncertain: dict[str, tuple[Uncertainty, ...]]) -> list[list[str]]:
    rows = [["arm", "images", "covered", "uncertain", "wrong"]]
    for arm, seeds in uncertain.items():
        for name in ROWS:
            found = _rows(seeds, name)
            shares = [_over_seeds([getattr(row, column) for row in found]) for column in rows[0][2:]]
            rows.append([arm, name, *shares])
    return rows


def _over_seeds(measured: Sequence[Measured]) -> str:
    values = [each.value for each in measured]
    mean = number_text(statistics.fmean(values), ".1f", 100)
    return mean if len(values) == 1 else f"{mean} ({range_text(min(values), max(values), '.1f', 100, word=TO)})"


def _doubt_rows(degraded: Sequence[Degraded]) -> list[list[str]]:
    shown = ("covered", "uncertain", "unlike")
    rows = [["arm", *(f"{rate}, {how}" for rate in shown for how in ("as they are", "degraded"))]]
    for each in degraded:
        row = [each.arm]
        for rate in shown:
            clean, mean = getattr(each.record.clean, rate), each.mean(rate)
            if clean is None or mean is None:
                row += [NOTHING, NOTHING]
            else:
                interval = interval_text(clean.interval, ".1f", 100, word=TO)
                row += [f"{number_text(clean.value, '.1f', 100)} {interval}".rstrip(), number_text(mean, ".1f", 100)]
        rows.append(row)
    return rows


def degraded_table(degraded: Sequence[Degraded]) -> str:
    """Returns every level of every network as CSV."""
    rows: list[list[object]] = [["arm", "network", "kind", "severity", "error", *RATES]]
    for each in degraded:
        for level in (each.record.clean, *each.record.levels):
            rates = [getattr(level, rate) for rate in RATES]
            values = [None if rate is None else rate.value for rate in rates]
            rows.append([each.arm, each.network, level.kind, level.severity, level.error, *values])
    return csv_text(rows)


def uncertain_table(uncertain: dict[str, tuple[Uncertainty, ...]]) -> str:
    """Returns coverage, uncertain and wrong calls at every error rate as CSV, one row for a seed and some images."""
    rows: list[list[object]] = [["arm", "seed", "error_rate", "of", "images", "covered", "uncertain", "wrong"]]
    for arm, seeds in uncertain.items():
        for seed, found in enumerate(seeds):
            for judged in found.test:
                for row in judged.rows:
                    shares = [row.covered.value, row.uncertain.value, row.wrong.value]
                    rows.append([arm, seed, judged.error_rate, row.name, row.images, *shares])
    return csv_text(rows)


def figure(degraded: Sequence[Degraded]) -> Figure:
    """Returns the error of every network over severity, the mean over kinds; severity 0 are the images as they are."""
    with styled():
        drawn = new_figure(5.2, 4.2)
        axes = drawn.subplots()
        for each, colour in zip(degraded, COLOURS, strict=False):
            severities = sorted({level.severity for level in each.record.levels})
            levels = each.record.levels
            errors = [mean_error([level for level in levels if level.severity == number]) for number in severities]
            style = "-" if each.arm == REFERENCE else "--"
            values = [each.record.clean.error, *errors]
            axes.plot([0, *severities], values, style, marker="o", markersize=4, color=colour, label=each.network)
        axes.set(xlabel="severity, mean over kinds; 0: as they are", ylabel="1 minus balanced accuracy", ylim=(0, None))
        drawn.legend(loc="outside lower center", ncols=2)
    return drawn


def main(arguments: Sequence[str]) -> None:
    """Writes the page, the tables and the figure; UserError if they cannot be made."""
    folder = Path(arguments[0]) if arguments else ROOT / "results" / "networks"
    study = read_study(folder, confidence_of(*arguments[1:2]).resamples)
    written = [*save(figure(study.degraded), folder, "degraded")]
    for name, text in (
        ("degraded.csv", degraded_table(study.degraded)),
        ("uncertain.csv", uncertain_table(study.uncertain)),
    ):
        write_text(folder / name, text)
        written.append(folder / name)
    write_block(folder / "README.md", BLOCK, page(study), title="The study of networks")
    for path in (*written, folder / "README.md"):
        print(f"Written: {path}")


if __name__ == "__main__":
    run_script(main)
