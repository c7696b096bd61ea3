"""`explain` of runs of three exclusive classes, and of findings: maps of one class or of each, and their checks."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from other_classes import NAMES

from cxr_jax.commands import explain
from cxr_jax.data.phantoms.findings import PHANTOM_FINDINGS
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.reporting import map_checks
from cxr_jax.runs.class_predictions import read_class_predictions
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.gallery import read_gallery
from cxr_jax.vocabulary import DISCLAIMER


def copied(folder, tmp_path):
    return RunFolder(Path(shutil.copytree(folder / "run", tmp_path / "run")))


@pytest.fixture
def run(three, tmp_path):
    """A copy of an evaluated run of three classes."""
    return copied(three, tmp_path)


def pictures(run):
    return sorted(path.name for path in run.explanations.glob("*.png") if not path.stem.startswith("panel"))


def test_wrong_calls_are_explained_for_the_class_that_was_called_the_surest_first(run, capsys):
    explain.main([str(run.path), "--count", "4"])
    told, table = capsys.readouterr().out, read_class_predictions(run.predictions_of("test"))
    wrong = np.flatnonzero(table.called != table.label)
    ordered = np.sort(table.probabilities, axis=1)
    surest = wrong[np.argsort(-(ordered[:, -1] - ordered[:, -2])[wrong], kind="stable")][:4]
    assert f"wrong calls among {len(table)} on test" in told
    lines = [line for line in told.splitlines() if ": true " in line]
    for line, row in zip(lines, surest, strict=True):
        called = NAMES[table.called[row]]
        assert f"-{called}-" in line
        probability = f"{table.probabilities[row].max():.4f}"
        assert f": true {NAMES[table.label[row]]}, called {called} ({probability})" in line
    assert f"Next: cxr-jax explain {run.path} --check" in told
    assert DISCLAIMER in told
    report = run.report.read_text()
    assert 'id="explanations"' in report
    assert "the class of the highest probability is called" not in report


def test_one_image_has_a_map_for_the_class_that_is_asked_for_or_for_each(run, three, capsys):
    film = next((three / "films" / "test" / "covid").iterdir())
    explain.main([str(run.path), str(film), "--class", "lung opacity"])
    assert pictures(run) == [f"{film.stem}-Lung Opacity-conv_head.png"]
    explain.main([str(run.path), str(film), "--class", "all"])
    assert pictures(run) == sorted(f"{film.stem}-{name}-conv_head.png" for name in NAMES)
    drawn = [cv2.imread(str(run.explanations / f"{film.stem}-{name}-conv_head.png"))[:64] for name in NAMES]
    assert not np.array_equal(drawn[0], drawn[2])
    (group,) = read_gallery(run.explanations / "panel-files.png").groups
    assert [tile.asked for tile in group.tiles] == list(NAMES)
    assert sum(tile.probability for tile in group.tiles) == pytest.approx(1, abs=1e-5)
    assert {tile.label for tile in group.tiles} == {"covid"}


def test_a_class_that_is_called_all_can_be_asked_for(run, three):
    described = json.loads(run.network.read_text())
    run.network.write_text(json.dumps({**described, "classes": [*NAMES[:2], "All"]}))
    film = next((three / "films" / "test" / "covid").iterdir())
    explain.main([str(run.path), str(film), "--class", "all"])
    assert pictures(run) == [f"{film.stem}-All-conv_head.png"]


def test_outcomes_are_those_of_one_class(run, capsys):
    explain.main([str(run.path), "--cases", "outcomes", "--class", "covid", "--count", "8"])
    told, table = capsys.readouterr().out, read_class_predictions(run.predictions_of("test"))
    assert "Outcomes among 24 of covid on test" in told
    index = NAMES.index("covid")
    found = np.sum((table.called == index) & (table.label == index))
    heading = read_gallery(run.explanations / "panel-outcomes.png").groups[0].heading
    assert heading == f"True positives: {min(2, found)} of {found}"
    for options in ([], ["--class", "all"]):
        with pytest.raises(UserError, match="name it by --class, clear or Lung Opacity or covid") as raised:
            explain.main([str(run.path), "--cases", "outcomes", *options])
        assert raised.value.code == EXIT_USAGE


def test_every_finding_has_a_map_of_its_own(several, tmp_path, capsys):
    run = copied(several, tmp_path)
    film = next((several / "films" / "images_001" / "images").iterdir())
    explain.main([str(run.path), str(film), "--class", "all"])
    assert pictures(run) == sorted(f"{film.stem}-{name}-conv_head.png" for name in PHANTOM_FINDINGS)
    with pytest.raises(UserError, match="there is no class fracture"):
        explain.main([str(run.path), str(film), "--class", "fracture"])
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(film.read_bytes()[:300])
    capsys.readouterr()
    with pytest.raises(UserError, match="1 of 2 files could not be explained"):
        explain.main([str(run.path), str(film), str(damaged), "--class", "all"])
    assert capsys.readouterr().err.count("damaged.png") == 1


CHECKED = pytest.mark.parametrize(
    ("folder", "options"), [("three", []), ("several", []), ("several", ["--class", "Effusion"])]
)


@CHECKED
def test_validation_images_of_any_classes_are_checked(folder, options, request, tmp_path, monkeypatch):
    run, given = copied(request.getfixturevalue(folder), tmp_path), []

    def stop(trained, sample, stage, **_):
        given.append(sample)
        raise UserError("as far as here")

    monkeypatch.setattr(map_checks, "check_maps", stop)
    with pytest.raises(UserError, match="as far as here"):
        explain.main([str(run.path), "--check", "--images", "10", *options])
    table, (sample,) = read_class_predictions(run.predictions_of("val")), given
    rows = [table.file.index(file) for file in sample.files]
    likeliest = table.probabilities[rows].argmax(axis=1)
    asked = np.full(len(rows), table.classes.index("Effusion")) if options else likeliest
    np.testing.assert_array_equal(sample.classes, asked)
    with pytest.raises(UserError, match="--check explains one class in each image"):
        explain.main([str(run.path), "--check", "--class", "all"])


@pytest.mark.slow
@CHECKED
def test_maps_are_checked_with_a_verdict_for_each_class(folder, options, request, tmp_path, capsys):
    run = copied(request.getfixturevalue(folder), tmp_path)
    looks = run.ledger.read_text()
    explain.main([str(run.path), "--check", "--images", "10", "--stage", "blocks.3", *options])
    told, found = capsys.readouterr().out, json.loads((run.explanations / "checks.json").read_text())
    table = read_class_predictions(run.predictions_of("val"))
    assert tuple(found["explained"]) == table.classes
    assert sum(found["explained"].values()) == found["images"]
    if options:
        assert found["explained"] == {**dict.fromkeys(table.classes, 0), "Effusion": found["images"]}
    names = [check["name"] for check in found["checks"]]
    assert names == ["randomisation", "insertion", "deletion", "seeds", "lungs", "border"]
    judged = {name for name, count in found["explained"].items() if count >= 5} or {"all classes"}
    for check in found["checks"]:
        assert set(check["numbers"]) == (set() if check["name"] == "seeds" else judged)
    # the curves follow the probability of the class that is explained, from the whole image on
    rows = [table.file.index(file) for file in found["files"]]
    for name in judged - {"all classes"}:
        index = table.classes.index(name)
        whole = found["curves"]["by_class"][name]["deletion"]["map"][0]
        of_class = [row for row in rows if options or table.probabilities[row].argmax() == index]
        assert whole == pytest.approx(table.probabilities[of_class, index].mean(), abs=1e-4)
    assert run.ledger.read_text() == looks
    assert DISCLAIMER in told
    assert "Adebayo et al. 2018" in run.report.read_text()
