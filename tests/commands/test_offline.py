"""No command but `port`, `serve`, `pacs` and `prepare --download` opens a connection: sockets raise here."""

import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from importlib import resources
from pathlib import Path

import pytest

from cxr_jax.cli import main as cli
from cxr_jax.commands import GROUPS
from cxr_jax.models import registry

FETCHING = {"port", "serve", "pacs"}
"""Commands whose work is to fetch, to listen, or to ask an archive; `prepare` fetches only if it is told to."""

COMPOSED = {"quickstart"}
"""What is made of other commands, each of which is called here."""


VENDORED = (resources.files("cxr_jax.page") / "vendor" / "codecs.js").is_file()
"""Whether what the page takes from npm is there: an installed package has it, a checkout after scripts/vendor_page."""

NETWORKS = ("mobilenetv2_tiny", "squeezenet_tiny")
"""Those that the calls name."""

METHODS = ("connect", "connect_ex", "sendto", "bind")
FUNCTIONS = ("create_connection", "getaddrinfo", "gethostbyname")

IN_CHILDREN = f"""
import pathlib, socket
def refuse(*arguments, **options):
    with pathlib.Path({{attempts!r}}).open("a") as file:
        file.write(f"{{{{arguments}}}}\\n")
    raise OSError("a connection was tried")
for name in {METHODS}:
    setattr(socket.socket, name, refuse)
for name in {FUNCTIONS}:
    setattr(socket, name, refuse)
"""
"""Python runs a module sitecustomize at its start: so the processes that a command starts are held to it, too."""


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """Every way out of this process and of its children raises; returns a function that lists the attempts."""
    attempts = tmp_path / "attempts"
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(IN_CHILDREN.format(attempts=str(attempts)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))

    def refuse(*arguments, **options):
        with attempts.open("a") as file:
            file.write(f"{arguments}\n")
        raise OSError("a connection was tried")

    for name in METHODS:
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in FUNCTIONS:
        monkeypatch.setattr(socket, name, refuse)
    return lambda: attempts.read_text().splitlines() if attempts.exists() else []


@pytest.fixture
def calls(evaluated_run, prepared_phantoms, phantom_source, config_file, tmp_path):
    """A call of every command."""
    run = Path(shutil.copytree(evaluated_run, tmp_path / "run"))
    image = str(next((phantom_source / "test").glob("*/*.jpeg")))
    sweep = tmp_path / "sweep.toml"
    sweep.write_text(f"config = '{config_file}'")
    return {
        "phantoms": [str(tmp_path / "drawn"), "--count", "30"],
        "prepare": [str(phantom_source), "--name", "again"],
        "augmentations": [str(config_file), "--out", str(tmp_path / "augmentations.png")],
        "train": [str(config_file), "--out", str(tmp_path / "trained")],
        "probe": [
            *(str(config_file), "--out", str(tmp_path / "probed"), "--model.name", "squeezenet_tiny"),
            *("--probe.classifier", "logistic", "--probe.folds", "2", "--probe.strengths", "100"),
        ],
        "sweep": [str(sweep), "--out", str(tmp_path / "swept")],
        "crossval": [
            *(str(config_file), "--out", str(tmp_path / "folds")),
            *("--folds", "2", "--training.epochs", "1", "--training.precision", "float32"),
        ],
        "evaluate": [str(run)],
        "explain": [str(run), image],
        "predict": [str(run), image],
        "judge": [str(run / "predictions" / "test.csv"), "--resamples", "100"],
        "compare": [f"one={run}", f"other={shutil.copytree(run, tmp_path / 'other')}", "--resamples", "100"],
        "configs": ["quickstart"],
        "models": [],
        "bench": [
            *("--models", "mobilenetv2_tiny", "--sizes", "32", "--batches", "2", "--work", "inference"),
            *("--rounds", "1", "--steps", "1", "--seconds", "0"),
        ],
        "export": [str(run), str(tmp_path / "bundle")],
        "publish": [str(run), "--out", str(tmp_path / "results")],
        **({"page": [str(tmp_path / "page"), "--phantoms", "0"]} if VENDORED else {}),
    }


def test_every_command_is_called(calls):
    without = set() if VENDORED else {"page"}
    called = set(calls) | FETCHING | COMPOSED | without
    assert {name for commands in GROUPS.values() for name in commands} == called


def test_an_attempt_is_noticed_here_and_in_a_child(offline):
    reach = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9/')"
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen("http://127.0.0.1:9/")
    assert len(offline()) == 1
    assert subprocess.run([sys.executable, "-c", reach], capture_output=True).returncode == 1
    assert len(offline()) == 2


def test_no_command_opens_a_connection(calls, offline, monkeypatch, capsys):
    # to measure every network for `models` would take most of the time
    monkeypatch.setattr(registry, "ARCHITECTURES", {name: registry.ARCHITECTURES[name] for name in NETWORKS})
    for name, arguments in calls.items():
        code = cli([name, *arguments])
        assert code == 0, f"{name}: {capsys.readouterr().err}"
        assert not offline(), f"{name} reached for the network"
        capsys.readouterr()
