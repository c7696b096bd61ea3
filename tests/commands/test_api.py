"""`import cxr_jax` as a program uses it: what it offers, what it returns, and what it says of mistakes."""

import dataclasses
import inspect
import json
import subprocess
import sys
import typing
from pathlib import Path

import cv2
import numpy as np
import pytest

import cxr_jax
from cxr_jax.api import Rule
from cxr_jax.commands.judge import Options
from cxr_jax.commands.predict import main as predict_command
from cxr_jax.config.loading import load_config
from cxr_jax.evaluation.judgement import read_judgement
from cxr_jax.runs.continued import read_continued
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.metrics_log import read_metrics
from cxr_jax.vocabulary import DISCLAIMER

ROOT = Path(__file__).parents[2]


def in_a_new_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def films(phantom_source):
    return sorted(map(str, (phantom_source / "test").glob("*/*.jpeg")))[:3]


def test_the_import_is_light():
    code = (
        "import sys; before = set(sys.modules); import cxr_jax; "
        "print(len(set(sys.modules) - before), *sorted(sys.modules))"
    )
    added, *modules = in_a_new_process(code).split()
    assert int(added) < 10
    assert not {"numpy", "jax", "cv2", "pydantic"} & set(modules)


def test_what_is_offered_is_there_and_documented():
    # the stub for type checkers names the same
    stub = (ROOT / "cxr_jax" / "__init__.pyi").read_text()
    assert set(cxr_jax.__all__) <= set(dir(cxr_jax))
    for name in cxr_jax.__all__:
        offered = getattr(cxr_jax, name)
        assert inspect.getdoc(offered) and f'"{name}"' in stub
        if inspect.isclass(offered) and not issubclass(offered, Exception):
            assert offered.__dataclass_params__.frozen
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        cxr_jax.lode  # noqa: B018


def test_a_bundle_is_loaded_and_used_without_jax(bundle, films):
    told = in_a_new_process(
        "import sys, cxr_jax\n"
        f"model = cxr_jax.load({str(bundle)!r})\n"
        f"print(*model.predict({films!r})); model.heat_map({films[0]!r}).png()\n"
        "print([name for name in ('jax', 'flax', 'optax', 'orbax') if name in sys.modules])"
    )
    assert told.endswith("[]") and told.count(DISCLAIMER) == 3


@pytest.fixture(scope="module", params=["run", "bundle"])
def model(request, evaluated_run, bundle):
    return cxr_jax.load(evaluated_run if request.param == "run" else bundle)


def test_predictions_are_those_of_the_command(model, evaluated_run, films, capsys):
    predict_command([str(evaluated_run), *films, "--json"])
    told = json.loads(capsys.readouterr().out)
    for prediction, entry in zip(model.predict(films), told, strict=True):
        assert prediction.probability == pytest.approx(entry["probability"], abs=1e-6)
        found = (prediction.file, prediction.label, prediction.threshold, prediction.compared, prediction.disclaimer)
        names = ("file", "label", "threshold", "compared_with_training", "disclaimer")
        assert prediction.films == model.films == entry["films"] != ""
        assert found == tuple(entry[name] for name in names)
    assert f"{model.threshold:.4f} (rule: {model.threshold_rule})" in repr(model)
    assert model.classes == ("NORMAL", "PNEUMONIA")


def test_files_folders_and_arrays_are_the_same_images(model, films, tmp_path):
    greys = [cv2.imread(film, cv2.IMREAD_GRAYSCALE) for film in films]
    names = [str(tmp_path / f"{number}.png") for number in range(3)]
    for name, grey in zip(names, greys, strict=True):
        cv2.imwrite(name, grey)
    expected = [prediction.probability for prediction in model.predict(map(Path, names))]
    assert np.ptp(expected) > 1e-4
    given = {
        "a folder": tmp_path,
        "arrays": greys,
        "16 bits": [grey.astype(np.uint16) * 257 for grey in greys],
        "a mixture": [greys[0], names[1], greys[2]],
    }
    for kind, images in given.items():
        found = [prediction.probability for prediction in model.predict(images)]
        np.testing.assert_allclose(found, expected, atol=1e-6, err_msg=kind)
    assert [prediction.file for prediction in model.predict(given["a mixture"])] == ["array 1", names[1], "array 2"]
    twice = model.predict(np.stack([greys[0], greys[0]]))
    np.testing.assert_allclose([prediction.probability for prediction in twice], expected[0], atol=1e-6)
    (one,) = model.predict(greys[0])
    assert one.probability == pytest.approx(expected[0], abs=1e-6)
    assert model.predict([]) == ()


