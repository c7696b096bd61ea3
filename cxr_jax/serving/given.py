"""Images as a program gives them: files, folders and arrays, each with the bytes that are decoded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from cxr_jax.data.sources.folder import radiographs_below
from cxr_jax.errors import UserError
from cxr_jax.serving.radiograph import read_bytes

_FASTEST = (cv2.IMWRITE_PNG_COMPRESSION, 1)


@dataclass(frozen=True)
class GivenImages:
    """Images in order, some in memory and some in files."""

    names: tuple[str, ...]
    arrays: dict[str, np.ndarray]  # grey levels by name; what is not here is the path of a file

    def content(self, name: str) -> bytes:
        """Returns the bytes of a file, or of a PNG file of an array, so that both are decoded in one way.

        Raises:
            UserError: the file cannot be read, or the array holds no grey levels.
        """
        if name not in self.arrays:
            return read_bytes(Path(name))
        array = self.arrays[name]
        if array.dtype not in (np.uint8, np.uint16):
            raise UserError(
                f"{name} holds {array.dtype}, but must hold grey levels: uint8 in 0..255, or uint16 as in a PNG of 16 "
                "bits"
            )
        if array.ndim != 2 or array.size == 0:
            raise UserError(f"{name} has the shape {list(array.shape)}, but must be grey levels [H, W]")
        return cv2.imencode(".png", np.ascontiguousarray(array), _FASTEST)[1].tobytes()


def given_images(images: Any) -> GivenImages:
    """Returns the images that are meant by a file, a folder, an array [H, W] or [N, H, W], or several of these.

    Raises:
        UserError: it is something else, or a folder holds no image.
    """
    names: list[str] = []
    arrays: dict[str, np.ndarray] = {}
    for entry in [images] if isinstance(images, (str, Path)) or _is_array(images) else _several(images):
        if _is_array(entry):
            for array in _single(np.asarray(entry)):
                names.append(f"array {len(arrays) + 1}")
                arrays[names[-1]] = array
        elif isinstance(entry, (str, Path)):
            names += _files(Path(entry))
        else:
            raise UserError(f"{entry!r:.60} is no image: give the path of a file or folder, or an array")
    return GivenImages(tuple(names), arrays)


def _is_array(value: Any) -> bool:
    return hasattr(value, "__array__")


def _several(images: Any) -> Iterable[Any]:
    if not isinstance(images, Iterable):
        raise UserError(f"{images!r:.60} is no image: give the path of a file or folder, an array, or several of these")
    return images


def _single(array: np.ndarray) -> Iterable[np.ndarray]:
    """Returns the images [H, W] of an array [H, W] or [N, H, W]; anything else is for `GivenImages.content` to refuse.

    Three or four of the last axis are taken for colours: no radiograph is so narrow.
    """
    return array if array.ndim == 3 and array.shape[2] > 4 else [array]


def _files(path: Path) -> list[str]:
    if not path.is_dir():
        return [str(path)]
    found, _ = radiographs_below(path)
    if not found:
        raise UserError(f"the folder {path} holds no JPEG, PNG or DICOM files")
    return [str(image) for image in found]
