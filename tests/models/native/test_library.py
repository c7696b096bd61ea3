"""The native kernels are built once, found again, and done without wherever they cannot be had."""

import itertools
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax.numpy as jnp
import jaxlib
import pytest

from cxr_jax.config.schema import Config, ParallelConfig, TrainingConfig
from cxr_jax.errors import UserError
from cxr_jax.models.kernels.native import building, library, pooling
from cxr_jax.process import KERNELS_SWITCH
from cxr_jax.training import kernels_ahead


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder for the library, which is not there yet: nothing that was loaded in this process came from it."""
    monkeypatch.setenv(KERNELS_SWITCH, str(tmp_path / "native"))
    return tmp_path / "native"


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_switched_off_nothing_is_built(monkeypatch, folder):
    monkeypatch.setenv(KERNELS_SWITCH, "off")
    assert not library.native_kernels_work()
    assert library.why_not() == "CXR_NATIVE_KERNELS is off"
    assert not folder.exists()


def test_without_a_compiler_it_says_so(monkeypatch, folder, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert library.why_not() == "there is no C++ compiler (g++ or clang++)"


def test_a_compiler_that_fails_is_quoted_and_nothing_is_left(monkeypatch, folder, tmp_path):
    failing = script(
        tmp_path / "failing", '[ "$1" = --version ] && exit 0\necho "x.h:1: error: no such thing" >&2; exit 1'
    )
    monkeypatch.setenv("CXX", str(failing))
    assert library.why_not() == "the C++ compiler failed: x.h:1: error: no such thing"
    assert list(folder.iterdir()) == []


def test_a_compiler_may_write_in_any_encoding(monkeypatch, folder, tmp_path):
    failing = script(tmp_path / "failing", "printf '\\377: error: no\\n' >&2; exit 1")
    monkeypatch.setenv("CXX", str(failing))
    assert library.why_not() == "the C++ compiler failed: \N{REPLACEMENT CHARACTER}: error: no"


def test_a_compiler_is_asked_in_english(monkeypatch, folder, tmp_path):
    failing = script(tmp_path / "failing", 'echo "first line" >&2; echo "error: in $LC_ALL" >&2; exit 1')
    monkeypatch.setenv("CXX", str(failing))
    monkeypatch.setenv("LC_ALL", "de_DE.UTF-8")
    assert library.why_not() == "the C++ compiler failed: error: in C"


@pytest.mark.parametrize(
    ("named", "there", "called"),
    [
        ("compiler -m64 --wrapped", "compiler", "compiler -m64 --wrapped "),
        ("FOLDER/a compiler", "a compiler", "a compiler "),
        ("none", "clang++", "clang++ "),
    ],
)
def test_the_compiler_that_is_named_may_have_options(monkeypatch, folder, tmp_path, named, there, called):
    said = tmp_path / "said"
    script(tmp_path / there, f'case "$*" in *--version*) exit 0;; esac; echo "$0 $*" >> "{said}"; exit 1')
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", named.replace("FOLDER", str(tmp_path)))
    assert library.why_not() == "the C++ compiler failed: no message"
    assert said.read_text().startswith(f"{tmp_path}/{called}-std=")


def test_a_name_that_no_compiler_has_is_as_no_compiler(monkeypatch, folder, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "none")
    assert library.why_not() == building.NO_COMPILER


def test_a_compiler_that_takes_too_long_is_ended_with_all_that_it_started(monkeypatch, folder, tmp_path):
    started = tmp_path / "started"
    # as g++ does, it leaves the work to another program, and that keeps a file meanwhile
    slow = script(
        tmp_path / "slow",
        f'[ "$1" = --version ] && exit 0\necho half > "$TMPDIR/half.s"\nsleep 600 &\necho $! >> "{started}"\nwait',
    )
    monkeypatch.setenv("CXX", str(slow))
    monkeypatch.setattr(building, "COMPILER_SECONDS", 1)
    assert library.why_not() == "the C++ compiler took longer than 1 seconds, and was ended"
    assert list(folder.iterdir()) == []
    processes = [int(number) for number in started.read_text().split()]
    assert processes and all(gone(process) for process in processes)


def test_where_one_part_does_not_compile_the_others_are_ended(monkeypatch, folder, tmp_path):
    started, finished = tmp_path / "started", tmp_path / "finished"
    failing = script(
        tmp_path / "failing",
        '[ "$1" = --version ] && exit 0\n'
        f'case "$*" in *channels.cc*) sleep 1; exit 1;; esac\nsleep 200 &\necho $! >> "{started}"\n'
        f'wait $! && echo whole >> "{finished}"',
    )
    monkeypatch.setenv("CXX", str(failing))
    assert library.why_not() == "the C++ compiler failed: no message"
    assert not finished.exists()
    assert all(gone(int(number)) for number in (started.read_text().split() if started.exists() else []))


def gone(process: int) -> bool:
    """Whether a process ends within a minute; one that has ended may still wait to be asked how."""
    for _ in range(1200):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        state = Path(f"/proc/{process}/stat")
        if state.is_file() and ") Z " in state.read_text():
            return True
        time.sleep(0.05)
    os.kill(process, signal.SIGKILL)
    return False


@pytest.mark.parametrize(
    ("options", "processors"),
    [("", ["native"]), (" -g", ["native"]), (" -march=haswell", ["haswell"]), (" -g -mcpu=apple-m1", ["apple-m1"])],
)
def test_the_processor_is_this_one_or_the_one_that_the_options_name(monkeypatch, folder, tmp_path, options, processors):
    said = tmp_path / "said"
    noting = script(tmp_path / "noting", f'case "$*" in *--version*) exit 0;; esac; echo "$@" >> "{said}"; exit 1')
    monkeypatch.setenv("CXX", f"{noting}{options}")
    assert library.why_not()
    asked = [word.partition("=") for word in said.read_text().splitlines()[0].split()]
    assert [value for name, _, value in asked if name in ("-march", "-mcpu")] == processors


def test_a_library_that_does_not_load_is_no_traceback(monkeypatch, folder, tmp_path):
    useless = script(
        tmp_path / "useless",
        '[ "$1" = --version ] && exit 0\nwhile [ "$1" != -o ]; do shift; done; echo nonsense > "$2"',
    )
    monkeypatch.setenv("CXX", str(useless))
    reason = library.why_not()
    assert ".so" in reason
    assert "\n" not in reason


def test_a_folder_that_cannot_be_made_is_no_traceback(monkeypatch, tmp_path, native_kernels):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(KERNELS_SWITCH, str(tmp_path / "file" / "native"))
    assert "Not a directory" in library.why_not()


def test_it_is_compiled_once_for_all_environments(monkeypatch, folder, tmp_path):
    said = tmp_path / "said"
    useless = script(
        tmp_path / "useless",
        f'[ "$1" = --version ] && exit 0\necho once >> "{said}"\n'
        'while [ "$1" != -o ]; do shift; done; echo nonsense > "$2"',
    )
    monkeypatch.setenv("CXX", str(useless))
    reason, compiled = library.why_not(), said.read_text()
    # another way to the same folder, where this process has looked for nothing yet; and jax elsewhere
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.setenv(KERNELS_SWITCH, str(tmp_path / "link"))
    monkeypatch.setattr(jaxlib, "__file__", "/another/environment/jaxlib/__init__.py")
    assert library.why_not() == reason.replace(str(folder), str(tmp_path / "link")) != reason
    assert said.read_text() == compiled != ""
    assert len(list(folder.iterdir())) == 1


def test_what_is_begun_in_the_background_is_compiled_once(monkeypatch, folder, tmp_path):
    said = tmp_path / "said"
    failing = script(
        tmp_path / "failing",
        f'[ "$1" = --version ] && exit 0\necho "$@" >> "{said}"\necho "x.h:1: error: no such thing" >&2; exit 1',
    )
    monkeypatch.setenv("CXX", str(failing))
    building.begin_to_build(building.COMMON, folder)
    building.begin_to_build(building.COMMON, folder)
    assert library.why_not() == "the C++ compiler failed: x.h:1: error: no such thing"
    compiled = [word for word in said.read_text().split() if word.endswith(".cc")]
    assert len(compiled) == len(set(compiled)) > 0
    assert list(folder.iterdir()) == []


def test_a_process_that_ends_ends_the_compilers_that_it_began(folder, tmp_path):
    started = tmp_path / "started"
    slow = script(tmp_path / "slow", f'[ "$1" = --version ] && exit 0\nsleep 600 &\necho $! >> "{started}"\nwait')
    program = f"""
