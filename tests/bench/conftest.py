"""A few prepared phantoms, once for all tests of the benchmark."""

from __future__ import annotations

from pathlib import Path

import pytest

from cxr_jax.data.phantoms.folder import write_phantoms
from cxr_jax.data.preparation import prepare


@pytest.fixture(scope="session")
def few_phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of prepared data with 40 training images, and a validation split of its own."""
    source, root = tmp_path_factory.mktemp("source") / "phantoms", tmp_path_factory.mktemp("prepared")
    write_phantoms(source, train=40, val=4, test=4, seed=0, image_size_range=(96, 100))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_PREPARED_DIR", str(root))
        prepare(source, name="few")
    return root / "few"
