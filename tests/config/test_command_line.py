import io
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from cxr_jax.config.command_line import parse, parse_known
from cxr_jax.errors import EXIT_USAGE, UserError


@dataclass(frozen=True)
class Options:
    """Options for these tests."""

    run: Path
    top: int = 5  # how many rows


def test_default_is_the_start():
    assert parse(Options, ["--top", "3"], prog="x", default=Options(Path("a"))) == Options(Path("a"), top=3)


def test_unknown_arguments_are_handed_back_in_order():
    options, rest = parse_known(Options, ["--a.b", "1", "--run", "r", "--c.d"], prog="x")
    assert options == Options(Path("r"))
    assert rest == ["--a.b", "1", "--c.d"]


def test_long_words_stay_whole_on_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    long = "x" * 120
    with pytest.raises(UserError, match=long) as caught:
        parse(Options, ["--run", "r", "--top", long], prog="cxr-jax x")
    assert caught.value.code == EXIT_USAGE
    assert str(caught.value).endswith("(options: cxr-jax x --help)")
    assert os.environ["COLUMNS"] == "40"


def test_a_missing_required_option_is_named(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    with pytest.raises(UserError, match="--run"):
        parse(Options, [], prog="x")
    assert "COLUMNS" not in os.environ


def test_help_is_printed(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Options, ["--help"], prog="cxr-jax x", description="What x does.")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "cxr-jax x" in printed
    assert "What x does." in printed
    assert "how many rows" in printed


@pytest.mark.parametrize("encoding", ["utf-8", "UTF-8", "ascii"])
def test_a_mistake_is_the_same_sentence_on_every_terminal(monkeypatch, encoding):
    def sentence(*arguments: str) -> str:
        with monkeypatch.context() as patch, pytest.raises(UserError) as caught:
            patch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding=encoding))
            parse(Options, ["--run", "r", *arguments], prog="x")
        return str(caught.value)

    assert sentence("--tpo", "1") == "Unrecognized options: --tpo, 1; did you mean --top? (options: x --help)"
    assert sentence("--top", "y") == "--top: invalid literal for int() with base 10: 'y' (options: x --help)"
