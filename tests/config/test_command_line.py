import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest

from cxr_jax.config.command_line import Option, OptionParser, Positional, parse
from cxr_jax.errors import EXIT_USAGE, UserError


@dataclass(frozen=True)
class Options:
    """Options for these tests."""

    run: Path
    top: int = 5  # how many rows


@dataclass(frozen=True)
class Everything:
    """Options of every kind."""

    run: Annotated[str, Positional("RUN")]  # a folder
    files: Annotated[tuple[str, ...], Positional("FILES...")] = ()
    # the share of them,
    # as 5 %
    share: float | None = None  # or none
    resize: Literal["squash", "pad"] = "squash"
    json: bool = False  # in place of a table
    of_class: Annotated[str, Option("NAME", name="class")] = ""
    seeds: tuple[int, ...] = ()


def sentence(kind: type, *arguments: str) -> str:
    with pytest.raises(UserError) as caught:
        parse(kind, arguments, prog="x")
    assert caught.value.code == EXIT_USAGE
    assert str(caught.value).endswith(" (options: x --help)")
    return str(caught.value).removesuffix(" (options: x --help)")


def test_fields_are_filled_by_type():
    assert parse(Options, ["--run", "a", "--top=3"], prog="x") == Options(Path("a"), 3)
    given = ["r", "--json", "a", "--share", "0.5", "b", "--resize=pad", "--class", "c d", "--seeds", "1", "-2"]
    assert parse(Everything, given, prog="x") == Everything("r", ("a", "b"), 0.5, "pad", True, "c d", (1, -2))
    assert parse(Everything, ["r", "--share", "None", "--", "-a"], prog="x") == Everything("r", ("-a",))
    assert parse(Everything, ["r"], prog="x") == Everything("r")


def test_underscores_are_taken_for_hyphens():
    kind = dataclasses.make_dataclass("Kind", [("of_a_kind", int, 0)])
    assert parse(kind, ["--of_a_kind", "3"], prog="x") == parse(kind, ["--of-a-kind=3"], prog="x") == kind(3)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["r", "--tpo", "1"], "there is no option --tpo"),
        (["r", "--resiz=pad"], "there is no option --resiz; did you mean --resize?"),
        (["r", "-q"], "there is no option -q"),
        (["r", "--seeds", "1", "x"], "--seeds is 'x', but must be a whole number"),
        (["r", "--share", "much"], "--share is 'much', but must be a number"),
        (["r", "--resize", "no"], "--resize is 'no', but must be one of squash, pad"),
        (["r", "--share"], "--share lacks its value"),
        (["r", "--share", "--json"], "--share lacks its value"),
        (["r", "--json=yes"], "--json takes no value"),
        ([], "RUN must be given"),
    ],
)
def test_a_mistake_is_one_sentence(arguments, expected):
    assert sentence(Everything, *arguments).startswith(expected)


def test_a_missing_required_option_and_a_stray_argument_are_named():
    assert sentence(Options, "--top", "1") == "--run must be given"
    assert sentence(Options, "--run", "r", "stray") == "stray is one argument too many"


def test_long_words_stay_whole_on_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert sentence(Options, "--run", "r", "--top", 120 * "x") == f"--top is '{120 * 'x'}', but must be a whole number"


def test_the_help_has_the_comment_the_type_and_the_default_of_every_field(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Everything, ["--resize", "nonsense", "-h"], prog="cxr-jax x", description="What x does.")
    assert stop.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.startswith("usage: cxr-jax x RUN FILES... [options] What x does.")
    assert "RUN a folder" in printed
    assert "--share NUMBER the share of them, as 5 % or none" in printed
    assert "--resize {squash,pad} (default: squash)" in printed
    assert "--json in place of a table --class NAME --seeds [INTEGER ...]" in printed


def test_switches_below_a_prefix_can_be_turned_off_and_only_what_is_given_is_returned(capsys):
    parser = OptionParser("x")
    parser.add_fields(Everything, prefix="a.", shown=Everything("r", json=True))
    assert parser.read(["--a.no-json", "--a.share", "None"]) == {"a.json": False, "a.share": None}
    assert parser.read([]) == {}
    with pytest.raises(SystemExit):
        parser.read(["--help"])
    assert "a: Options of every kind." in " ".join(capsys.readouterr().out.split())


def test_an_option_that_is_not_known_may_be_spelled_anew():
    parser = OptionParser("x", respell={"--tallest": "--top"}.get)
    parser.add_fields(Options)
    assert parser.read(["--run=r", "--tallest=3"])["top"] == 3


def test_help_is_printed(capsys):
    with pytest.raises(SystemExit) as stop:
        parse(Options, ["--help"], prog="cxr-jax x", description="What x does.")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "cxr-jax x" in printed
    assert "What x does." in printed
    assert "how many rows" in printed
