import re
import subprocess
import sys
from pathlib import Path

import pytest

from cxr_jax.config.schema import Config
from cxr_jax.errors import UserError
from cxr_jax.sweeps.sweep import Sweep, read_sweep

SWEEPS = Path(__file__).parents[2] / "configs" / "sweeps"

BASE = """
[optimizer]
learning_rate = 0.1
[augmentation]
horizontal_flip = 0.5
[training]
epochs = 3
seed = 7
"""

PHASES = """
[[phases]]
name = "head"
[phases.optimizer]
learning_rate = 0.5
[phases.augmentation]
[[phases]]
name = "deeper layers"
[phases.optimizer]
learning_rate = 0.01
[phases.augmentation]
rotation = 10.0
"""


@pytest.fixture
def read(tmp_path):
    """Reads a sweep whose base config is that of the text."""

    def write_and_read(text: str, base: str = BASE) -> Sweep:
        (tmp_path / "base.toml").write_text(base)
        (tmp_path / "s.toml").write_text(text if "config =" in text else f'config = "base.toml"\n{text}')
        return read_sweep(tmp_path / "s.toml")

    return write_and_read


def configs_of(sweep: Sweep) -> dict[str, Config]:
    return {variant.name: variant.config for variant in sweep.variants}


def test_a_base_alone_is_trained_with_its_own_seed(read):
    sweep = read("")
    assert [variant.name for variant in sweep.variants] == ["base"]
    assert (sweep.seeds, sweep.same_as_base) == ((7,), ())
    assert sweep.base.with_seed(3).training.seed == 3
    assert sweep.base.config.optimizer.learning_rate == 0.1


def test_variants_change_one_factor_of_the_changed_base(read):
    sweep = read(
        """
        seeds = [4, 0]
        [base]
        augmentation.rotation = 5
        [variants.slow]
        "optimizer.learning_rate" = 0.01
        [variants.upright.augmentation]
        rotation = 0
        """
    )
    configs = configs_of(sweep)
    assert list(configs) == ["base", "slow", "upright"]
    assert sweep.seeds == (4, 0)
    assert {name: config.optimizer.learning_rate for name, config in configs.items()} == {
        "base": 0.1,
        "slow": 0.01,
        "upright": 0.1,
    }
    assert {name: config.augmentation.rotation for name, config in configs.items()} == {
        "base": 5,
        "slow": 5,
        "upright": 0,
    }
    assert all(config.augmentation.horizontal_flip == 0.5 for config in configs.values())
    assert [variant.changes for variant in sweep.variants] == [
        {},
        {"optimizer.learning_rate": 0.01},
        {"augmentation.rotation": 0},
    ]


def test_a_variant_reaches_into_phases(read):
    sweep = read(
        '[variants.gamma]\n"phases.deeper layers.augmentation.gamma" = 0.3\n[variants.head]\nphases.0.epochs = 4',
        PHASES,
    )
    base, gamma, head = (variant.config.resolved_phases() for variant in sweep.variants)
    assert gamma[0] == base[0]
    assert (gamma[1].augmentation.gamma, gamma[1].augmentation.rotation) == (0.3, 10)
    assert (head[0].epochs, head[1]) == (4, base[1])


def test_a_change_of_the_base_comes_before_what_a_phase_takes_from_it(read):
    base = "[augmentation]\nhorizontal_flip = 0.5\n[[phases]]\nname = 'a'\n[[phases]]\nname = 'b'"
    text = "[base]\nphases.a.augmentation.gamma = 0.3\n[variants.upright]\naugmentation.horizontal_flip = 0.0"
    first, second = read(text, base).variants[1].config.resolved_phases()
    assert (first.augmentation.horizontal_flip, first.augmentation.gamma) == (0, 0.3)
    assert (second.augmentation.horizontal_flip, second.augmentation.gamma) == (0, 0)


