import errno
import importlib
import os
import pkgutil
import pty
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest

import cxr_jax
from cxr_jax import cli, commands
from cxr_jax.errors import EXIT_INTERRUPTED, EXIT_MISTAKE, EXIT_USAGE, UserError

COMMANDS = {name: summary for group in commands.GROUPS.values() for name, summary in group.items()}
HEAVY = ["jax", "flax", "optax", "orbax", "tensorflow_datasets", "sklearn", "scipy", "numpy", "matplotlib"]
HEAVY += ["cv2", "pydantic", "rich"]


def run(program: str, *arguments: str, **options) -> subprocess.CompletedProcess:
    """Run Python text `program` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=300, **options
    )


@pytest.fixture
def command(monkeypatch):
    """Register a command `fake-one` made of a function."""

    def register(function):
        module = types.ModuleType("cxr_jax.commands.fake_one")
        module.main = function
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(commands.GROUPS, "Test", {"fake-one": "does nothing"})

    return register


def failing(error):
    def main(arguments):
        raise error

    return main


def test_every_command_is_listed_and_every_listed_command_is_there():
    names = {name.replace("-", "_") for name in COMMANDS}
    modules = {module.name for module in pkgutil.iter_modules(commands.__path__)}
    assert modules == names
    assert sum(map(len, commands.GROUPS.values())) == len(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_listed_summary_is_the_command_s_own(name):
    module = importlib.import_module(f"cxr_jax.commands.{name.replace('-', '_')}")
    assert COMMANDS[name] == module.SUMMARY
    assert "\n" not in module.SUMMARY
    assert len(module.SUMMARY) <= 90


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    assert f"usage: cxr-jax {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is(name, capsys):
    arguments = ["quickstart"] if name == "train" else []
    with pytest.raises(SystemExit):
        cli.main([name, *arguments, "--help"])
    printed = capsys.readouterr().out
    entries = re.split(r"^  (?=\S)", printed, flags=re.MULTILINE)[1:]
    options = [re.sub(r"\s+", " ", entry) for entry in entries if entry.startswith("--")]
    assert options or name == "configs"
    # an option with its value, then at least one word that is not its default
    said = re.compile(r"--\S+( [A-Z{\[][^ ]*( \.\.\.\])?)? (?![A-Z]+ ?$)[^(]")
    assert [option for option in options if not said.match(option)] == []


def test_help_is_instant_and_imports_nothing_heavy():
    program = (
        "import sys; from cxr_jax.cli import main; code = main(['--help'])\n"
        f"print([name for name in {[*HEAVY, 'argparse']} if name in sys.modules], code, file=sys.stderr)"
    )
    done = run(program)
    assert done.stderr == "[] 0\n"
    for name, summary in COMMANDS.items():
        assert name in done.stdout
        assert summary in done.stdout


def test_commands_import_the_heavy_packages_only_when_they_run():
    names = [name.replace("-", "_") for name in COMMANDS]
    program = (
        f"import sys, importlib\nfor name in {names}: importlib.import_module('cxr_jax.commands.' + name)\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    assert run(program).stdout == "[]\n"


def test_no_command_shows_the_help_as_a_mistake(capsys):
    assert cli.main([]) == EXIT_USAGE
    assert "usage: cxr-jax COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["-h", "--help", "help"])
def test_help(option, capsys):
    assert cli.main([option]) == 0
    assert capsys.readouterr().out == cli.help_text() + "\n"


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"cxr-jax {cxr_jax.__version__}\n"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("fake-on", "there is no command fake-on; did you mean fake-one?"),
        ("zzzzzz", "there is no command zzzzzz; cxr-jax --help lists the commands"),
        ("--zzzz", "there is no option --zzzz; cxr-jax --help lists the commands"),
    ],
)
def test_unknown_command(command, capsys, name, expected):
    command(failing(AssertionError))
    assert cli.main([name, "x"]) == EXIT_USAGE
    assert capsys.readouterr() == ("", f"cxr-jax: {expected}\n")


def test_arguments_and_exit_code_are_handed_over(command):
    seen = []
    command(lambda arguments: seen.append(arguments) or 7)
    assert cli.main(["fake-one", "a", "--traceback", "--b"]) == 7
    assert seen == [["a", "--b"]]
    command(lambda arguments: None)
    assert cli.main(["fake-one"]) == 0


@pytest.mark.parametrize(
    ("error", "code", "expected"),
    [
        (UserError("no such run."), EXIT_MISTAKE, "no such run."),
        (UserError("bad option", EXIT_USAGE), EXIT_USAGE, "bad option"),
        (KeyboardInterrupt(), EXIT_INTERRUPTED, "interrupted"),
        (
            OSError(errno.ENOSPC, "No space left on device", "a/b"),
            EXIT_MISTAKE,
            "the disk is full: a/b could not be written; free some space and try again",
        ),
        (OSError(errno.ENOSPC, "No space"), EXIT_MISTAKE, "the disk is full; free some space and try again"),
        (
            PermissionError(errno.EACCES, "Permission denied", "a/b"),
            EXIT_MISTAKE,
            "permission denied for a/b: change its rights or choose another",
        ),
        (MemoryError(), EXIT_MISTAKE, "out of memory; a smaller batch or image size needs less"),
        (
            RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes"),
            EXIT_MISTAKE,
            "out of memory; a smaller batch or image size needs less",
        ),
    ],
)
def test_expected_errors_are_one_sentence(command, capsys, error, code, expected):
    command(failing(error))
    assert cli.main(["fake-one"]) == code
    assert capsys.readouterr() == ("", f"cxr-jax: {expected}\n")


def test_unexpected_error_saves_its_traceback(command, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    command(failing(ZeroDivisionError("by\nzero " + "x" * 500)))
    assert cli.main(["fake-one"]) == EXIT_MISTAKE
    (log,) = tmp_path.iterdir()
    printed = capsys.readouterr().err
    assert printed.startswith("cxr-jax: unexpected error, please report it (ZeroDivisionError: by zero xxx")
    assert printed.endswith(f"; its traceback is in {log}\n")
    assert printed.count("\n") == 1
    assert "Traceback (most recent call last)" in log.read_text()
    assert "in failing" in log.read_text() or "in main" in log.read_text()


def test_unexpected_error_without_a_place_for_its_traceback(command, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "missing"))
    command(failing(ZeroDivisionError("x")))
    assert cli.main(["fake-one"]) == EXIT_MISTAKE
    assert capsys.readouterr().err == "cxr-jax: unexpected error, please report it (ZeroDivisionError: x)\n"


@pytest.mark.parametrize("way", ["option", "environment"])
def test_traceback_on_request(command, capsys, monkeypatch, way):
    command(failing(UserError("no such run")))
    if way == "environment":
        monkeypatch.setenv("CXR_JAX_TRACEBACK", "1")
    assert cli.main(["--traceback", "fake-one"] if way == "option" else ["fake-one"]) == EXIT_MISTAKE
    printed = capsys.readouterr().err
    assert "Traceback (most recent call last)" in printed
    assert printed.endswith("cxr-jax: no such run\n")


def test_only_the_console_entry_point_configures_the_process(command, monkeypatch):
    configured = []
    monkeypatch.setattr("cxr_jax.process.configure_process", lambda: configured.append(True))
    command(lambda arguments: len(arguments))
    assert cli.main(["fake-one", "a"]) == 1
    assert configured == []
    monkeypatch.setattr(sys, "argv", ["cxr-jax", "fake-one", "a", "b"])
    assert cli.main() == 2
    assert configured == [True]


def test_a_reader_that_has_seen_enough_is_no_error():
    program = "import sys; from cxr_jax.cli import main; sys.exit(main(['--help']))"
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, timeout=120)
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_under_standard_output_is_told():
    program = "import sys; from cxr_jax.cli import main; sys.exit(main(['--help']))"
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, timeout=120)
    assert done.stderr.decode() == "cxr-jax: the disk is full; free some space and try again\n"
    assert done.returncode == EXIT_MISTAKE


TALKING = """
import sys, types
from pathlib import Path
from cxr_jax import cli, commands
from cxr_jax.terminal import Terminal
def main(arguments):
    terminal = Terminal()
    for number in range(3):
        terminal.say("x" * 100_000)
    with terminal.track("work", 3) as advance, terminal.waiting("waiting"):
        advance(3)
    terminal.complain("a file is damaged")
    Path(arguments[0]).write_text("a result")
