"""A comparison of recipes as CSV, whole: every metric of every recipe and of every pair."""

from __future__ import annotations

from collections.abc import Sequence

from cxr_jax.evaluation.comparison_record import ClassComparison, Comparison
from cxr_jax.evaluation.intervals import Interval
from cxr_jax.reporting.recipe_records import RecipeRecord
from cxr_jax.runs.files import csv_text_of_records

_AT = {None: "", "half": "0.5", "call": "highest", "operating_point": "operating point", "rule": "rule"}


def recipes_csv(compared: Comparison | ClassComparison) -> str:
    """Returns every metric of every recipe as CSV, one row each; `as_trained` is for other patients alone."""
    header = [*_class_column(compared), "recipe", "seeds", "metric", "threshold", "mean", "deviation"]
    header += ["low", "high", "interval", "as_trained_low", "as_trained_high", "as_trained_interval", "values"]
    rows = []
    for of_class, comparison in compared.parts.items():
        for name, recipe in comparison.recipes.items():
            for key, summary in recipe.endpoints.items():
                if summary is None:
                    continue
                endpoint = comparison.endpoints[key]
                rows.append(
                    {
                        **({"class": of_class} if of_class else {}),
                        "recipe": name,
                        "seeds": recipe.seeds,
                        "metric": endpoint.metric,
                        "threshold": _AT[endpoint.at],
                        "mean": summary.mean,
                        "deviation": summary.deviation,
                        **_ends(summary.interval),
                        "interval": summary.interval and summary.interval.method,
                        **{f"as_trained_{end}": value for end, value in _ends(summary.as_trained).items()},
                        "as_trained_interval": summary.as_trained and summary.as_trained.method,
                        "values": " ".join(f"{value:.6g}" for value in summary.values),
                    }
                )
    return csv_text_of_records(header, rows)


def pairs_csv(compared: Comparison | ClassComparison) -> str:
    """Returns every metric of every pair as CSV, one row each; `retrained` is over other seeds as well."""
    tested = ["test", "p_value", "adjusted_p_value", "smallest_p_value"]
    counted = ["only_first_right", "only_second_right"]
    retested = ["p_value", "adjusted_p_value", "degrees_of_freedom"]
    header = [*_class_column(compared), "first", "second", "metric", "threshold", "difference", "low", "high"]
    header += [*tested, *counted]
    header += [f"retrained_{name}" for name in ("low", "high", *retested)]
    rows = []
    for of_class, comparison in compared.parts.items():
        for pair in comparison.pairs:
            for key, answer in pair.endpoints.items():
                if answer is None:
                    continue
                endpoint, retrained = comparison.endpoints[key], answer.over_seeds
                row = {
                    **({"class": of_class} if of_class else {}),
                    "first": pair.first,
                    "second": pair.second,
                    "metric": endpoint.metric,
                    "threshold": _AT[endpoint.at],
                    "difference": answer.difference,
                    **_ends(answer.interval),
                    **{name: getattr(answer, name) for name in (*tested, *counted)},
                }
                if retrained is not None:
                    flat = {**_ends(retrained.interval), **{name: getattr(retrained, name) for name in retested}}
                    row |= {f"retrained_{name}": value for name, value in flat.items()}
                rows.append(row)
    return csv_text_of_records(header, rows)


def _class_column(compared: Comparison | ClassComparison) -> list[str]:
    """Returns the column of classes, empty in rows of all together, where there are several."""
    return ["class"] if len(compared.parts) > 1 else []


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
    return csv_text_of_records(["recipe", "seeds", "thresholds", "rule", "looks", *costs], rows)


def errors_csv(records: Sequence[RecipeRecord]) -> str:
    """Returns what errors of every recipe go with as CSV, one measure of one kind of error a row."""
    header = ["recipe", "errors", "measure", "unit", "wrong", "right"]
    header += ["difference", "low", "high", "higher_in", "seeds"]
    header += ["chance", "chance_low", "chance_high", "p_value", "adjusted_p_value", "verdict", "values"]
    rows = []
    for record in records:
        for kind, audit in record.audits.items():
            for name, entry in audit.measures.items():
                if entry is not None:
                    rows.append(
                        {
                            "recipe": record.recipe.name,
                            "errors": kind,
                            "measure": name,
                            "unit": record.measures[name].unit,
                            "wrong": " ".join(map(str, audit.errors)),
                            "right": " ".join(map(str, audit.right)),
                            "difference": entry.difference,
                            **_ends(entry.interval),
                            "higher_in": entry.higher_in,
                            "seeds": len(entry.differences),
                            "chance": entry.higher.value,
                            **{f"chance_{end}": value for end, value in _ends(entry.higher.interval).items()},
                            **{key: getattr(entry, key) for key in ("p_value", "adjusted_p_value", "verdict")},
                            "values": " ".join(f"{value:.6g}" for value in entry.differences),
                        }
                    )
    return csv_text_of_records(header, rows)


def _ends(interval: Interval | None) -> dict[str, float]:
    return {} if interval is None else {"low": interval.low, "high": interval.high}
