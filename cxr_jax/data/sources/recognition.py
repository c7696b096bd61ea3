"""Which files are taken for images, before they are decoded: by their names, and by their first bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

from cxr_jax.data.decode import IMAGE_SUFFIXES
from cxr_jax.data.encoded import kind_of
from cxr_jax.data.sources.leftovers import leftover
from cxr_jax.data.sources.passed_over import Stray
from cxr_jax.errors import UserError

MAX_DEPTH = 64
"""How many folders deep files are looked for."""

TOO_DEEP = f"more than {MAX_DEPTH} folders deep"
NO_IMAGE = "no JPEG, PNG or DICOM file"
ARCHIVE = "an archive, which is not looked into: unpack it, or prepare it by itself"

_ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".gz", ".tgz", ".bz2", ".xz")
_OTHER_IMAGES = (".tif", ".tiff", ".bmp", ".gif", ".webp", ".jp2", ".heic", ".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")


def passed_by_name(path: str) -> Stray | None:
    """Returns `path` as a stray if a name in it, or its depth, says that it is no radiograph."""
    *folders, name = PurePosixPath(path).parts
    for index, folder in enumerate(folders):
        if reason := leftover(folder):
            return Stray(path, str(PurePosixPath(*folders[: index + 1])), reason)
    if len(folders) > MAX_DEPTH:
        return Stray(path, str(PurePosixPath(*folders[:MAX_DEPTH])), TOO_DEEP)
    archive = name.lower().endswith(_ARCHIVES) and not name.lower().endswith(_OTHER_IMAGES)
    reason = leftover(name, is_file=True) or (ARCHIVE if archive else None)
    return Stray(path, str(PurePosixPath(*folders)), reason) if reason else None


def why_no_image(path: str, head: Callable[[str], bytes]) -> str | None:
    """Returns why a file in a class folder is no image; None if it is one, by its suffix or by its content.

    A JPEG or PNG is recognised by its content only if the name has no suffix. Another suffix, such as
    `.jpeg_original`, shows that somebody has put the file aside. Names of DICOM files often end
    in a part of their number.
    """
    name = PurePosixPath(path).name.lower()
    if name.endswith(IMAGE_SUFFIXES):
        return None
    if other := next((suffix for suffix in _OTHER_IMAGES if name.endswith(suffix)), None):
        return f"{other} files are not read: convert them to PNG"
    try:
        kind = kind_of(head(path))
    except UserError as error:
        return str(error)
    return None if kind == "DICOM" or (kind and not PurePosixPath(name).suffix) else NO_IMAGE
