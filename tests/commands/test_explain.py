import json
import shutil

import cv2
import numpy as np
import pytest

from cxr_jax.cli import main as cli
from cxr_jax.commands import explain
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.gallery import read_gallery
from cxr_jax.runs.predictions import read_predictions, write_predictions
from cxr_jax.vocabulary import DISCLAIMER


@pytest.fixture
def run(evaluated_run, prepared_phantoms, tmp_path):
    """A copy of an evaluated run, to be changed at will."""
    return RunFolder(shutil.copytree(evaluated_run, tmp_path / "run"))


def with_predictions(run, probability):
    """Replace the test predictions by made-up ones and return them."""
    table = read_predictions(run.predictions_of("test"))
    changed = type(table)(
        table.file, table.split, table.group, table.subtype, table.label, None, probability(table.label)
    )
    write_predictions(run.predictions_of("test"), changed)
    return changed


def pictures(run):
    return sorted(path.name for path in run.explanations.glob("*.png") if not path.stem.startswith("panel"))


def test_the_most_confident_errors_of_test_are_explained_at_original_size(run, phantom_source, capsys):
    def probability(label):
        values = np.where(label == 1, 0.9, 0.1)
        values[[2, 4]] = 1 - values[[2, 4]]
        values[4] += np.where(label[4] == 1, -0.05, 0.05)
        return values

    table = with_predictions(run, probability)
    before = run.report.read_text()
    explain.main([str(run.path)])
    text = capsys.readouterr().out
    first, second, *_ = text.splitlines()
    assert first == f"Restoring the network of {run.path}"
    assert second.startswith("The most confident of 2 wrong calls among 24 on test")
    assert f"Next: cxr-jax explain {run.path} --check" in text.splitlines()
    assert text.index(table.file[4].split("/")[-1].split(".")[0]) < text.index(
        table.file[2].split("/")[-1].split(".")[0]
    )
    assert DISCLAIMER in text
    assert len(pictures(run)) == 2
    for row in (2, 4):
        called = "NORMAL" if table.label[row] == 1 else "PNEUMONIA"
        stem = table.file[row].split("/")[-1].removesuffix(".jpeg")
        picture = cv2.imread(str(run.explanations / f"{stem}-{called}-conv_head.png"))
        original = cv2.imread(str(phantom_source / table.file[row]), cv2.IMREAD_GRAYSCALE)
        assert picture.shape[1] == original.shape[1]
        assert picture.shape[0] > original.shape[0]  # the caption stands below
        drawn = picture[: original.shape[0]].astype(float)
        assert np.corrcoef(drawn.mean(-1).ravel(), original.ravel())[0, 1] > 0.5
    assert cv2.imread(str(run.explanations / "panel.png")).shape[1] > 800
    assert run.report.read_text() != before  # it shows the page now


@pytest.mark.usefixtures("undrawn_figures")
def test_without_errors_the_least_certain_are_shown_and_it_is_said(run, capsys):
    with_predictions(run, lambda label: np.where(label == 1, 0.8, 0.2))
    explain.main([str(run.path), "--count", "3"])
    assert "No call among 24 on test is wrong, so the least certain are shown" in capsys.readouterr().out
    assert len(pictures(run)) == 3


def test_chosen_files_stage_and_class(run, phantom_source, tmp_path, capsys):
    on_disk = sorted((phantom_source / "train" / "PNEUMONIA").glob("*.jpeg"))[0]
    stranger = tmp_path / "person9.png"
    cv2.imwrite(str(stranger), np.random.default_rng(0).integers(0, 256, (120, 90), dtype=np.uint8))
    by_name = sorted((phantom_source / "test" / "NORMAL").glob("*.jpeg"))[0]
    named = [str(on_disk), str(stranger), by_name.name, f"test/NORMAL/{by_name.name}"]
    explain.main([str(run.path), *named, "--stage", "blocks.1", "--class", "pneumonia"])
    lines = capsys.readouterr().out.splitlines()
    labels = [line.split(": true ")[1].split(",")[0] for line in lines if ": true " in line]
    assert labels == ["PNEUMONIA", "unknown", "NORMAL", "NORMAL"]
    names = pictures(run)
    assert all(name.endswith("-PNEUMONIA-blocks.1.png") for name in names)
    assert len(names) == 4  # two of them under the same name, numbered
    assert (run.explanations / "panel-files.png").is_file()
    assert cv2.imread(str(run.explanations / "person9-PNEUMONIA-blocks.1.png")).shape[1] == 90


