"""Settings of the whole suite: eight CPU devices, strict promotion of types and ranks, nothing kept in the home."""

from __future__ import annotations

import os

# Threads of BLAS wait for each other without sleeping. On cores that all workers share, a logistic regression on a few
# images takes ten times as long with two of them. It is read where numpy is imported.
os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"

import gc
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from cxr_jax.process import CACHE_SWITCH, KERNELS_SWITCH, processor_digest

if TYPE_CHECKING:
    from tests.browser import Browser

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["MPLBACKEND"] = "Agg"
# Many tests compile the very same program. It is kept for both workers, for the commands that tests start and for later
# runs of the suite; apart for each processor, and by jax for each choice of XLA_FLAGS.
os.environ["CXR_TEST_PROGRAMS"] = os.environ.get("CXR_TEST_PROGRAMS") or str(
    Path(__file__).parents[1] / ".pytest_cache"
)
os.environ[CACHE_SWITCH] = f"{os.environ['CXR_TEST_PROGRAMS']}/compiled"
os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{os.environ[CACHE_SWITCH]}/{processor_digest()}"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
# tests of the native kernels ask for them; all others compare runs in float32
os.environ[KERNELS_SWITCH] = "off"

import hypothesis
import jax

# A time limit for each example fails at random on a busy machine; a fixed draw makes a failure repeatable.
hypothesis.settings.register_profile("cxr_jax", deadline=None, derandomize=True)
hypothesis.settings.load_profile("cxr_jax")

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def _has_room(memory: Path) -> bool:
    """Whether the files of tests, some of which are programs, can lie in this folder of a file system in memory."""
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        return False
    found = os.statvfs(memory)
    return found.f_bavail * found.f_frsize > 4e9 and not found.f_flag & os.ST_NOEXEC


# Every checkpoint is written through to the disk. On a disk the cores wait for that a quarter of the time.
if _has_room(Path("/dev/shm")):
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", "/dev/shm")

LONGEST = (
    "tests/test_documented_commands.py",
    "tests/training/test_processes.py",
    "tests/bench/test_whole.py",
    "tests/test_notebook.py",
    "tests/commands/test_explain.py",
    "tests/commands/test_train.py",
    "tests/commands/test_sweep.py",
    "tests/training/test_run.py",
    "tests/commands/test_evaluate.py",
    "tests/commands/test_bench.py",
    "tests/commands/test_crossval.py",
    "tests/training/test_resumption.py",
    "tests/bench/test_children.py",
    "tests/serving/dicomweb/test_watch.py",
    "tests/serving/dicomweb/test_watch_faults.py",
    "tests/commands/test_offline.py",
    "tests/commands/test_train_native.py",
    "tests/reporting/test_report_browser.py",
    "tests/training/test_leaks.py",
    "tests/training/test_feed.py",
    "tests/training/test_step.py",
    "tests/commands/test_odd_names.py",
    "tests/commands/test_two_processes.py",
    "tests/training/test_precision.py",
    "tests/training/test_averaging.py",
    "tests/preprocessing/test_augment.py",
)
"""Files that take longest: begun first, so that no worker is left alone with one of them at the end. Those that mostly
wait stand between those that compute, and leave them the cores.
"""


def pytest_collection(session: pytest.Session) -> None:
    """Has each worker of the whole suite begin to collect at another file, and find what the others have compiled.

    pytest compiles every file of tests anew for its assertions, which takes longer than to import them.
    """
    config, tests, worker = session.config, Path(__file__).parent, os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and [config.invocation_params.dir / arg for arg in config.args] == [tests]:
        files = sorted(map(str, tests.rglob("test_*.py")))
        begin = int(worker.removeprefix("gw")) * len(files) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        config.args = files[begin:] + files[:begin]
        sys.dont_write_bytecode = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first; a file stays together."""
    order = {name: place for place, name in enumerate(LONGEST)}
    files = [item.nodeid.split("::")[0] for item in items]
    places = dict(zip(items, ((order.get(file, len(order)), file) for file in files), strict=True))
    items.sort(key=places.__getitem__)


def pytest_collection_finish() -> None:
    """Has the garbage collector leave alone what stays, and look less often: jax makes many objects while it traces."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 25, 25)


@pytest.fixture(autouse=True)
def _prepared_data_elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the prepared data of whoever runs it."""
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path_factory.getbasetemp() / "prepared"))


@pytest.fixture
def native_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switches the native kernels on; the test is skipped where no compiler is, and fails where one fails."""
    from cxr_jax.models.kernels.native.building import NO_COMPILER
    from cxr_jax.models.kernels.native.library import why_not

    monkeypatch.setenv(KERNELS_SWITCH, f"{os.environ['CXR_TEST_PROGRAMS']}/native")
    if reason := why_not():
        (pytest.skip if reason == NO_COMPILER else pytest.fail)(reason)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless Chromium for the tests of one file, which are skipped where none is installed."""
    from tests.browser import MISSING, PROGRAM, Browser

    if PROGRAM is None:
        pytest.skip(MISSING)
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def _folder(variable: str, inside: str = "") -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    path = Path(value) / inside
    if not path.exists():
        pytest.skip(f"{path} does not exist")
    return path


@pytest.fixture(scope="session")
def real_radiographs() -> Path:
    """The official folder of the real data; the test is skipped where it is absent."""
    return _folder("CXR_DATA_DIR", "chest_xray")


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """The ImageNet weights of MobileNetV2; the test is skipped where they are absent."""
    return _folder("CXR_WEIGHTS_DIR", "mobilenetv2_100.imagenet.safetensors")


@pytest.fixture(scope="session")
def tiny_trained():
    """Makes the tiny MobileNetV2 as a restored run hands it over, for images of 32 x 32 pixels.

    With `loud` its classifier shouts, so that probabilities differ between images.
    """
    from cxr_jax.inference.restore import TrainedModel
    from cxr_jax.models.registry import build_model
    from cxr_jax.models.state import split_model
    from cxr_jax.runs.description import NetworkDescription
    from cxr_jax.vocabulary import CLASS_NAMES

    def make(*, loud: bool, step: int, threshold: float | None, threshold_rule: str | None) -> TrainedModel:
        description = NetworkDescription(
            architecture="mobilenetv2_tiny",
            classes=CLASS_NAMES,
            image_size=32,
            resize="squash",
            interpolation="area",
            mean=(0.4, 0.5, 0.6),
            std=(0.2, 0.25, 0.3),
            weights="",
            weights_sha256="",
            parameters=0,
        )
        graphdef, params, batch_stats = split_model(build_model("mobilenetv2_tiny", classes=2, seed=3))
        if loud:
            params["classifier.kernel"] = 20 * params["classifier.kernel"]
        return TrainedModel(description, graphdef, params, batch_stats, step, threshold, threshold_rule)

    return make


@pytest.fixture(scope="session")
def metric_values() -> Callable[..., dict[str, float | None]]:
    """A function that returns every metric by name, of labels and probabilities at a threshold (0.5)."""
    from cxr_jax.evaluation.cases import Cases
    from cxr_jax.evaluation.metrics import METRICS, metric_value

    def values(label: np.ndarray, probability: np.ndarray, threshold: float = 0.5) -> dict[str, float | None]:
        cases = Cases.unweighted(label, probability, threshold)
        return {name: metric_value(name, cases) for name in METRICS}

    return values
