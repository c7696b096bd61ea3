import dataclasses
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_jax.config.loading import format_config, load_config, write_config
from cxr_jax.config.schema import Config, OptimizerConfig, PhaseConfig, ScheduleConfig
from cxr_jax.errors import EXIT_MISTAKE, EXIT_USAGE, UserError


@pytest.fixture
def config_file(tmp_path):
    def write(text: str):
        path = tmp_path / "experiment.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def sentence_of(path, overrides=(), code=EXIT_MISTAKE) -> str:
    with pytest.raises(UserError) as caught:
        load_config(path, overrides)
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_empty_file_is_the_defaults(config_file):
    assert load_config(config_file("")) == Config()


def test_values_are_read_and_the_rest_is_default(config_file):
    config = load_config(config_file('[optimizer]\nlearning_rate = 1\n[data]\nresize = "pad"\n'))
    assert config.optimizer == OptimizerConfig(learning_rate=1.0)
    assert isinstance(config.optimizer.learning_rate, float)
    assert config.data.resize == "pad"
    assert config.model == Config().model


PHASES = """
[optimizer]
learning_rate = 0.5
[[phases]]
name = "head"
epochs = 3
trainable = ["classifier"]
batch_norm = "frozen"
[[phases]]
name = "all"
[phases.optimizer]
learning_rate = 0.001
[phases.schedule]
kind = "cosine"
[phases.augmentation]
horizontal_flip = 0.5
"""


def test_phases_with_their_own_sections(config_file):
    head, rest = load_config(config_file(PHASES)).phases
    assert head == PhaseConfig(name="head", epochs=3, trainable=("classifier",), batch_norm="frozen")
    assert rest.optimizer == OptimizerConfig(learning_rate=0.001)
    assert rest.schedule == ScheduleConfig(kind="cosine")
    assert rest.augmentation.horizontal_flip == 0.5
    head, rest = load_config(config_file(PHASES)).resolved_phases()
    assert (head.optimizer.learning_rate, rest.optimizer.learning_rate) == (0.5, 0.001)
    assert (head.batch_norm, rest.batch_norm) == ("frozen", "train")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[model]\nwieghts = "a"', "model.wieghts in FILE is unknown; did you mean weights?"),
        ("[modle]\n", "modle in FILE is unknown; did you mean model?"),
        ("[zzz]\n", "zzz in FILE is unknown"),
        ("[[phases]]\nepoch = 1", "phases.0.epoch in FILE is unknown; did you mean epochs?"),
        (
            "[[phases]]\n[phases.optimizer]\nlearning_rat = 1",
            "phases.0.optimizer.learning_rat in FILE is unknown; did you mean learning_rate?",
        ),
        ('[training]\nepochs = "3"', 'training.epochs in FILE is "3", but must be a whole number'),
        ("[training]\nepochs = true", "training.epochs in FILE is true, but must be a whole number"),
        ("[training]\nepochs = 2.5", "training.epochs in FILE is 2.5, but must be a whole number"),
        ("[training]\nepochs = 0", "training.epochs in FILE is 0, but must be 1 or more"),
        ("[optimizer]\nlearning_rate = -0.1", "optimizer.learning_rate in FILE is -0.1, but must be above 0"),
        ("[optimizer]\nlearning_rate = inf", "optimizer.learning_rate in FILE is inf, but must be a finite number"),
        ("[augmentation]\nscale = nan", "augmentation.scale in FILE is nan, but must be a finite number"),
        ("[optimizer]\nlayer_decay = 0", "optimizer.layer_decay in FILE is 0.0, but must be above 0 and at most 1"),
        ("[optimizer]\nlayer_decay = 1.1", "optimizer.layer_decay in FILE is 1.1, but must be above 0 and at most 1"),
        ("[loss]\nfocusing = -1", "loss.focal_gamma in FILE is -1.0, but must be from 0 (off) to 10"),
        ("[loss]\nfocusing = 11", "loss.focal_gamma in FILE is 11.0, but must be from 0 (off) to 10"),
        ("[optimizer]\nnesterov = 1", "optimizer.nesterov in FILE is 1, but must be true or false"),
        ("[report]\nprevalence = 1.0", "report.prevalence in FILE is 1.0, but must be 0 (not declared), or above 0"),
        ('[optimizer]\nmomentum = "x"', 'optimizer.momentum in FILE is "x", but must be a number'),
        ("[model]\nname = 3", "model.name in FILE is 3, but must be a text in quotes"),
        ("[model]\nname = 2026-01-01", 'model.name in FILE is {"date": "2026-01-01"}, but must be a text'),
        ('[data]\nresize = "x"', "data.resize in FILE is \"x\", but must be one of 'squash', 'pad' or 'crop'"),
        ("data = 3", "data in FILE is 3, but must be a section with fields"),
        ('[[phases]]\ntrainable = "a"', 'phases.0.trainable in FILE is "a", but must be a list'),
        ("[phases]\n", "phases in FILE is {}, but must be a list"),
        ("[[phases]]\n[[phases]]\n", "phases in FILE is ['train', 'train'], but must be named differently"),
        ("[data]\nx = 1\n[model]\ny = 1", "data.x in FILE is unknown (and 1 more mistake)"),
        ("[data\n", "FILE is not valid TOML: "),
        ("[data]\nimage_size = 1\nimage_size = 2", "FILE is not valid TOML: "),
    ],
)
def test_a_mistake_is_one_sentence_with_its_place(config_file, text, expected):
    path = config_file(text)
    assert sentence_of(path).startswith(expected.replace("FILE", str(path)))