@pytest.mark.usefixtures("undrawn_figures")
def test_files_that_cannot_be_explained_do_not_stop_the_others(run, phantom_source, tmp_path, capsys):
    good = str(sorted((phantom_source / "test" / "NORMAL").glob("*.jpeg"))[0])
    (tmp_path / "text.png").write_text("no image")
    code = cli(["explain", str(run.path), str(tmp_path), good, str(tmp_path / "text.png"), "nowhere.png"])
    captured = capsys.readouterr()
    assert code == 1
    assert len(pictures(run)) == 1
    assert "is a folder" in captured.err
    assert "no JPEG, PNG or DICOM file" in captured.err
    assert "nowhere.png does not exist, nor is there an image of this name" in captured.err
    assert captured.err.splitlines()[-1] == "cxr-jax: 3 of 4 files could not be explained"
    assert cli(["explain", str(run.path), str(tmp_path / "text.png")]) == 1


@pytest.mark.usefixtures("undrawn_figures")
def test_files_need_no_prepared_data(run, phantom_source, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path / "empty"))
    explain.main([str(run.path), str(sorted((phantom_source / "test" / "NORMAL").glob("*.jpeg"))[0])])
    assert "true unknown" in capsys.readouterr().out
    with pytest.raises(UserError, match="no prepared data"):
        explain.main([str(run.path)])


@pytest.mark.usefixtures("undrawn_figures")
def test_a_blank_map_is_said(run, phantom_source, monkeypatch, capsys):
    from cxr_jax.explain import cases, heat_maps

    real = heat_maps.heat_maps

    def blank(*arguments, **options):
        found = real(*arguments, **options)
        return heat_maps.HeatMaps(np.zeros_like(found.heat), np.ones_like(found.blank))

    monkeypatch.setattr(cases, "heat_maps", blank)
    explain.main([str(run.path), str(sorted((phantom_source / "test" / "NORMAL").glob("*.jpeg"))[0])])
    assert "blank: nothing at conv_head speaks for" in capsys.readouterr().out


@pytest.mark.usefixtures("undrawn_figures")
def test_explaining_again_replaces_the_same_pictures(run):
    explain.main([str(run.path), "--count", "2", "--split", "val"])
    before = pictures(run)
    explain.main([str(run.path), "--count", "2", "--split", "val"])
    assert pictures(run) == before
    assert (run.explanations / "panel-val.png").is_file()