module = sys.modules["cxr_jax.commands.fake_one"] = types.ModuleType("cxr_jax.commands.fake_one")
module.main = main
commands.GROUPS["Test"] = {"fake-one": "talks"}
sys.argv = ["cxr-jax", "fake-one", sys.argv[1]]
code = cli.main()
Path(sys.argv[2] + ".code").write_text(str(code))
sys.exit(code)
"""


def talk(tmp_path, redirection: str, first: str = "") -> str:
    """Run `first` and a command that prints much and writes a file, in a shell; return what stood on standard error."""
    program, result, errors = tmp_path / "talking.py", tmp_path / "result", tmp_path / "errors"
    program.write_text(first + TALKING)
    errors.write_text("")
    done = subprocess.run(
        ["sh", "-c", f'"$@" {redirection}\n:', "sh", sys.executable, str(program), str(result)],
        env={**os.environ, "CXR_JAX_ALLOCATOR": "off", "ERRORS": str(errors)},
        capture_output=True,
        timeout=120,
    )
    assert (result.read_text(), (tmp_path / "result.code").read_text()) == ("a result", "0"), done.stderr
    return errors.read_text()


def test_printing_fails_no_command(tmp_path):
    damaged = "cxr-jax: a file is damaged\n"
    lost = "cxr-jax: what this command printed is lost in part (No space left on device); its files are written\n"
    assert talk(tmp_path, '2>"$ERRORS" | true') == damaged
    assert talk(tmp_path, '2>"$ERRORS" >&-') == damaged
    assert talk(tmp_path, ">&- 2>&- <&-") == ""
    if Path("/dev/full").exists():
        assert talk(tmp_path, '2>"$ERRORS" >/dev/full') == damaged + lost
        assert talk(tmp_path, ">/dev/full 2>&1") == ""
    # as a library does that opens a file before the command begins, and gets the number that is free
    assert talk(tmp_path, '2>"$ERRORS" >&-', "import os; kept = open(os.devnull)\n") == damaged


def test_something_stands_on_the_screen_before_a_command_is_imported():
    program = """