import pathlib, time
from cxr_jax.models.kernels.native.building import COMMON, UNITS, begin_to_build
begin_to_build(COMMON, pathlib.Path({str(folder)!r}))
while not pathlib.Path({str(started)!r}).is_file():
    time.sleep(0.01)
"""
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "CXX": str(slow)}, check=True, timeout=300)
    assert list(folder.iterdir()) == []
    assert all(gone(int(number)) for number in started.read_text().split())


def test_jax_is_not_needed_to_begin():
    program = "import sys, cxr_jax.training.kernels_ahead; sys.exit('jax' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("training", "parallel", "environment", "begun"),
    [
        ({"precision": "bf16"}, {}, {}, True),
        ({"precision": "bf16"}, {"devices": 1}, {"JAX_NUM_CPU_DEVICES": "1"}, True),
        ({"precision": "bf16"}, {"devices": 2, "backend": "pmap"}, {}, True),
        ({"precision": "float32"}, {}, {}, False),
        ({"precision": "bf16"}, {"devices": 2}, {}, False),
        ({"precision": "bf16"}, {}, {"JAX_NUM_CPU_DEVICES": "2"}, False),
        ({"precision": "bf16"}, {}, {"JAX_PLATFORMS": "cuda"}, False),
        ({"precision": "bf16"}, {}, {KERNELS_SWITCH: "off"}, False),
    ],
    ids=repr,
)
def test_kernels_are_begun_where_a_run_seems_to_need_them(monkeypatch, folder, training, parallel, environment, begun):
    names = []
    monkeypatch.setattr(kernels_ahead, "begin_to_build", lambda name, where: names.append((name, where)))
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    config = Config(training=TrainingConfig(**training), parallel=ParallelConfig(**parallel))
    kernels_ahead.begin_kernels(config)
    assert names == ([(building.COMMON, folder)] if begun else [])


def test_a_library_that_only_some_networks_need_is_built_for_them(native_kernels):
    assert library.why_not() == ""
    x = jnp.ones((1, 4, 4, 16), jnp.bfloat16)
    pooled = pooling.max_pool(x, 2, 2, ((0, 0), (0, 0)))
    assert pooled.shape == (1, 2, 2, 16)


def test_a_library_that_cannot_be_had_is_a_mistake_that_says_so(monkeypatch, folder, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"native kernels for any depthwise too, .*: there is no C\+\+ compiler"):
        library.target("any_depthwise_input")


def test_every_unit_of_the_source_is_in_a_library():
    source = Path(library.__file__).with_name("source")
    units = sorted([*itertools.chain(*building.UNITS.values()), building.SHARED])
    assert units == sorted(path.name for path in source.glob("*.cc"))
    for name, handlers in library.HANDLERS.items():
        texts = [(source / unit).read_text() for unit in building.UNITS[name]]
        texts += [path.read_text() for path in source.glob("*_handlers.h") if any(path.name in text for text in texts)]
        assert sorted(re.findall(r"CXR_HANDLER\((\w+),", "".join(texts))) == sorted(handlers)


def test_every_handler_of_the_source_is_known():
    source = Path(library.__file__).with_name("source")
    text = "".join(path.read_text() for path in sorted(source.iterdir()) if path.name != "frame.h")
    assert sorted(re.findall(r"CXR_HANDLER\((\w+),", text)) == sorted(itertools.chain(*library.HANDLERS.values()))
