"""The shell scripts, run on a copy of the checkout with a stand-in for Python that keeps a record of its calls."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOLS = [
    "sh",
    "bash",
    "cat",
    "cksum",
    "grep",
    "tail",
    "sed",
    "mktemp",
    "rm",
    "mkdir",
    "dirname",
    "basename",
    "cp",
    "tee",
    "awk",
    "nice",
]
INSTALLATIONS = ["requirements-build.lock", "requirements.lock", "--editable"]

# Knows what the scripts ask of Python; fails where $FAIL matches, with $MESSAGE on standard error.
STAND_IN = """#!/bin/sh
echo "$*" >>"$RECORD"
case "$*" in
*"${FAIL:-nothing to fail}"*) echo "$MESSAGE" >&2; exit 3 ;;
"--version") echo "Python ${STAND_IN_VERSION:-3.12.1}" ;;
"-c "*) [ "${STAND_IN_VERSION:-3.12.1}" != 3.9.2 ] ;;
"-m cxr_jax quickstart"*) echo "$PWD: quickstart" ;;
"-m venv --clear "*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python" ;;
esac
"""


class Checkout:
    """A copy of what the scripts need, in a folder with a space in its name."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a checkout"
        self.tools = folder / "tools"
        self.record = folder / "record"
        self.elsewhere = folder / "elsewhere"
        for path in (self.root, self.tools, self.elsewhere, folder / "tmp"):
            path.mkdir()
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        for name in ("requirements.lock", "requirements-test.lock", "requirements-build.lock", "pyproject.toml"):
            shutil.copy(ROOT / name, self.root)
        for tool in TOOLS:
            (self.tools / tool).symlink_to(shutil.which(tool))
        self.environment = {"PATH": str(self.tools), "RECORD": str(self.record), "TMPDIR": str(folder / "tmp")}

    def install_python(self, name: str = "python3.12") -> None:
        self.write_tool(self.tools / name, STAND_IN)

    def write_tool(self, path: Path, text: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def run(self, script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [str(self.root / script), *arguments],
            env={**self.environment, **environment},
            cwd=self.elsewhere,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def calls(self, containing: str = "") -> list[str]:
        """The calls of Python since the last question, and forget them."""
        lines = self.record.read_text().splitlines() if self.record.exists() else []
        self.record.unlink(missing_ok=True)
        return [line for line in lines if containing in line]


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def sentence_of(done) -> str:
    assert done.returncode == 1, done
    return done.stderr.splitlines()[-1]


def test_no_python_is_told(checkout):
    sentence = sentence_of(checkout.run("scripts/quickstart"))
    assert sentence.startswith("scripts/quickstart: Python 3.11 or later is needed, but found: none. Install one")
    assert not (checkout.root / ".venv").exists()


def test_an_old_python_is_told(checkout):
    checkout.install_python("python3")
    sentence = sentence_of(checkout.run("scripts/test", STAND_IN_VERSION="3.9.2"))
    assert sentence.startswith("scripts/test: Python 3.11 or later is needed, but found: Python 3.9.2.")


def test_a_chosen_python_goes_first(checkout, tmp_path):
    checkout.install_python()
    chosen = tmp_path / "my python"
    checkout.write_tool(chosen, STAND_IN.replace("Python ", "Chosen "))
    assert "with Chosen 3.12.1" in checkout.run("scripts/test", PYTHON=str(chosen)).stdout


def test_the_newest_python_is_taken_though_pyenv_does_not_show_it(checkout, tmp_path):
    checkout.install_python("python3.11")
    kept = tmp_path / "my pyenv" / "versions"
    for version in ("3.10.4", "3.12.8", "3.13.1"):
        checkout.write_tool(kept / version / "bin" / "python", STAND_IN.replace("Python ", f"Kept {version}, "))
    done = checkout.run("scripts/test", PYENV_ROOT=str(kept.parent))
    assert "with Kept 3.13.1, " in done.stdout


@pytest.mark.parametrize(
    ("fail", "message", "expected"),
    [
        ("pip install", "[Errno 28] No space left on device", "the disk is full: "),
        ("pip install", "Max retries exceeded with url", "packages could not be downloaded: check the network"),
        ("pip install", "No matching distribution found for x==1", "packages could not be downloaded: "),
        ("requirements.lock", "THESE PACKAGES DO NOT MATCH THE HASHES", "a downloaded package is not the one"),
        ("--editable", "metadata-generation-failed", "the installation failed for the reason above."),
        ("-m venv", "ensurepip is not available", "Python's venv module is incomplete: install it"),
        ("-m venv", "Permission denied: '.venv'", "ROOT/.venv cannot be written"),
    ],
)
def test_a_failed_installation_is_explained_and_tried_again(checkout, tmp_path, fail, message, expected):
    checkout.install_python()
    done = checkout.run("scripts/quickstart", FAIL=fail, MESSAGE=message)
    assert sentence_of(done).startswith("scripts/quickstart: " + expected.replace("ROOT", str(checkout.root)))
    assert checkout.calls("cxr_jax") == []
    assert list((tmp_path / "tmp").iterdir()) == [] or "venv module" in expected
    assert checkout.run("scripts/quickstart").returncode == 0
    assert len(checkout.calls("pip install")) == len(INSTALLATIONS)


def test_installs_everything_by_hash_without_asking_for_dependencies(checkout, tmp_path):
    checkout.install_python()
    assert checkout.run("scripts/quickstart").returncode == 0
    installed = checkout.calls("pip install")
    assert [name in call for name, call in zip(INSTALLATIONS, installed, strict=True)] == [True] * 3
    assert all("--require-hashes" in call for call in installed[:2])
    assert all("--no-deps" in call for call in installed)
    assert f"--no-index --editable {checkout.root}" in installed[2]
    assert list((tmp_path / "tmp").iterdir()) == []


def test_installs_only_when_something_changed(checkout):
    checkout.install_python()

    def installations(script):
        assert checkout.run(script).returncode == 0
        return len(checkout.calls("pip install"))

    assert installations("scripts/quickstart") == 3
    assert installations("scripts/quickstart") == 0
    assert installations("scripts/test") == 3
    assert installations("scripts/test") == 0
    # the tests' environment serves the commands too
    assert installations("scripts/quickstart") == 0
    with (checkout.root / "requirements-test.lock").open("a") as lock:
        lock.write("# changed\n")
    assert installations("scripts/quickstart") == 3
    checkout.root = checkout.root.rename(checkout.root.with_name("moved checkout"))
    assert installations("scripts/test") == 3


def test_an_environment_of_another_python_lies_in_another_folder(checkout):
    """As .ci/run makes it, beside the one of the tests."""
    checkout.install_python("python3.13")
    checkout.write_tool(checkout.tools / "python3.11", STAND_IN.replace("Python ", "Oldest "))
    other = checkout.root / "build" / "oldest"
    script = f'set -eu; root="{checkout.root}"; PYTHON=python3.11; . "$root/scripts/environment.sh"\n'
    script += f'make_environment test "{other}"; "$python" --version\n'
    checkout.write_tool(checkout.root / "scripts" / "other", "#!/bin/sh\n" + script)
    done = checkout.run("scripts/other")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "Oldest 3.12.1"), done
    assert len(checkout.calls("pip install")) == len(INSTALLATIONS)
    assert not (checkout.root / ".venv").exists()
    assert checkout.run("scripts/other").returncode == 0
    assert checkout.calls("pip install") == []
    assert f"Making {checkout.root}/.venv" in checkout.run("scripts/test").stdout


def test_what_a_lock_says_of_some_packages_can_be_told_apart(checkout):
    checkout.write_tool(
        checkout.root / "scripts" / "other",
        '#!/bin/sh\n. "$(dirname "$0")/environment.sh"\ncd "$(dirname "$0")/.."\nlocked requirements-test.lock "$@"\n',
    )
    whole = (ROOT / "requirements-test.lock").read_text()
    done = checkout.run("scripts/other", "pytest", "pluggy")
    entries = [line for line in done.stdout.splitlines() if not line.startswith(" ")]
    assert [entry.split("==")[0] for entry in entries] == ["pluggy", "pytest"]
    assert done.stdout.count("--hash=sha256:") == 4
    assert all(line in whole for line in done.stdout.splitlines())
    assert checkout.run("scripts/other", "py").stdout == ""


def test_quickstart_calls_the_command_from_the_checkout(checkout):
    checkout.install_python()
    done = checkout.run("scripts/quickstart")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == f"{checkout.root}: quickstart"
    assert checkout.calls("-m cxr_jax") == ["-m cxr_jax quickstart"]


def test_quickstart_on_real_data_named_from_where_the_user_is(checkout):
    checkout.install_python()
    (checkout.elsewhere / "chest xray.zip").touch()
    for given in ("chest xray.zip", str(checkout.elsewhere / "chest xray.zip")):
        assert checkout.run("scripts/quickstart", given).returncode == 0
        assert checkout.calls("-m cxr_jax") == [f"-m cxr_jax quickstart {checkout.elsewhere}/chest xray.zip"]


def test_quickstart_ends_with_the_code_of_the_command(checkout):
    checkout.install_python()
    done = checkout.run("scripts/quickstart", FAIL="cxr_jax quickstart", MESSAGE="cxr-jax: no.")
    assert (done.returncode, done.stderr) == (3, "cxr-jax: no.\n")


@pytest.mark.parametrize("arguments", [("missing",), ("a", "b")])
def test_quickstart_refuses_wrong_arguments_before_it_installs(checkout, arguments):
    checkout.install_python()
    assert sentence_of(checkout.run("scripts/quickstart", *arguments)).startswith("scripts/quickstart: ")
    assert checkout.calls() == []


def test_quickstart_help(checkout):
    done = checkout.run("scripts/quickstart", "--help")
    assert done.returncode == 0
    assert "./scripts/quickstart [PATH]" in done.stdout
    assert checkout.calls() == []


def test_test_script_bounds_coverage_of_the_whole_suite_only(checkout):
    checkout.install_python()
    checkout.run("scripts/test")
    (call,) = checkout.calls("-m pytest")
    assert "--cov" in call.split()
    assert "--cov-fail-under" not in call
    checkout.run("scripts/test", "tests/test_cli.py", "-k", "help or version")
    (call,) = checkout.calls("-m pytest")
    assert call.endswith("--cov-fail-under=0 tests/test_cli.py -k help or version")


def test_test_script_fails_when_the_tests_do(checkout):
    checkout.install_python()
    assert checkout.run("scripts/test", FAIL="-m pytest", MESSAGE="1 failed").returncode == 3


STEPS = [
    "scripts/test",
    ".venv/bin/python -m pytest --no-cov -rs --numprocesses 2 --dist loadfile --no-loadscope-reorder -m slow "
    "tests/test_documented_commands.py tests/commands/test_sweep.py tests/training/test_processes.py "
    "tests/scripts/test_wheel.py tests/scripts/test_kill_harness.py tests/commands/test_odd_names.py "
    "tests/commands/test_offline.py tests/commands/test_bench.py tests/bench/test_whole.py tests/test_notebook.py "
    "tests/training/test_leaks.py tests/fuzzing/test_harness.py tests/scripts/test_frozen_features.py "
    "tests/commands/test_train.py::test_a_disk_that_fills_up_in_training_is_one_sentence_and_the_run_can_be_resumed "
    "tests/scripts/test_load_test.py "
    "--deselect tests/scripts/test_load_test.py::test_the_network_that_comes_with_the_package_bears_it",
    ".venv/bin/ruff check",
    ".venv/bin/ruff format --check",
    ".venv/bin/lint-imports",
    "environment_of_the_oldest_python",
    "build/oldest/bin/python -m pytest -rs --numprocesses 2 --dist loadfile tests/porting "
    "tests/bench/test_rivals.py tests/test_cli.py",
]
OLDEST = [
    "make_environment run",
    "pip_install --require-hashes -r",
    "build/oldest/bin/python -m pip install --quiet --disable-pip-version-check --no-input torch==2.13.0 "
    "torchvision==0.28.0 timm==1.0.31",
]
"""The parts of the installation for the oldest Python, each of which needs the one before."""

BESIDE = [*OLDEST, STEPS[-1]]
"""What goes on beside the other steps."""

STEP = """
note=$TMPDIR/step-${BASHPID:-$$}
%s | sed 's/^\\/.*a checkout\\///; s/^[.]\\///; s/ \\/.*//' >"$note"
read -r name <"$note"
echo "$name" >>"$RECORD"
case "|$FAIL|" in *"|${name%% }|"*) %s 1 ;; esac
"""


@pytest.fixture
def ci(checkout):
    """Run .ci/run with stand-ins for its steps; those named in `failing` fail."""
    shutil.copytree(ROOT / ".ci", checkout.root / ".ci")
    start = "#!/bin/sh\n"
    step = STEP % ('echo "$0 $*"', "exit")
    checkout.write_tool(
        checkout.root / "scripts" / "test", start + 'echo "TOTAL 10 0 100%"; echo "7 passed in 1.0s"\n' + step
    )
    for tool in (".venv/bin/python", ".venv/bin/ruff", ".venv/bin/lint-imports", "build/oldest/bin/python"):
        checkout.write_tool(checkout.root / tool, start + step)
    functions = "locked() { :; }\n"
    for name in ("make_environment", "pip_install"):
        functions += f"{name}() {{\n" + STEP % (f'echo "{name} $*"', "return") + "}\n"
    checkout.write_tool(
        checkout.root / "scripts" / "environment.sh", 'python="$root/build/oldest/bin/python"\n' + functions
    )
    return lambda *failing: checkout.run(".ci/run", FAIL="|".join(failing), CI="true")


def steps_and_parts(checkout) -> tuple[list[str], list[str]]:
    """What was called, apart: the steps one after another, and what goes on beside them."""
    calls = [call.strip() for call in checkout.calls()]
    return [call for call in calls if call not in BESIDE], [call for call in calls if call in BESIDE]


def test_ci_runs_every_step_and_sums_up(ci, checkout, tmp_path):
    done = ci()
    assert done.returncode == 0, done
    steps, parts = steps_and_parts(checkout)
    assert steps == ["make_environment test", *(step for step in STEPS if step not in BESIDE and "/" in step)]
    assert parts == BESIDE
    assert done.stdout.splitlines()[-len(STEPS) - 2 :] == [
        *(f"passed  {step}" for step in STEPS),
        "TOTAL 10 0 100%",
        "7 passed in 1.0s",
    ]
    assert list((checkout.root / "build").iterdir()) == [checkout.root / "build" / "oldest"]
    assert list((tmp_path / "tmp").iterdir()) == []


@pytest.mark.parametrize("failing", [*(step for step in STEPS if "environment" not in step), *OLDEST])
def test_ci_fails_when_any_step_does_but_runs_the_others(ci, checkout, failing):
    done = ci(failing)
    assert done.returncode == 1
    step = "environment_of_the_oldest_python" if failing in OLDEST else failing
    assert [line for line in done.stdout.splitlines() if line.startswith("FAILED")] == [f"FAILED  {step}"]
    steps, parts = steps_and_parts(checkout)
    assert len(steps) == len(STEPS) - 1
    # the tests are begun all the same, and fail without their environment
    assert parts == [*(OLDEST[: OLDEST.index(failing) + 1] if failing in OLDEST else OLDEST), STEPS[-1]]
    assert done.stdout.splitlines()[-1] == "7 passed in 1.0s"


@pytest.mark.parametrize("script", ["scripts/quickstart", "scripts/test", "scripts/lock", ".ci/run"])
def test_scripts_can_be_executed(script):
    assert os.access(ROOT / script, os.X_OK)
