"""The native kernels are built once, found again, and done without wherever they cannot be had."""

import subprocess
from pathlib import Path

import pytest

from cxr_jax.models.kernels.native import library
from cxr_jax.process import KERNELS_SWITCH


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder for the library; what was loaded in this process is forgotten, and again afterwards."""
    monkeypatch.setenv(KERNELS_SWITCH, str(tmp_path / "native"))
    library._load.cache_clear()
    yield tmp_path / "native"
    library._load.cache_clear()


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


def test_the_compiler_that_is_named_may_have_options(monkeypatch, tmp_path):
    compiler = script(tmp_path / "compiler", "")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "compiler -m64 --wrapped")
    assert library._compiler() == [str(compiler), "-m64", "--wrapped"]
    other = script(tmp_path / "a compiler", "")
    monkeypatch.setenv("CXX", str(other))
    assert library._compiler() == [str(other)]
    monkeypatch.setenv("CXX", "none")
    with pytest.raises(OSError, match=r"there is no C\+\+ compiler"):
        library._compiler()
    usual = script(tmp_path / "clang++", "")
    assert library._compiler() == [str(usual)]


@pytest.mark.parametrize(
    ("options", "processors"),
    [("", ["native"]), (" -g", ["native"]), (" -march=haswell", ["haswell"]), (" -g -mcpu=apple-m1", ["apple-m1"])],
)
def test_the_processor_is_this_one_or_the_one_that_the_options_name(monkeypatch, folder, tmp_path, options, processors):
    said = tmp_path / "said"
    noting = script(tmp_path / "noting", f'case "$*" in *--version*) exit 0;; esac; echo "$@" > "{said}"; exit 1')
    monkeypatch.setenv("CXX", f"{noting}{options}")
    assert library.why_not()
    asked = [word.partition("=") for word in said.read_text().split()]
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


def test_it_is_compiled_once(monkeypatch, native_kernels):
    assert library.native_kernels_work()

    def compile_again(command, **options):
        assert "--version" in command, "the library was there already"
        return subprocess.CompletedProcess(command, 0, subprocess_run(command, **options).stdout)

    subprocess_run = subprocess.run
    monkeypatch.setattr(subprocess, "run", compile_again)
    library._load.cache_clear()
    assert library.native_kernels_work()


def test_every_handler_of_the_source_is_known():
    source = Path(library.__file__).with_name("source")
    text = "".join(path.read_text() for path in sorted(source.iterdir()))
    assert all(f"cxr_jax_{name}," in text for name in library.HANDLERS)
    assert text.count("XLA_FFI_DEFINE_HANDLER_SYMBOL(") == len(library.HANDLERS)
