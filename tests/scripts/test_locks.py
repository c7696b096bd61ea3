"""The lock files hold what pyproject.toml asks for, by hash, and no address."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = ["requirements.lock", "requirements-test.lock", "requirements-build.lock"]


def packages_of(lock: str) -> dict[str, str]:
    """Versions by name; checks that every package is pinned and has a hash."""
    text = (ROOT / lock).read_text()
    packages = {}
    for entry in re.split(r"(?<!\\)\n", text.strip()):
        match = re.match(r"([a-z0-9-]+)==(\S+)( ; [^\\]+)? \\\n", entry)
        assert match, entry
        hashes = entry[match.end() :].replace("\\\n", "").split()
        assert hashes
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", word) for word in hashes)
        assert match[1] not in packages, f"{match[1]} has one version on one Python and another on the next"
        packages[match[1]] = match[2]
    return packages


@pytest.mark.parametrize("lock", LOCKS)
def test_no_address_of_a_registry(lock):
    text = (ROOT / lock).read_text()
    assert packages_of(lock)
    assert "://" not in text
    assert "index" not in text.replace("--hash", "")


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [
        ("requirements.lock", PROJECT["project"]["dependencies"]),
        ("requirements-test.lock", PROJECT["project"]["dependencies"]),
        ("requirements-test.lock", PROJECT["project"]["optional-dependencies"]["test"]),
        ("requirements-build.lock", PROJECT["build-system"]["requires"]),
    ],
)
def test_every_requirement_is_met(lock, requirements):
    packages = packages_of(lock)
    for requirement in map(Requirement, requirements):
        version = packages[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version), f"run scripts/lock: {requirement}, but {version} in {lock}"


def test_tests_run_on_the_versions_that_users_get():
    assert packages_of("requirements.lock").items() <= packages_of("requirements-test.lock").items()
