import copy

import pytest

from cxr_jax.config.loading import config_of
from cxr_jax.config.overrides import dotted, overridden
from cxr_jax.errors import UserError

PLACE = "[variants.a] of s.toml"

TABLES = {
    "augmentation": {"horizontal_flip": 0.5, "rotation": 10.0},
    "optimizer": {"learning_rate": 0.1},
    "phases": [
        {"name": "head", "epochs": 2, "trainable": ["classifier"]},
        {"name": "deeper layers", "augmentation": {"scale": 0.1}},
    ],
}


def test_nested_tables_and_quoted_keys_are_the_same():
    expected = {"a.b.c": 1, "a.d": [1, 2]}
    assert dotted({"a": {"b": {"c": 1}, "d": [1, 2]}}, PLACE) == expected
    assert dotted({"a.b.c": 1, "a": {"d": [1, 2]}}, PLACE) == expected
    with pytest.raises(UserError, match=r"\[variants.a\] of s.toml gives a.b twice"):
        dotted({"a.b": 1, "a": {"b": 2}}, PLACE)


def test_what_is_not_named_stays_and_the_tables_given_are_not_touched():
    before = copy.deepcopy(TABLES)
    changed = overridden(TABLES, {"optimizer.learning_rate": 0.2, "loss.class_weights": "balanced"}, PLACE)
    assert changed == {**TABLES, "optimizer": {"learning_rate": 0.2}, "loss": {"class_weights": "balanced"}}
    changed["phases"][0]["epochs"] = 9
    assert before == TABLES


@pytest.mark.parametrize("phase", ["deeper layers", "1"])
def test_a_phase_goes_by_its_name_or_its_number(phase):
    changed = overridden(TABLES, {f"phases.{phase}.augmentation.gamma": 0.3}, PLACE)
    assert changed["phases"][1]["augmentation"] == {"scale": 0.1, "gamma": 0.3}
    assert changed["phases"][0] == TABLES["phases"][0]


def test_a_section_that_a_phase_takes_from_the_config_keeps_what_is_not_named():
    changes = {"phases.head.augmentation.gamma": 0.3, "augmentation.rotation": 5.0}
    for order in (changes, dict(reversed(changes.items()))):
        changed = overridden(TABLES, order, PLACE)
        assert changed["phases"][0]["augmentation"] == {"horizontal_flip": 0.5, "rotation": 5.0, "gamma": 0.3}
        # and the phase beside it still has what it had
        assert changed["phases"][1] == TABLES["phases"][1]
    config = config_of(changed, PLACE)
    assert config.resolved_phases()[0].augmentation.horizontal_flip == 0.5


def test_fields_of_a_phase_and_whole_lists_are_replaced():
    changed = overridden(TABLES, {"phases.0.epochs": 7, "phases.head.trainable": ["blocks.6"]}, PLACE)
    assert changed["phases"][0] == {"name": "head", "epochs": 7, "trainable": ["blocks.6"]}
    alone = {"phases": [{"name": "all"}], "phases.all.epochs": 3}
    assert overridden(TABLES, dict(reversed(alone.items())), PLACE)["phases"] == [{"name": "all", "epochs": 3}]
    assert TABLES["phases"][0]["epochs"] == 2
    # the list given is not touched: another variant begins from it as well
    assert alone == {"phases": [{"name": "all"}], "phases.all.epochs": 3}


def test_names_of_phases_may_hold_dots_and_digits():
    tables = {"phases": [{"name": "1"}, {"name": "a.b"}, {"name": "a"}, {}]}
    changes = {"phases.1.epochs": 5, "phases.a.b.epochs": 6, "phases.a.epochs": 7, "phases.train.epochs": 8}
    assert [phase["epochs"] for phase in overridden(tables, changes, PLACE)["phases"]] == [5, 6, 7, 8]


def test_a_phase_goes_by_its_old_name_while_it_gets_a_new_one():
    changes = {"phases.head.name": "first", "phases.head.epochs": 5}
    assert overridden(TABLES, changes, PLACE)["phases"][0] == {**TABLES["phases"][0], "name": "first", "epochs": 5}


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (
            "phases.haed.epochs",
            "names no field of a phase; did you mean head?; the phases are head, deeper layers, as in phases.head",
        ),
        ("phases.2.epochs", "names no field of a phase"),
        ("phases.head", "names no field of a phase"),
        ("phases.head.", "names no field of a phase"),
        ("optimizer.learning_rate.x", "goes through learning_rate, which is a value"),
        ("phases.head.epochs.x", "goes through epochs, which is a value"),
    ],
)
def test_a_key_that_leads_nowhere_is_told_with_its_place(key, sentence):
    with pytest.raises(UserError) as caught:
        overridden(TABLES, {key: 1}, PLACE)
    assert f"{key} in {PLACE}" in str(caught.value)
    assert sentence in str(caught.value)


def test_a_phase_of_a_config_without_phases_is_told():
    with pytest.raises(UserError, match=r"the config has no \[\[phases\]\]: name the section"):
        overridden({}, {"phases.0.epochs": 1}, PLACE)
    with pytest.raises(UserError, match="phases, which is no list of tables"):
        overridden({}, {"phases": "head", "phases.0.epochs": 1}, PLACE)
