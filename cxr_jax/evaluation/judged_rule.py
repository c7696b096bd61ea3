"""What rules for the threshold give on test, whatever images of validation they were set on: a part of a judgement."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from cxr_jax.evaluation.cases import Cases
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.intervals import percentile_interval
from cxr_jax.evaluation.judgement import ForRule
from cxr_jax.evaluation.measures import Measured
from cxr_jax.evaluation.metrics import CALL_METRICS, METRICS, metric_value
from cxr_jax.evaluation.operating_point import OperatingPoint
from cxr_jax.evaluation.rule_draws import RuledNetwork, draw_rule
from cxr_jax.runs.predictions import Predictions


def judge_rules(
    validation: Predictions,
    test: Predictions,
    rules: Mapping[str, OperatingPoint],
    confidence: Confidence,
    advance: Callable[[int], None],
) -> dict[str, ForRule]:
    """Returns by name what each rule gives on test; all of them see the same draws."""
    if not rules:
        advance(confidence.resamples)
        return {}
    networks = [RuledNetwork(validation, test, point) for point in rules.values()]
    drawn = draw_rule(networks, CALL_METRICS, confidence, advance=advance)
    method = f"{'group ' if test.has_groups and validation.has_groups else ''}bootstrap of validation and test"
    told = {}
    for row, (name, point) in enumerate(rules.items()):
        cases = Cases.unweighted(test.label, test.probability, point.threshold)
        metrics = {}
        for metric in CALL_METRICS:
            value, values = metric_value(metric, cases), drawn.values[metric][row]
            interval = None if value is None else percentile_interval(values, value, confidence.level, method)
            undefined = METRICS[metric].undefined if value is None else None
            intervals = () if interval is None else (interval,)
            metrics[metric] = Measured(METRICS[metric].title, value, undefined, intervals)
        threshold = percentile_interval(drawn.thresholds[row], point.threshold, confidence.level, method)
        told[name] = ForRule(threshold, metrics)
    return told
