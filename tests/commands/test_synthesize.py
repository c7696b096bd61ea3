"""`cxr-jax synthesize` leaves samples that a network can learn from, and that nothing takes for radiographs."""

import contextlib
import hashlib
import io
import json
import shutil

import cv2
import numpy as np
import pytest

from cxr_jax.cli import main as cli
from cxr_jax.commands import synthesize, train
from cxr_jax.config.loading import load_config
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.split_loading import load_split
from cxr_jax.data.synthetic.record import read_manifest, read_samples
from cxr_jax.errors import UserError
from cxr_jax.runs.folder import RunFolder, read_json
from tests.made_once import made_once

GENERATOR = """
[data]
dataset = "phantoms"
image_size = 16
validation_fraction = 0.2
[model]
name = "stephen2019_tiny"
[synthesis]
generator = "dcgan"
latent_size = 6
channels = 4
label_smoothing = 0.1
samples = 40
[training]
epochs = 2
batch_size = 8
evaluation_batch_size = 16
precision = "float32"
[parallel]
devices = 1
"""


def run(command, *arguments):
    """Runs a command and returns what it printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        command.main([str(argument) for argument in arguments])
    return printed.getvalue()


@pytest.fixture(scope="session")
def generator_config(tmp_path_factory):
    path = tmp_path_factory.mktemp("generator") / "tiny.toml"
    path.write_text(GENERATOR)
    return path


@pytest.fixture(scope="session")
def synthesized(prepared_folder, generator_config, tmp_path_factory):
    """The folder of a generator and its samples; what was printed lies in it."""

    def make(folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CXR_PREPARED_DIR", str(prepared_folder))
            printed = run(synthesize, generator_config, "--out", folder)
            (folder / "printed.txt").write_text(printed)

    return made_once(tmp_path_factory, "synthesized", make)


def test_the_folder_holds_samples_for_eyes_and_for_training_and_what_they_are_worth(synthesized, prepared_phantoms):
    manifest, folder = read_manifest(synthesized), RunFolder(synthesized)
    samples = read_samples(synthesized)
    assert samples.shape == (40, 16, 16)
    assert len(manifest.pictures) == 40
    for name, sha256 in manifest.pictures.items():
        assert hashlib.sha256((synthesized / name).read_bytes()).hexdigest() == sha256
    picture = cv2.imread(str(synthesized / "samples/synthetic_00003.png"), cv2.IMREAD_GRAYSCALE)
    enlarged = cv2.resize(samples[3], (128, 128), interpolation=cv2.INTER_LINEAR)
    # marked for eyes, and without a mark where a network learns from it
    np.testing.assert_array_equal(picture[:-16], enlarged[:-16])
    assert not np.array_equal(picture[-16:], enlarged[-16:])
    judged = read_json(folder.evaluation)
    assert (judged["samples"], judged["image_size"], judged["pretrained"]) == (40, 16, False)
    assert len(judged["verdict"]) == 4
    lines = (synthesized / "neighbours.csv").read_text().splitlines()
    assert len(lines) == 41
    assert "train/NORMAL/" in lines[1]
    assert {path.name for path in folder.figures.iterdir()} == {"losses.png", "losses.svg", "nearest.png"}
    printed = (synthesized / "printed.txt").read_text()
    assert all(sentence in printed for sentence in judged["verdict"])
    assert "epoch 2 of 2: loss of the discriminator" in printed


def test_the_generator_learned_from_normals_of_train_after_the_cut(synthesized, prepared_phantoms, generator_config):
    prepared, data = PreparedData.open("phantoms"), load_config(generator_config).data
    images = load_split(prepared, data, "train")
    normals = [prepared.examples[row].sha256 for row in images.ids[images.labels == 0]]
    assert list(read_manifest(synthesized).trained_on.images) == normals


def test_one_that_goes_on_keeps_the_precision_that_is_recorded(prepared_phantoms, generator_config, tmp_path):
    out = tmp_path / "generator"
    command = (generator_config, "--out", out, "--training.precision", "auto", "--training.epochs", "1")
    run(synthesize, *command)
    environment = RunFolder(out).environment
    begun = read_json(environment)
    assert [(entry["precision"], entry["kernels"]) for entry in begun["activations"]] == [("float32", "XLA")]
    # as if it had been begun where bf16 is the faster one
    begun["activations"][-1]["precision"] = "bf16"
    environment.write_text(json.dumps(begun))
    told = " ".join(run(synthesize, *command, "--resume").split())
    assert "Activations in bf16, all else in float32: as this run was trained until now" in told
    # a finished one takes no further step, in whatever precision it is resumed
    run(synthesize, generator_config, *command[1:3], "--training.epochs", "1", "--resume")
    assert read_json(environment)["activations"] == begun["activations"]


def test_a_finished_one_can_be_resumed_and_gives_the_same_samples(
    synthesized, prepared_phantoms, generator_config, tmp_path, attempted_connections
):
    shutil.copytree(synthesized, tmp_path / "again")
    (tmp_path / "again/manifest.json").unlink()
    run(synthesize, generator_config, "--out", tmp_path / "again", "--resume")
    np.testing.assert_array_equal(read_samples(tmp_path / "again"), read_samples(synthesized))
    # more of them, without training anew
    run(synthesize, generator_config, "--out", tmp_path / "again", "--resume", "--synthesis.samples", "44")
    np.testing.assert_array_equal(read_samples(tmp_path / "again")[:40], read_samples(synthesized))
    assert read_manifest(tmp_path / "again").count == len(list((tmp_path / "again/samples").iterdir())) == 44
    with pytest.raises(UserError, match="was started with another config than this; go on with cxr-jax synthesize"):
        run(synthesize, generator_config, "--out", tmp_path / "again", "--resume", "--training.seed", "1")
    with pytest.raises(UserError, match="exists and is not empty"):
        run(synthesize, generator_config, "--out", tmp_path / "again")
    assert not attempted_connections()


class BegunError(Exception):
    """Training has begun, and is not waited for."""


def test_a_network_learns_from_them_and_says_so(synthesized, prepared_phantoms, config_file, tmp_path, monkeypatch):
    seen = []

    def begin(plan, network, train_set, *others, **how):
        seen.append(train_set)
        raise BegunError

    monkeypatch.setattr("cxr_jax.training.run.train", begin)
    printed = io.StringIO()
    options = ["--data.balancing", "dcgan", "--data.synthetic", str(synthesized)]
    with contextlib.redirect_stdout(printed), pytest.raises(BegunError):
        train.main([str(config_file), "--out", str(tmp_path / "run"), *options])
    told = read_json(tmp_path / "run/data_card.json")["balancing"]
    added = seen[0].subtypes.count("synthetic")
    assert told["added"] == {"NORMAL": added, "PNEUMONIA": 0}
    assert len(set(np.bincount(seen[0].labels))) == 1
    assert f"Balanced: {added} of NORMAL of the {len(seen[0])} training images are synthetic" in printed.getvalue()
    assert told["array_sha256"] == read_manifest(synthesized).array_sha256
    with pytest.raises(UserError, match="under this cut of validation"):
        run(train, config_file, "--out", tmp_path / "leak", *options, "--data.split-seed", "3")
    # the config that is kept names the folder wherever it is read
    assert f'synthetic = "{synthesized}"' in (tmp_path / "run/config.toml").read_text()


@pytest.mark.parametrize("command", ["evaluate", "explain", "export"])
def test_no_command_takes_a_generator_for_a_network(synthesized, prepared_phantoms, command, tmp_path, capsys):
    more = [str(tmp_path / "bundle")] if command == "export" else []
    assert cli([command, str(synthesized), *more]) == 1
    assert "holds a generator of images, and no network that tells classes apart" in capsys.readouterr().err


def test_predict_refuses_a_sample(synthesized, capsys):
    """With the network that comes with the program, which reads files as all others do."""
    assert cli(["predict", str(synthesized / "samples/synthetic_00000.png")]) == 1
    captured = capsys.readouterr()
    assert "is no radiograph: its file says that it is synthetic" in captured.out + captured.err


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--synthesis.generator", "none"], "trains no generator: cxr-jax synthesize dcgan_normals"),
        (["--synthesis.label", "SICK"], "synthesis.label is 'SICK', and the classes here are NORMAL, PNEUMONIA"),
        (["--data.image-size", "48"], "is 48, but must be one of 16, 32, 64, 128 where synthesis.generator"),
        (["--data.balancing", "oversampling"], 'must be "none" where synthesis.generator is asked for'),
        (["--synthesis.samples", "3"], r"is 3, but must be 0 \(as many as the class lacks\), or 4 or more"),
        (["--training.batch-size", "64"], r"but there are only \d+ training images of NORMAL"),
        (["--parallel.world-size", "2"], "a generator is trained by one process"),
        (["--optimizer.momentum", "0.5"], "has no effect, because synthesis.generator is"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(prepared_phantoms, generator_config, tmp_path, options, sentence):
    with pytest.raises(UserError, match=sentence):
        run(synthesize, generator_config, "--out", tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_train_refuses_the_config_of_a_generator(prepared_phantoms, generator_config, tmp_path):
    with pytest.raises(UserError, match="tells no classes apart: cxr-jax synthesize with the same config trains it"):
        run(train, generator_config, "--out", tmp_path / "run")


def test_without_a_config_it_says_what_to_name():
    with pytest.raises(UserError, match="name a config first, such as cxr-jax synthesize dcgan_normals"):
        synthesize.main([])


def test_few_lacking_images_ask_for_a_number(prepared_phantoms, generator_config, tmp_path):
    with pytest.raises(UserError, match=r"PNEUMONIA lacks 0 images .* set synthesis.samples"):
        run(
            synthesize,
            *(generator_config, "--out", tmp_path / "run"),
            *("--synthesis.samples", "0", "--synthesis.label", "PNEUMONIA"),
        )
