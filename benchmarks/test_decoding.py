"""How many original radiographs does one core decode in a second? Run by hand, as `test_speed.py` is.

Needs CXR_DATA_DIR with original_sample/, some radiographs as the authors published them, about 1350 x 1000 pixels.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("pytest_benchmark", reason="needs pytest-benchmark")

import cv2

from cxr_jax.data.decode import decode_square

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

AT_LEAST = 250.0
"""Images a second and core; a whole decode by OpenCV gives 150 to 270, depending on the machine."""


def test_one_core_decodes_originals_fast(benchmark: BenchmarkFixture, request: pytest.FixtureRequest) -> None:
    """Decode each file to 224 pixels, in one thread."""
    folder = os.environ.get("CXR_DATA_DIR")
    originals = sorted(Path(folder, "original_sample").rglob("*.jpeg")) if folder else []
    if not originals:
        pytest.skip("CXR_DATA_DIR names no folder with original_sample")
    files = [path.read_bytes() for path in originals]
    cv2.setNumThreads(1)

    def decode_all() -> None:
        for path, data in zip(originals, files, strict=True):
            decode_square(data, 224, name=path.name)

    benchmark.pedantic(decode_all, rounds=10, warmup_rounds=1)
    images_per_second = len(files) / benchmark.stats.stats.median
    benchmark.extra_info["images_per_second"] = images_per_second
    print(f"\n{images_per_second:.0f} images per second and core")
    if not request.config.getoption("--no-bounds"):
        assert images_per_second >= AT_LEAST
