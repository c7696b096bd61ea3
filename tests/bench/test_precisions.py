"""Contests of both ways through a network as rows of the table of precisions."""

import dataclasses

import pytest

from cxr_jax.bench.cases import Case, Effort
from cxr_jax.bench.measure import Measurement
from cxr_jax.bench.precisions import rows_of
from cxr_jax.errors import UserError

KERNELS = Case("mobilenetv2_100", 224, 32, "train", threads=1, precision="bfloat16")
XLA = dataclasses.replace(KERNELS, precision="float32")
FACTS = {"native_kernels": True, "instructions": "avx2"}


def test_a_row_says_how_many_times_as_fast_the_kernels_were_whoever_was_first(monkeypatch):
    monkeypatch.setenv("CXX", "g++ -march=haswell")
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    first = [Measurement(KERNELS, FACTS), Measurement(XLA, of_rounds=[1.9, 2.0, 2.5])]
    second = [Measurement(XLA), Measurement(KERNELS, FACTS, of_rounds=[0.5, 0.4, 0.6])]
    failed = [Measurement(KERNELS, error="out of memory"), Measurement(XLA)]
    alone = [Measurement(KERNELS, error="out of memory")]
    rows = rows_of([first, second, failed, alone], Effort(clock="cpu"))
    assert [row.times_as_fast for row in rows] == [2.0, 2.0]
    row = rows[0]
    assert (row.instructions, row.network, row.batch_size, row.clock) == ("avx2", "mobilenetv2_100", 32, "cpu")
    assert row.held == "CXX=g++ -march=haswell"


def test_without_native_kernels_there_is_nothing_to_compare():
    missing = [Measurement(KERNELS, FACTS | {"native_kernels": False}), Measurement(XLA, of_rounds=[1.0])]
    with pytest.raises(UserError, match="mobilenetv2_100 has no native kernels here"):
        rows_of([missing], Effort())
