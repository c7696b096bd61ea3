import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cxr_jax import terminal
from cxr_jax.terminal import Terminal, accept_any_text, as_typed


@pytest.mark.parametrize(
    ("encoding", "text", "printed"),
    [
        ("utf-8", "0.9–1.0 ± é", "0.9–1.0 ± é"),
        ("latin-1", "0.9–1.0 ± é", "0.9-1.0 ± é"),
        ("ascii", "0.9–1.0 ± é", "0.9-1.0 +- \\xe9"),
        # a file name in Latin-1 bytes, as the file system hands it over
        ("utf-8", "caf\udce9.png", "caf\\udce9.png"),
        ("ascii", "肺.png", "\\u80ba.png"),
    ],
)
def test_any_text_can_be_printed_in_any_encoding(encoding, text, printed):
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    accept_any_text(stream)
    print(text, file=stream, flush=True)
    assert raw.getvalue().decode(encoding).rstrip() == printed


@pytest.mark.parametrize("text", ["x[/y]", "[red]a[/red]", "a\\[b", ":smile:", "p" * 300])
def test_text_is_printed_as_it_is_on_one_line(text, capsys):
    Terminal().say(text)
    assert capsys.readouterr().out == f"{text}\n"


def test_a_quiet_terminal_prints_nothing(capsys):
    shown = Terminal(quiet=True)
    shown.say("a line")
    with shown.waiting("waiting"), shown.track("work", 3) as advance:
        advance(3)
    assert capsys.readouterr().out == ""


def test_in_a_log_a_line_tells_of_work_under_way(capsys, monkeypatch):
    monkeypatch.setattr(terminal, "LOG_SECONDS", 0.01)
    with Terminal().track("[decoding]", 4000) as advance:
        advance(1500)
        seen = ""
        while "1,500" not in seen:
            seen += capsys.readouterr().out
    assert "[decoding]: 1,500 of 4,000" in seen


def test_what_stands_beside_a_result_goes_to_standard_error(capsys):
    with Terminal(on_standard_error=True).waiting("restoring the network"):
        print("{}", file=sys.stdout)
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("{}\n", "restoring the network\n")


@pytest.mark.parametrize(
    "name",
    [
        b"runs/first",
        b"proj [copy]/r",
        b"it's",
        b"back\\slash",
        b"-x",
        b"caf\xe9 'x'\\",
        b"new\nline",
        "é$HOME".encode(),
    ],
)
def test_a_command_line_that_is_printed_can_be_typed(name):
    if (bash := shutil.which("bash")) is None:
        pytest.skip("no bash is here")
    line = as_typed("printf", "%s", Path(os.fsdecode(name)))
    assert line.isprintable()
    typed = subprocess.run([bash, "-c", line], capture_output=True, check=True).stdout
    assert typed.removeprefix(b"./") == name
