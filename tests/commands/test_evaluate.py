from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import dataclass, replace

import cv2
import numpy as np
import pytest
from changed_runs import change_network

from cxr_jax.cli import main as command_line
from cxr_jax.commands import evaluate, publish, train
from cxr_jax.data.decode import to_square
from cxr_jax.data.examples import read_examples, write_examples
from cxr_jax.errors import UserError
from cxr_jax.export.write import CARD_FILE, export_run
from cxr_jax.inference.restore import restore_run
from cxr_jax.reporting.pictures import draw_pictures
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.ledger import append_look, read_looks
from cxr_jax.runs.metrics_log import read_metrics
from cxr_jax.runs.predictions import predictions_sha256, read_predictions, write_predictions
from cxr_jax.runs.publication import FIGURES
from cxr_jax.vocabulary import DISCLAIMER
from tests.undrawn import leave_undrawn

pytestmark = pytest.mark.usefixtures("undrawn_figures")


@pytest.fixture
def evaluated(evaluated_run, prepared_phantoms, tmp_path):
    """A copy of a run that was evaluated with all its figures."""
    return RunFolder.open(shutil.copytree(evaluated_run, tmp_path / "evaluated"))


def test_everything_that_a_reader_needs_is_there(run_path, evaluated, capsys):
    evaluate.main([str(run_path)])
    run, printed = evaluated, capsys.readouterr().out
    assert "Now look 1 at the test split" in printed
    assert "This was look 1 at the test split" in printed
    assert "nothing is chosen by them" not in printed
    assert "Accuracy" in printed
    assert "Image quality alone, without a network: ROC-AUC" in printed
    assert str(run.report.name) in printed
    assert DISCLAIMER in printed
    test, validation = read_predictions(run.predictions_of("test")), read_predictions(run.predictions_of("val"))
    assert len(test) == 24
    assert set(test.split) == {"test"}
    assert set(validation.split) == {"val"}
    assert not set(test.group) & set(validation.group)
    point = read_json(run.operating_point)
    assert point["rule"] == "fixed"
    looks = read_looks(run)
    assert [look["threshold"] for look in looks] == [point["threshold"]]
    judged = read_json(run.evaluation)["test"]["metrics"]
    assert judged["accuracy"]["value"] == np.mean((test.probability >= 0.5) == test.label)
    assert looks[0]["result"]["accuracy"] == judged["accuracy"]["value"]
    assert looks[0]["predictions_sha256"] == predictions_sha256(test)
    assert looks[0]["checkpoint_sha256"] == restore_run(run).checkpoint_sha256 != ""
    assert looks[0]["predictions_sha256"][:12] in run.report.read_text()
    assert looks[0]["checkpoint_sha256"][:12] in run.report.read_text()
    undrawn = {"confusion_matrix_validation", "robustness_test", "robustness_val"}
    assert {path.stem for path in run.figures.glob("*.png")} >= set(FIGURES) - undrawn
    report = run.report.read_text()
    assert DISCLAIMER in report
    assert "phantom" in report.lower()


@pytest.fixture
def unfinished(run_path):
    """A run whose training was interrupted."""
    metrics = RunFolder(run_path).metrics
    *lines, last = metrics.read_text().splitlines()
    end = json.loads(last) | {"reason": "interrupted"}
    assert end["kind"] == "end"
    metrics.write_text("\n".join([*lines, json.dumps(end)]) + "\n")
    return RunFolder(run_path)


def test_a_look_at_an_unfinished_run_must_be_asked_for(unfinished, monkeypatch, capsys):
    from cxr_jax.inference import restore

    step = read_metrics(unfinished.metrics)[-1]["step"]
    with monkeypatch.context() as patch:
        patch.setattr(restore, "restore_run", None)  # refused before a network is loaded
        with pytest.raises(
            UserError, match=rf"is not finished, it stopped after step {step}: .*--resume.*--unfinished"
        ):
            evaluate.main([str(unfinished.path)])
    assert not unfinished.ledger.exists() and not unfinished.predictions.exists()
    evaluate.main([str(unfinished.path), "--unfinished"])
    assert len(read_looks(unfinished)) == 1
    for changed in ("--degraded", "--occluded"):
        with pytest.raises(UserError, match=r"is not finished, .*--unfinished"):
            evaluate.main([str(unfinished.path), changed, "--test"])
    assert len(read_looks(unfinished)) == 1
    evaluate.main([str(unfinished.path), "--stored"])
    unfinished.metrics.unlink()
    with pytest.raises(UserError, match="is not finished, it has made no step"):
        evaluate.main([str(unfinished.path)])


