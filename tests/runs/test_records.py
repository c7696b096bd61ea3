from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Literal

import pytest

from cxr_jax.runs.records import from_json, to_json


@dataclass(frozen=True)
class Inner:
    number: float
    word: Literal["yes", "no"] | None = None


@dataclass(frozen=True)
class Outer:
    count: int
    right: bool
    name: str | None
    parts: tuple[Inner, ...]
    table: tuple[tuple[int, ...], ...]
    by_name: dict[str, Inner | None]


RECORD = Outer(3, True, None, (Inner(0.1, "yes"), Inner(2.0)), ((1, 2), (3, 4)), {"a": Inner(1e-300), "b": None})


def test_a_record_reads_back_as_it_was():
    assert from_json(Outer, json.loads(json.dumps(to_json(RECORD), allow_nan=False))) == RECORD
    assert to_json({"x": (RECORD.parts[0],)}) == {"x": [{"number": 0.1, "word": "yes"}]}


def test_what_an_earlier_version_lacked_has_its_default_and_what_a_later_one_added_is_passed_over():
    assert from_json(Inner, {"number": 2, "further": [1]}) == Inner(2.0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"count": 3.5}, "it.count is 3.5, not of type int"),
        ({"count": True}, "it.count is True, not of type int"),
        ({"right": 1}, "it.right is 1, not of type bool"),
        ({"name": 7}, "it.name is 7, not of type str"),
        ({"parts": {}}, r"it.parts is \{\}, not of type list"),
        ({"parts": [{"number": "x"}]}, r"it.parts\[0\].number is 'x', not of type int or float"),
        ({"parts": [{"number": 1, "word": "maybe"}]}, r"it.parts\[0\].word is 'maybe', not one of 'yes', 'no'"),
        ({"by_name": {"a": {}}}, "it.by_name.a has no number"),
    ],
)
def test_a_wrong_value_is_named_with_its_place(change, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_json(Outer, to_json(RECORD) | change)
