import datetime
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from cxr_jax.errors import UserError
from cxr_jax.runs.folder import SCHEMA_VERSION, RunFolder
from cxr_jax.runs.ledger import append_look, read_looks


def test_looks_are_kept_in_order_with_date_and_version(tmp_path):
    run = RunFolder(tmp_path)
    assert read_looks(run) == []
    written = append_look(run, {"checkpoint": "best", "threshold": 0.5})
    append_look(run, {"checkpoint": "last", "threshold": 0.4})
    looks = read_looks(run)
    assert looks[0] == written
    assert [look["checkpoint"] for look in looks] == ["best", "last"]
    assert looks[0]["schema_version"] == SCHEMA_VERSION
    assert datetime.datetime.fromisoformat(looks[0]["date"]).tzinfo is not None


def _look_many(path, who):
    for _ in range(20):
        append_look(RunFolder(path), {"who": who, "padding": "x" * 5000})


def test_two_processes_lose_no_look(tmp_path):
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_look_many, [tmp_path, tmp_path], ["a", "b"]))
    looks = read_looks(RunFolder(tmp_path))
    assert sorted(look["who"] for look in looks) == ["a"] * 20 + ["b"] * 20


def test_a_torn_line_does_not_swallow_the_next_look_and_is_told(tmp_path):
    run = RunFolder(tmp_path)
    append_look(run, {"n": 1})
    with run.ledger.open("a") as file:
        file.write('{"n":')
    append_look(run, {"n": 3})
    with pytest.raises(UserError, match=r"ledger\.jsonl, line 2"):
        read_looks(run)
    lines = run.ledger.read_text().splitlines()
    run.ledger.write_text("\n".join([lines[0], lines[2]]))
    assert [look["n"] for look in read_looks(run)] == [1, 3]


def test_no_number_that_json_cannot_hold(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        append_look(RunFolder(tmp_path), {"roc_auc": float("nan")})
    assert read_looks(RunFolder(tmp_path)) == []