@pytest.mark.parametrize(
    ("images", "sentence"),
    [
        ("missing.png", "missing.png does not exist"),
        (np.zeros((8, 8)), "array 1 holds float64, but must hold grey levels: uint8 in 0..255, or uint16"),
        (np.zeros((8, 8, 3), np.uint8), r"array 1 has the shape \[8, 8, 3\], but must be grey levels \[H, W\]"),
        (np.zeros((0, 8), np.uint8), r"shape \[0, 8\]"),
        (7, "7 is no image: give the path of a file or folder, an array, or several of these"),
        ([7], "7 is no image: give the path of a file or folder, or an array"),
        (ROOT / "cxr_jax" / "serving", "holds no JPEG, PNG or DICOM files"),
    ],
)
def test_a_wrong_image_is_one_sentence(model, images, sentence):
    with pytest.raises(cxr_jax.UserError, match=sentence):
        model.predict(images)


def test_an_unreadable_image_can_be_kept(model, films):
    first, second, third = model.predict([films[0], "missing.png", films[1]], on_error="keep")
    assert second == cxr_jax.Unreadable("missing.png", "missing.png does not exist")
    assert [first, third] == [*model.predict(films[:2])]
    with pytest.raises(cxr_jax.UserError, match='on_error is \'skip\', but must be "raise" or "keep"'):
        model.predict(films, on_error="skip")


def test_a_heat_map_lies_over_its_radiograph(model, films, tmp_path):
    grey = cv2.imread(films[0], cv2.IMREAD_GRAYSCALE)
    found = model.heat_map(films[0])
    assert found.case.explained == found.case.called == model.predict(films[0])[0].label
    assert found.heat.shape == grey.shape and found.heat.min() >= 0 and found.heat.max() <= 1
    assert found.cells.max() == pytest.approx(1) and found.cells.ndim == 2
    np.testing.assert_array_equal(found.radiograph, grey)
    assert found.overlay().shape == (*grey.shape, 3)
    np.testing.assert_array_equal(found.overlay(0)[..., 0], grey)
    found.save(tmp_path / "map.png")
    assert (tmp_path / "map.png").read_bytes() == found._repr_png_() == found.png()
    others = {label: model.heat_map(grey, explained=label) for label in model.classes}
    assert [other.case.explained for other in others.values()] == [*model.classes]
    assert not np.array_equal(*(other.cells for other in others.values()))


def test_mistakes_about_heat_maps_are_told(model, films):
    with pytest.raises(cxr_jax.UserError, match="no class 'TB': explain NORMAL or PNEUMONIA"):
        model.heat_map(films[0], explained="TB")
    with pytest.raises(cxr_jax.UserError, match="of one image, but 2 were given"):
        model.heat_map(films[:2])
    with pytest.raises(cxr_jax.UserError, match=r"missing.png does not exist"):
        model.heat_map("missing.png")


def test_a_threshold_can_be_given(bundle, films):
    assert {prediction.label for prediction in cxr_jax.load(bundle, threshold=0).predict(films)} == {"PNEUMONIA"}
    with pytest.raises(cxr_jax.UserError, match="threshold is 2, but must be a probability"):
        cxr_jax.load(bundle, threshold=2)
    with pytest.raises(cxr_jax.UserError, match="there is no run at nowhere"):
        cxr_jax.load("nowhere")


def test_a_table_is_judged_as_the_command_judges_it(evaluated_run, tmp_path):
    tables = [evaluated_run / "predictions" / f"{split}.csv" for split in ("test", "val")]
    judgement = cxr_jax.judge(tables[0], validation=tables[1], rule="youden", resamples=100, out=tmp_path / "judged")
    assert judgement.operating_point.rule == "youden" and judgement.validation is not None
    assert read_judgement(tmp_path / "judged" / "evaluation.json") == judgement
    assert (tmp_path / "judged" / "report.html").is_file()


def test_columns_are_judged_as_a_table():
    label = np.array([0, 0, 1, 1] * 5)
    probability = np.linspace(0, 1, 20)
    columns = {"label": label, "probability": probability, "group": [f"p{number // 2}" for number in range(20)]}
    judgement = cxr_jax.judge(columns, resamples=100)
    assert judgement.test.images == 20 and judgement.test.groups == 10
    ranks = probability[label == 1][:, None] > probability[label == 0]
    assert judgement.test.metrics["roc_auc"].value == pytest.approx(ranks.mean())
    names = cxr_jax.judge({"label": ["NORMAL", "PNEUMONIA"], "probability": [0.7, 0.2]}, resamples=100)
    assert [call.file for call in names.test.worst_errors] == ["image 2", "image 1"]


