"""What a run says of films unlike those of training, as scripts/measure_unlike_films.py counts it."""

import json
import shutil

import cv2
import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.evaluation.feature_distance import read_feature_reference
from cxr_jax.runs.folder import RunFolder
from tests.scripts.script_module import module_of


@pytest.fixture(scope="module")
def script():
    return module_of("measure_unlike_films")


def write_picture(path, image):
    path.parent.mkdir(parents=True)
    assert cv2.imwrite(str(path), image)


def test_every_stage_is_held_to_all_films_and_every_picture_is_counted(
    script, evaluated_run, prepared_phantoms, tmp_path
):
    run = RunFolder(shutil.copytree(evaluated_run, tmp_path / "run"))
    pictures, draw = tmp_path / "pictures", np.random.default_rng(0)
    write_picture(pictures / "drawn" / "noise.png", draw.integers(0, 255, (96, 96), np.uint8))
    (pictures / "broken").mkdir()
    (pictures / "broken" / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    out = tmp_path / "unlike.json"
    name = run.configured("data", "dataset")
    films = ["--films", name, "--originals", name]
    script.main(["--run", str(run.path), *films, "--pictures", str(pictures), "--out", str(out)])
    found = json.loads(out.read_text())

    images = found["images"]
    assert images["films"] == images["originals"] == images["films_as_jpeg"] > images["validation"] > 0
    reference = read_feature_reference(run.feature_reference)
    assert [stage["stage"] for stage in found["stages"] if stage["used"]] == [reference.stage]
    for stage in found["stages"]:
        # of validation, by which the limit was fixed, hardly an image is beyond it
        assert stage["told"]["validation"] <= stage["share"] * images["validation"] + 1
        # the films are those of the run itself, among them all of validation
        assert stage["told"]["validation"] <= stage["told"]["films"] == stage["told"]["originals"] <= images["films"]
    assert [(entry["source"], entry["files"], entry["refused"]) for entry in found["pictures"]] == [
        ("broken", 1, 1),
        ("drawn", 1, 0),
    ]
    assert found["pictures"][1]["told"] + len(found["pictures"][1]["not_told"]) == 1
    for rate in found["halves"]["rates"]:
        # so few groups leave both classes possible, always
        assert rate["covered_NORMAL"] >= 1 - rate["error_rate"] and 0 <= rate["uncertain"] <= 1
    assert str(tmp_path) not in out.read_text()


def test_a_folder_of_pictures_that_is_not_there_is_told_before_anything_is_measured(script, tmp_path):
    with pytest.raises(UserError, match="has no folder in it"):
        script.main(["--run", "no run", "--pictures", str(tmp_path / "mistyped"), "--out", str(tmp_path / "out.json")])


def test_a_film_stored_as_jpeg_is_the_same_film_but_for_its_traces(script):
    smooth = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8), (2, 64, 64))
    stored = script.stored_as_jpeg(smooth)
    assert stored.shape == smooth.shape and stored.dtype == np.uint8
    assert 0 < np.abs(stored.astype(int) - smooth).max() < 8


@pytest.mark.parametrize("left_out", ["run", "pictures", "out"])
def test_what_is_not_given_is_asked_for(script, left_out):
    given = [f"--{name}={name}" for name in ("run", "pictures", "out") if name != left_out]
    with pytest.raises(UserError, match=f"give --{left_out}"):
        script.main(given)
