"""The report of a run: one self-contained HTML file, made of what lies in the run folder and of nothing else.

It needs `evaluation.json`; every other file adds its section where it is there. Figures are inlined, so that the file
can be moved, opened offline and printed. Everything that comes from outside is escaped. Its one script, which nothing
from outside enters, tells what calls are worth at a prevalence of the reader's own; all else works without it.
"""

from __future__ import annotations

import datetime
import functools
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cxr_jax
from cxr_jax.evaluation.class_judgement import ClassJudgement, read_class_judgement
from cxr_jax.evaluation.conformal import ERROR_RATE, read_conformal
from cxr_jax.evaluation.judged_sets import read_uncertainty
from cxr_jax.evaluation.judgement import Judgement, judges_other_classes, read_judgement
from cxr_jax.evaluation.numbers import TO, interval_text, number_text, range_text
from cxr_jax.evaluation.operating_point import OperatingPoint
from cxr_jax.evaluation.probe_record import read_probe
from cxr_jax.evaluation.robustness import robustness_of, told_kinds
from cxr_jax.reporting.boxes import boxes_of, told_scores
from cxr_jax.reporting.change import change_contents
from cxr_jax.reporting.explanations import CAPTIONS as _EXPLANATIONS
from cxr_jax.reporting.explanations import explanations_of, number_texts
from cxr_jax.reporting.external import externals_of, told_recalibration
from cxr_jax.reporting.glossary import GLOSSARY
from cxr_jax.reporting.looks import told_together
from cxr_jax.reporting.occlusion import REGION_TITLES, occlusion_of
from cxr_jax.reporting.plain_words import told_calibration, told_rule
from cxr_jax.reporting.quality import quality_of
from cxr_jax.reporting.quality_figures import BASELINE_CAPTIONS, QUALITY_CAPTIONS
from cxr_jax.reporting.report_figures import (
    CALIBRATION,
    CALIBRATION_OF_CLASSES,
    CALIBRATION_OF_FINDINGS,
    DECISION,
    RESULTS,
    RESULTS_OF_CLASSES,
    RESULTS_OF_FINDINGS,
    TRAINING,
    figures_of,
    inlined,
    sheets_of,
)
from cxr_jax.reporting.robustness_figure import CAPTION as ROBUSTNESS_CAPTION
from cxr_jax.reporting.summary import outlook, summarise
from cxr_jax.reporting.training_time import images_per_second, wall_seconds
from cxr_jax.reporting.wording import counted, date_text, devices_text, duration_text, times
from cxr_jax.runs.ensemble import is_ensemble, read_ensemble
from cxr_jax.runs.files import write_text
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.ledger import look_of_predictions, read_looks
from cxr_jax.runs.metrics_log import read_metrics
from cxr_jax.runs.trained_on import OFFICIAL_TEST, told_films
from cxr_jax.vocabulary import DISCLAIMER

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_RULES = {
    "fixed": "fixed beforehand",
    "youden": "the largest sum of sensitivity and specificity on validation",
    "sensitivity": "the highest threshold that reaches the target sensitivity on validation",
    "cost_ratio": "the smallest cost on validation",
}


def write_report(run: RunFolder) -> Path:
    """Writes the run's report.html and return its path.

    Raises:
        UserError: evaluation.json is missing, or a file of the run is damaged or cannot be written.
    """
    write_text(run.report, render_report(run))
    return run.report


def write_report_anew(run: RunFolder) -> Path | None:
    """Writes the report again, so that it shows what is new, and returns its path; None if there was none."""
    return write_report(run) if run.report.is_file() and run.evaluation.is_file() else None


def render_report(run: RunFolder) -> str:
    """Returns the report of a run folder as HTML; UserError as in `write_report`."""
    if judges_other_classes(run.evaluation):
        return _environment().get_template("classes.html.jinja").render(_class_contents(run))
    return _environment().get_template("report.html.jinja").render(_contents(run))


