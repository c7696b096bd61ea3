"""The radiographs that are explained are those that were called, of whichever data they are."""

import dataclasses

import numpy as np
import pytest

from cxr_jax.config.data import DataConfig, ReplayConfig
from cxr_jax.config.schema import Config
from cxr_jax.data.cache import encoded_images_at
from cxr_jax.data.phantoms.folder import write_phantoms
from cxr_jax.data.preparation import prepare
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.replay import told_replay
from cxr_jax.data.run_folders import write_origin
from cxr_jax.data.split_loading import split_without_images
from cxr_jax.explain.subjects import errors_of_split
from cxr_jax.runs.class_predictions import write_any_predictions
from cxr_jax.runs.predictions import Predictions

DATA = DataConfig("new", image_size=32, validation_fraction=0.3, replay=ReplayConfig("old", 0.5))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with two sets of prepared phantoms, whose files have the same names."""
    folder = tmp_path_factory.mktemp("replayed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_PREPARED_DIR", str(folder / "prepared"))
        for seed, name in enumerate(("new", "old")):
            write_phantoms(folder / name, train=16, val=0, test=4, seed=seed, image_size_range=(40, 48))
            prepare(folder / name, name=name)
    return folder / "prepared"


@pytest.fixture
def replayed(root, tmp_path, monkeypatch):
    """A run that mixes in the old phantoms, its validation images, and both sets of data."""
    monkeypatch.setenv("CXR_PREPARED_DIR", str(root))
    new, old = (PreparedData.open(name) for name in ("new", "old"))
    train, validation = (split_without_images(new, DATA, split) for split in ("train", "val"))
    told = {"replay": told_replay(DATA, train, validation)}
    run = write_origin(tmp_path / "run", dataclasses.replace(Config(), data=DATA), None, new, [], told)
    return run, validation, new, old


def predicted(run, validation, probability):
    subtypes = tuple("unknown" if label else "normal" for label in validation.labels)
    columns = (validation.files, ("val",) * len(validation), validation.groups, subtypes, validation.labels, None)
    write_any_predictions(run.predictions_of("val"), Predictions(*columns, probability))


def test_images_that_were_mixed_in_are_found_in_their_own_data(replayed):
    run, validation, new, old = replayed
    predicted(run, validation, np.where(validation.labels == 1, 0.1, 0.9))
    found = errors_of_split(run, "val", 0.5, 100, "confident")
    assert {subject.file for subject in found.subjects} == set(validation.files)
    assert any(file.startswith("old/") for file in validation.files)
    for subject in found.subjects:
        data, name = (old, subject.file[4:]) if subject.file.startswith("old/") else (new, subject.file)
        (row,) = (row for row, example in enumerate(data.examples) if example.file == name)
        assert (subject.data, subject.label) == (encoded_images_at(data, [row])[0], data.examples[row].label)


def test_without_a_wrong_call_it_is_said_among_which_calls_there_is_none(replayed):
    run, validation, *_ = replayed
    predicted(run, validation, np.where(validation.labels == 1, 0.9, 0.1))
    title = errors_of_split(run, "val", 0.5, 3, "confident").title
    assert title == f"no call among {len(validation)} on val is wrong, so the least certain are shown"