@pytest.mark.parametrize(
    ("columns", "more", "sentence"),
    [
        ({"label": [0, 1]}, {}, "^the table has no column probability"),
        ({"label": [0, 1], "probability": [0.5]}, {}, "^the table has columns of different lengths: label 2, prob"),
        ({"label": [0, 1], "probability": [0.5, 2]}, {}, "^the table, row 3, column probability: "),
        ({"label": [0, 0], "probability": [0.5, 0.1]}, {}, "^the table has images of NORMAL only"),
        ({"label": 1, "probability": 0.5}, {}, "^the table is no table: give a list of cells for each column"),
        ({}, {}, "^the table is no table"),
        ({"label": [0, 1], "probability": [0.5, 1]}, {"rule": "youden"}, "name its table with validation$"),
        ({"label": [0, 1], "probability": [0.5, 1]}, {"resamples": 1}, "^resamples is 1, but must be from 100"),
        ({"label": [0, 1], "probability": [0.5, 1]}, {"target_sensitivity": 2}, "^target_sensitivity is 2, but must"),
        ({"label": [0, 1], "probability": [0.5, 1]}, {"rule": "best"}, "^rule is 'best', but must be one of fixed"),
    ],
)
def test_a_wrong_table_is_one_sentence(columns, more, sentence):
    with pytest.raises(cxr_jax.UserError, match=sentence):
        cxr_jax.judge(columns, **more)


def test_a_table_of_findings_and_one_of_three_classes_are_judged():
    findings = {"label_Mass": [1, 0, 1, 0, ""], "probability_Mass": [0.9, 0.2, 0.6, 0.7, 0.5]}
    judged = cxr_jax.judge(findings, resamples=100).test
    assert judged.classes["Mass"].metrics["roc_auc"].value == 0.75 and judged.classes["Mass"].unknown == 1
    shares = {"probability_a": [0.6, 0.2, 0.1], "probability_b": [0.3, 0.5, 0.1], "probability_c": [0.1, 0.3, 0.8]}
    judged = cxr_jax.judge({"label": ["a", "b", "b"], **shares}, resamples=100).test
    assert judged.metrics["accuracy"].value == pytest.approx(2 / 3)
    merged = cxr_jax.judge({"label": ["a", "b", "b"], **shares}, merge=["NORMAL=a", "PNEUMONIA=b+c"], resamples=100)
    assert merged.test.metrics["accuracy"].value == 1


def test_arguments_stand_for_the_options_of_the_command():
    stated = {name: entry.default for name, entry in inspect.signature(cxr_jax.judge).parameters.items()}
    options = {field.name: field.default for field in dataclasses.fields(Options)}
    # the command prints it beside the judgement, which is what is returned here
    del options["align_to"]
    assert stated.keys() == options.keys()
    assert {name: stated[name] for name in stated.keys() - {"table", "validation", "out"}} == {
        name: options[name] for name in options.keys() - {"table", "validation", "out"}
    }
    assert typing.get_args(typing.get_type_hints(Options)["rule"]) == typing.get_args(Rule)


def test_a_config_is_trained(prepared_phantoms, config_file, tmp_path, capsys):
    changes = {"training": {"epochs": 1}, "optimizer.learning_rate": 0.01}
    run = cxr_jax.train(config_file, out=tmp_path / "run", changes=changes, quiet=True)
    assert capsys.readouterr().out == ""
    assert run.folder == tmp_path / "run" and run.ended == "finished"
    assert load_config(run.folder / "config.toml").optimizer.learning_rate == 0.01
    (line,) = read_metrics(run.folder / "metrics.jsonl", kinds=("validation",))
    assert dataclasses.asdict(run.best) == {name: line[name] for name in ("step", "loss", "accuracy", "roc_auc")}
    assert "not chosen" in run.load().threshold_rule
    config = load_config(run.folder / "config.toml")
    again = cxr_jax.train(config, out=run.folder, resume=True)
    assert again.best == run.best and "Training ended" in capsys.readouterr().out


def test_a_network_learns_on_from_python(trained, prepared_phantoms, config_file, tmp_path):
    run = cxr_jax.train(config_file, out=tmp_path / "on", origin=trained, changes={"training.epochs": 1}, quiet=True)
    assert read_continued(RunFolder(run.folder)).origin(RunFolder(run.folder)).path.samefile(trained)
    other = {"model.name": "squeezenet_tiny"}
    with pytest.raises(cxr_jax.UserError, match=r"so set model\.name to mobilenetv2_tiny"):
        cxr_jax.train(config_file, out=tmp_path / "other", origin=trained, changes=other, quiet=True)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"training.epoch": 1}, "^training.epoch in changes is unknown; did you mean epochs"),
        ({"training.epochs": "1"}, '^training.epochs in changes is "1", but must be a whole number'),
        ({"data.folds": 3}, "^data.folds in changes has no effect, because"),
        ({"loss.focusing": 1.0, "loss.focal_gamma": 2.0}, "^changes gives loss.focal_gamma twice"),
    ],
)
def test_a_wrong_change_is_one_sentence(changes, sentence, tmp_path):
    with pytest.raises(cxr_jax.UserError, match=sentence):
        cxr_jax.train("quickstart", out=tmp_path / "run", changes=changes)
    assert not (tmp_path / "run").exists()


def test_a_config_without_a_name_needs_a_folder(config_file):
    with pytest.raises(cxr_jax.UserError, match="name the folder of the run by out="):
        cxr_jax.train(load_config(config_file))