@functools.cache
def _environment() -> Environment:
    """Returns what renders the templates, each of which it compiles once."""
    # jinja2 costs time to import, which only this function should pay.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("cxr_jax.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        count=lambda number: f"{number:,}",
        percent=lambda share: "undefined" if share is None else f"{share:.1%}",
        number=lambda value: "unknown" if value is None else f"{value:.4g}",
        counted=counted,
        css_text=_css_text,
        date=date_text,
        devices=devices_text,
        duration=duration_text,
        ends=lambda interval, form: range_text(interval.low, interval.high, form, word=TO),
        inlined=inlined,
        interval=interval_text,
        number_lines=number_texts,
        times=times,
        told_recalibration=told_recalibration,
        told_scores=told_scores,
        written=number_text,
    )
    return environment


def _css_text(text: str) -> Markup:
    """Returns text as the inside of a CSS string, in which nothing can end the string or the style sheet."""
    from markupsafe import Markup

    return Markup("".join(c if c.isascii() and (c.isalnum() or c in " _-.,;:") else f"\\{ord(c):x} " for c in text))


def _contents(run: RunFolder) -> dict[str, Any]:
    """Returns everything that the template names; what the run does not have is None or empty."""
    judgement = read_judgement(run.evaluation)
    quality = quality_of(run)
    shared = _of_run(run, judgement)
    config = shared["config"]
    return {
        **shared,
        "half": judgement.test.at_one_half,
        "summary": summarise(judgement.test, quality.baselines if quality else ()),
        "outlook": outlook(judgement.test, (config or {}).get("report", {}).get("prevalence") or None),
        "rule": _rule(judgement.operating_point),
        "rule_found": judgement.for_rule,
        "ruled_targets": any(
            e.transferred and e.transferred.for_rule for e in judgement.test.specificity_at_sensitivity
        ),
        "told_rule": told_rule(judgement),
        "told_calibration": told_calibration(judgement, weighted=_is_weighted(config)),
        **_origin(run, judgement),
        "figures": {
            "training": figures_of(run, TRAINING),
            "results": figures_of(run, RESULTS),
            "operating_point": figures_of(run, DECISION),
            "calibration": figures_of(run, CALIBRATION),
            "quality": figures_of(run, QUALITY_CAPTIONS),
            "baselines": figures_of(run, BASELINE_CAPTIONS),
        },
        "sheets": sheets_of(run),
        "quality": quality,
        "sets": read_conformal(run.conformal) if run.conformal.is_file() else None,
        "uncertainty": _uncertainty(run),
    }


def _class_contents(run: RunFolder) -> dict[str, Any]:
    """Returns everything that the template of K classes names; what the run does not have is None or empty."""
    judgement = read_class_judgement(run.evaluation)
    card = _optional(run.data_card)
    return {
        **_of_run(run, judgement),
        "rule": _rule(_chosen(judgement)),
        "phantoms": bool(card and card.get("phantom")),
        "findings": judgement.of_findings,
        "figures": {
            "training": figures_of(run, TRAINING),
            "results": figures_of(run, RESULTS_OF_FINDINGS if judgement.of_findings else RESULTS_OF_CLASSES),
            "calibration": figures_of(
                run, CALIBRATION_OF_FINDINGS if judgement.of_findings else CALIBRATION_OF_CLASSES
            ),
        },
    }


def _chosen(judgement: ClassJudgement) -> OperatingPoint:
    """Returns an operating point that the rule chose: a finding that validation lacks has a fixed one instead."""
    points = tuple(judgement.points.classes.values())
    return next((point for point in points if point.rule != "fixed"), points[0])


