"""Weights, images and labels drawn from seeds, the same for our networks and for timm's.

numpy's RandomState is used because its stream is frozen for good, unlike that of a Generator.
"""

import zlib

import numpy as np

from cxr_jax.models.original_names import original_name, torch_shape

CLASSES = 7

TRAINING_SIZE, TRAINING_BATCH = 65, 8
SGD_SIZE, SGD_BATCH, SGD_STEPS = 48, 16, 5
LEARNING_SIZE, LEARNING_BATCH = 64, 6
RATE, MOMENTUM, DECAY = 0.01, 0.9, 1e-4


def drawn_tensors(arrays, names=()):
    """A float64 array for every one of ours, under the names of timm or torchvision and in torch's layout.

    Scales, biases, means and variances are far from those of a fresh BatchNorm, which would hide a wrong epsilon or
    order. Kernels let a block add little to what passes by it: a deep network of large ones multiplies rounding errors
    until nothing can be compared.
    """
    tensors = {}
    for name, array in arrays.items():
        random = np.random.RandomState(zlib.crc32(name.encode()))
        shape, leaf = torch_shape(name, array), name.rsplit(".", 1)[1]
        if leaf == "kernel":
            value = random.standard_normal(shape) / np.prod(shape[1:]) ** 0.5
        elif leaf in ("scale", "var"):
            value = random.uniform(0.6, 1.4, shape)
        else:
            value = random.uniform(-0.3, 0.3, shape)
        tensors[original_name(name, names)] = value
    return tensors


def drawn_images(count, size, seed=0):
    """Smooth and rough images [count, size, size, 3] float64 of mean near 0 and spread near 1."""
    random = np.random.RandomState(1000 + seed)
    steps = np.linspace(-3, 3, size)
    waves = np.sin(np.add.outer(steps, 2 * steps))[None, :, :, None] * random.uniform(0.5, 1.5, (count, 1, 1, 3))
    return waves + 0.7 * random.standard_normal((count, size, size, 3))


def drawn_labels(count):
    """Labels [count] int64 below CLASSES."""
    return np.random.RandomState(2000).randint(0, CLASSES, count)


def learning_size(name):
    """The side in pixels of the images that the network is taught with: InceptionV3 needs 75 at least."""
    return 75 if name.startswith("inception") else LEARNING_SIZE
