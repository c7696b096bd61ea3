"""No command but `port`, `serve`, `pacs` and `prepare --download` opens a connection: sockets raise here."""

import importlib
import inspect
import subprocess
import sys
import urllib.error
import urllib.request
from importlib import resources

import pytest

from cxr_jax.cli import main as cli
from cxr_jax.commands import GROUPS
from tests.test_documented_commands import run_by_documents

FETCHING = {"port", "serve", "pacs"}
"""Commands whose work is to fetch, to listen, or to ask an archive; `prepare` fetches only if it is told to."""

COMPOSED = {"quickstart"}
"""What is made of other commands, each of which is called."""

VENDORED = (resources.files("cxr_jax.page") / "vendor" / "codecs.js").is_file()
"""Whether what the page takes from npm is there: an installed package has it, a checkout after scripts/vendor_page."""


HELD_BY = {
    "sweep": "test_sweep.test_real_trainings_stop_go_on_and_are_compared",
    "bench": "test_bench.test_tiny_networks_end_to_end",
    "synthesize": "test_synthesize.test_a_finished_one_can_be_resumed_and_gives_the_same_samples",
}
"""Tests that run a command which takes long, and that hold it to this beside all else."""


@pytest.fixture
def calls(prepared_phantoms, config_file, tmp_path):
    """A call of every command that neither the documents nor another test run."""
    return {
        "crossval": [
            *(str(config_file), "--out", str(tmp_path / "folds")),
            *("--folds", "2", "--training.epochs", "1", "--training.precision", "float32"),
        ],
        **({"page": [str(tmp_path / "page"), "--phantoms", "0"]} if VENDORED else {}),
    }


def test_every_command_is_called(calls):
    without = set() if VENDORED else {"page"}
    called = set(calls) | run_by_documents() | set(HELD_BY) | FETCHING | COMPOSED | without
    assert {name for commands in GROUPS.values() for name in commands} == called
    for test in HELD_BY.values():
        module, name = test.split(".")
        held = getattr(importlib.import_module(f"tests.commands.{module}"), name)
        assert "attempted_connections" in inspect.signature(held).parameters


def test_an_attempt_is_noticed_here_and_in_a_child(attempted_connections):
    reach = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')"
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen("http://127.0.0.1:9/")
    assert len(attempted_connections()) == 1
    assert subprocess.run([sys.executable, "-c", reach], capture_output=True).returncode == 1
    assert len(attempted_connections()) == 2


@pytest.mark.slow
def test_no_command_opens_a_connection(calls, attempted_connections, capsys):
    """The others are held to it while tests/test_documented_commands.py walks through the documents."""
    for name, arguments in calls.items():
        code = cli([name, *arguments])
        assert code == 0, f"{name}: {capsys.readouterr().err}"
        assert not attempted_connections(), f"{name} reached for the network"
        capsys.readouterr()