@dataclass(frozen=True)
class Watched:
    """An evaluation that was watched, and whose results could not be printed."""

    run: RunFolder
    shown: dict[str, list[int]]  # of each stretch of work, how much it was said to be, and how much was done
    operating_point_was_stored: dict[str, bool]  # when a split was about to be predicted


@pytest.fixture(scope="module")
def watched(trained, prepared_folder, tmp_path_factory):
    from cxr_jax import terminal
    from cxr_jax.inference import predictions
    from cxr_jax.reporting import tables

    run = RunFolder(shutil.copytree(trained, tmp_path_factory.mktemp("watched") / "run"))
    found, predict = Watched(run, {}, {}), predictions.predict_split

    @contextlib.contextmanager
    def track(self, description, total):
        found.shown[description] = [total, 0]

        def advance(steps):
            found.shown[description][1] += steps

        yield advance

    def watch(trained, images, split, **options):
        found.operating_point_was_stored[split] = run.operating_point.is_file()
        return predict(trained, images, split, **options)

    def fail(judgement):
        raise OSError("the terminal is gone")

    with pytest.MonkeyPatch.context() as patch:
        leave_undrawn(patch)
        patch.setenv("CXR_PREPARED_DIR", str(prepared_folder))
        patch.setattr(terminal.Terminal, "track", track)
        patch.setattr(predictions, "predict_split", watch)
        patch.setattr(tables, "judgement_table", fail)
        with pytest.raises(OSError, match="terminal is gone"):
            evaluate.main([str(run.path)])
    return found


def test_results_are_on_the_disk_before_they_are_printed(watched):
    run = watched.run
    for path in (run.evaluation, run.quality, run.report, run.ledger, run.predictions_of("test"), run.figures):
        assert path.exists()


def test_something_stands_on_the_screen_before_anything_is_loaded(run_path, monkeypatch, capsys):
    from cxr_jax.config import loading

    printed = []

    def load(path):
        printed.append(capsys.readouterr().out)
        raise UserError("enough")

    monkeypatch.setattr(loading, "load_config", load)
    with pytest.raises(UserError, match="enough"):
        evaluate.main([str(run_path)])
    assert printed == [f"Evaluating {run_path}\n"]


def test_every_stretch_of_work_is_shown(watched):
    """Each is told how much there is of it, and all of it is reported as done."""
    shown = watched.shown
    expected = {
        "Predicting val",
        "Predicting test",
        "Resampling for the intervals",
        "Judging image quality and baselines",
        "Drawing the figures and the report",
    }
    assert expected <= set(shown)
    assert all(total == done > 0 for total, done in shown.values())
    assert shown["Predicting test"] == [24, 24]


def test_a_second_evaluation_adds_a_look_and_moves_no_threshold(evaluated, capsys):
    run = evaluated
    # were it chosen again, it would be 0.5: a stored point of the same network is kept
    stored = read_json(run.operating_point) | {"threshold": 0.625}
    run.operating_point.write_text(json.dumps(stored))
    evaluate.main([str(run.path)])
    printed = capsys.readouterr().out
    assert "Now look 2 at the test split" in printed
    assert "This was look 2 at the test split" in printed
    assert "nothing is chosen by them" in printed
    assert [look["threshold"] for look in read_looks(run)] == [0.5, 0.625]
    assert read_json(run.evaluation)["operating_point"]["threshold"] == 0.625
    evaluate.main([str(run.path), "--stored"])
    told = "No look at the test split was added: the stored predictions of look 2 were judged again."
    assert told in capsys.readouterr().out
    assert len(read_looks(run)) == 2


def test_what_was_fixed_for_a_network_is_not_used_for_what_training_made_of_it(evaluated, tmp_path):
    run = evaluated
    fixed = restore_run(run)
    assert fixed.threshold == 0.5 and fixed.sets is not None and fixed.reference is not None
    point = read_json(run.operating_point) | {"threshold": 0.625}
    run.operating_point.write_text(json.dumps(point))
    change_network(run, "best", fixed.step)
    # as --degraded --test leaves it, which fixes nothing
    append_look(run, {"degraded": True, "step": fixed.step, "checkpoint_sha256": restore_run(run).checkpoint_sha256})
    changed = restore_run(run)
    assert (changed.threshold, changed.sets, changed.reference) == (None, None, None)
    with pytest.raises(UserError, match=r"has no threshold yet for its network of step .*cxr-jax evaluate"):
        evaluate.main([str(run.path), "--degraded"])
    assert bundle_of(run, tmp_path / "before").calls == ()
    evaluate.main([str(run.path), "--stored"])  # the predictions that are there are still those of look 1
    evaluate.main([str(run.path)])
    assert read_json(run.operating_point)["threshold"] == restore_run(run).threshold != 0.625
    assert [call.threshold for call in bundle_of(run, tmp_path / "after").calls] == [restore_run(run).threshold]


