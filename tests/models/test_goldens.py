"""Outputs, statistics, gradients and SGD steps are timm's, as stored by scripts/make_goldens.py; torch is not needed.

The stored figures are fingerprints of float64 arrays: tests/goldens/agreement.py says what they can tell.
"""

from pathlib import Path

import numpy as np
import our_networks
import pytest
from agreement import assert_below, errors_by_fingerprint, fingerprints

GOLDENS = Path(__file__).parents[1] / "goldens"

BOUNDS = {"outputs": 1e-10, "training_pass": 1e-10, "sgd": 1e-8}

STORED = sorted(path.stem for path in GOLDENS.glob("*.npz"))


def test_both_studied_networks_and_both_tiny_ones_are_stored():
    expected = [f"{name}-{what}" for name in ("efficientnetv2_tiny", "mobilenetv2_tiny") for what in BOUNDS]
    networks = {name.split("-")[0] for name in STORED}
    assert networks == {"mobilenetv2_tiny", "efficientnetv2_tiny", "mobilenetv2_100", "tf_efficientnetv2_s"}
    assert all(any(name.startswith(prefix) for name in STORED) for prefix in expected)


@pytest.mark.parametrize("stored", STORED)
def test_it_is_as_stored(stored):
    name, what, *size = stored.split("-")
    arguments = {"outputs": (*map(int, size), "float64"), "training_pass": ("float64",), "sgd": ()}[what]
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