def test_a_grid_is_every_combination_and_the_base_is_trained_once(read):
    sweep = read(
        """
        [grid]
        "optimizer.learning_rate" = [0.1, 0.01]
        "augmentation.rotation" = [0, 10]
        "phases" = [[], [{name = "a b"}]]
        """
    )
    names = [variant.name for variant in sweep.variants]
    assert len(names) == 1 + 2 * 2 * 2 - 1
    assert names[1] == "learning_rate=0.1,rotation=0,phases=_name_a_b_"
    assert sweep.same_as_base == ("learning_rate=0.1,rotation=0,phases=",)
    config = configs_of(sweep)["learning_rate=0.01,rotation=10,phases="]
    assert (config.optimizer.learning_rate, config.augmentation.rotation) == (0.01, 10)


def test_names_of_a_grid_are_as_short_as_they_can_be_told_apart(read):
    sweep = read(
        """
        [grid]
        "phases.head.optimizer.learning_rate" = [1]
        "phases.deeper layers.optimizer.learning_rate" = [2]
        "phases.head.trainable" = [["blocks.6", "classifier"]]
        "data.resize" = ["pad"]
        "optimizer.nesterov" = [true]
        """,
        PHASES,
    )
    assert sweep.variants[1].name == (
        "head.optimizer.learning_rate=1,deeper_layers.optimizer.learning_rate=2,"
        "trainable=blocks.6+classifier,resize=pad,nesterov=true"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("config = 3", "FILE names no base config"),
        ('config = "absent.toml"', "there is no config FOLDER/absent.toml"),
        ("seed = [1]", "seed in FILE is unknown; did you mean seeds?; a sweep has config, seeds, base"),
        ("seeds = 3", "seeds in FILE must be a list of different whole numbers"),
        ("seeds = []", "seeds in FILE must be a list"),
        ("seeds = [true]", "seeds in FILE must be a list"),
        ("seeds = [1, 1]", "seeds in FILE must be a list of different"),
        ("seeds = [-1]", "seeds in FILE: seed is -1, but must be from 0"),
        ("base = 1", "[base] of FILE is 1, but must be a table"),
        ("[base]\noptimizer.rate = 1", "optimizer.rate in [base] of FILE is unknown"),
        ("[base]\ntraining.seed = 1", "training.seed in [base] of FILE would undo seeds"),
        ("variants = 1", "variants in FILE must be tables"),
        ("variants.a = 1", "[variants.a] of FILE is 1, but must be a table"),
        ("[variants.base]\n", "[variants.base] of FILE has the name of the base itself"),
        ("[variants.'a/b']\nmodel.dropout = 0.1", "'a/b' in FILE cannot name a variant"),
        ("[variants.'..']\nmodel.dropout = 0.1", "'..' in FILE cannot name a variant"),
        ("[variants.a]\n", "[variants.a] of FILE is empty"),
        ("[variants.a]\noptimizer.learning_rat = 1", "optimizer.learning_rat in [variants.a] of FILE is unknown; did"),
        ("[variants.a]\n'optimizer.learning_rate' = -1", "optimizer.learning_rate in [variants.a] of FILE is -1"),
        ("[variants.a]\nphases.0.epochs = 1", "phases.0.epochs in [variants.a] of FILE reaches into a phase, but"),
        ("[variants.a]\noptimizer.learning_rate = 0.1", "[variants.a] of FILE changes nothing that is trained: opt"),
        ("[variants.a]\nparallel.devices = 1", "[variants.a] of FILE changes nothing that is trained"),
        ("[variants.a]\nschedule.final_fraction = 0.5", "[variants.a] of FILE changes nothing that is trained: sched"),
        ("[variants.a]\ndata.fold = 1", "[variants.a] of FILE changes nothing that is trained: data.fold is as in"),
        ("[variants.a]\ndata.placement = 'host'", "[variants.a] of FILE changes nothing that is trained"),
        (
            "[variants.a]\nmodel.dropout = 0.1\n[variants.b]\nmodel.dropout = 0.1",
            "[variants.b] of FILE trains the same as a: keep one",
        ),
        (
            "[variants.a]\nmodel.dropout = 0.1\n[grid]\nmodel.dropout = [0.1]",
            "[grid] of FILE at dropout=0.1 trains the",
        ),
        ("[variants.'dropout=0.1']\nmodel.dropout = 0.2\n[grid]\nmodel.dropout = [0.1]", "has the name of a point"),
        ("[grid]\nmodel.dropout = 0.1", "model.dropout in [grid] of FILE must be a list"),
        ("[grid]\nmodel.dropout = []", "model.dropout in [grid] of FILE must be a list"),
        ("[grid]\nmodel.dropout = [0.1, 0.1]", "[grid] of FILE has two points called dropout=0.1"),
        ("[grid]\nmodel.dropout = [0.1, 2]", "model.dropout in [grid] of FILE at dropout=2 is 2"),
        ("[grid]\nmodel.weights = ['" + 200 * "x" + "']", "give long combinations names of their own in [variants]"),
        ("[grid\n", "FILE is not valid TOML"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_place(read, tmp_path, text, sentence):
    with pytest.raises(UserError) as caught:
        read(text)
    told = sentence.replace("FILE", str(tmp_path / "s.toml")).replace("FOLDER", str(tmp_path))
    assert told in str(caught.value)
    assert not str(caught.value).endswith(".")


def test_a_section_that_no_phase_uses_changes_nothing(read, tmp_path):
    with pytest.raises(UserError, match=r"\[variants.a\] of .* changes nothing that is trained: augmentation.gamma is"):
        read("[variants.a]\naugmentation.gamma = 0.3", PHASES)
    with pytest.raises(UserError, match=r"changes nothing that is trained: training.epochs"):
        read("[variants.a]\ntraining.epochs = 9", PHASES)
    # the same change means something where a phase takes the section from the config
    assert (
        len(read("[variants.a]\naugmentation.gamma = 0.3", PHASES.replace("[phases.augmentation]", "", 1)).variants)
        == 2
    )


def test_a_wrong_base_config_is_told_as_such(read, tmp_path):
    with pytest.raises(UserError, match=rf"^modle in {re.escape(str(tmp_path / 'base.toml'))} is unknown"):
        read("", "[modle]\n")


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_sweep_is_valid_and_opens_with_its_command(path):
    sweep = read_sweep(path)
    assert len(sweep.variants) > 1
    header = path.read_text().split("\n\n")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    for entry in ("Command", "Needs", "Hardware", "Expected result"):
        assert re.search(rf"^# {entry}: +\S", header, re.MULTILINE)
    assert f"cxr-jax sweep configs/sweeps/{path.name} --out runs/" in header
    runs = re.search(r"(\d+) runs", header)
    assert runs and int(runs[1]) == len(sweep.variants) * len(sweep.seeds)


def test_there_is_an_example():
    assert list(SWEEPS.glob("*.toml"))


def test_reading_a_large_sweep_reads_each_file_once_and_takes_no_jax(tmp_path):
    (tmp_path / "base.toml").write_text(PHASES)
    rates = ", ".join(f"{number / 1000}" for number in range(1, 101))
    text = f'config = "base.toml"\nseeds = [0, 1, 2, 3, 4]\n[grid]\n"phases.1.optimizer.learning_rate" = [{rates}]'
    (tmp_path / "s.toml").write_text(text)
    program = (
        "import sys, tomllib\n"
        "from cxr_jax.sweeps.sweep import read_sweep\n"
        "from cxr_jax.sweeps.runs import sweep_runs\n"
        "loads, read = tomllib.loads, []\n"
        "tomllib.loads = lambda text: read.append(text) or loads(text)\n"
        f"runs = sweep_runs(read_sweep({str(tmp_path / 's.toml')!r}), {str(tmp_path)!r})\n"
        "print(len(runs), len(read), 'jax' in sys.modules, 'numpy' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    count, read, *imported = done.stdout.split()
    # 0.01 is that of the base
    assert (int(count), imported) == (500, ["False", "False"])
    assert int(read) == 2