def bundle_of(run, folder):
    bundle, _ = export_run(run, folder)
    assert (bundle.calls == ()) == (bundle.test is None) == ("was not evaluated" in (folder / CARD_FILE).read_text())
    return bundle


def test_the_threshold_is_stored_before_test_is_predicted(watched):
    assert watched.operating_point_was_stored == {"val": False, "test": True}


def test_the_config_says_which_checkpoint_is_meant(run_path):
    run = RunFolder(run_path)
    best, last = restore_run(run, "best"), restore_run(run, "last")
    assert restore_run(run).step == best.step
    run.config.write_text(run.config.read_text().replace('checkpoint = "best"', 'checkpoint = "last"'))
    assert restore_run(run).step == last.step


def test_logits_do_not_depend_on_the_batch(run_path):
    trained = restore_run(RunFolder(run_path))
    images = np.random.default_rng(0).integers(0, 256, (9, 48, 48)).astype(np.uint8)
    one = trained.logits(images, batch_size=4)
    for batch_size in (1, 9, 64):
        np.testing.assert_allclose(trained.logits(images, batch_size=batch_size), one, atol=1e-5)
    assert trained.logits(images[:0]).shape == (0, 2)
    for wrong in (images[:, :40], images.astype(np.float32)):
        with pytest.raises(ValueError, match="must be uint8"):
            trained.logits(wrong)


def test_a_checkpoint_of_another_model_is_told(run_path):
    run = RunFolder(run_path)
    description = read_json(run.network) | {"architecture": "mobilenetv2_050"}
    run.network.write_text(json.dumps(description))
    with pytest.raises(UserError, match="is not of mobilenetv2_050"):
        evaluate.main([str(run_path)])


def test_other_data_than_that_of_training_is_refused(run_path):
    environment = RunFolder(run_path).environment
    environment.write_text(json.dumps(read_json(environment) | {"data_fingerprint": "another"}))
    with pytest.raises(UserError, match=r"is not what .* was trained on"):
        evaluate.main([str(run_path)])


