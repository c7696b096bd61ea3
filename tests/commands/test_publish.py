from __future__ import annotations

import json
import shutil

import pytest

from cxr_jax.commands import publish
from cxr_jax.config.loading import changed_config, read_tables, write_config
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.evaluation.class_judgement import read_class_judgement
from cxr_jax.evaluation.numbers import measured_text
from cxr_jax.runs.continued import Averaged, Continued, write_continued
from cxr_jax.runs.ensemble import EnsembleRecord, Member, read_ensemble, write_ensemble
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.ledger import append_look
from cxr_jax.runs.publication import FIGURES
from cxr_jax.runs.trained_on import told_films
from cxr_jax.vocabulary import DISCLAIMER


@pytest.fixture
def runs(evaluated_run, prepared_phantoms, tmp_path):
    """Two evaluated runs that lie beside each other."""
    first, second = tmp_path / "runs" / "tiny" / "seed0", tmp_path / "runs" / "tiny" / "seed1"
    shutil.copytree(evaluated_run, first)
    shutil.copytree(evaluated_run, second)
    return first, second


def test_runs_are_published_without_radiographs_and_paths(runs, tmp_path, capsys):
    out = tmp_path / "results"
    for name in ("localisation.json", "localisation-val.json"):
        (runs[0] / name).write_text("{}")
    published = ["--published", "Barnett, scratch=0.7837"]
    publish.main([*map(str, runs), "--out", str(out), *published])
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {"seed0/evaluation.json", "seed0/predictions/test.csv", "seed1/ledger.jsonl", "README.md"} <= files
    assert {"seed0/localisation.json", "seed0/localisation-val.json"} <= files
    assert not [name for name in files if name.endswith((".html", ".npy")) or "checkpoints" in name]
    figures = [name for name in files if "/figures/" in name]
    assert {name.rsplit("/", 1)[1] for name in figures} <= {f"{name}.png" for name in FIGURES}
    # one run of a recipe shows what they look like
    assert len(figures) > 5 and all(name.startswith("seed0/") for name in figures)
    assert "path" not in read_json(RunFolder(out / "seed0").data_card)["source"]
    readme = (out / "README.md").read_text()
    assert "| Barnett, scratch (published) |" in readme
    assert "78.4 %" in readme
    assert "- results: This network learned from phantoms" in readme and DISCLAIMER in readme
    # published again, with words around the table: they stay, and nothing is doubled
    (out / "README.md").write_text(f"Before.\n\n{readme}\nAfter.\n")
    publish.main([*map(str, runs), "--out", str(out), *published])
    again = (out / "README.md").read_text()
    assert again.startswith("Before.")
    assert again.rstrip().endswith("After.")
    assert again.count("Barnett, scratch") == 1
    capsys.readouterr()


def test_a_ledger_is_published_line_by_line_and_a_torn_one_is_told_before_anything_is_written(runs, tmp_path):
    run = RunFolder(runs[0])
    append_look(run, {"degraded": True, "run": "a\u2028b/c\x85d"})
    publish.main([str(run.path), "--out", str(tmp_path / "whole")])
    (ledger,) = (tmp_path / "whole").rglob("ledger.jsonl")
    assert [json.loads(line) for line in ledger.read_text().split("\n")[:-1]][-1]["run"] == "a\u2028b/c\x85d"
    with run.ledger.open("a") as file:
        file.write('{"half')
    with pytest.raises(UserError, match=r"ledger\.jsonl, line \d+: not an entry of the ledger"):
        publish.main([str(run.path), "--out", str(tmp_path / "torn")])
    assert not list((tmp_path / "torn").rglob("*.json"))


def test_a_network_that_learned_on_is_published_as_one(runs, tmp_path):
    run = RunFolder(runs[0])
    card = read_json(run.data_card)
    source = {**card["source"], "table": {"table": "/home/me/labels.csv", "file": "file"}}
    run.data_card.write_text(json.dumps({**card, "name": "second", "phantom": False, "source": source}))
    averaged = (Averaged("../../mine/other", "last", 3, "s", ("/home/me/prepared/third", "fourth")),)
    origin = Continued(
        "../../mine/first", "net", "last", 3, "s", (0.5,), (0.2,), "", "", "/home/me/prepared/first", "f", averaged
    )
    write_continued(run, origin)
    run.change.mkdir()
    for name in ("change.json", "old_after.csv", "picture.png"):
        (run.change / name).write_text("{}")
    (run.change / "ledger.jsonl").write_text('{"run": "/home/me/runs/first/seed0", "threshold": 0.5}\n')
    publish.main([str(run.path), "--out", str(tmp_path / "results")])
    there = RunFolder(tmp_path / "results" / "seed0")
    assert {path.name for path in there.change.iterdir()} == {"change.json", "old_after.csv", "ledger.jsonl"}
    assert read_json(there.change / "ledger.jsonl") == {"run": "first/seed0", "threshold": 0.5}
    assert read_json(there.data_card)["source"]["table"] == {"table": "labels.csv", "file": "file"}
    assert "after those of first and third and fourth" in told_films(there)
    assert told_films(there) in (tmp_path / "results" / "README.md").read_text()
    assert "mine" not in there.continued.read_text() and "/home" not in there.continued.read_text()


