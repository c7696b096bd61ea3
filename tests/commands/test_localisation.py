"""Maps of findings, and maps held against boxes: phantoms with boxes, a network with a transition layer and log-sum-exp
pooling, from training to the record.
"""

import csv
import json
import shutil

import cv2
import numpy as np
import onnxruntime
import pytest

from cxr_jax.commands import evaluate, explain, export, phantoms, prepare, train
from cxr_jax.data.prepared import PreparedData
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.evaluation.localisation import ALL, read_localisation
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.gallery import read_gallery
from cxr_jax.runs.ledger import read_looks
from cxr_jax.vocabulary import DISCLAIMER
from tests.undrawn import leave_undrawn

CONFIG = """
[data]
dataset = "phantom_findings"
image_size = 48
validation_fraction = 0.3
[model]
name = "mobilenetv1_tiny"
pooling = "log_sum_exp"
transition = 8
[loss]
class_weights = "balanced_in_batch"
[optimizer]
learning_rate = 0.05
[training]
epochs = 1
batch_size = 16
evaluation_batch_size = 16
"""

LIST = "BBox_List_2017.csv"


@pytest.fixture(scope="module")
def evaluated_maps(tmp_path_factory):
    """A folder with phantoms and their boxes, the prepared data of them, and an evaluated run on these."""
    folder = tmp_path_factory.mktemp("localisation")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_PREPARED_DIR", str(folder / "prepared"))
        leave_undrawn(patch)
        phantoms.main([str(folder / "films"), "--findings", "--count", "60", "--smallest", "48", "--largest", "64"])
        prepare.main([str(folder / "films")])
        (folder / "films.toml").write_text(CONFIG)
        train.main([str(folder / "films.toml"), "--out", str(folder / "run")])
        evaluate.main([str(folder / "run")])
    return folder


@pytest.fixture
def maps(evaluated_maps, monkeypatch):
    leave_undrawn(monkeypatch)
    monkeypatch.setenv("CXR_PREPARED_DIR", str(evaluated_maps / "prepared"))
    return evaluated_maps


@pytest.fixture
def run(maps, tmp_path):
    """A copy of the run, to be changed at will."""
    return RunFolder(shutil.copytree(maps / "run", tmp_path / "run"))


def rows_of(folder):
    with (folder / "films" / LIST).open() as file:
        return list(csv.reader(file))[1:]


def listed(path, rows):
    path.write_text("Image Index,Finding Label,Bbox [x,y,w,h],,,\n" + "".join(",".join(row) + "\n" for row in rows))
    return str(path)


def test_phantoms_have_boxes_around_what_was_drawn_in_them(maps):
    prepared = PreparedData.open("phantom_findings")
    told = {example.file.split("/")[-1]: example for example in prepared.examples}
    rows = rows_of(maps)
    assert {row[1] for row in rows} == {"Cardiomegaly", "Effusion", "Infiltrate", "Nodule", "Consolidation"}
    boxed = {}
    for file, finding, *numbers in rows:
        x, y, width, height = map(float, numbers)
        assert 0 <= x < x + width <= told[file].width
        assert 0 <= y < y + height <= told[file].height
        boxed.setdefault(file, set()).add("Infiltration" if finding == "Infiltrate" else finding)
    for file, example in told.items():
        assert boxed.get(file, {"No Finding"}) == set(example.label.split("|"))


def test_maps_are_scored_on_the_boxes_of_test_and_the_look_is_counted(run, maps, capsys):
    explain.main([str(run.path), "--boxes", str(maps / "films" / LIST), "--test"])
    text = capsys.readouterr().out
    found = read_localisation(run.path / "localisation.json")
    test = {
        example.file.split("/")[-1]
        for example in PreparedData.open("phantom_findings").examples
        if example.split == "test"
    }
    rows = [row for row in rows_of(maps) if row[0] in test]
    assert set(found.files) == {row[0] for row in rows}
    assert (found.images_of, found.phantom, found.stage, found.levels) == ("test", True, "transition", (60, 180))
    assert found.architecture == "mobilenetv1_tiny with a transition layer of 8 and log-sum-exp pooling (r = 10)"
    whole = found.parts[-1]
    assert (whole.name, whole.boxes, whole.images) == (ALL, len(rows), len(found.files))
    assert whole.score("pointing").network.of == len({(row[0], row[1]) for row in rows})
    assert found.left_out == {"of other images": len(rows_of(maps)) - len(rows)}
    assert {part.name for part in found.parts[:-1]} <= {
        "Cardiomegaly",
        "Effusion",
        "Infiltration",
        "Nodule",
        "Consolidation",
    }
    look = read_looks(run)[-1]
    assert (look["split"], look["localised"]) == ("test", True)
    assert look["result"]["pointing"] == whole.score("pointing").network.share.value
    for told in (
        "Not scored: ",
        "all: ",
        "IoBB > 0.1",
        "IoU > 0.5",
        "pointing",
        "phantoms and no patients",
        DISCLAIMER,
    ):
        assert told in text
    assert (run.explanations / "boxes.png").is_file()
    section = run.report.read_text().partition('<section id="boxes">')[2].partition("</section>")[0]
    assert f"all: {whole.boxes} boxes in" in section and "data:image/png" in section
    # the stored table of the earlier look is still that of the last look that made one
    evaluate.main([str(run.path), "--stored"])


