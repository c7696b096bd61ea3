"""A comparison of recipes as CSV, whole: every metric of every recipe and of every pair."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from cxr_jax.reporting.recipe_records import RecipeRecord

_AT = {None: "", "half": "0.5", "operating_point": "operating point"}

Comparison = dict[str, Any]


def recipes_csv(comparison: Comparison) -> str:
    """Returns every metric of every recipe as CSV, one row each."""
    header = ["recipe", "seeds", "metric", "threshold", "mean", "deviation", "low", "high", "interval", "values"]
    rows = []
    for name, recipe in comparison["recipes"].items():
        for key, summary in recipe["endpoints"].items():
            if summary is not None:
                endpoint, interval = comparison["endpoints"][key], summary["interval"] or {}
                rows.append(
                    {
                        "recipe": name,
                        "seeds": recipe["seeds"],
                        "metric": endpoint["metric"],
                        "threshold": _AT[endpoint["at"]],
                        **{field: summary[field] for field in ("mean", "deviation")},
                        **{end: interval.get(end) for end in ("low", "high")},
                        "interval": interval.get("method"),
                        "values": " ".join(f"{value:.6g}" for value in summary["values"]),
                    }
                )
    return _csv(header, rows)


def pairs_csv(comparison: Comparison) -> str:
    """Returns every metric of every pair as CSV, one row each; `retrained` is over other seeds as well."""
    answered = ["difference", "low", "high", "test", "p_value", "adjusted_p_value"]
    counted = ["only_first_right", "only_second_right"]
    again = ["low", "high", "p_value", "adjusted_p_value", "degrees_of_freedom"]
    header = ["first", "second", "metric", "threshold", *answered, *counted, *(f"retrained_{name}" for name in again)]
    rows = []
    for pair in comparison["pairs"]:
        for key, answer in pair["endpoints"].items():
            if answer is not None:
                endpoint, retrained = comparison["endpoints"][key], answer["over_seeds"] or {}
                flat = {**answer, **(answer["interval"] or {})}
                flat_again = {**retrained, **(retrained.get("interval") or {})}
                rows.append(
                    {
                        "first": pair["first"],
                        "second": pair["second"],
                        "metric": endpoint["metric"],
                        "threshold": _AT[endpoint["at"]],
                        **{name: flat.get(name) for name in [*answered, *counted]},
                        **{f"retrained_{name}": flat_again.get(name) for name in again},
                    }
                )
    return _csv(header, rows)


def costs_csv(records: Sequence[RecipeRecord]) -> str:
    """Returns costs, thresholds and looks of every recipe as CSV, one row each."""
    costs = ["parameters", "multiply_adds", "images_per_second", "minutes", "machine"]
    rows = [
        {
            "recipe": record.recipe.name,
            "seeds": len(record.recipe.tables),
            "thresholds": " ".join(f"{value:.6g}" for value in record.recipe.thresholds or ()),
            "rule": record.rule,
            "looks": " ".join(str(count) for count in record.looks or ()),
            **{name: getattr(record.costs, name) for name in costs},
        }
        for record in records
    ]
    return _csv(["recipe", "seeds", "thresholds", "rule", "looks", *costs], rows)


def _csv(header: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
