"""The views of one image over which a network's answers are averaged: mirrored and shifted a little."""

from __future__ import annotations

from typing import Any

import numpy as np
from jax import lax


def views(images: Any, *, flip: bool, shift: int) -> list[Any]:
    """Returns `images` [B, S, S] as the views over which answers are averaged, each [B, S, S]; they come first.

    A `shift` above 0 gives the images moved by so many pixels to the right, to the left, down and up as well, with the
    row or column at the edge repeated where the picture has ended. A `flip` gives all of these mirrored, left to right,
    too. So there are 1, 2, 5 or 10 views. Works on arrays of numpy and of JAX, traced ones included.
    """
    found = [images]
    if shift > 0:
        found += [_shifted(images, shift, axis, forwards) for axis in (2, 1) for forwards in (True, False)]
    return [*found, *(images.__array_namespace__().flip(view, axis=2) for view in found)] if flip else found


def _shifted(images: Any, shift: int, axis: int, forwards: bool) -> Any:
    """Returns `images` moved along `axis` by `shift` pixels, `forwards` to higher numbers."""
    size = images.shape[axis]
    edge = [_cut(images, axis, 0, 1) if forwards else _cut(images, axis, size - 1, size)] * shift
    kept = _cut(images, axis, 0, size - shift) if forwards else _cut(images, axis, shift, size)
    return images.__array_namespace__().concat([*edge, kept] if forwards else [kept, *edge], axis=axis)


def _cut(images: Any, axis: int, start: int, end: int) -> Any:
    if isinstance(images, np.ndarray):
        return images[(slice(None),) * axis + (slice(start, end),)]
    # an index would become a gather where the size of the batch is a symbol, as in an export
    return lax.slice_in_dim(images, start, end, axis=axis)
