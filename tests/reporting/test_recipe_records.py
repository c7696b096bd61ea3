"""What a comparison reads of the runs of a recipe, on runs made up for the purpose."""

import json

import pytest

from cxr_jax.errors import UserError
from cxr_jax.evaluation.operating_point import choose_operating_point
from cxr_jax.models.size import measure
from cxr_jax.reporting import recipe_records
from cxr_jax.reporting.recipe_records import Costs, read_recipe
from cxr_jax.runs.files import write_json, write_text
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.predictions import read_predictions, write_predictions
from cxr_jax.runs.recipes import find_recipes
from tests.reporting.compared_runs import ARCHITECTURE, files_of, make_run, predictions


def test_the_work_of_a_denoiser_is_counted(tmp_path):
    run = make_run(tmp_path / "denoised", 0)
    write_json(run.network, {**json.loads(run.network.read_text()), "denoiser": 4})
    found = read_recipe(files_of(run.path)).costs.multiply_adds
    assert found == measure(ARCHITECTURE, classes=2, image_size=48, denoiser=4).multiply_adds
    assert found > measure(ARCHITECTURE, classes=2, image_size=48).multiply_adds


def test_a_record_holds_what_the_runs_say(studies, records):
    good, plain = records
    assert (good.recipe.name, plain.recipe.name) == ("good", "plain")
    assert good.paths == tuple(studies / "good" / f"seed{seed}" for seed in range(3))
    assert good.looks == (1, 2, 1)
    assert good.rule == "sensitivity 90 % on validation"
    assert not good.chosen_anew
    stored = [json.loads((path / "operating_point.json").read_text())["threshold"] for path in good.paths]
    assert good.recipe.thresholds == tuple(stored)
    assert good.costs == Costs(
        parameters=1234,
        multiply_adds=measure(ARCHITECTURE, classes=2, image_size=48).multiply_adds,
        images_per_second=41.0,
        minutes=9.0,
        machine="2 x H900, 2 cores of Slow 3000",
    )


def test_a_rule_for_all_chooses_on_validation_alone(studies):
    (files,) = find_recipes([str(studies / "good")])
    record = read_recipe(files, {"rule": "youden"})
    assert (record.rule, record.chosen_anew) == ("Youden on validation", True)
    for path, threshold in zip(record.paths, record.recipe.thresholds, strict=True):
        validation = read_predictions(path / "predictions" / "val.csv")
        assert threshold == choose_operating_point(validation, rule="youden").threshold
    costly = read_recipe(files, {"rule": "cost_ratio", "cost_ratio": 3.0, "target_sensitivity": 0.5})
    assert costly.rule == "cost ratio 3 on validation"


def test_a_bare_table_has_neither_costs_nor_looks_nor_an_operating_point(tmp_path):
    write_predictions(tmp_path / "keras.csv", predictions(1))
    record = read_recipe(files_of(tmp_path / "keras.csv"), {"rule": "youden"})
    assert (record.recipe.thresholds, record.rule, record.looks, record.costs) == (None, None, None, Costs())
    judged = RunFolder(tmp_path / "judged")
    write_predictions(judged.predictions_of("test"), predictions(1))
    assert read_recipe(files_of(judged.path)).costs == Costs()
    assert read_recipe(files_of(judged.path), {"rule": "youden"}).recipe.thresholds is None


def test_costs_that_a_run_does_not_state_are_unknown(tmp_path):
    run = make_run(tmp_path / "run", 0)
    write_json(run.network, {"architecture": "of another version", "classes": ["a", "b"], "image_size": 48})
    write_json(run.environment, {"schema_version": 1, "devices": ["cpu cpu"]})
    run.metrics.unlink()
    assert read_recipe(files_of(run.path)).costs == Costs()
    for path in (run.network, run.environment, run.ledger, run.operating_point):
        path.unlink()
    record = read_recipe(files_of(run.path))
    assert (record.costs, record.looks, record.recipe.thresholds) == (Costs(), None, None)


def test_a_run_that_was_not_evaluated_is_one_sentence(tmp_path):
    run = make_run(tmp_path / "run", 0)
    run.predictions_of("test").unlink()
    with pytest.raises(UserError, match=r"has not been evaluated; run cxr-jax evaluate .*run first"):
        read_recipe(files_of(run.path))


def test_runs_that_differ_in_more_than_the_seed_are_no_recipe(tmp_path):
    one, other = make_run(tmp_path / "seed0", 0), make_run(tmp_path / "seed1", 1, rate=0.5)
    with pytest.raises(UserError, match=r"are not seeds of one recipe, they differ in optimizer\.learning_rate: put"):
        read_recipe(files_of(one.path, other.path))
    # what an older version had no field for, and the seed of the split, make no other recipe
    text = "[training]\nseed = 1\n[optimizer]\nlearning_rate = 0.01\nnesterov = true\n[data]\nsplit_seed = 1\n"
    write_text(other.config, text)
    assert len(read_recipe(files_of(one.path, other.path)).recipe.tables) == 2


def test_a_copy_is_no_second_seed(tmp_path):
    one, other = make_run(tmp_path / "seed0", 0), make_run(tmp_path / "seed1", 1)
    write_predictions(other.predictions_of("test"), predictions(0))
    with pytest.raises(UserError, match=r"seed0 and .*seed1 hold the same predictions: a copy is no second seed"):
        read_recipe(files_of(one.path, other.path))


def test_a_run_of_a_newer_version_is_one_sentence(tmp_path):
    run = make_run(tmp_path / "run", 0)
    write_json(run.environment, {"schema_version": 99})
    with pytest.raises(UserError, match="newer cxr_jax"):
        read_recipe(files_of(run.path))


def test_a_fixed_rule_and_an_unknown_one_are_told(tmp_path):
    run = make_run(tmp_path / "run", 0, rule="fixed")
    assert read_recipe(files_of(run.path)).rule == "0.5 fixed beforehand"
    point = json.loads(run.operating_point.read_text())
    write_json(run.operating_point, {**point, "rule": "coin"})
    assert recipe_records.read_recipe(files_of(run.path)).rule == "coin"