def test_validation_is_what_is_scored_without_test_and_adds_no_look(run, maps):
    before = run.ledger.read_text()
    explain.main([str(run.path), "--boxes", str(maps / "films" / LIST)])
    found = read_localisation(run.path / "localisation-val.json")
    assert found.images_of == "val"
    splits = {example.file.split("/")[-1]: example.split for example in PreparedData.open("phantom_findings").examples}
    assert {splits[file] for file in found.files} == {"train"}  # validation is cut from train
    assert run.ledger.read_text() == before
    assert (run.explanations / "boxes-val.png").is_file()


def test_a_run_of_two_classes_is_scored_on_its_own_class_in_other_films(evaluated_run, maps, tmp_path, capsys):
    run = RunFolder(shutil.copytree(evaluated_run, tmp_path / "run"))
    rows = [[row[0], "Pneumonia", *row[2:]] if row[1] == "Consolidation" else row for row in rows_of(maps)]
    boxes = listed(tmp_path / "boxes.csv", rows)
    looks = run.ledger.read_text()
    explain.main([str(run.path), "--boxes", boxes, "--on", "phantom_findings"])
    folder = run.external / "phantom_findings"
    found = read_localisation(folder / "localisation.json")
    (part,) = found.parts
    count = sum(row[1] == "Pneumonia" for row in rows)
    assert (part.name, part.boxes, found.images_of) == ("PNEUMONIA", count, "all")
    assert (
        f"{len(rows) - count} of {len(rows)} boxes are of findings that the run does not know"
        in capsys.readouterr().out
    )
    assert run.ledger.read_text() == looks
    assert json.loads((folder / "ledger.jsonl").read_text())["localised"] is True
    assert (folder / "boxes.png").is_file()


def test_boxes_that_were_drawn_in_larger_images_are_made_smaller(run, maps, tmp_path):
    size = {
        example.file.split("/")[-1]: (example.width, example.height)
        for example in PreparedData.open("phantom_findings").examples
    }
    rows = []
    for file, finding, *numbers in rows_of(maps):
        (width, height), (x, y, w, h) = size[file], map(float, numbers)
        rows.append([file, finding, *(repr(1024 * value) for value in (x / width, y / height, w / width, h / height))])
    larger = listed(tmp_path / "larger.csv", rows)
    with pytest.raises(
        UserError, match=r"row \d+, columns .*outside 0.*png of \d+ x \d+ pixels: say by --box-side how large"
    ):
        explain.main([str(run.path), "--boxes", larger, "--test"])
    explain.main([str(run.path), "--boxes", larger, "--test", "--box-side", "1024"])
    scaled = read_localisation(run.path / "localisation.json")
    explain.main([str(run.path), "--boxes", str(maps / "films" / LIST), "--test"])
    whole = read_localisation(run.path / "localisation.json")
    counts = [[[score.network.found for score in part.scores] for part in found.parts] for found in (scaled, whole)]
    assert counts[0] == counts[1]
    assert [part.covered for part in scaled.parts] == pytest.approx([part.covered for part in whole.parts])
    with pytest.raises(UserError, match=r"outside .* of 100 x 100 pixels: correct it"):
        explain.main([str(run.path), "--boxes", larger, "--test", "--box-side", "100"])


