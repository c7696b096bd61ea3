"""The harness against readers that misbehave on purpose: every deed must be seen, and the cases after it be run."""

import pytest

from .harness import fuzz
from .misbehaviour import MISBEHAVIOUR

SEEN_AS = {
    "crash": ("crash", "exit -11"),
    "hang": ("hang", "no answer in 2 s"),
    "raise": ("traceback", "KeyError: 'traceback'"),
    "silent": ("traceback", "not one printable sentence"),
    "litter": ("escape", "left litter"),
    "escape": ("escape", "wrote"),
    "swallow": ("traceback", "MemoryError"),
    "unpickle": ("escape", "pickle.find_class"),
}


@pytest.mark.slow
@pytest.mark.parametrize("deed", MISBEHAVIOUR)
def test_every_misdeed_is_seen(deed):
    report = fuzz(deed, [("seed", 0, index) for index in range(6)], seconds=2.0)
    kind, detail = SEEN_AS[deed]
    assert report.findings
    assert {finding.kind for finding in report.findings} == {kind}
    assert all(detail in finding.detail for finding in report.findings)
    assert report.outcomes["refused"]
    assert sum(report.outcomes.values()) == 6
