from pathlib import Path

import pytest

from cxr_jax.errors import UserError
from cxr_jax.runs.recipes import RecipeFiles, find_recipes, recipe_names, recipe_of


def run(path):
    path.mkdir(parents=True)
    (path / "config.toml").write_text("")
    return path


@pytest.fixture
def tree(tmp_path):
    """Two studies: three seeds, two seeds, and a run without a seed in its name; tables by seed; a judged table."""
    for seed in (10, 0, 2):
        run(tmp_path / "runs" / "barnett" / "scratch" / f"seed{seed}")
    for seed in (0, 1):
        run(tmp_path / "runs" / "barnett" / f"transfer_seed{seed}")
    run(tmp_path / "runs" / "lee" / "once")
    (tmp_path / "runs" / "lee" / "once" / "deeper").mkdir()
    (tmp_path / "runs" / "bench").mkdir()
    (tmp_path / "runs" / ".hidden" / "seed0").mkdir(parents=True)
    (tmp_path / "keras").mkdir()
    for seed in (0, 1):
        (tmp_path / "keras" / f"seed{seed}.csv").write_text("file")
    (tmp_path / "keras" / "notes.csv").write_text("")
    (tmp_path / "judged" / "predictions").mkdir(parents=True)
    (tmp_path / "judged" / "predictions" / "test.csv").write_text("file")
    return tmp_path


def found(tree, *arguments):
    """The recipes by name, with the paths of their seeds below the tree."""
    recipes = find_recipes([str(argument) for argument in arguments])
    return {recipe.name: [path.relative_to(tree).as_posix() for path in recipe.paths] for recipe in recipes}


def test_a_folder_of_seeds_is_one_recipe_with_its_seeds_in_order(tree):
    assert found(tree, tree / "runs" / "barnett" / "scratch") == {
        "scratch": [f"runs/barnett/scratch/seed{seed}" for seed in (0, 2, 10)]
    }
    assert found(tree, tree / "keras") == {"keras": ["keras/seed0.csv", "keras/seed1.csv"]}


def test_a_folder_of_recipes_gives_every_one_its_path_as_name(tree):
    assert list(found(tree, tree / "runs" / "barnett")) == ["scratch", "transfer"]
    names = found(tree, tree / "runs")
    assert list(names) == ["barnett/scratch", "barnett/transfer", "lee/once"]
    assert names["barnett/transfer"] == ["runs/barnett/transfer_seed0", "runs/barnett/transfer_seed1"]


def test_recipes_that_are_called_alike_are_told_apart_by_the_folders_above():
    paths = [Path("/runs/tuned/lite0/seed0"), Path("/runs/probes/lite0/seed0"), Path("/runs/tuned/lite2_seed1")]
    assert recipe_names(paths) == ["tuned/lite0", "probes/lite0", "tuned/lite2"]
    # seeds of one recipe are not two
    assert recipe_names([Path("/runs/lite0/seed0"), Path("/runs/lite0/seed1")]) == ["lite0", "lite0"]
    assert recipe_names([Path("/a/x/lite0"), Path("/b/x/lite0")]) == ["a/x/lite0", "b/x/lite0"]


def test_runs_named_one_by_one_are_one_recipe_if_only_their_seed_differs(tree):
    barnett = tree / "runs" / "barnett"
    assert found(tree, barnett / "scratch" / "seed2", barnett / "transfer_seed1", barnett / "scratch" / "seed0") == {
        "scratch": ["runs/barnett/scratch/seed0", "runs/barnett/scratch/seed2"],
        "transfer": ["runs/barnett/transfer_seed1"],
    }


def test_a_name_of_its_own_keeps_two_seeds_apart(tree):
    scratch = tree / "runs" / "barnett" / "scratch"
    assert list(found(tree, f"first={scratch / 'seed0'}", f"second={scratch / 'seed2'}")) == ["first", "second"]


def test_judged_tables_and_tables_inside_runs_are_named_after_their_folder(tree):
    assert found(tree, tree / "judged") == {"judged": ["judged"]}
    assert found(tree, tree / "judged" / "predictions" / "test.csv") == {"judged": ["judged/predictions/test.csv"]}


def test_a_path_with_an_equals_sign_is_a_path_if_it_exists(tree):
    run(tree / "rate=0.01")
    assert list(found(tree, tree / "rate=0.01")) == ["rate=0.01"]


def test_the_seed_alone_is_taken_off_a_path(tmp_path):
    for name, expected in (
        ("a/seed3", "a"),
        ("a/first_seed3", "a/first"),
        ("a/first-seed_3", "a/first"),
        ("a/seedling", "a/seedling"),
        ("a/first", "a/first"),
    ):
        assert recipe_of(tmp_path / name) == tmp_path.resolve() / expected


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nowhere"], "there is no run, table or folder of them at .*nowhere"),
        (["runs/bench"], r"bench holds no run and no table seed\*\.csv"),
        (
            ["all=runs/barnett"],
            r"holds several recipes \(scratch, transfer\), which cannot all be called all: name each",
        ),
        (["=runs/lee/once"], "is neither a path nor NAME=PATH"),
        (["name="], "'name=' is neither a path nor NAME=PATH"),
        (["a=runs/lee/once", "a=keras"], "once and .* would both be called a: give them names, as NAME=PATH"),
        (["runs/lee/once", "runs/lee/once"], "once is named twice: name every run once"),
        (["a=runs/lee/once", "b=runs/lee/once"], "once is named twice"),
    ],
)
def test_every_mistake_is_one_sentence(tree, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tree)
    with pytest.raises(UserError, match=sentence):
        find_recipes(arguments)


def test_two_recipes_with_one_derived_name_are_refused(tree):
    run(tree / "other" / "scratch")
    with pytest.raises(UserError, match="would both be called scratch"):
        find_recipes([str(tree / "runs" / "barnett" / "scratch"), str(tree / "other" / "scratch")])


def test_relative_paths_are_kept_as_given(tree, monkeypatch):
    monkeypatch.chdir(tree)
    assert find_recipes(["one=runs/lee/once"]) == [RecipeFiles("one", (Path("runs/lee/once"),))]
