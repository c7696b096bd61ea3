import csv
import json

import numpy as np
import pytest

from cxr_jax.commands import compare
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.evaluation.class_points import fixed_class_points, write_class_points
from cxr_jax.runs.class_predictions import ClassPredictions, write_class_predictions
from cxr_jax.runs.predictions import Predictions, write_predictions


def predictions(seed, *, skill=1.0, rows=None, relabelled=()):
    random = np.random.default_rng(seed)
    label = np.r_[np.zeros(30, int), np.ones(50, int)]
    probability = 1 / (1 + np.exp(-(random.normal(size=80) + skill * (2 * label - 1))))
    label[list(relabelled)] = 1 - label[list(relabelled)]
    table = Predictions(
        file=[f"{i}.jpeg" for i in range(80)],
        split=["test"] * 80,
        group=[f"{i // 2}" for i in range(80)],
        subtype=["unknown" if positive else "normal" for positive in label],
        label=label,
        logits=None,
        probability=probability,
    )
    return table if rows is None else table.select(np.arange(80)[rows])


@pytest.fixture
def tables(tmp_path):
    """Two recipes of three and two seeds as bare tables, in one folder."""
    for seed in range(5):
        recipe = "strong" if seed < 3 else "weak"
        write_predictions(tmp_path / "tables" / recipe / f"seed{seed}.csv", predictions(seed, skill=2.0 - (seed >= 3)))
    return tmp_path / "tables"


def run(*arguments):
    compare.main([*map(str, arguments), "--resamples", "100"])


def test_a_comparison_is_printed_and_nothing_is_written(tables, capsys):
    before = sorted(tables.rglob("*"))
    run(tables)
    printed = capsys.readouterr().out
    for told in ("80 images", "strong", "weak", "Differences at threshold 0.5", "retrained", "Not a medical device"):
        assert told in printed
    assert "Written" not in printed
    assert sorted(tables.rglob("*")) == before


def test_rows_of_training_images_are_left_out_and_told(tables, tmp_path, capsys):
    import dataclasses

    first = tables / "strong" / "seed0.csv"
    test = predictions(0, skill=2.0)
    train = dataclasses.replace(test, file=[f"train/{name}" for name in test.file], split=["train"] * len(test))
    names = ("file", "split", "group", "subtype")
    joined = {name: getattr(test, name) + getattr(train, name) for name in names}
    both = (np.concatenate([getattr(test, name), getattr(train, name)]) for name in ("label", "probability"))
    label, probability = both
    run(tables, "--out", tmp_path / "alone")
    write_predictions(first, Predictions(**joined, label=label, logits=None, probability=probability))
    capsys.readouterr()
    run(tables, "--out", tmp_path / "mixed")
    told = f"{first}: Of 160 rows, the 80 of split test are taken; 80 of train are left out."
    assert told in capsys.readouterr().out
    assert (tmp_path / "mixed" / "comparison.json").read_text() == (tmp_path / "alone" / "comparison.json").read_text()


def test_out_gets_tables_numbers_and_figure(tables, tmp_path, capsys):
    out = tmp_path / "out"
    run(f"a={tables / 'strong'}", f"b={tables / 'weak'}", "--out", out)
    names = {"comparison.json", "comparison.md", "comparison.png", "comparison.svg", "recipes.csv", "pairs.csv"}
    assert {path.name for path in out.iterdir()} == names | {"costs.csv", "errors.csv"}
    result = json.loads((out / "comparison.json").read_text())
    assert list(result["recipes"]) == ["a", "b"]
    assert result["confidence"]["resamples"] == 100
    assert "![" in (out / "comparison.md").read_text()
    assert str(out / "pairs.csv") in capsys.readouterr().out


def test_nothing_is_overwritten_unasked(tables, tmp_path):
    out = tmp_path / "out"
    run(tables, "--out", out)
    (out / "comparison.md").write_text("read and annotated")
    with pytest.raises(UserError, match="holds a comparison already: choose another --out, or --replace it"):
        run(tables, "--out", out)
    assert (out / "comparison.md").read_text() == "read and annotated"
    (out / "mine.txt").write_text("mine")
    run(tables, "--out", out, "--replace")
    assert (out / "comparison.md").read_text().startswith("# Comparison")
    assert (out / "mine.txt").read_text() == "mine"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else than a comparison"):
        run(tables, "--out", tmp_path / "other", "--replace")
    with pytest.raises(UserError, match="is a file: choose another place"):
        run(tables, "--out", tmp_path / "other" / "thesis.txt")