def test_what_cannot_be_scored_is_one_sentence(run, maps, tmp_path):
    own = str(maps / "films" / LIST)
    stranger = listed(tmp_path / "stranger.csv", [["stranger.png", "Nodule", "1", "2", "3", "4"]])
    unknown = listed(tmp_path / "unknown.csv", [[rows_of(maps)[0][0], "Hernia", "1", "2", "3", "4"]])
    for boxes, more, sentence in (
        (
            stranger,
            ["--test"],
            r"no box of .*: 1 of 1 boxes are of images that are not in phantom_findings: stranger.png",
        ),
        (unknown, ["--test"], r"1 of 1 boxes are of findings that the run does not know \(Cardiomegaly, .*\): Hernia"),
        (own, ["--on", "phantom_findings"], "is what .* was trained on: leave --on out"),
        (own, ["--stage", "last"], "the network has no stage 'last'"),
        (str(maps / "films"), [], "is a folder: name the table in it"),
    ):
        with pytest.raises(UserError, match=sentence):
            explain.main([str(run.path), "--boxes", boxes, *more])
    lines = run.metrics.read_text().splitlines(keepends=True)
    run.metrics.write_text("".join(lines[:-1]))
    with pytest.raises(UserError, match="is not finished, and --test would spend a look at test on it"):
        explain.main([str(run.path), "--boxes", own, "--test"])
    assert not (run.path / "localisation.json").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--boxes", "boxes.csv", "--check"], "leave FILES, --class and --check out"),
        (["--boxes", "boxes.csv", "film.png"], "leave FILES, --class and --check out"),
        (["--on", "films"], "--on, --test and --box-side are for --boxes"),
        (["--boxes", "boxes.csv", "--box-side", "-3"], "--box-side is -3"),
        (["--class", "Nodul"], "there is no class Nodul; did you mean Nodule?"),
    ],
)
def test_options_that_contradict_each_other_are_usage_errors(run, arguments, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        explain.main([str(run.path), *arguments])
    assert caught.value.code == EXIT_USAGE


def test_a_finding_is_explained_in_its_errors_by_name_or_all_together(run, capsys):
    explain.main([str(run.path), "--class", "effusion", "--count", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert " of Effusion in 15 images on test" in lines[1]
    shown = [line for line in lines if ": true " in line]
    assert len(shown) == 3
    assert all("Effusion-transition.png: true " in line for line in shown)
    told = {line.split(": ")[1].rpartition(" (")[0] for line in shown}
    assert told <= {"true Effusion, called no Effusion", "true no Effusion, called Effusion"}
    gallery = read_gallery(run.explanations / "panel.png")
    assert all(tile.asked == "Effusion" and tile.chance.startswith("P(Effusion)") for tile in gallery.groups[0].tiles)
    explain.main([str(run.path), "--cases", "outcomes", "--count", "8"])
    text = capsys.readouterr().out
    assert "Outcomes among 75 of 5 findings in 15 images on test" in text
    assert f"Next: cxr-jax explain {run.path} --check, or --boxes FILE" in text


def test_a_film_is_explained_for_the_finding_of_the_highest_probability(run, maps, tmp_path, capsys):
    films = sorted((maps / "films" / "images_001" / "images").glob("*.png"))[:2]
    cv2.imwrite(str(tmp_path / "stranger.png"), np.random.default_rng(0).integers(0, 256, (60, 60), dtype=np.uint8))
    explain.main([str(run.path), *map(str, films), str(tmp_path / "stranger.png")])
    lines = [line for line in capsys.readouterr().out.splitlines() if ": true " in line]
    assert len(lines) == 3
    assert ": true unknown, called " in lines[2]
    told = {row[0]: row[1] for row in csv.reader((maps / "films" / "Data_Entry_2017_phantoms.csv").open())}
    for film, line in zip(films, lines, strict=False):
        finding = line.split("-transition.png")[0].rsplit("-", 1)[1]
        there = finding in told[film.name].split("|")
        assert f": true {'' if there else 'no '}{finding}, called " in line


@pytest.mark.parametrize(("option", "value"), [("transition", "0"), ("pooling", "max"), ("pooling-sharpness", "2")])
def test_a_network_learns_on_with_the_head_that_it_has_alone(maps, tmp_path, option, value):
    arguments = [str(maps / "films.toml"), "--from", str(maps / "run"), "--out", str(tmp_path / "on")]
    with pytest.raises(UserError, match=rf"was trained with model\.{option.replace('-', '_')} = .* here it is {value}"):
        train.main([*arguments, f"--model.{option}", value])
    assert not (tmp_path / "on").exists()


def test_the_network_is_exported_with_its_head(run, tmp_path, capsys):
    """Held to the run by `export` itself, which refuses what differs; here to the shapes that the head gives."""
    export.main([str(run.path), str(tmp_path / "bundle")])
    told = json.loads((tmp_path / "bundle" / "bundle.json").read_text())
    assert (told["network"]["pooling"], told["network"]["transition"]) == ("log_sum_exp", 8)
    assert "its probabilities differ from those of the run by" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(tmp_path / "bundle" / "model.onnx", providers=["CPUExecutionProvider"])
    answers = dict(
        zip(
            (out.name for out in session.get_outputs()),
            session.run(None, {"images": np.zeros((2, 48, 48), np.uint8)}),
            strict=True,
        )
    )
    assert answers["evidence"].shape[:2] == (2, 5)
