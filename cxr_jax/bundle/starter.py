"""The network that comes with the package, for whoever has none of their own yet."""

from __future__ import annotations

from pathlib import Path

import cxr_jax
from cxr_jax.bundle.record import Bundle

STARTER = Path(cxr_jax.__file__).absolute().parent / "starter"
"""Folder of its bundle, with the licences of what it was made of. `cxr-jax export --half --check` wrote it."""

_ORIGIN = "children's radiographs of one hospital (Kermany et al. 2018)"


def starter_name(bundle: Bundle) -> str:
    """Returns what the network is called before its predictions: what it was trained on, and what it reached on test.

    Every figure has its 95 % interval.
    """
    trained = f"trained on {bundle.training_images:,} {_ORIGIN}"
    name = f"the starter network of cxr_jax, {bundle.network.architecture}, {trained}"
    if bundle.test is None:
        return name
    told = ", ".join(figure.text() for figure in bundle.test.figures)
    return f"{name}; on the {bundle.test.images:,} test images of the same data set: {told}"


def name_of(place: str | Path, bundle: Bundle, *, int8: bool = False) -> str:
    """Returns what people read as the name of the network in the bundle at `place`, or of the one in 8 bits there."""
    if Path(place).absolute() == STARTER:
        return starter_name(bundle)
    return f"{bundle.network.title} of {bundle.name}, exported{' in 8 bits' if int8 else ''}"