def test_a_markdown_file_is_made_and_made_again_around_the_words_of_others(tables, capsys):
    page = tables / "README.md"
    run(tables, "--markdown", page, "--out", tables / "comparison")
    text = page.read_text()
    assert text.startswith("# Results\n\n<!-- comparison: begin -->")
    assert "| [strong](strong) | 3 |" in text
    assert "](comparison/comparison.png)" in text
    assert f"Made by `cxr-jax compare {tables} --markdown {page} --out" in text
    page.write_text(f"# My words\n\n{text}\nAfterwards.\n")
    # the folder of the comparison itself holds no recipe
    run(tables, "--markdown", page)
    again = page.read_text()
    assert again.startswith("# My words")
    assert again.rstrip().endswith("Afterwards.")
    assert again.count("<!-- comparison: begin -->") == 1
    assert "comparison.png" not in again
    assert "Written" in capsys.readouterr().out


def test_recipes_elsewhere_are_not_linked(tables, tmp_path):
    (tmp_path / "page").mkdir()
    run(tables, "--markdown", tmp_path / "page" / "README.md")
    assert "| strong | 3 |" in (tmp_path / "page" / "README.md").read_text()


def test_a_reference_leaves_only_its_own_pairs(tables, tmp_path):
    write_predictions(tables / "third" / "seed0.csv", predictions(9))
    run(tables, "--reference", "third", "--out", tmp_path / "out")
    pairs = json.loads((tmp_path / "out" / "comparison.json").read_text())["pairs"]
    assert [(pair["first"], pair["second"]) for pair in pairs] == [("strong", "third"), ("weak", "third")]
    with pytest.raises(UserError, match="the reference best is none of the recipes: strong, third, weak"):
        run(tables, "--reference", "best")


def test_a_rule_gives_every_run_with_validation_predictions_an_operating_point(tmp_path):
    for name, seed in (("a", 0), ("b", 1)):
        folder = tmp_path / "runs" / name
        write_predictions(folder / "predictions" / "test.csv", predictions(seed))
        write_predictions(folder / "predictions" / "val.csv", predictions(seed + 10))
        (folder / "config.toml").write_text(f"[training]\nseed = {seed}\n")
    run(tmp_path / "runs", "--rule", "sensitivity", "--target-sensitivity", "0.9", "--out", tmp_path / "out")
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "chosen for this comparison on the validation predictions of each run (sensitivity 90 % on" in text
    thresholds = json.loads((tmp_path / "out" / "comparison.json").read_text())["recipes"]["b"]["thresholds"]
    validation = predictions(11)
    called = validation.probability[validation.label == 1] >= thresholds[0]
    assert called.sum() == 45


def test_tables_over_other_images_or_labels_are_refused_by_their_paths(tables):
    write_predictions(tables / "third" / "seed0.csv", predictions(9, rows=slice(2, 80)))
    with pytest.raises(
        UserError, match=r"strong.seed0\.csv and .*third.seed0\.csv are not over the same images: .*third"
    ):
        run(tables)
    write_predictions(tables / "third" / "seed0.csv", predictions(9, relabelled=[3]))
    with pytest.raises(UserError, match=r"strong.seed0\.csv and .*third.seed0\.csv give different labels to 3\.jpeg"):
        run(tables)


CLASSES = ("normal", "bacteria", "virus")


def class_predictions(seed, *, split="test", skill=1.0):
    label = np.arange(60) % 3
    logits = np.random.default_rng(seed).normal(size=(60, 3)) + skill * np.eye(3)[label]
    group = [f"{split}{i // 2}" for i in range(60)]
    return ClassPredictions.from_logits(
        logits,
        file=[f"{split}{i}.png" for i in range(60)],
        split=[split] * 60,
        group=group,
        classes=CLASSES,
        label=label,
    )


@pytest.fixture
def class_runs(tmp_path):
    """Two recipes of three classes, with two seeds and one."""
    for recipe, seed in (("strong", 0), ("strong", 1), ("weak", 2)):
        folder = tmp_path / "runs" / recipe / f"seed{seed}"
        for split in ("val", "test"):
            table = class_predictions(seed, split=split, skill=3.0 if recipe == "strong" else 1.0)
            write_class_predictions(folder / "predictions" / f"{split}.csv", table)
        write_class_points(folder / "operating_point.json", fixed_class_points(CLASSES, 0.4))
        (folder / "config.toml").write_text(f"[training]\nseed = {seed}\n")
    return tmp_path / "runs"


