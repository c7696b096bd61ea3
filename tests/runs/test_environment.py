import datetime
import json
import subprocess

import numpy as np
import pytest

import cxr_jax
from cxr_jax.runs import environment
from cxr_jax.runs.folder import SCHEMA_VERSION, RunFolder


def test_the_written_environment_states_versions_machine_and_data(tmp_path):
    run = RunFolder(tmp_path)
    written = environment.write_environment(run, devices=["cpu:0", "cpu:1"], data_fingerprint="abc")
    assert json.loads(run.environment.read_text()) == written
    assert written["schema_version"] == SCHEMA_VERSION
    assert written["versions"]["cxr_jax"] == cxr_jax.__version__
    assert written["versions"]["numpy"] == np.__version__
    assert {"python", "jax", "jaxlib", "flax", "optax"} <= set(written["versions"])
    assert written["machine"]["cores"] >= 1
    assert written["machine"]["memory_bytes"] > 2**28
    assert written["machine"]["processor"]
    assert written["devices"] == ["cpu:0", "cpu:1"]
    assert written["data_fingerprint"] == "abc"
    assert datetime.datetime.fromisoformat(written["date"]).tzinfo is not None


def test_what_activations_are_computed_in_is_added_where_it_changes(tmp_path):
    run = RunFolder(tmp_path)
    environment.write_environment(run, devices=[], data_fingerprint="abc")
    assert environment.recorded_precision(run) is None
    environment.record_activations(run, "bf16", "native kernels", "it is faster")
    environment.record_activations(run, "bf16", "native kernels", "as until now")
    environment.record_activations(run, "float32", "XLA", "")
    assert environment.recorded_precision(run) == "float32"
    written = json.loads(run.environment.read_text())
    assert [(entry["precision"], entry["kernels"], entry["why"]) for entry in written["activations"]] == [
        ("bf16", "native kernels", "it is faster"),
        ("float32", "XLA", ""),
    ]
    assert written["data_fingerprint"] == "abc"


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("no-such-package-at-all",))
    described = environment.describe_environment(devices=[], data_fingerprint="")
    assert described["versions"]["no-such-package-at-all"] is None


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A repository with one commit, from which the package pretends to run."""
    package = tmp_path / "cxr_jax" / "__init__.py"
    package.parent.mkdir()
    package.write_text("")
    monkeypatch.setattr(environment.cxr_jax, "__file__", str(package))
    return tmp_path


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    return subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True)


def commit_of(checkout):
    described = environment.describe_environment(devices=[], data_fingerprint="")
    return described["commit"], described["commit_is_clean"]


def test_the_commit_of_a_checkout_is_stated_and_whether_it_is_clean(checkout):
    assert commit_of(checkout) == (None, None)
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-q", "-m", "first")
    head = git(checkout, "rev-parse", "HEAD").stdout.strip()
    assert commit_of(checkout) == (head, True)
    (checkout / "cxr_jax" / "__init__.py").write_text("changed = True\n")
    assert commit_of(checkout) == (head, False)


def test_without_git_there_is_no_commit(checkout, monkeypatch):
    git(checkout, "init", "-q")
    monkeypatch.setenv("PATH", "")
    assert commit_of(checkout) == (None, None)
