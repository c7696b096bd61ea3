"""Weights and images drawn from a seed, the same here and in torch, for goldens and live comparisons.

numpy's RandomState is used because its stream is frozen for good, unlike that of a Generator.
"""

import zlib

import numpy as np

from cxr_jax.models.pretrained import timm_name, torch_shape


def drawn_tensors(arrays):
    """A float64 array for every one of ours, under timm's names and in torch's layout.

    Kernels keep the size of what passes through them; scales, biases, means and variances are all far from the values
    that a fresh BatchNorm has, which would hide a wrong epsilon or order.
    """
    tensors = {}
    for name, array in arrays.items():
        random = np.random.RandomState(zlib.crc32(name.encode()))
        shape, leaf = torch_shape(name, array), name.rsplit(".", 1)[1]
        if leaf == "kernel":
            value = random.standard_normal(shape) * (1.5 / np.prod(shape[1:])) ** 0.5
        elif leaf in ("scale", "var"):
            value = random.uniform(0.6, 1.4, shape)
        else:
            value = random.uniform(-0.3, 0.3, shape)
        tensors[timm_name(name)] = value
    return tensors


def drawn_images(count, size, seed=0):
    """Smooth and rough images [count, size, size, 3] float64 of mean near 0 and spread near 1."""
    random = np.random.RandomState(1000 + seed)
    steps = np.linspace(-3, 3, size)
    waves = np.sin(np.add.outer(steps, 2 * steps))[None, :, :, None] * random.uniform(0.5, 1.5, (count, 1, 1, 3))
    return waves + 0.7 * random.standard_normal((count, size, size, 3))


def drawn_labels(count, classes):
    """Labels [count] int64 below `classes`."""
    return np.random.RandomState(2000).randint(0, classes, count)


def fingerprint(array):
    """The size of an array and five numbers that depend on all of it: its L2 norm, its mean, three projections.

    The projections are on random unit vectors, so that an error of relative size e in the array shows as about e times
    the norm over the root of its size.
    """
    flat = np.asarray(array, np.float64).reshape(-1)
    random = np.random.RandomState(3000)
    axes = random.standard_normal((3, flat.size))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    return np.array([flat.size, np.linalg.norm(flat), flat.mean(), *(axes @ flat)])
