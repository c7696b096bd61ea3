#!/usr/bin/env python
"""Writes the page of the registered study of the best accuracy from its stored records.

    .venv/bin/python scripts/write_best_study.py                                # of results/best_study
    .venv/bin/python scripts/write_best_study.py FOLDER [RESAMPLES]

FOLDER holds what `cxr-jax publish` makes of the arms' ensembles (`ARM/ensemble`), of the networks of their folds
(`ARM/fold?/seed0`) and of the ablation (`factors/VARIANT/seed?`). It gets `comparison.json`, that of the ablation in
`factors`, `alignment.json`, and in its `README.md` one block for each table; the text around them stays. What is not
measured yet is named. The plan is docs/registered/best.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cxr_jax.errors import UserError, run_script
from cxr_jax.evaluation.alignment import ASSUMPTION, SHOWN, AlignedCalls, judge_aligned
from cxr_jax.evaluation.comparison import compare
from cxr_jax.evaluation.comparison_record import Comparison, Pair, write_comparison
from cxr_jax.evaluation.confidence import Confidence, confidence_of
from cxr_jax.evaluation.intervals import Interval
from cxr_jax.evaluation.judged_sets import JudgedSets, read_uncertainty
from cxr_jax.evaluation.judgement import JudgedSplit, Judgement, read_judgement
from cxr_jax.evaluation.measures import Measured
from cxr_jax.evaluation.numbers import TO, number_text, with_deviation, with_interval
from cxr_jax.evaluation.seeds import spread
from cxr_jax.reporting.comparison_cells import NOTHING, difference_text, threshold_text
from cxr_jax.reporting.recipe_records import read_recipe
from cxr_jax.reporting.tables import looks_and_minutes, markdown_table, write_block
from cxr_jax.runs.files import write_json
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.predictions import read_predictions
from cxr_jax.runs.recipes import RecipeFiles, find_recipes
from cxr_jax.runs.records import fields_to_json
from cxr_jax.sweeps.sweep import read_sweep
from cxr_jax.vocabulary import CLASS_NAMES

ROOT = Path(__file__).resolve().parent.parent
FIRST, CONTROL = "a", "c"
"""The arm that the primary endpoint is about, and the one that it is compared with."""

TITLES = {
    "a": "wide crops",
    "b": "wide crops of the lungs' box",
    "c": "moderate crops, the recipe before",
    "d": "wide crops, sharpness-aware",
    "e": "networks of `a`, ten looks",
    "a_lite0": "wide crops, EfficientNet-Lite0",
}

FOLDS, ABLATION, COMPARISON = 5, "factors", "comparison.json"

Form = tuple[str, float]
AREA: Form = (".3f", 1)
POINTS: Form = (".1f", 100)
FIGURES: dict[str, tuple[str, Form]] = {
    "roc_auc": ("ROC-AUC", AREA),
    "balanced_accuracy": ("balanced accuracy, %", POINTS),
    "accuracy": ("accuracy, %", POINTS),
    "sensitivity": ("sensitivity, %", POINTS),
    "specificity": ("specificity, %", POINTS),
    "accuracy@half": ("accuracy at 0.5, %", POINTS),
}
"""Columns by the name of a figure: its title and form. Calls are at the threshold where nothing else is said."""

COMPARED = {
    "balanced_accuracy@rule": ("balanced accuracy, points", POINTS),
    "roc_auc": ("ROC-AUC", AREA),
    "accuracy@rule": ("accuracy, points", POINTS),
    "specificity@rule": ("specificity, points", POINTS),
    "accuracy@half": ("accuracy at 0.5, points", POINTS),
}

TARGETS = {"accuracy": (0.93, 0.95, 0.965), "roc_auc": (0.986, 0.990, 0.993), "specificity": (0.85, 0.90, 0.93)}
"""Floor, goal and moonshot; specificity counts where the sensitivity on test is at least `LEAST_SENSITIVITY`."""

LEVELS = ("floor", "goal", "moonshot")
LEAST_SENSITIVITY = 0.96
PREVALENCES = (0.625, 0.5, 0.742)
"""What is declared: the true share, half, and that of train."""

ERROR_RATE = 0.05


@dataclass(frozen=True)
class Arm:
    """What was measured of an arm: by its ensemble, its networks alone, aligned probabilities, and sets at 5 %."""

    name: str
    ensemble: Judgement
    alone: tuple[Judgement, ...]
    aligned: tuple[AlignedCalls, ...]
    sets: JudgedSets
    minutes: str


@dataclass(frozen=True)
class Study:
    """What the page tells: the arms, their differences to the control, and the ablation, as far as they are there."""

    arms: tuple[Arm, ...]
    compared: Comparison | None
    ablation: Comparison | None

    def arm(self, name: str) -> Arm | None:
        """Returns the arm of that name; None where it is not there."""
        return next((arm for arm in self.arms if arm.name == name), None)


def read_study(folder: Path, confidence: Confidence) -> Study:
    """Returns what is published in `folder`.

    Raises:
        UserError: no arm is there, the networks of an arm are not all there, or a record is damaged.
    """
    there = [name for name in TITLES if RunFolder(folder / name / "ensemble").evaluation.is_file()]
    if not there:
        raise UserError(f"{folder} holds no arm of the study: publish ARM/ensemble and ARM/fold?/seed0 there first")
    arms = tuple(_arm(folder, name, confidence) for name in there)
    compared = None
    if CONTROL in there and len(there) > 1:
        files = [RecipeFiles(name, (folder / name / "ensemble",)) for name in there]
        compared = compare([read_recipe(found).recipe for found in files], confidence, reference=CONTROL)
    ablation = None
    if (folder / ABLATION).is_dir():
        recipes = [read_recipe(found).recipe for found in find_recipes([str(folder / ABLATION)])]
        ablation = compare(recipes, confidence, reference="base")
    return Study(arms, compared, ablation)


def _arm(folder: Path, name: str, confidence: Confidence) -> Arm:
    run = RunFolder.open(folder / name / "ensemble")
    ensemble = read_judgement(run.evaluation)
    runs = [RunFolder(path) for path in sorted((folder / name).glob("fold?/seed0"))]
    if len(runs) != FOLDS:
        raise UserError(f"{folder / name} holds {len(runs)} of {FOLDS} networks: publish all of them")
    validation, test = (read_predictions(run.predictions_of(split)) for split in ("val", "test"))
    threshold = ensemble.operating_point.threshold
    aligned = [judge_aligned(validation, test, threshold, share, confidence) for share in PREVALENCES]
    sets = read_uncertainty(run.uncertainty).at(ERROR_RATE)
    alone = tuple(read_judgement(one.evaluation) for one in runs)
    return Arm(name, ensemble, alone, tuple(aligned), sets, looks_and_minutes(runs)[1])


def missing(study: Study) -> list[str]:
    """Returns what the registration names and the study lacks."""
    lacking = [f"arm `{name}`" for name in TITLES if study.arm(name) is None]
    planned = read_sweep(ROOT / "configs" / "sweeps" / "wide_crops_factors.toml")
    seeds = {name: summary.seeds for name, summary in study.ablation.recipes.items()} if study.ablation else {}
    short = {variant.name: seeds.get(variant.name, 0) for variant in planned.variants}
    short = {name: count for name, count in short.items() if count < len(planned.seeds)}
    told = [f"{name}: {count} of {len(planned.seeds)} seeds" if count else name for name, count in short.items()]
    return [*lacking, f"the ablation ({', '.join(told)})"] if told else lacking


def measured_of(judged: JudgedSplit) -> dict[str, Measured]:
    """Returns what was measured of the figures of `FIGURES` on a split."""
    at_half = judged.metrics if judged.at_one_half is None else judged.at_one_half.metrics
    return {name: judged.metrics[name] for name in FIGURES if "@" not in name} | {"accuracy@half": at_half["accuracy"]}


def figures_of(judged: JudgedSplit) -> dict[str, float]:
    """Returns the figures of `FIGURES` on a split."""
    return {name: found.value for name, found in measured_of(judged).items()}


def intervals_of(judgement: Judgement) -> dict[str, Interval | None]:
    """Returns the intervals of a judgement on test; at the threshold they hold for the rule that chose it."""
    ruled = {} if judgement.for_rule is None else judgement.for_rule.metrics
    return {name: ruled.get(name, found).interval for name, found in measured_of(judgement.test).items()}


def conclusion(study: Study) -> str:
    """Returns what the registration asks first: what arm `a` reaches, and whether that is more than the control."""
    arm = study.arm(FIRST)
    if arm is None:
        return "Nothing can be said yet: arm `a` is missing."
    value, ends = figures_of(arm.ensemble.test)["balanced_accuracy"], intervals_of(arm.ensemble)["balanced_accuracy"]
    told = f"**Arm `a` has a balanced accuracy of {with_interval(value, ends, *POINTS, word=TO)} %** at its threshold."
    pairs = study.compared.pairs if study.compared else ()
    answer = next((pair.endpoints.get("balanced_accuracy@rule") for pair in pairs if pair.first == FIRST), None)
    if answer is None or answer.ends is None:
        return f"{told} It cannot be compared with arm `c` yet."
    if answer.ends.low <= 0 <= answer.ends.high:
        verdict = "by this endpoint nobody can tell the two apart"
    else:
        verdict = f"it is {'better' if answer.ends.low > 0 else 'worse'} than the recipe before"
    return f"{told} Less that of arm `c`, in points: {difference_text(answer, '+.1f', 100)}. So {verdict}."


def reached(name: str, value: float, sensitivity: float) -> str:
    """Returns the highest target that a figure reaches: `floor`, `goal` or `moonshot`, or `none`."""
    if name == "specificity" and sensitivity < LEAST_SENSITIVITY:
        return f"none: sensitivity is below {LEAST_SENSITIVITY:.0%}"
    found = [level for level, target in zip(LEVELS, TARGETS[name], strict=True) if value >= target]
    return found[-1] if found else "none"


def blocks(study: Study) -> dict[str, str]:
    """Returns what is written between the marks of each name."""
    lacking = missing(study)
    told = f"\n\nNot measured yet: {', '.join(lacking)}." if lacking else ""
    tables = {
        "targets": _targets(study),
        "ensembles": _ensembles(study),
        "networks alone": _alone(study),
        "held-out images": _held_out(study),
        "differences": _pairs(study.compared) if study.compared else [],
        "thresholds": _shifted(study),
        "uncertain": _sets(study),
        "ablation": _ablation(study.ablation) if study.ablation else [],
    }
    return {"primary endpoint": conclusion(study) + told} | {
        name: markdown_table(rows) if rows else "Not measured yet." for name, rows in tables.items()
    }


def _targets(study: Study) -> list[list[str]]:
    arm = study.arm(FIRST)
    if arm is None:
        return []
    networks = [figures_of(one.test) for one in arm.alone]
    means = {name: spread([one[name] for one in networks]).mean for name in FIGURES}
    together = figures_of(arm.ensemble.test)
    rows = [["arm `a`", "mean of five networks", "reached", "ensemble", "reached", *LEVELS]]
    for name, targets in TARGETS.items():
        title, form = FIGURES[name]
        cells = []
        for values in (means, together):
            cells += [number_text(values[name], *form), reached(name, values[name], values["sensitivity"])]
        rows.append([title, *cells, *(number_text(target, *form) for target in targets)])
    return rows


def _name(arm: Arm) -> str:
    return f"`{arm.name}` {TITLES[arm.name]}"


def _titles() -> list[str]:
    return [title for title, _ in FIGURES.values()]


def _ensembles(study: Study) -> list[list[str]]:
    rows = [["arm", *_titles(), "threshold", "calibration error"]]
    for arm in study.arms:
        values, ends = figures_of(arm.ensemble.test), intervals_of(arm.ensemble)
        cells = [with_interval(values[name], ends[name], *form, word=TO) for name, (_, form) in FIGURES.items()]
        error = arm.ensemble.test.calibration.before.error("width", 10).value
        rows.append([_name(arm), *cells, threshold_text(arm.ensemble.operating_point.threshold), number_text(error)])
    return rows


def _alone(study: Study) -> list[list[str]]:
    rows = [["arm", *_titles(), "thresholds", "minutes"]]
    for arm in study.arms:
        values = [figures_of(one.test) for one in arm.alone]
        cells = [_spread([one[name] for one in values], form) for name, (_, form) in FIGURES.items()]
        thresholds = sorted(one.operating_point.threshold for one in arm.alone)
        ends = TO.join(threshold_text(value) for value in (thresholds[0], thresholds[-1]))
        rows.append([_name(arm), *cells, ends, arm.minutes])
    return rows


def _spread(values: Sequence[float], form: Form) -> str:
    found = spread(values)
    return with_deviation(found.mean, found.deviation, *form)


def _held_out(study: Study) -> list[list[str]]:
    first, *rest = _titles()
    rows = [["arm", f"{first} within folds", f"{first} together", *rest]]
    for arm in study.arms:
        values = figures_of(arm.ensemble.validation)
        areas = [one.validation.metrics["roc_auc"].value for one in arm.alone]
        rows.append(
            [
                _name(arm),
                _spread(areas, AREA),
                *(number_text(values[name], *form) for name, (_, form) in FIGURES.items()),
            ]
        )
    return rows


def _pairs(compared: Comparison) -> list[list[str]]:
    rows = [["", *(title for title, _ in COMPARED.values())]]
    for pair in compared.pairs:
        title = f"`{pair.first}` {TITLES.get(pair.first, '')}".strip()
        rows.append([title, *(_difference(pair, key, form) for key, (_, form) in COMPARED.items())])
    return rows


def _ablation(compared: Comparison) -> list[list[str]]:
    """The differences to `base`, below what it has itself."""
    head, *differences = _pairs(compared)
    own = ["`base` itself"]
    for key, (_, (form, scale)) in COMPARED.items():
        found = compared.recipes["base"].endpoints.get(key)
        own.append(NOTHING if found is None else with_deviation(found.mean, found.deviation, form, scale))
    return [head, own, *differences]


def _difference(pair: Pair, key: str, form: Form) -> str:
    found = pair.endpoints.get(key)
    return NOTHING if found is None else difference_text(found, f"+{form[0]}", form[1])


def _shifted(study: Study) -> list[list[str]]:
    rows = [["arm", "threshold", *(FIGURES[name][0] for name in SHOWN), "called, %"]]
    for arm in study.arms:
        test, name = arm.ensemble.test, _name(arm)
        called = sum(row[1] for row in test.confusion) / test.images
        values = figures_of(test)
        rows.append([name, "out of fold", *(_points(values[key]) for key in SHOWN), _points(called)])
        for calls in arm.aligned:
            cells = [with_interval(calls.metrics[key].value, calls.metrics[key].interval, *POINTS) for key in SHOWN]
            rows.append([name, f"aligned to {_points(calls.prevalence)} %", *cells, _points(calls.called)])
    return rows


def _sets(study: Study) -> list[list[str]]:
    rows = [["arm", "uncertain, %", "wrong, %", "covered, %", *(f"covered of {name}, %" for name in CLASS_NAMES)]]
    for arm in study.arms:
        whole = arm.sets.of("all")
        shares = [whole.uncertain, whole.wrong, whole.covered, *(arm.sets.of(name).covered for name in CLASS_NAMES)]
        rows.append([_name(arm), *(with_interval(share.value, share.interval, *POINTS) for share in shares)])
    return rows


def _points(share: float) -> str:
    return number_text(share, *POINTS)


def main(arguments: Sequence[str]) -> None:
    """Compares the arms and writes the page; UserError if it cannot be made."""
    folder = Path(arguments[0]) if arguments else ROOT / "results" / "best_study"
    study = read_study(folder, confidence_of(*arguments[1:2]))
    if study.compared is not None:
        write_comparison(folder / COMPARISON, study.compared)
    if study.ablation is not None:
        write_comparison(folder / ABLATION / COMPARISON, study.ablation)
    aligned = {arm.name: [fields_to_json(calls) for calls in arm.aligned] for arm in study.arms}
    write_json(folder / "alignment.json", {"assumption": ASSUMPTION, **aligned})
    for name, text in blocks(study).items():
        write_block(folder / "README.md", name, text, title="The best honest accuracy, second attempt")
    print(f"Written: {folder / 'README.md'}")


if __name__ == "__main__":
    run_script(main)