@pytest.mark.usefixtures("undrawn_figures")
def test_the_same_file_twice_is_drawn_twice(run, phantom_source):
    first, second = sorted((phantom_source / "test" / "NORMAL").glob("*.jpeg"))[:2]
    explain.main([str(run.path), str(first), str(second), str(first)])
    assert len(pictures(run)) == 3


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--class", "fracture"], "there is no class fracture"),
        (["--count", "0"], "--count is 0"),
        (["--split", "train"], "--split"),
    ],
)
def test_a_command_line_that_cannot_be_understood_is_a_usage_error(run, arguments, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        explain.main([str(run.path), *arguments])
    assert caught.value.code == EXIT_USAGE


def test_an_unknown_stage_leaves_nothing_behind(run):
    with pytest.raises(UserError, match=r"no stage 'blocks\.99'"):
        explain.main([str(run.path), "--stage", "blocks.99"])
    assert not run.explanations.exists()


def test_a_run_that_was_not_evaluated_is_told_what_to_do(run):
    run.predictions_of("test").unlink()
    with pytest.raises(UserError, match="run cxr-jax evaluate"):
        explain.main([str(run.path)])


def test_other_data_than_that_of_the_run_is_refused(run):
    environment = json.loads(run.environment.read_text())
    run.environment.write_text(json.dumps({**environment, "data_fingerprint": "another"}))
    with pytest.raises(UserError, match=r"is not what .* was trained on"):
        explain.main([str(run.path)])


def test_predictions_on_unknown_images_are_told(run):
    text = run.predictions_of("test").read_text()
    run.predictions_of("test").write_text(text.replace("test/NORMAL/", "test/OTHER/"))
    with pytest.raises(UserError, match=r"test/OTHER/.* is not in .*: evaluate the run again"):
        explain.main([str(run.path), "--count", "24"])


def test_all_four_outcomes_are_explained_by_a_named_rule(run, capsys):
    def probability(label):
        values = np.where(label == 1, 0.9, 0.1)
        normals = np.flatnonzero(label == 0)
        values[normals[:2]] = [0.7, 0.8]
        return values

    with_predictions(run, probability)
    explain.main([str(run.path), "--cases", "outcomes", "--rule", "typical", "--count", "8"])
    text = capsys.readouterr().out
    assert text.splitlines()[1].startswith("Outcomes among 24 on test, chosen by the rule 'typical'")
    told = ["true " + line.split(": true ")[1].split(" (")[0] for line in text.splitlines() if ": true " in line]
    assert told == [
        "true PNEUMONIA, called PNEUMONIA",
        "true PNEUMONIA, called PNEUMONIA",
        "true NORMAL, called PNEUMONIA",
        "true NORMAL, called PNEUMONIA",
        "true NORMAL, called NORMAL",
        "true NORMAL, called NORMAL",
    ]
    assert (run.explanations / "panel-outcomes.png").is_file()
    assert read_gallery(run.explanations / "panel-outcomes.png").groups


def test_maps_are_checked_on_validation_and_the_report_tells_it(run, tmp_path, capsys):
    other = shutil.copytree(run.path, tmp_path / "other")
    run.predictions_of("test").unlink()
    looks = run.ledger.read_text()
    explain.main([str(run.path), "--check", "--images", "10", "--stage", "blocks.3", "--seeds", str(other)])
    text = capsys.readouterr().out
    findings = json.loads((run.explanations / "checks.json").read_text())
    assert [check["name"] for check in findings["checks"]] == [
        "randomisation", "insertion", "deletion", "seeds", "lungs", "border",
    ]  # fmt: skip
    assert findings["stage"] == "blocks.3"
    assert all("/PNEUMONIA/" in file or "/NORMAL/" in file for file in findings["files"])
    assert {file.split("/")[0] for file in findings["files"]} == {"train"}  # validation is cut from train
    seeds = next(check for check in findings["checks"] if check["name"] == "seeds")
    assert seeds["passes"] and all(mean["value"] == pytest.approx(1) for mean in seeds["numbers"].values())
    for name in ("explanation_randomisation", "explanation_curves"):
        assert (run.figures / f"{name}.png").is_file() and (run.figures / f"{name}.svg").is_file()
    assert "Agrees between runs of one recipe: 2 runs" in text
    assert DISCLAIMER in text
    assert run.ledger.read_text() == looks
    report = run.report.read_text()
    assert "Adebayo et al. 2018" in report and 'id="figure-explanation_curves"' in report


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--check", "film.png"], "name no files"),
        (["--seeds", "elsewhere"], "add --check"),
        (["--check", "--images", "0"], "--images is 0"),
    ],
)
def test_checks_that_cannot_be_made_are_usage_errors(run, arguments, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        explain.main([str(run.path), *arguments])
    assert caught.value.code == EXIT_USAGE