def test_recipes_of_several_exclusive_classes_are_compared_class_by_class(class_runs, tmp_path, capsys):
    out, page = tmp_path / "out", class_runs / "README.md"
    run(class_runs, "--out", out, "--markdown", page, "--rule", "sensitivity", "--target-sensitivity", "0.9")
    printed = capsys.readouterr().out
    for told in ("60 images, 20 normal, 20 bacteria, 20 virus, in 30 groups", "ROC-AUC", "Not a medical device"):
        assert told in printed
    record = json.loads((out / "comparison.json").read_text())
    assert list(record["classes"]) == list(CLASSES)
    assert record["classes"]["virus"]["pairs"][0]["endpoints"]["accuracy@rule"]["difference"] > 0
    validation, thresholds = (
        class_predictions(2, split="val"),
        record["classes"]["virus"]["recipes"]["weak"]["thresholds"],
    )
    assert (validation.probabilities[validation.label == 2, 2] >= thresholds[0]).sum() == 18
    text = (out / "comparison.md").read_text()
    for title in ("All classes together", "Each class against the rest, from its own threshold on"):
        assert f"## {title}" in text
        assert f"## Differences, {title[0].lower()}{title[1:]}" in text
    assert "| virus<br>strong |" in text
    assert "(sensitivity 90 % on validation)" in text
    assert "| [strong](strong) | 2 |" in page.read_text()
    rows = list(csv.DictReader((out / "pairs.csv").open()))
    assert {row["class"] for row in rows} == {"", *CLASSES}
    assert {row["threshold"] for row in rows if row["class"] == "virus"} == {"", "highest", "operating point", "rule"}
    assert (out / "comparison.png").stat().st_size > 5000


def test_recipes_of_different_classes_are_refused_by_their_paths(class_runs, tables):
    with pytest.raises(
        UserError, match=r"seed3.csv is of NORMAL and PNEUMONIA, and .*seed2 of other classes: .*--merge"
    ):
        run(f"a={class_runs / 'weak'}", f"b={tables / 'weak'}")
    fewer = class_predictions(5).with_classes(CLASSES[::-1])
    write_class_predictions(class_runs / "other" / "seed5.csv", fewer)
    run(class_runs)
    renamed = ClassPredictions(
        *(getattr(fewer, n) for n in ("file", "split", "group")),
        ("a", "b", "c"),
        fewer.label,
        None,
        fewer.probabilities,
    )
    write_class_predictions(class_runs / "other" / "seed5.csv", renamed)
    with pytest.raises(
        UserError, match=r"seed5.csv and .*seed0 are of different classes \(a, b, bacteria, c, normal, virus in one"
    ):
        run(class_runs)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", "is empty"),
        ("file,label\na.jpeg,0\n", "has no column probability"),
        ("file,label,probability\na.jpeg,0,0.1\na.jpeg,1,0.2\n", "stands in row 2 already"),
        ("file,label,probability\na.jpeg,0,nan\n", "not a finite number"),
        ("file,label,probability\na.jpeg,0,1.5\n", "not a probability"),
        ("file,label,probability\na.jpeg,healthy,0.5\n", "unknown label 'healthy'"),
    ],
)
def test_a_wrong_table_is_one_sentence(tables, content, sentence):
    (tables / "weak" / "seed3.csv").write_text(content)
    with pytest.raises(UserError, match=sentence):
        run(tables)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name runs or tables"),
        (["x", "--target-sensitivity", "0"], "--target-sensitivity is 0.0, but must be above 0"),
        (["x", "--cost-ratio", "-1"], "--cost-ratio is -1.0, but must be above 0"),
        (["x", "--resamples", "9"], "--resamples is 9, but must be from 100 to 100000"),
        (["x", "--replace"], "name a folder with --out"),
        (["x", "--markdown", "page.txt"], r"ending in \.md, not page\.txt"),
        (["x", "--rule", "luck"], "rule"),
    ],
)
def test_wrong_options_are_usage_errors(arguments, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        compare.main(arguments)
    assert caught.value.code == EXIT_USAGE
