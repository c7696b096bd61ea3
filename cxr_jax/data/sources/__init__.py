"""The forms in which radiographs come: a folder, a published set, the zip of a release, an array of MedMNIST."""

from __future__ import annotations

from pathlib import Path

from cxr_jax.data.decode import IMAGE_SUFFIXES
from cxr_jax.data.sources.archive import ZipSource
from cxr_jax.data.sources.chexpert import ChexpertSource, is_chexpert
from cxr_jax.data.sources.finding_cells import Policies
from cxr_jax.data.sources.folder import FolderSource
from cxr_jax.data.sources.labels_table import TableSource
from cxr_jax.data.sources.medmnist import NpzSource
from cxr_jax.data.sources.nih import TABLE_PATTERN, NihSource, nih_table
from cxr_jax.data.sources.passed_over import PassedOver
from cxr_jax.data.sources.source import Entry, LeftOut, Listing, Reader, Source
from cxr_jax.data.sources.table_rows import Columns
from cxr_jax.data.sources.tuberculosis import TuberculosisSource, holds_tuberculosis_sets
from cxr_jax.errors import UserError
from cxr_jax.vocabulary import CLASS_NAMES

__all__ = [
    "Columns",
    "Entry",
    "LeftOut",
    "Listing",
    "PassedOver",
    "Policies",
    "Reader",
    "Source",
    "find_source",
    "holds_findings",
]


def find_source(
    path: Path, classes: tuple[str, ...] = (), columns: Columns | None = None, policies: Policies | None = None
) -> Source:
    """Returns the source at `path`, listed but not read.

    `classes` are the names of class folders, or of the labels of a table, in their order; without any they are NORMAL
    and PNEUMONIA, or all that the table names. `columns` are those of a table, which then says what the images in the
    folder at `path` are. `policies` say what is made of uncertain and blank labels of a published set.

    Raises:
        UserError: nothing is there, it cannot be read, or it holds no data set of these classes.
    """
    if columns is not None and not path.is_dir():
        raise UserError(f"{path} is no folder: with a table of labels give the folder that the images lie in")
    if columns is not None:
        return TableSource(path, columns, classes)
    published = _published(path, classes, policies) if path.is_dir() else None
    if published is None and policies is not None:
        raise UserError("--uncertain and --blank are of findings: give them with --findings, or for CheXpert")
    if published is not None:
        return published
    classes = classes or CLASS_NAMES
    if path.is_dir():
        return FolderSource(path, classes)
    if not path.exists():
        raise UserError(f"{path} does not exist: give a folder, a zip or a MedMNIST .npz of radiographs")
    if not path.is_file():
        raise UserError(f"{path} is no regular file: give a folder, a zip or a MedMNIST .npz of radiographs")
    if path.suffix.lower() == ".npz":
        if classes != CLASS_NAMES:
            raise UserError(f"{path} has no class folders: --classes names those of a folder or a zip")
        return NpzSource(path)
    if path.suffix.lower() == ".zip":
        return ZipSource(path, classes)
    if path.name.lower().endswith(IMAGE_SUFFIXES):
        raise UserError(
            f"{path} is neither a folder nor a .zip nor a .npz, but a single image: give the folder of all; "
            "cxr-jax predict RUN FILE reads single images"
        )
    raise UserError(f"{path} is neither a folder nor a .zip nor a .npz: give one of these")


def holds_findings(path: Path, columns: Columns | None) -> bool:
    """Returns whether the labels of what is at `path` are findings that occur together, as far as its names tell."""
    if columns is not None:
        return columns.findings
    return path.is_dir() and (is_chexpert(path) or any(path.glob(TABLE_PATTERN)))


def _published(folder: Path, classes: tuple[str, ...], policies: Policies | None) -> Source | None:
    """Returns the published set of findings, or of tuberculosis, in a folder; None if it holds none."""
    if is_chexpert(folder):
        return ChexpertSource(folder, classes, policies)
    if policies is not None:
        return None
    if (table := nih_table(folder)) is not None:
        return NihSource(folder, table, classes)
    if not classes and holds_tuberculosis_sets(folder):
        return TuberculosisSource(folder)
    return None
