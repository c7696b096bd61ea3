"""Outputs, statistics, gradients and SGD steps are timm's, as stored by scripts/make_goldens.py; torch is not needed.

The stored figures are fingerprints of float64 arrays: tests/goldens/agreement.py says what they can tell.
"""

from pathlib import Path

import numpy as np
import our_networks
import pytest
from agreement import assert_below, errors_by_fingerprint, fingerprints

from cxr_jax.models.registry import ARCHITECTURES

GOLDENS = Path(__file__).parents[1] / "goldens"

BOUNDS = {"outputs": 1e-10, "training_pass": 1e-10, "sgd": 1e-8, "stages": 1e-10, "learning": 1e-8}

OF_STAGES = ("stages", "learning")
"""What is stored of the networks without `blocks` of their own."""

OF_BLOCKS = ("mobilenetv2_tiny", "efficientnetv2_tiny")

COMPARED_LIVE = {("inception_tiny", "learning")}
"""What is compared with the originals where torch is installed, and not stored."""

STORED = sorted(path.stem for path in GOLDENS.glob("*.npz"))


def test_every_family_is_stored():
    stored = {tuple(name.split("-")[:2]) for name in STORED}
    whole = {("mobilenetv2_100", "outputs"), ("tf_efficientnetv2_s", "outputs")}
    of_blocks = {(name, what) for name in OF_BLOCKS for what in BOUNDS if what not in OF_STAGES}
    # of Stephen's network there is no original
    others = {name for name in ARCHITECTURES if name.endswith("_tiny")} - {*OF_BLOCKS, "stephen2019_tiny"}
    assert stored == (whole | of_blocks | {(name, what) for name in others for what in OF_STAGES}) - COMPARED_LIVE


SLOW = tuple(
    f"{name}_tiny-learning" for name in ("xception", "resnet", "resnet_basic", "densenet", "efficientnet_lite")
)
"""Their steps of SGD take many seconds to compile; those of their building blocks are among the others."""


@pytest.mark.parametrize(
    "stored", [pytest.param(stored, marks=pytest.mark.slow if stored.startswith(SLOW) else ()) for stored in STORED]
)
def test_it_is_as_stored(stored):
    name, what, *size = stored.split("-")
    arguments = {"outputs": (*map(int, size), "float64"), "training_pass": ("float64",)}.get(what, ())
    arguments = (*map(int, size), "float64") if what == "stages" else arguments
    with np.load(GOLDENS / f"{stored}.npz") as file:
        expected = dict(file)
    found = getattr(our_networks, what)(name, *arguments)
    assert_below(errors_by_fingerprint(found, expected), BOUNDS[what])


def test_a_small_error_changes_a_fingerprint():
    random = np.random.default_rng(0)
    right = {"x": random.normal(size=(20, 30))}
    wrong = {"x": right["x"] + 1e-3 * random.normal(size=(20, 30))}
    (error,) = errors_by_fingerprint(wrong, fingerprints(right)).values()
    assert 1e-4 < error < 1e-2
    (none,) = errors_by_fingerprint(right, fingerprints(right)).values()
    assert none == 0
