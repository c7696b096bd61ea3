"""Damaged files of every format: read, or refused in one sentence. `scripts/fuzz` does any number of them."""

from pathlib import Path

import pytest

from .harness import fuzz
from .readers import FORMATS, case

CORPUS = Path(__file__).parent / "corpus"

CASES = 40
"""Of each format; a small part of what has been run by hand."""


@pytest.mark.parametrize("name", FORMATS)
def test_drawn_cases_and_all_that_ever_broke(name):
    kept = [("file", str(path)) for path in sorted(CORPUS.glob(f"{name}-*"))]
    report = fuzz(name, [*kept, *(("seed", 0, index) for index in range(CASES))], seconds=60.0)
    assert not report.findings, "\n".join(
        f"{finding.case} {finding.kind}: {finding.detail}" for finding in report.findings
    )
    assert sum(report.outcomes.values()) == CASES + len(kept)
    assert set(report.outcomes) == {"valid", "refused"}, "cases that are all alike find nothing"


def test_a_case_is_the_same_in_every_process_and_for_every_seed_another():
    assert case("png", 3, 5) == case("png", 3, 5)
    assert len({case("png", seed, index) for seed in (0, 1) for index in range(20)}) > 30


def test_the_corpus_is_small_and_of_known_formats():
    paths = list(CORPUS.iterdir())
    assert paths
    assert {path.name.split("-")[0] for path in paths} <= set(FORMATS)
    assert all(path.stat().st_size < 20_000 for path in paths)
