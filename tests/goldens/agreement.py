"""How far our arrays are from theirs, in relative L2 norm, given theirs whole or as fingerprints."""

import numpy as np

VANISHING = 1e-3
"""Gradients smaller than this share of all gradients together are measured by that share instead of by themselves.

A bias whose effect the next BatchNorm takes away has a gradient of exactly zero, and what either computes is rounding.
"""


def fingerprints(arrays):
    """For every array its number of values, its L2 norm, and its projections on three random unit vectors: [5].

    An error of norm e shows in each projection as about e over the root of the number of values.
    """
    return {name: _fingerprint(array) for name, array in arrays.items()}


def _fingerprint(array):
    flat = np.asarray(array, np.float64).reshape(-1)
    axes = np.random.RandomState(3000).standard_normal((3, flat.size))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    return np.array([flat.size, np.linalg.norm(flat), *(axes @ flat)])


def errors(ours, theirs):
    """The relative error of every array; the two must have the same names and shapes."""
    assert ours.keys() == theirs.keys()
    assert all(np.shape(ours[name]) == theirs[name].shape for name in theirs)
    norms = {name: np.linalg.norm(value) for name, value in theirs.items()}
    differences = {name: np.linalg.norm(np.asarray(ours[name], np.float64) - value) for name, value in theirs.items()}
    return _relative(differences, norms)


def errors_by_fingerprint(ours, theirs):
    """The relative error of every array as estimated from fingerprints of theirs."""
    ours = fingerprints(ours)
    assert ours.keys() == theirs.keys()
    assert all(ours[name][0] == theirs[name][0] for name in theirs)
    differences = {}
    for name, expected in theirs.items():
        by_norm, *by_axes = np.abs(ours[name] - expected)[1:]
        differences[name] = max(by_norm, np.sqrt(expected[0] / 3) * np.linalg.norm(by_axes))
    return _relative(differences, {name: expected[1] for name, expected in theirs.items()})


def _relative(differences, norms):
    gradients = np.linalg.norm([norm for name, norm in norms.items() if name.startswith("gradients.")])
    return {
        name: difference / max(norms[name], VANISHING * gradients if name.startswith("gradients.") else 0.0)
        for name, difference in differences.items()
    }


def assert_below(found, bound):
    """Fail naming the arrays whose error is not below `bound`."""
    assert found
    large = {name: float(error) for name, error in found.items() if not error < bound}
    assert not large
