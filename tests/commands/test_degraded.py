"""`evaluate RUN --degraded`, on a network that was trained on phantoms."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from cxr_jax.commands import evaluate
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.evaluation.robustness import read_robustness, write_robustness
from cxr_jax.images.degraded import KINDS
from cxr_jax.inference.kept_answers import Answers, KeptAnswers
from cxr_jax.reporting.report import render_report
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.ledger import read_looks
from cxr_jax.runs.predictions import read_predictions

pytestmark = pytest.mark.usefixtures("undrawn_figures", "prepared_phantoms")


@pytest.fixture
def evaluated(evaluated_run, tmp_path):
    return RunFolder(shutil.copytree(evaluated_run, tmp_path / "evaluated"))


def test_validation_is_degraded_in_every_way_and_no_look_is_added(evaluated, tmp_path, capsys):
    looks = evaluated.ledger.read_bytes()
    evaluate.main([str(evaluated.path), "--degraded"])
    printed, found = capsys.readouterr().out, read_robustness(evaluated.robustness_of("val"))
    assert evaluated.ledger.read_bytes() == looks
    validation = read_predictions(evaluated.predictions_of("val"))
    assert (found.split, found.images, found.kinds) == ("val", len(validation), KINDS)
    assert [level.severity for level in found.levels] == [1, 2, 3, 4, 5] * len(KINDS)
    # as they are they are called as at the evaluation
    called, sick = validation.probability >= found.threshold, validation.label == 1
    assert found.clean.sensitivity.value == pytest.approx(called[sick].mean())
    assert found.clean.specificity.value == pytest.approx((~called[~sick]).mean())
    assert all(level.uncertain and level.unlike for level in found.levels)
    assert all(kind in printed for kind in KINDS) and f"{found.mean_error:.1%}" in printed
    assert found.wrong.keys() == set(validation.file)
    shares = np.array([found.wrong[file] for file in validation.file])
    assert (shares[sick].mean() + shares[~sick].mean()) / 2 == pytest.approx(found.mean_error)
    assert (evaluated.figures / "robustness_val.png").is_file()
    assert 'id="robustness"' in render_report(evaluated)

    twin = RunFolder(shutil.copytree(evaluated.path, tmp_path / "twin"))
    evaluate.main([str(twin.path), "--degraded", "--reference", str(evaluated.path)])
    again = read_robustness(twin.robustness_of("val"))
    assert (again.levels, again.reference) == (found.levels, "evaluated")
    assert again.mean_corruption_error in (1.0, None)
    assert again.less_reference.value == 0
    assert "less that of evaluated, paired by image: +0.0%" in capsys.readouterr().out

    # as many images, of another cut of validation
    elsewhere = RunFolder(shutil.copytree(evaluated.path, tmp_path / "elsewhere"))
    wrong = {f"other/{file}": share for file, share in found.wrong.items()}
    write_robustness(elsewhere.robustness_of("val"), dataclasses.replace(found, wrong=wrong))
    with pytest.raises(UserError, match=r"elsewhere was measured on other images of val, other/.*same cut"):
        evaluate.main([str(twin.path), "--degraded", "--reference", str(elsewhere.path)])


def test_test_images_are_one_look_more_which_does_not_stand_for_the_predictions(evaluated, monkeypatch, capsys):
    from cxr_jax.inference import degraded

    monkeypatch.setattr(degraded, "KINDS", ("blur",))
    before = read_looks(evaluated)
    evaluate.main([str(evaluated.path), "--degraded", "--test"])
    *kept, look = read_looks(evaluated)
    assert kept == before and look["degraded"] is True and look["split"] == "test"
    assert read_robustness(evaluated.robustness_of("test")).split == "test"
    assert not evaluated.robustness_of("val").exists()
    # the stored predictions are still those of the look before
    capsys.readouterr()
    evaluate.main([str(evaluated.path), "--stored"])
    assert "the stored predictions of look 1 were judged again" in " ".join(capsys.readouterr().out.split())
    assert len(read_looks(evaluated)) == len(before) + 1


def test_an_interrupted_measurement_goes_on_and_is_one_look(evaluated, tmp_path, monkeypatch):
    from cxr_jax.inference import degraded

    monkeypatch.setattr(degraded, "KINDS", ("blur", "noise"))
    twin = RunFolder(shutil.copytree(evaluated.path, tmp_path / "twin"))
    evaluate.main([str(twin.path), "--degraded", "--test"])
    before, asked, answer = len(read_looks(evaluated)), [], degraded.answers_on_changed

    def interrupted(*given, **how):
        asked.append(len(read_looks(evaluated)) - before)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return answer(*given, **how)

    monkeypatch.setattr(degraded, "answers_on_changed", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate.main([str(evaluated.path), "--degraded", "--test"])
    # the look is counted before a second question is asked
    assert asked == [0, 1, 1, 1]
    assert not evaluated.robustness_of("test").exists()
    evaluate.main([str(evaluated.path), "--degraded", "--test"])
    # eleven in all, three of which were kept
    assert asked == [0, 1, 1, 1, *[1] * 8]
    assert read_robustness(evaluated.robustness_of("test")) == read_robustness(twin.robustness_of("test"))
    assert not [*evaluated.path.glob("*unfinished*")]


def test_answers_of_another_measurement_or_a_damaged_file_are_not_taken(tmp_path):
    path, answers = tmp_path / "kept.npz", Answers(np.ones((2, 2), np.float32), np.zeros(2, np.float32))
    KeptAnswers(path, "one").add("blur 1", answers)
    assert np.array_equal(KeptAnswers(path, "one").of("blur 1").logits, answers.logits)
    assert KeptAnswers(path, "one").of("blur 2") is None
    assert KeptAnswers(path, "another").of("blur 1") is None
    path.write_bytes(path.read_bytes()[:100])
    assert KeptAnswers(path, "one").of("blur 1") is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["RUN", "--test"], "--test is for --degraded, --occluded and --on"),
        (["RUN", "--reference", "other"], "--reference is for --degraded"),
        (["RUN", "RUN", "--degraded"], "one run"),
        (["RUN", "--degraded", "--stored"], "--test and --reference alone"),
    ],
)
def test_options_that_contradict_each_other_are_refused(arguments, sentence, evaluated_run):
    with pytest.raises(UserError, match=sentence) as raised:
        evaluate.main([str(evaluated_run) if entry == "RUN" else entry for entry in arguments])
    assert raised.value.code == EXIT_USAGE


def test_a_run_without_threshold_or_reference_without_record_is_told(run_path, evaluated: RunFolder):
    with pytest.raises(UserError, match=r"has no threshold yet.*cxr-jax evaluate"):
        evaluate.main([str(run_path), "--degraded"])
    with pytest.raises(UserError, match=r"robustness_val\.json does not exist"):
        evaluate.main([str(evaluated.path), "--degraded", "--reference", str(Path(evaluated.path))])
