"""Which looks at test are counted together."""

import json
import shutil

import cv2
import numpy as np
import pytest

from cxr_jax.data.preparation import prepare
from cxr_jax.inference.looks import count_look_at
from cxr_jax.runs.folder import RunFolder

NAMES = [f"{split}/NORMAL/IM-{number:04d}-0001.jpeg" for split, number in (("train", 1), ("train", 2), ("test", 3))]
NAMES += [
    f"{split}/PNEUMONIA/person{number}_{kind}_{number}.jpeg"
    for split, numbers in (("train", (1, 2)), ("test", (3, 4)))
    for number, kind in zip(numbers, ("bacteria", "virus"), strict=True)
]


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path / "kept"))
    folder = tmp_path / "chest_xray"
    for seed, name in enumerate(NAMES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = np.random.default_rng(seed).integers(0, 256, (24, 24)).astype(np.uint8)
        path.write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
    return folder


def counts(prepared, run):
    counted = count_look_at(prepared, run)
    return counted["looks_at_these_images"], counted["looks_at_unknown_images"]


def test_the_same_test_images_prepared_in_another_way_are_not_untouched(source, tmp_path):
    run = RunFolder(tmp_path / "run")
    as_they_are = prepare(source).prepared
    with_subtypes = prepare(source, subtypes=True).prepared
    moved = shutil.copytree(source, tmp_path / "moved")
    for name in NAMES:
        if name.startswith("test/PNEUMONIA"):
            (moved / name).rename((moved / name).with_stem(f"of-{(moved / name).stem}"))
    renamed = prepare(moved, name="renamed").prepared
    assert len({data.fingerprint for data in (as_they_are, with_subtypes, renamed)}) == 3
    assert [counts(data, run) for data in (as_they_are, with_subtypes, renamed)] == [(1, 0), (2, 0), (3, 0)]
    told = {count_look_at(data, run)["test_images_sha256"] for data in (as_they_are, with_subtypes, renamed)}
    assert len(told) == 1


def test_other_test_images_of_the_same_training_images_are_untouched(source, tmp_path):
    run = RunFolder(tmp_path / "run")
    assert counts(prepare(source).prepared, run) == (1, 0)
    other = shutil.copytree(source, tmp_path / "other")
    for seed, name in enumerate(NAMES):
        if name.startswith("test"):
            picture = np.random.default_rng(100 + seed).integers(0, 256, (24, 24)).astype(np.uint8)
            (other / name).write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
    assert counts(prepare(other, name="other").prepared, run) == (1, 0)


def test_looks_that_an_earlier_version_counted_by_fingerprint_count_where_the_data_are_here(source, tmp_path):
    run = RunFolder(tmp_path / "run")
    as_they_are = prepare(source).prepared
    with_subtypes = prepare(source, subtypes=True).prepared
    kept = tmp_path / "kept" / ".looks"
    kept.mkdir()
    line = json.dumps({"schema_version": 1, "run": "/earlier"}) + "\n"
    (kept / f"{as_they_are.fingerprint}.jsonl").write_text(3 * line)
    (kept / "of-data-that-are-gone.jsonl").write_text(2 * line)
    assert counts(with_subtypes, run) == (4, 2)