def test_a_missing_config_is_named_with_its_nearest_neighbour(config_file, tmp_path):
    config_file("")
    missing = tmp_path / "experimnt.toml"
    assert sentence_of(missing) == f"there is no config {missing}; did you mean {tmp_path / 'experiment.toml'}?"
    assert sentence_of(tmp_path / "a" / "zzz.toml") == f"there is no config {tmp_path / 'a' / 'zzz.toml'}"


def test_a_folder_or_bytes_are_no_config(tmp_path):
    assert "cannot be read" in sentence_of(tmp_path)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    assert "no UTF-8 text" in sentence_of(tmp_path / "bytes.toml")


def test_overrides_change_the_file(config_file):
    path = config_file(PHASES)
    general = ["--optimizer.learning-rate", "0.02"]
    first = [
        "--phases.0.epochs",
        "7",
        "--phases.0.trainable",
        "conv_head",
        "classifier",
        "--phases.0.batch-norm",
        "None",
    ]
    second = ["--phases.1.optimizer.nesterov"]
    config = load_config(path, [*general, *first, *second])
    unchanged = load_config(path)
    assert config.optimizer == OptimizerConfig(learning_rate=0.02)
    assert config.phases[0] == PhaseConfig(name="head", epochs=7, trainable=("conv_head", "classifier"))
    assert config.phases[1].optimizer == dataclasses.replace(unchanged.phases[1].optimizer, nesterov=True)
    assert config.phases[1].schedule == unchanged.phases[1].schedule
    assert config.data == unchanged.data


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ("--optimizer.learning-rat 3", "; did you mean --optimizer.learning-rate? (options: "),
        ("--optimizer.learning-rate x", "--optimizer.learning-rate: could not convert string to float: 'x'"),
        ("--optimizer.learning-rate", "Missing value for argument '--optimizer.learning-rate'"),
        ("--optimizer.learning-rate=-1", "optimizer: learning_rate is -1.0, but must be above 0"),
        ("--optimizer.learning-rate inf", "optimizer: learning_rate is inf, but must be a finite number"),
        ("--optimizer.decayed foo", "invalid choice 'foo' for argument '--optimizer.decayed'. Expected one of"),
        ("--phases.0.optimizer.momentum 0", "Unrecognized options: --phases.0.optimizer.momentum"),
        ("--phases.0.name all", "phases is ['all', 'all'], but must be named differently"),
        ("--phases.0.epochs 0", "phases.0: epochs is 0, but must be 1 or more"),
        ("stray", "Unrecognized options: stray"),
        ("--model.weights \udc80", "the command line holds text that is not valid Unicode"),
    ],
)
def test_a_mistake_in_an_override_is_one_sentence(config_file, capfd, overrides, expected):
    path = config_file(PHASES)
    code = EXIT_MISTAKE if "\udc80" in overrides else EXIT_USAGE
    assert expected in sentence_of(path, overrides.split(" "), code=code)
    assert capfd.readouterr() == ("", "")


def test_help_shows_the_values_of_the_file(config_file, capsys):
    with pytest.raises(SystemExit) as stop:
        load_config(config_file(PHASES), ["--help"], prog="cxr-jax train quick.toml")
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    assert "usage: cxr-jax train quick.toml" in printed
    assert "--phases.0.epochs" in printed
    assert "0.001" in printed


def test_written_config_is_grouped_by_section_and_readable_again(config_file, tmp_path):
    config = load_config(config_file(PHASES))
    write_config(config, tmp_path / "run" / "config.toml")
    text = (tmp_path / "run" / "config.toml").read_text()
    assert load_config(tmp_path / "run" / "config.toml") == config
    assert set(tomllib.loads(text)) == {field.name for field in dataclasses.fields(Config)}
    assert text.startswith('[data]\ndataset = "chest_xray"\n')
    assert "[phases.schedule]" in text


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@settings(deadline=None, max_examples=50)
@given(
    name=TEXT,
    trainable=st.lists(TEXT, max_size=3).map(tuple),
    rate=st.floats(0, 1e6, exclude_min=True),
    own_optimizer=st.booleans(),
    nesterov=st.booleans(),
    seed=st.integers(0, 2**31 - 1),
)
def test_any_config_survives_being_written(tmp_path_factory, name, trainable, rate, own_optimizer, nesterov, seed):
    optimizer = OptimizerConfig(learning_rate=rate, nesterov=nesterov)
    phase = PhaseConfig(name=name, trainable=trainable, optimizer=optimizer if own_optimizer else None)
    base = Config()
    config = dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, weights=name),
        optimizer=optimizer,
        training=dataclasses.replace(base.training, seed=seed),
        phases=(phase, PhaseConfig(name=name + "'", batch_norm="frozen")),
    )
    path = tmp_path_factory.mktemp("written") / "config.toml"
    path.write_text(format_config(config), encoding="utf-8", newline="")
    assert load_config(path) == config


OLD_NAMES = """
[loss]
focusing = 2.0
[training]
average_decay = 0.9
[parallel]
processes = 3
process_id = 1
"""


def test_keys_of_earlier_versions_are_read(config_file):
    config = load_config(config_file(OLD_NAMES))
    assert (config.loss.focal_gamma, config.training.ema_decay) == (2, 0.9)
    assert (config.parallel.world_size, config.parallel.rank) == (3, 1)
    assert load_config(config_file(format_config(config))) == config


def test_a_key_by_both_of_its_names_is_refused(config_file):
    path = config_file("[loss]\nfocusing = 2.0\nfocal_gamma = 1.0")
    assert sentence_of(path) == (
        f"{path} gives loss.focal_gamma twice, also by its old name loss.focusing: keep loss.focal_gamma"
    )