def test_other_groups_than_those_of_training_are_refused_for_they_cut_other_validation_images(
    run_path, config_file, prepared_folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("CXR_PREPARED_DIR", str(shutil.copytree(prepared_folder, tmp_path / "regrouped")))
    table = tmp_path / "regrouped" / "phantoms" / "examples.csv"
    examples = read_examples(table)
    one, *_, other = (example for example in examples if example.split == "train")
    write_examples(table, (replace(each, group=one.group) if each == other else each for each in examples))
    for command, arguments in ((evaluate, [run_path]), (train, [config_file, "--out", run_path, "--resume"])):
        with pytest.raises(UserError, match=r"the images of phantoms are in other groups than when .*run began"):
            command.main([str(argument) for argument in arguments])


@pytest.mark.parametrize("place", ["nowhere", "."])
def test_no_run_is_one_sentence(tmp_path, capsys, place):
    assert command_line(["evaluate", str(tmp_path / place)]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_pictures_of_radiographs_are_not_among_the_figures_to_publish(tmp_path, evaluated):
    run = evaluated
    test = read_predictions(run.predictions_of("test"))
    images = np.zeros((len(test), 48, 48), np.uint8)
    drawn = draw_pictures(tmp_path / "pictures", images, test, 0.5, phantoms=True)
    assert drawn
    assert not {path.stem for path in drawn} & set(FIGURES)


def test_quality_and_baselines_stand_beside_the_judgement(evaluated):
    run = evaluated
    quality = read_json(run.quality)
    test = read_predictions(run.predictions_of("test"))
    assert {name: split["images"] for name, split in quality["splits"].items()}.keys() == {"train", "val", "test"}
    assert quality["splits"]["test"]["images"] == len(test)
    assert quality["splits"]["train"]["outside"] == 0
    wrong = (test.probability >= 0.5) != (test.label == 1)
    for kind, label in (("false_positives", 0), ("false_negatives", 1)):
        assert quality["audit"][kind]["errors"] == np.sum(wrong & (test.label == label))
    everything = quality["baselines"]["all_pneumonia"]["test"]
    assert everything["accuracy"]["value"] == np.mean(test.label == 1)
    assert {"mean", "contrast", "sharpness", "pixels", "aspect"} <= set(quality["baselines"])
    report = run.report.read_text()
    assert 'id="quality"' in report and 'id="baselines"' in report


def test_measures_are_those_of_the_images_of_each_split(evaluated, prepared_phantoms, phantom_source):
    run = evaluated
    means = [
        to_square(cv2.imread(str(phantom_source / file), cv2.IMREAD_GRAYSCALE), 224).mean()
        for file in read_predictions(run.predictions_of("test")).file
    ]
    assert read_json(run.quality)["splits"]["test"]["measures"]["mean"]["median"] == pytest.approx(np.median(means))


def test_the_mean_picture_of_radiographs_is_not_published(evaluated, tmp_path):
    run = evaluated
    assert run.quality_reference.is_file()
    publish.main([str(run.path), "--out", str(tmp_path / "results")])
    names = {path.name for path in (tmp_path / "results").rglob("*")}
    assert "quality.json" in names
    assert run.quality_reference.name not in names
    assert "picture" not in run.quality.read_text()


def test_stored_predictions_are_judged_again_without_a_look(evaluated, monkeypatch):
    run = evaluated
    before = {name: (run.path / name).read_bytes() for name in ("evaluation.json", "quality.json", "ledger.jsonl")}
    tables = run.predictions_of("test").read_bytes()
    for name in before:
        if name != "ledger.jsonl" and name != "evaluation.json":
            (run.path / name).unlink()
    run.evaluation.write_text("{}")
    shutil.rmtree(run.checkpoints)  # no network is needed
    evaluate.main([str(run.path), "--stored"])
    assert {name: (run.path / name).read_bytes() for name in before} == before
    assert run.predictions_of("test").read_bytes() == tables


def test_without_an_evaluation_nothing_is_stored(run_path):
    with pytest.raises(UserError, match="no stored predictions"):
        evaluate.main([str(run_path), "--stored"])


def test_stored_predictions_of_other_images_are_refused(evaluated):
    run = evaluated
    table = run.predictions_of("test")
    table.write_text(table.read_text().replace("test/NORMAL/", "test/OTHER/", 1))
    with pytest.raises(UserError, match="is not of the images of test"):
        evaluate.main([str(run.path), "--stored"])


def test_stored_predictions_get_the_groups_of_the_prepared_data_and_it_is_said(evaluated, capsys):
    """As those of an earlier version do, which did not join groups with identical files."""
    run = evaluated
    path = run.predictions_of("test")
    whole, evaluation = path.read_bytes(), run.evaluation.read_bytes()
    table = read_predictions(path)
    other = replace(table, group=(f"{table.group[0]} under another name", *table.group[1:]))
    write_predictions(path, other)
    evaluate.main([str(run.path), "--stored"])
    assert path.read_bytes() == whole
    assert run.evaluation.read_bytes() == evaluation
    out = " ".join(capsys.readouterr().out.split())
    assert "test.csv: the groups are now those of the prepared data; nothing else in it has changed." in out
    assert "val.csv" not in out


def test_looks_of_every_run_at_the_same_images_are_counted(run_path, tmp_path, monkeypatch, capsys):
    """One that was made only to try the program as well, such as that of the quickstart."""
    monkeypatch.setattr("cxr_jax.inference.looks.prepared_root", lambda: tmp_path / "kept")
    other = shutil.copytree(run_path, tmp_path / "tried")
    evaluate.main([str(other)])
    assert "All runs on this machine" not in capsys.readouterr().out
    evaluate.main([str(run_path)])
    told = "All runs on this machine together have looked at these test images, or at some of them, twice."
    assert told in " ".join(capsys.readouterr().out.split())
    run = RunFolder(run_path)
    assert [look["looks_at_these_images"] for look in read_looks(run)] == [2]
    told = "All runs on that machine together had looked at these test images, or at some of them, twice by then."
    assert told in run.report.read_text()


def test_stored_predictions_that_no_look_gave_are_refused(evaluated):
    run = evaluated
    path = run.predictions_of("test")
    table = read_predictions(path)
    write_predictions(path, replace(table, logits=table.logits[::-1], probability=table.probability[::-1]))
    with pytest.raises(UserError, match="is not what look 1 at test gave"):
        evaluate.main([str(run.path), "--stored"])
