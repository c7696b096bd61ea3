"""The forms in which radiographs come: a folder, the zip of a release, an array of MedMNIST."""

from __future__ import annotations

from pathlib import Path

from cxr_jax.data.decode import IMAGE_SUFFIXES
from cxr_jax.data.sources.archive import ZipSource
from cxr_jax.data.sources.folder import FolderSource
from cxr_jax.data.sources.medmnist import NpzSource
from cxr_jax.data.sources.passed_over import PassedOver
from cxr_jax.data.sources.source import Entry, LeftOut, Listing, Reader, Source
from cxr_jax.errors import UserError

__all__ = ["Entry", "LeftOut", "Listing", "PassedOver", "Reader", "Source", "find_source"]


def find_source(path: Path) -> Source:
    """Returns the source at `path`, listed but not read.

    Raises:
        UserError: nothing is there, it cannot be read, or it holds no data set.
    """
    if path.is_dir():
        return FolderSource(path)
    if not path.exists():
        raise UserError(f"{path} does not exist: give a folder, a zip or a MedMNIST .npz of radiographs")
    if not path.is_file():
        raise UserError(f"{path} is no regular file: give a folder, a zip or a MedMNIST .npz of radiographs")
    if path.suffix.lower() == ".npz":
        return NpzSource(path)
    if path.suffix.lower() == ".zip":
        return ZipSource(path)
    if path.name.lower().endswith(IMAGE_SUFFIXES):
        raise UserError(
            f"{path} is neither a folder nor a .zip nor a .npz, but a single image: give the folder of all; "
            "cxr-jax predict RUN FILE reads single images"
        )
    raise UserError(f"{path} is neither a folder nor a .zip nor a .npz: give one of these")
