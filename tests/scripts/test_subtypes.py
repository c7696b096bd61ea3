"""The page of the study of bacteria and virus says what its runs say."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.evaluation.class_points import fixed_class_points
from cxr_jax.evaluation.comparison_record import read_comparison
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.judge_classes import judge_classes
from cxr_jax.evaluation.judgement import write_judgement
from cxr_jax.runs.class_predictions import ClassPredictions, write_class_predictions
from cxr_jax.runs.predictions import Predictions, write_predictions
from tests.scripts.script_module import module_of

ROOT = Path(__file__).parents[2]
CLASSES = ("normal", "bacteria", "virus")


def draw(folder, seed):
    """Runs of both arms on the same 90 images, of which three classes tell bacteria from virus and two do not."""
    for split in ("val", "test"):
        random = np.random.default_rng([seed, len(split)])
        label = np.arange(90) % 3
        columns = {
            "file": [f"{split}{i}.png" for i in range(90)],
            "split": [split] * 90,
            "group": [f"{split}{i // 2}" for i in range(90)],
        }
        logits = random.normal(0, 1, (90, 3)) + 2 * np.eye(3)[label]
        three = ClassPredictions.from_logits(logits, **columns, classes=CLASSES, label=label)
        run = folder / f"three/seed{seed}"
        write_class_predictions(run / f"predictions/{split}.csv", three)
        sick = (label > 0).astype(int)
        pair = random.normal(0, 1, (90, 2)) + 2 * np.eye(2)[sick]
        subtype = [CLASSES[i] for i in label]
        two = Predictions.from_logits(pair, **columns, subtype=subtype, label=sick)
        write_predictions(folder / f"two/seed{seed}/predictions/{split}.csv", two)
        for arm in ("three", "two"):
            (folder / f"{arm}/seed{seed}/config.toml").touch()
    judged = judge_classes(None, three, fixed_class_points(CLASSES, 0.5), confidence=Confidence(resamples=20))
    write_judgement(run / "evaluation.json", judged)
    return three, judged


def test_the_page_answers_both_questions_from_the_tables(tmp_path):
    drawn = [draw(tmp_path, seed) for seed in range(2)]
    module_of("write_subtypes").main([str(tmp_path), "100"])
    apart, pneumonia = (read_comparison(tmp_path / f"{name}.json") for name in ("bacteria_against_virus", "pneumonia"))
    assert (apart.images, apart.pneumonia, pneumonia.images, pneumonia.pneumonia) == (60, 30, 90, 60)
    assert apart.recipes["three"].endpoints["roc_auc"].mean > 0.9
    assert 0.3 < apart.recipes["two"].endpoints["roc_auc"].mean < 0.7
    table, judged = drawn[0]
    chance = table.probabilities[table.label > 0]
    right = np.mean((chance[:, 1] > chance[:, 2]) == (table.label[table.label > 0] == 1))
    assert apart.recipes["three"].endpoints["accuracy@half"].values[0] == pytest.approx(right)
    assert pneumonia.recipes["three"].thresholds != pneumonia.recipes["two"].thresholds
    page = (tmp_path / "README.md").read_text()
    assert f"| ROC-AUC | {apart.recipes['three'].endpoints['roc_auc'].mean:.3f}" in page and "0.940 |" in page
    difference = pneumonia.pairs[0].endpoints["roc_auc"].difference
    assert f"{difference:+.3f}".replace("-", "−") in page
    assert f"| virus | {' | '.join(map(str, judged.test.confusion[2]))} |" in page
    assert "Nobody can tell" in page or "Three classes rank pneumonia" in page
    assert "Not a medical device" in page


def test_an_unfinished_study_is_one_sentence(tmp_path):
    (tmp_path / "three/seed0").mkdir(parents=True)
    (tmp_path / "three/seed0/config.toml").touch()
    with pytest.raises(UserError, match=r"\(1 of three, 0 of two\): finish the study first"):
        module_of("write_subtypes").main([str(tmp_path)])


def test_the_study_wants_evaluated_runs_of_two_classes(tmp_path):
    (tmp_path / "two/seed0").mkdir(parents=True)
    (tmp_path / "two/seed0/evaluation.json").write_text(json.dumps({}))
    arguments = [ROOT / "scripts/subtypes_study", "films", tmp_path / "two", tmp_path / "out"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "two/seed1 is not an evaluated run" in done.stderr
    assert not (tmp_path / "out").exists()