import sys, types, importlib
from cxr_jax import cli, commands
def import_module(name):
    print("imported", end=" ", flush=True)
    module = types.ModuleType(name)
    module.main = lambda arguments: print("done", end="", flush=True)
    return module
importlib.import_module = import_module
commands.GROUPS["Test"] = {"fake-one": "is slow to import"}
sys.argv = ["cxr-jax", "fake-one"]
sys.exit(cli.main())
"""
    controller, screen = pty.openpty()
    environment = {**os.environ, "CXR_JAX_ALLOCATOR": "off"}
    subprocess.run(
        [sys.executable, "-c", program], stdout=screen, stderr=screen, env=environment, timeout=120, check=True
    )
    os.close(screen)
    assert os.read(controller, 1000).decode() == "cxr-jax fake-one startsimported \r\x1b[2Kdone"
    os.close(controller)


def test_devices_that_are_not_there_are_told():
    program = """
import sys, types
from cxr_jax import cli, commands
def main(arguments):
    import jax.numpy
    jax.numpy.zeros(1)
module = sys.modules["cxr_jax.commands.fake_one"] = types.ModuleType("cxr_jax.commands.fake_one")
module.main = main
commands.GROUPS["Test"] = {"fake-one": "computes"}
sys.exit(cli.main(["fake-one"]))
"""
    for asked in ("cuda", "nonsense"):
        done = run(program, env={**os.environ, "JAX_PLATFORMS": asked})
        assert done.returncode == EXIT_MISTAKE
        *_, told = done.stderr.splitlines()
        assert told.startswith(f"cxr-jax: JAX_PLATFORMS asks for {asked}, which is not to be had here: ")
        assert "Traceback" not in done.stderr


def test_module_and_script_are_the_same_program(tmp_path):
    script = Path(sys.executable).with_name("cxr-jax")
    outputs = [
        subprocess.run([*start, "--help"], capture_output=True, text=True, cwd=tmp_path, timeout=120)
        for start in ([sys.executable, "-m", "cxr_jax"], [str(script)])
    ]
    assert [done.returncode for done in outputs] == [0, 0]
    assert outputs[0].stdout == outputs[1].stdout == cli.help_text() + "\n"
