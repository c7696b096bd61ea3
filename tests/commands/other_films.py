"""Phantoms of another look, as films of another hospital: inverted, with a table of labels and patients."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import cv2
import pytest

from cxr_jax.data.file_names import parse_file_name
from cxr_jax.data.phantoms.folder import write_phantoms
from cxr_jax.data.preparation import prepare
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.sources import Columns
from cxr_jax.vocabulary import CLASS_NAMES
from tests.made_once import made_once

NAME = "inverted"


def write_other_films(folder: Path, *, train: int = 48, test: int = 24, seed: int = 7) -> Path:
    """Writes the films into a new folder, and returns the table beside them."""
    drawn, films = folder / "drawn", folder / "films"
    write_phantoms(drawn, train=train, val=0, test=test, seed=seed, image_size_range=(96, 128))
    films.mkdir()
    rows = []
    for number, path in enumerate(sorted(drawn.glob("*/*/*.jpeg"))):
        inverted = 255 - cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(films / f"{path.stem}.png"), inverted)
        label, split = path.parent.name, path.parent.parent.name
        group = parse_file_name(path.name).group
        age = "" if number == 0 else 3 + number
        rows.append((f"{path.stem}.png", label, group, split, age, "FM"[number % 2], ("PA", "AP", "AP")[number % 3]))
    table = folder / "labels.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("file", "label", "patient", "fold", "age", "sex", "view"), *rows])
    return table


def prepare_other_films(table: Path, name: str = NAME) -> PreparedData:
    """Prepares films that `write_other_films` wrote, where CXR_PREPARED_DIR says."""
    columns = Columns(table, "file", ("label",), "patient", "fold", kept=("age", "sex", "view"))
    return prepare(table.parent / "films", name=name, classes=CLASS_NAMES, columns=columns).prepared


def both_prepared(prepared_folder: Path, factory: pytest.TempPathFactory) -> Path:
    """A folder for CXR_PREPARED_DIR with the phantoms of the trained run and those of another look, made once."""

    def make(folder: Path) -> None:
        shutil.copytree(prepared_folder, folder)
        table = write_other_films(factory.mktemp("other") / "films")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CXR_PREPARED_DIR", str(folder))
            prepare_other_films(table)

    return made_once(factory, "both-prepared", make)
