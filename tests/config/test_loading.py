import dataclasses
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxr_jax.config.command_line import option_of
from cxr_jax.config.loading import format_config, load_config, load_with_options, write_config
from cxr_jax.config.schema import Config, OptimizerConfig, PhaseConfig, ScheduleConfig
from cxr_jax.errors import EXIT_MISTAKE, EXIT_USAGE, UserError


@pytest.fixture
def config_file(tmp_path):
    def write(text: str):
        path = tmp_path / "experiment.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@dataclasses.dataclass(frozen=True)
class Options:
    """Options of a command."""

    out: str = ""  # folder of the run


def changed(path, overrides, **options) -> Config:
    return load_with_options(path, overrides, Options, prog="x", **options).config


def sentence_of(path, overrides=None, code=EXIT_MISTAKE) -> str:
    with pytest.raises(UserError) as caught:
        load_config(path) if overrides is None else changed(path, overrides)
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
        ("[[phases]]\nepoch = 1", "phases.train.epoch in FILE is unknown; did you mean epochs?"),
        (
            "[[phases]]\n[phases.optimizer]\nlearning_rat = 1",
            "phases.train.optimizer.learning_rat in FILE is unknown; did you mean learning_rate?",
        ),
        ('[training]\nepochs = "3"', 'training.epochs in FILE is "3", but must be a whole number'),
        ("[training]\nepochs = true", "training.epochs in FILE is true, but must be a whole number"),
        ("[training]\nepochs = 2.5", "training.epochs in FILE is 2.5, but must be a whole number"),
        ("[training]\nepochs = 0", "training.epochs in FILE is 0, but must be 1 or more"),
        ("[optimizer]\nlearning_rate = -0.1", "optimizer.learning_rate in FILE is -0.1, but must be 0 or more"),
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
        ('[[phases]]\ntrainable = "a"', 'phases.train.trainable in FILE is "a", but must be a list'),
        ("[phases]\n", "phases in FILE is {}, but must be a list"),
        ("[[phases]]\n[[phases]]\n", "phases in FILE is ['train', 'train'], but must be named differently"),
        (
            '[loss]\nclass_weights = "balanced"\n[training]\nsampling = "balanced"',
            'loss.class_weights in FILE is \'balanced\', but must be "none" where training.sampling is "balanced"',
        ),
        (
            '[loss]\nclass_weights = "balanced"\n[probe]\nclassifier = "svm"\nbalancing = "smote"',
            'loss.class_weights in FILE is \'balanced\', but must be "none" where probe.balancing is "smote"',
        ),
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


@pytest.mark.parametrize(("head", "rest"), [("head", "all"), ("0", "1")])
def test_overrides_change_the_file(config_file, head, rest):
    path = config_file(PHASES)
    general = ["--optimizer.learning-rate", "0.02", "--optimizer.weight_decay=0", "--optimizer.no-nesterov"]
    first = [f"--phases.{head}.epochs", "7", f"--phases.{head}.trainable", "conv_head", "classifier"]
    first += [f"--phases.{head}.batch-norm", "None"]
    second = [f"--phases.{rest}.optimizer.nesterov"]
    config = changed(path, [*general, *first, *second])
    unchanged = load_config(path)
    assert config.optimizer == OptimizerConfig(learning_rate=0.02, weight_decay=0.0)
    assert config.phases[0] == PhaseConfig(name="head", epochs=7, trainable=("conv_head", "classifier"))
    assert config.phases[1].optimizer == dataclasses.replace(unchanged.phases[1].optimizer, nesterov=True)
    assert config.phases[1].schedule == unchanged.phases[1].schedule
    assert config.data == unchanged.data


def test_an_override_gives_a_phase_a_section_of_its_own(config_file):
    config = changed(config_file(PHASES), ["--phases.head.optimizer.momentum", "0.5"])
    assert config.phases[0].optimizer == OptimizerConfig(learning_rate=0.5, momentum=0.5)
    assert config.optimizer == OptimizerConfig(learning_rate=0.5)