def _of_run(run: RunFolder, judgement: Judgement | ClassJudgement) -> dict[str, Any]:
    """Returns what the templates of two and of K classes name alike; what the run does not have is None."""
    config_text = run.config.read_text(encoding="utf-8") if run.config.is_file() else None
    config = tomllib.loads(config_text) if config_text else None
    looks, robustness = read_looks(run), robustness_of(run)
    degraded = ((f"robustness_{robustness.split}", ROBUSTNESS_CAPTION),) if robustness else ()
    return {
        **change_contents(run),
        "robustness": robustness,
        "degraded_kinds": told_kinds(robustness) if robustness else (),
        "boxes": boxes_of(run),
        "explanations": explanations_of(run),
        "explanation_figures": figures_of(run, _EXPLANATIONS),
        "robustness_figures": figures_of(run, degraded),
        "externals": externals_of(run),
        "occlusion": occlusion_of(run),
        "region_titles": REGION_TITLES,
        "name": run.name,
        "written": date_text(datetime.datetime.now().astimezone().isoformat(timespec="minutes")),
        "version": cxr_jax.__version__,
        "disclaimer": DISCLAIMER,
        "judgement": judgement,
        "test": judgement.test,
        "validation": judgement.validation,
        "glossary": GLOSSARY,
        "config": config,
        "config_text": config_text,
        "network": _optional(run.network),
        "ensemble": read_ensemble(run) if is_ensemble(run) else None,
        "probe": read_probe(run.probe) if run.probe.is_file() else None,
        "films": told_films(run),
        "environment": _optional(run.environment),
        "training": _training(run, config),
        "looks": looks,
        "looks_together": told_together(looks) if looks else None,
    }


def _origin(run: RunFolder, judgement: Judgement) -> dict[str, Any]:
    """Returns what is known of where the images come from."""
    card = _optional(run.data_card)
    phantoms = bool(card and card.get("phantom"))
    return {
        "card": card,
        "phantoms": phantoms,
        # the counts are the only sign by which the collection is known
        "guangzhou": judgement.test.classes == OFFICIAL_TEST and not phantoms,
    }


def _uncertainty(run: RunFolder) -> dict[str, Any] | None:
    """Returns what sets of possible classes are worth on test, at every error rate and at the usual one."""
    if not run.uncertainty.is_file():
        return None
    judged = read_uncertainty(run.uncertainty)
    return {"rates": judged.test, "usual": judged.at(ERROR_RATE)}


def _optional(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.is_file() else None


def _rule(point: OperatingPoint) -> str:
    """Returns in words how the threshold was chosen."""
    parameters = point.parameters or {}
    told = _RULES.get(point.rule, point.rule)
    if "target_sensitivity" in parameters:
        return f"{told} ({parameters['target_sensitivity']:.1%})"
    if "cost_ratio" in parameters:
        return f"{told}, a missed pneumonia counting as {parameters['cost_ratio']:g} false alarms"
    return told


def _is_weighted(config: dict[str, Any] | None) -> bool:
    """Returns whether a class counted more in training than its share of the images."""
    told = config or {}
    weights, balancing = told.get("loss", {}).get("class_weights"), told.get("data", {}).get("balancing")
    return any(choice not in (None, "none") for choice in (weights, balancing))


def _training(run: RunFolder, config: dict[str, Any] | None) -> dict[str, Any] | None:
    """Returns in figures how training went and which checkpoint was judged, or None if the run has no metrics."""
    if not run.metrics.is_file():
        return None
    lines = read_metrics(run.metrics)
    train = [line for line in lines if line["kind"] == "train"]
    if not train:
        return None
    best = [line for line in lines if line["kind"] == "validation" and line.get("best")]
    ends = [line for line in lines if line["kind"] == "end"]
    validation = (config or {}).get("validation", {})
    _, last_look = look_of_predictions(run) or (0, {})
    return {
        "iterations": train[-1]["step"],
        "epochs": train[-1].get("epoch"),
        "seconds": wall_seconds(lines),
        "images_per_second": images_per_second(lines),
        "best_step": best[-1]["step"] if best else None,
        "monitor": validation.get("monitor"),
        "judged": last_look.get("checkpoint") or validation.get("checkpoint"),
        "judged_step": last_look.get("step"),
        "reason": ends[-1].get("reason") if ends else None,
    }