def test_members_of_a_published_ensemble_are_named_without_the_folders_on_the_way(runs, tmp_path):
    run = RunFolder(runs[0])
    places = ("../seed1", "../../../data/me/runs/far/seed2", "/mnt/me/far/seed3")
    write_ensemble(run, EnsembleRecord(tuple(Member(place, "net", 32, 1, "last", 3, "s") for place in places)))
    look = {"members": [{"run": place, "step": 3} for place in places], "threshold": 0.5}
    run.ledger.write_text(json.dumps(look) + "\n")
    publish.main([str(run.path), "--out", str(tmp_path / "results")])
    there, named = RunFolder(tmp_path / "results" / "seed0"), ["../seed1", "far/seed2", "far/seed3"]
    assert [member.run for member in read_ensemble(there).members] == named
    assert [member["run"] for member in read_json(there.ledger)["members"]] == named
    kinds = (".json", ".jsonl", ".toml", ".md")
    texts = [path.read_text() for path in (tmp_path / "results").rglob("*") if path.suffix in kinds]
    assert len(texts) > 5 and not [text for text in texts if "/me/" in text or str(tmp_path) in text]


@pytest.mark.parametrize("out", ["runs/tiny", "runs/tiny/seed0/results"])
def test_a_run_is_not_published_onto_itself(out, runs, tmp_path):
    def files():
        return {path: path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()}

    before = files()
    with pytest.raises(UserError, match="choose another --out"):
        publish.main([*map(str, runs), "--out", str(tmp_path / out)])
    assert files() == before


def test_what_a_user_put_beside_published_figures_stays(runs, tmp_path):
    publish.main([str(runs[0]), "--out", str(tmp_path / "results")])
    mine = tmp_path / "results" / "seed0" / "figures" / "mine.png"
    mine.write_text("mine")
    publish.main([str(runs[0]), "--out", str(tmp_path / "results")])
    assert mine.read_text() == "mine"


@pytest.mark.parametrize(
    ("where", "published"),
    [
        ({"data": {"dataset": "/home/me/prepared/films"}}, 'dataset = "films"'),
        ({"data": {"replay": {"dataset": "/home/me/prepared/old_films"}}}, 'dataset = "old_films"'),
        ({"data": {"balancing": "dcgan", "synthetic": "/home/me/dcgan"}}, 'synthetic = "dcgan"'),
        ({"model": {"weights": "/home/me/imagenet.safetensors"}}, 'weights = "imagenet.safetensors"'),
    ],
)
def test_a_published_config_names_what_it_needs_without_the_folders_on_the_way(where, published, runs, tmp_path):
    run = RunFolder(runs[0])
    write_config(changed_config(read_tables(run.config), where, "here").config, run.config)
    assert "/home/me" in run.config.read_text()
    publish.main([str(run.path), "--out", str(tmp_path / "results")])
    text = (tmp_path / "results" / "seed0" / "config.toml").read_text()
    assert published in text and "/home/me" not in text


def test_the_config_of_a_run_that_names_no_folder_is_published_as_it_is(runs, tmp_path):
    publish.main([str(runs[0]), "--out", str(tmp_path / "results")])
    published = tmp_path / "results" / "seed0" / "config.toml"
    assert published.read_bytes() == RunFolder(runs[0]).config.read_bytes()


def test_a_folder_with_something_else_is_left_alone(runs, tmp_path):
    out = tmp_path / "results"
    (out / "seed0").mkdir(parents=True)
    (out / "seed0" / "mine.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else"):
        publish.main([*map(str, runs), "--out", str(out)])
    assert [path.name for path in (out / "seed0").iterdir()] == ["mine.txt"]


def test_a_run_that_was_not_evaluated_is_refused(run_path, tmp_path):
    with pytest.raises(UserError, match="has not been evaluated"):
        publish.main([str(run_path), "--out", str(tmp_path / "results")])


@pytest.mark.parametrize(
    "arguments",
    [[], ["--out", "x"], ["run"], ["run", "--out", "x", "--published", "no number"], ["run", "--published", "a=2"]],
)
def test_a_call_that_says_too_little_is_a_usage_error(arguments):
    with pytest.raises(UserError) as caught:
        publish.main(arguments)
    assert caught.value.code == EXIT_USAGE


def test_a_run_named_twice_is_refused(runs, tmp_path):
    with pytest.raises(UserError, match="named twice"):
        publish.main([str(runs[0]), str(runs[0]), "--out", str(tmp_path / "results")])


def rows_of(readme):
    """The rows of Markdown tables as lists of cells."""
    lines = [line for line in readme.splitlines() if line.startswith("| ") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_runs_of_findings_and_of_classes_have_tables_of_their_own(several, three, runs, tmp_path):
    findings, classes = tmp_path / "runs" / "findings" / "seed0", tmp_path / "runs" / "classes" / "seed0"
    shutil.copytree(several / "run", findings)
    shutil.copytree(three / "run", classes)
    out = tmp_path / "results"
    publish.main([str(runs[0]), str(findings), str(classes), "--out", str(out)])
    rows = rows_of((out / "README.md").read_text())
    assert rows[0][-3:] == ["ROC-AUC (95 %)", "Looks", "Minutes"] and rows[1][0] == "tiny"
    judged = read_class_judgement(RunFolder(findings).evaluation)
    told = measured_text(judged.test.metrics["macro_roc_auc"])
    assert ["findings", "1", told] in [row[:3] for row in rows]
    for name, found in judged.test.classes.items():
        (row,) = [row for row in rows if row[:2] == ["findings", name]]
        assert row[2:4] == [str(found.images), measured_text(found.metrics["roc_auc"])]
        assert row[5] == measured_text(found.at_threshold["sensitivity"], ".1%")
    judged = read_class_judgement(RunFolder(classes).evaluation)
    (row,) = [row for row in rows if row[:2] == ["classes", "covid"]]
    assert row[5] == measured_text(judged.test.classes["covid"].called["sensitivity"], ".1%")
    assert ["classes", "1", measured_text(judged.test.metrics["accuracy"], ".1%")] in [row[:3] for row in rows]
    assert (out / "findings" / "seed0" / "predictions" / "test.csv").is_file()
