"""`cxr-jax judge --merge`: a table of several classes judged as one of fewer."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import softmax

from cxr_jax.commands import compare, judge
from cxr_jax.errors import UserError
from cxr_jax.evaluation.class_judgement import read_class_judgement
from cxr_jax.evaluation.judgement import read_judgement
from cxr_jax.runs.class_predictions import ClassPredictions, write_class_predictions
from cxr_jax.runs.predictions import read_predictions, write_predictions
from tests.undrawn import leave_undrawn

CLASSES = ("normal", "bacteria", "virus")
TWO = ["--merge", "NORMAL=normal", "PNEUMONIA=bacteria+virus"]


def write_table(path, split, seed, count=60):
    random = np.random.default_rng(seed)
    label = np.arange(count) % 3
    logits = random.normal(0, 1, (count, 3)) + 2 * np.eye(3)[label]
    write_class_predictions(
        path,
        ClassPredictions.from_logits(
            logits,
            file=[f"{split}{i}.png" for i in range(count)],
            split=[split] * count,
            group=[f"{split}{i // 2}" for i in range(count)],
            classes=CLASSES,
            label=label,
        ),
    )
    return label, softmax(logits, axis=1)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    return write_tables(tmp_path_factory.mktemp("merged"))


def write_tables(folder):
    write_table(folder / "val.csv", "val", 1)
    return folder / "test.csv", *write_table(folder / "test.csv", "test", 0)


def test_bacteria_and_virus_together_are_judged_as_pneumonia_and_compared(table, tmp_path, monkeypatch, capsys):
    leave_undrawn(monkeypatch)
    path, _, probabilities = table
    rule = ["--validation", str(path.parent / "val.csv"), "--rule", "sensitivity"]
    judge.main([str(path), *TWO, *rule, "--resamples", "100", "--out", str(tmp_path / "merged/seed0")])
    judgement = read_judgement(tmp_path / "merged/seed0/evaluation.json")
    assert judgement.test.classes == {"NORMAL": 20, "PNEUMONIA": 40}
    assert set(judgement.test.by_subtype) == {"bacteria", "virus"}
    stored = read_predictions(tmp_path / "merged/seed0/predictions/test.csv")
    np.testing.assert_allclose(stored.probability, 1 - probabilities[:, 0], rtol=1e-12)
    capsys.readouterr()
    write_predictions(tmp_path / "other.csv", replace(stored, logits=None, probability=stored.probability**2))
    compare.main([str(tmp_path / "merged"), f"other={tmp_path / 'other.csv'}", "--resamples", "100"])
    assert "other" in capsys.readouterr().out


def test_images_of_other_classes_are_left_out_and_counted(table, tmp_path, monkeypatch, capsys):
    leave_undrawn(monkeypatch)
    path, label, probabilities = table
    out = tmp_path / "judged"
    judge.main([str(path), "--merge", "virus=virus", "bacteria=bacteria", "--resamples", "100", "--out", str(out)])
    assert f"{int((label == 0).sum())} images of classes that are not named are left out" in capsys.readouterr().out
    judgement = read_class_judgement(out / "evaluation.json")
    assert judgement.classes == ("virus", "bacteria")
    kept = label > 0
    right = (probabilities[kept, 1] > probabilities[kept, 2]) == (label[kept] == 1)
    assert judgement.test.metrics["accuracy"].value == pytest.approx(right.mean())


@pytest.mark.parametrize(
    ("merge", "sentence"),
    [
        (["NORMAL=normal", "PNEUMONIA=bacteria+fungus"], "--merge names fungus, but .* has the classes normal, bact"),
        (["a=normal", "b=fungus"], "--merge names fungus"),
    ],
)
def test_a_class_that_the_table_does_not_have_is_one_sentence(table, merge, sentence):
    with pytest.raises(UserError, match=sentence):
        judge.main([str(table[0]), "--merge", *merge])


def test_a_class_without_an_image_is_one_sentence(tmp_path):
    write_table(tmp_path / "two.csv", "test", 0, count=2)
    with pytest.raises(UserError, match="has no image of virus, so there is none of b"):
        judge.main([str(tmp_path / "two.csv"), "--merge", "a=normal", "b=virus"])


def test_a_table_of_normal_and_pneumonia_cannot_be_merged(tmp_path):
    (tmp_path / "plain.csv").write_text("label,probability\n0,0.2\n1,0.8\n", encoding="utf-8")
    with pytest.raises(UserError, match="is of NORMAL and PNEUMONIA already"):
        judge.main([str(tmp_path / "plain.csv"), "--merge", "a=NORMAL", "b=PNEUMONIA"])


def test_findings_cannot_be_merged(tmp_path):
    (tmp_path / "findings.csv").write_text(
        "file,label_a,label_b,probability_a,probability_b\nx.png,1,0,0.9,0.2\ny.png,0,1,0.1,0.8\n", encoding="utf-8"
    )
    with pytest.raises(UserError, match="findings that occur together, which cannot be merged"):
        judge.main([str(tmp_path / "findings.csv"), "--merge", "x=a", "y=b"])