def test_a_phase_goes_by_its_name_as_it_is_written(config_file):
    path = config_file("[[phases]]\nname = 'a b'\n[[phases]]\nname = 'fine_tune.all'\n[[phases]]\nname = '0'")
    options = ["--phases.a b.epochs", "2", "--phases.fine_tune.all.epochs=3", "--phases.0.epochs", "4"]
    assert [phase.epochs for phase in changed(path, options).phases] == [2, 3, 4]
    assert [phase.epochs for phase in changed(path, ["--phases.1.epochs", "5"]).phases] == [1, 5, 1]


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (
            "--optimizer.learning-rat 3",
            "there is no option --optimizer.learning-rat; did you mean --optimizer.learning-rate?",
        ),
        ("--learning-rate 3", "there is no option --learning-rate; did you mean --optimizer.learning-rate?"),
        ("--optimizer.learning-rate x", "--optimizer.learning-rate is 'x', but must be a number"),
        ("--training.epochs 2.5", "--training.epochs is '2.5', but must be a whole number"),
        ("--optimizer.learning-rate", "--optimizer.learning-rate lacks its value"),
        ("--optimizer.learning-rate=-1", "--optimizer.learning-rate is -1.0, but must be 0 or more"),
        ("--optimizer.learning-rate inf", "--optimizer.learning-rate is inf, but must be a finite number"),
        ("--optimizer.decayed foo", "--optimizer.decayed is 'foo', but must be one of kernels, all"),
        ("--phases.haed.epochs 3", "there is no option --phases.haed.epochs; did you mean --phases.head.epochs?"),
        ("--phases.2.epochs 3", "there is no option --phases.2.epochs; did you mean --phases."),
        ("--phases.0.name all", "phases in FILE is ['all', 'all'], but must be named differently"),
        ("--phases.0.epochs 0", "--phases.head.epochs is 0, but must be 1 or more"),
        ("--augmentation.crop-aspect 0.3", "--augmentation.crop-aspect is 0.3, but must be 0 (off) where crop is 0"),
        ("stray", "stray is one argument too many"),
        ("--model.weights \udc80", "the command line holds text that is not valid Unicode"),
    ],
)
def test_a_mistake_in_an_override_is_one_sentence(config_file, capfd, overrides, expected):
    path = config_file(PHASES)
    code = EXIT_MISTAKE if "\udc80" in overrides or ".name" in overrides else EXIT_USAGE
    assert sentence_of(path, overrides.split(" "), code=code).startswith(expected.replace("FILE", str(path)))
    assert capfd.readouterr() == ("", "")


def test_a_phase_of_a_config_without_phases_is_told(config_file):
    assert sentence_of(config_file(""), ["--phases.head.epochs", "3"], code=EXIT_USAGE) == (
        "--phases.head.epochs reaches into a phase, but the config has no [[phases]]: name the section"
    )


def test_the_help_shows_every_field_with_the_value_of_the_file(config_file, capsys):
    with pytest.raises(SystemExit) as stop:
        load_with_options(config_file(PHASES), ["--help"], Options, prog="cxr-jax train quick.toml")
    assert stop.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.startswith("usage: cxr-jax train quick.toml [options]")
    assert "--out TEXT folder of the run" in printed
    assert "--phases.head.epochs INTEGER" in printed
    assert "--phases.all.optimizer.learning-rate NUMBER the highest rate" in printed
    assert "(default: 0.001)" in printed
    assert "What it takes from augmentation, optimizer, schedule can be changed for it alone" in printed
    for section in dataclasses.fields(Config):
        for field in () if section.name == "phases" else dataclasses.fields(section.default_factory()):
            assert option_of(f"{section.name}.{field.name}") in printed


def test_options_of_the_command_and_changes_are_returned(config_file):
    given = load_with_options(config_file(PHASES), ["--out", "x", "--phases.0.epochs", "2"], Options, prog="x")
    assert (given.options, given.changes, given.config.phases[0].epochs) == (Options("x"), {"phases.head.epochs": 2}, 2)


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


def test_keys_of_earlier_versions_are_read_and_told(config_file):
    path, told = config_file(OLD_NAMES), []
    config = load_config(path, tell=told.append)
    assert (config.loss.focal_gamma, config.training.ema_decay) == (2, 0.9)
    assert (config.parallel.world_size, config.parallel.rank) == (3, 1)
    assert load_config(config_file(format_config(config)), tell=told.append) == config
    assert f"loss.focusing in {path} is called loss.focal_gamma now" in told
    assert len(told) == 4


def test_options_of_earlier_versions_are_taken_and_told(config_file):
    options = ["--loss.focusing", "1", "--training.average_decay=0.5", "--parallel.process-id=0"]
    told = []
    config = changed(config_file("[loss]\nfocal_gamma = 2"), options, tell=told.append)
    assert (config.loss.focal_gamma, config.training.ema_decay, config.parallel.rank) == (1, 0.5, 0)
    assert told == [
        "--loss.focusing is called --loss.focal-gamma now",
        "--training.average_decay is called --training.ema-decay now",
        "--parallel.process-id is called --parallel.rank now",
    ]


def test_a_key_by_both_of_its_names_is_refused(config_file):
    path = config_file("[loss]\nfocusing = 2.0\nfocal_gamma = 1.0")
    assert sentence_of(path) == (
        f"{path} gives loss.focal_gamma twice, also by its old name loss.focusing: keep loss.focal_gamma"
    )
