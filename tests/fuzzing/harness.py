"""Any number of cases in a process of their own, which may crash or hang: that is seen, and the file kept."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]

START = 300.0
"""Seconds that a process may take to import what it needs."""


@dataclass(frozen=True)
class Finding:
    """A case that did what no file may make the project do."""

    format: str
    case: tuple  # ("seed", seed, index) or ("file", path)
    kind: str  # crash, hang, traceback or escape
    detail: str


@dataclass
class Report:
    """What came of the cases of one format."""

    format: str
    outcomes: Counter = field(default_factory=Counter)  # valid, refused, and the kinds of findings
    findings: list[Finding] = field(default_factory=list)


def fuzz(name: str, cases: list[tuple], *, seconds: float = 20.0, most: int = 20) -> Report:
    """Run `cases` of a format one after the other; at most `most` findings, each case at most `seconds`."""
    report, position = Report(name), 0
    while position < len(cases) and len(report.findings) < most:
        for outcome, detail in _answers(name, cases[position:], seconds):
            report.outcomes[outcome] += 1
            if outcome not in ("valid", "refused"):
                report.findings.append(Finding(name, cases[position], outcome, detail))
            position += 1
            if len(report.findings) >= most:
                break
    return report


def _answers(name: str, cases: list[tuple], seconds: float) -> Iterator[tuple[str, str]]:
    """Yield (outcome, detail) of each case until one ends the process, which is the last."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "inside"
        place.mkdir()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzzing.worker", name, str(place)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            if _line(process, START) is None:
                raise RuntimeError(f"the process for {name} does not start")
            for case in cases:
                process.stdin.write(json.dumps(case).encode() + b"\n")
                process.stdin.flush()
                answer = _line(process, seconds)
                if answer is None:
                    hangs = process.poll() is None
                    process.kill()
                    process.wait()
                    yield ("hang", f"no answer in {seconds:g} s") if hangs else ("crash", f"exit {process.returncode}")
                    return
                yield answer["outcome"], answer["detail"]
        finally:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()


def _line(process: subprocess.Popen, seconds: float) -> dict | None:
    """Return the next answer; None if none comes in time or the process ends."""
    if not select.select([process.stdout], [], [], seconds)[0]:
        return None
    line = process.stdout.readline()
    if not line:
        process.wait()
        return None
    return json.loads(line)
