"""`train CONFIG --from RUN`: a network that was trained on phantoms learns on from phantoms of another look."""

import json
import os
import shutil
import signal

import cv2
import numpy as np
import pytest
from changed_runs import change_network
from other_films import NAME, both_prepared
from sklearn.metrics import roc_auc_score

from cxr_jax.checkpoints import read_newest
from cxr_jax.commands import evaluate, prepare, train
from cxr_jax.config.loading import load_config
from cxr_jax.data.prepared import PreparedData
from cxr_jax.errors import EXIT_TERMINATED, UserError
from cxr_jax.evaluation.change import read_changes
from cxr_jax.evaluation.operating_point import read_operating_point
from cxr_jax.inference.restore import restore_run
from cxr_jax.reporting.live import TerminalObserver
from cxr_jax.runs.continued import read_continued
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.metrics_log import read_metrics
from cxr_jax.runs.predictions import read_predictions
from cxr_jax.runs.trained_on import told_films
from tests.made_once import made_once

pytestmark = pytest.mark.usefixtures("undrawn_figures")

REPLAY = ["--data.replay.dataset", "phantoms", "--data.replay.share", "0.5"]


@pytest.fixture(scope="module")
def kept(prepared_folder, tmp_path_factory):
    """A folder for CXR_PREPARED_DIR with the old phantoms and the new ones."""
    return both_prepared(prepared_folder, tmp_path_factory)


@pytest.fixture
def data(kept, tmp_path, monkeypatch):
    """A copy of it, to which this test's environment points."""
    folder = shutil.copytree(kept, tmp_path / "prepared")
    monkeypatch.setenv("CXR_PREPARED_DIR", str(folder))
    return folder


@pytest.fixture
def origin(evaluated_run, tmp_path):
    return RunFolder(shutil.copytree(evaluated_run, tmp_path / "origin"))


def learn_on(config_file, origin, out, *options):
    train.main([str(config_file), "--from", str(origin), "--out", str(out), "--data.dataset", NAME, *options])


@pytest.fixture(scope="module")
def learned(kept, evaluated_run, config_file, tmp_path_factory):
    """The folder of a run that learned on with replay, beside its origin; tests work on copies of both."""

    def make(folder):
        origin = shutil.copytree(evaluated_run, folder / "origin")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CXR_PREPARED_DIR", str(kept))
            learn_on(config_file, origin, folder / "learned", *REPLAY)

    return made_once(tmp_path_factory, "learned-on", make)


def arrays_of(run):
    return {name: np.asarray(value) for name, value in read_newest(run.checkpoints / "last").arrays.items()}


def assert_same_bits(first, second):
    ours, theirs = arrays_of(first), arrays_of(second)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


def test_a_run_that_learns_on_says_from_what_and_is_resumed_to_the_same_bits(
    learned, data, config_file, tmp_path, monkeypatch, capsys
):
    both = shutil.copytree(learned, tmp_path / "both")
    run, origin = RunFolder(both / "learned"), RunFolder(both / "origin")
    continued, found = read_continued(run), read_newest(origin.checkpoints / "best")
    assert (continued.run, continued.checkpoint, continued.step) == ("../origin", "best", found.step)
    assert continued.sha256 == found.sha256
    assert (continued.data, continued.data_fingerprint) == ("phantoms", PreparedData.open("phantoms").fingerprint)
    config = load_config(run.config)
    assert (config.data.dataset, config.data.replay.dataset, config.data.replay.share) == (NAME, "phantoms", 0.5)
    told = read_json(run.data_card)["replay"]
    own = read_json(run.data_card)
    new = own["validation_cut"]["images"]["train"]
    assert (told["dataset"], told["fingerprint"]) == ("phantoms", PreparedData.open("phantoms").fingerprint)
    assert told["visited_in_an_epoch"] <= told["training_images"] == sum(told["classes"].values())
    # two epochs, each of as many old images as new ones, in batches of 16
    steps = [line["step"] for line in read_metrics(run.metrics) if line["kind"] == "train"]
    assert len(steps) == 2 * (2 * told["visited_in_an_epoch"] // 16) and told["visited_in_an_epoch"] <= new

    again = both / "again"
    stopped = TerminalObserver.on_validation

    def stop(self, line):
        stopped(self, line)
        os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(TerminalObserver, "on_validation", stop)
        with pytest.raises(UserError, match="training was terminated") as raised:
            learn_on(config_file, origin.path, again, *REPLAY)
    assert raised.value.code == EXIT_TERMINATED
    printed = " ".join(capsys.readouterr().out.split())
    assert "It learns on from" in printed and "which was trained on phantoms" in printed
    assert "Replay: an epoch visits" in printed and "of phantoms, drawn anew" in printed
    # the run has its own network by now: the one that it began with may be gone
    shutil.move(origin.path, both / "moved")
    train.main([str(again / "config.toml"), "--out", str(again), "--resume"])
    assert_same_bits(run, RunFolder(again))


def test_what_was_gained_and_what_was_forgotten_is_told_of_both_test_sets(learned, data, tmp_path, capsys):
    both = shutil.copytree(learned, tmp_path / "both")
    run, origin = RunFolder(both / "learned"), RunFolder(both / "origin")
    of_origin = {path: path.read_bytes() for path in origin.path.rglob("*") if path.is_file()}
    evaluate.main([str(run.path)])
    printed = " ".join(capsys.readouterr().out.split())
    assert {path: path.read_bytes() for path in origin.path.rglob("*") if path.is_file()} == of_origin

    # the operating point is fixed anew, on validation images of both
    validation = read_predictions(run.predictions_of("val"))
    old = [file for file in validation.file if file.startswith("phantoms/")]
    told = read_json(run.data_card)["replay"]
    assert 0 < len(old) == told["validation_images"] <= len(validation) / 2
    assert all(
        group.startswith("phantoms/") == file.startswith("phantoms/")
        for file, group in zip(validation.file, validation.group, strict=True)
    )
    assert read_operating_point(run.operating_point).images == len(validation)

    changes = read_changes(run.change / "change.json")
    assert (changes.new.data, changes.old.data) == (NAME, "phantoms")
    tables = {
        ("new", "before"): run.change / "new_before.csv",
        ("new", "after"): run.predictions_of("test"),
        ("old", "before"): origin.predictions_of("test"),
        ("old", "after"): run.change / "old_after.csv",
    }
    for which, change in (("new", changes.new), ("old", changes.old)):
        areas = {}
        for when in ("before", "after"):
            table = read_predictions(tables[which, when])
            areas[when] = roc_auc_score(table.label, table.probability)
            assert change.comparison.recipes[when].endpoints["roc_auc"].mean == pytest.approx(areas[when])
        area = change.told[0]
        assert (area.title, area.before, area.after) == ("ROC-AUC", *map(pytest.approx, areas.values()))
        assert area.answer.difference == pytest.approx(areas["after"] - areas["before"])
        assert change.comparison.images == 24 and change.comparison.groups
        assert f"{areas['before']:.3f} -> {areas['after']:.3f}" in printed
        assert f"On {change.data}, the {which} films," in printed
    # each is a look: of the old network at the new films, of the new network at the old ones, which were seen before
    looks = [json.loads(line) for line in (run.change / "ledger.jsonl").read_text().splitlines()]
    assert [(look["dataset"], look["run"]) for look in looks] == [
        (NAME, str(origin.path.resolve())),
        ("phantoms", str(run.path.resolve())),
    ]
    assert looks[0]["looks_at_these_images"] == 2
    report = run.report.read_text()
    assert 'id="change"' in report and "the old films" in report

    # the stored tables are judged again, and nothing is looked at
    kept = (run.change / "change.json").read_bytes()
    evaluate.main([str(run.path), "--stored"])
    assert (run.change / "change.json").read_bytes() == kept
    assert len((run.change / "ledger.jsonl").read_text().splitlines()) == 2

    # its network knows the old training images
    with pytest.raises(UserError, match="of the 92 images of phantoms: take its test images alone"):
        evaluate.main([str(run.path), "--on", "phantoms"])

    # without the origin the run is evaluated, and it is said what is not told
    shutil.rmtree(run.change)
    shutil.move(origin.path, both / "moved")
    evaluate.main([str(run.path)])
    assert "Not compared with" in capsys.readouterr().out and not run.change.exists()


def test_a_run_begins_with_the_very_network_of_its_origin(origin, data, config_file, tmp_path):
    """Trained at a rate of 0, without replay, it is that network."""
    options = ["--optimizer.learning-rate", "0", "--training.epochs", "1"]
    learn_on(config_file, origin.path, tmp_path / "run", *options, "--training.batch-norm", "frozen")
    run = RunFolder(tmp_path / "run")
    before, after = restore_run(origin, "best"), restore_run(run)
    assert "replay" not in read_json(run.data_card)
    for ours, theirs in ((before.params, after.params), (before.batch_stats, after.batch_stats)):
        for name, value in ours.items():
            np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    assert after.mean == before.mean


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--from", "nowhere"], "there is no run at nowhere"),
        (["--average-with", "one", "two", "./one"], "one is named twice by --average-with, and each run counts once"),
        (["--model.name", "mobilenetv1_tiny"], "is mobilenetv2_tiny, and model.name is mobilenetv1_tiny"),
        (["--data.image-size", "64"], "was trained with data.image_size = 48, and here it is 64"),
        (["--data.replay.dataset", "nothing"], "data.replay.dataset: no prepared data called 'nothing'"),
        (["--data.replay.dataset", NAME], f"data.replay.dataset is {NAME}, which is data.dataset itself"),
        (["--data.replay.share", "0.3"], "--data.replay.share has no effect, because data.replay.dataset is empty"),
        ([*REPLAY[:2], "--data.replay.share", "1.5"], "must be above 0 and below 1"),
        ([*REPLAY, "--data.balancing", "barnett"], "must be empty where data.validation is that of folds"),
        (
            [*REPLAY, "--data.validation-fraction", "0.3"],
            "was trained on the same data with data.validation_fraction = 0.2, and here it is 0.3",
        ),
        ([*REPLAY, "--data.image-size", "200"], "pixels a side at most, and data.image_size is 200"),
    ],
)
def test_a_mistake_is_one_sentence_and_leaves_no_run(origin, data, config_file, tmp_path, options, sentence):
    with pytest.raises(UserError, match=sentence):
        learn_on(config_file, origin.path, tmp_path / "run", *options)
    assert not (tmp_path / "run").exists()


def test_training_can_begin_with_the_mean_of_runs_that_descend_from_one(learned, data, config_file, tmp_path, capsys):
    both = shutil.copytree(learned, tmp_path / "both")
    runs = [RunFolder(both / name) for name in ("origin", "learned")]
    first, second = (restore_run(run) for run in runs)
    options = ["--average-with", str(runs[1].path), "--optimizer.learning-rate", "0", "--training.epochs", "1", *REPLAY]
    learn_on(config_file, runs[0].path, both / "mean", *options)
    mean = RunFolder(both / "mean")
    assert f"the mean of that network and of {runs[1].path}" in " ".join(capsys.readouterr().out.split())
    now = restore_run(mean)
    for name, value in now.params.items():
        expected = (np.asarray(first.params[name]) + np.asarray(second.params[name])) / 2
        np.testing.assert_array_equal(value, expected, err_msg=name)
    # the statistics are those of the new weights on the training images, and not the mean of two
    moved = [name for name in now.batch_stats if name.endswith("mean")]
    assert any(np.abs(now.batch_stats[name] - first.batch_stats[name]).max() > 1e-3 for name in moved)
    (told,) = read_continued(mean).averaged_with
    assert (told.run, told.checkpoint, told.sha256) == ("../learned", "best", second.checkpoint_sha256)
    assert {*told.data} == {NAME, "phantoms"}

    # it goes on to the same bits, and with the same runs alone
    with pytest.raises(UserError, match=r"began with the network of .*origin and .*learned: leave --from"):
        learn_on(config_file, runs[0].path, mean.path, *options[2:], "--resume")
    kept = arrays_of(mean)
    shutil.rmtree(mean.checkpoints)
    learn_on(config_file, runs[0].path, mean.path, *options, "--resume")
    for name, value in arrays_of(mean).items():
        np.testing.assert_array_equal(value, kept[name], err_msg=name)

    evaluate.main([str(mean.path)])
    assert read_changes(mean.change / "change.json").origin == "origin"
    films = told_films(mean)
    assert "phantoms" in films


def test_runs_that_have_nothing_in_common_are_not_averaged(origin, data, config_file, tmp_path):
    other = RunFolder(shutil.copytree(origin.path, tmp_path / "other"))
    change_network(other, "best", 1)
    with pytest.raises(UserError, match="began with different networks, whose mean is worth nothing: average runs"):
        learn_on(config_file, origin.path, tmp_path / "run", "--average-with", str(other.path))
    with pytest.raises(UserError, match="is named by --from and by --average-with: name another run by one of them"):
        learn_on(config_file, origin.path, tmp_path / "run", "--average-with", str(origin.path))
    with pytest.raises(UserError, match="--average-with needs the run whose network comes first: name it by --from"):
        train.main([str(config_file), "--out", str(tmp_path / "run"), "--average-with", str(origin.path)])
    with pytest.raises(UserError, match="there is no run at nowhere"):
        learn_on(config_file, origin.path, tmp_path / "run", "--average-with", "nowhere")
    assert not (tmp_path / "run").exists()


def test_other_classes_of_the_new_or_of_the_replayed_data_are_told(origin, data, config_file, tmp_path):
    films = tmp_path / "three"
    for number, name in enumerate(("train/A", "train/B", "train/C", "test/A", "test/B", "test/C") * 4):
        (films / name).mkdir(parents=True, exist_ok=True)
        picture = np.random.default_rng(number).integers(0, 255, (64, 64)).astype(np.uint8)
        cv2.imwrite(str(films / name / f"{number}.png"), picture)
    prepare.main([str(films), "--classes", "A", "B", "C"])
    with pytest.raises(UserError, match="knows the classes NORMAL, PNEUMONIA, and those of three are A, B, C"):
        learn_on(config_file, origin.path, tmp_path / "run", "--data.dataset", "three")
    with pytest.raises(UserError, match=r"data\.replay\.dataset is three, whose classes are A, B, C, and those of inv"):
        learn_on(config_file, origin.path, tmp_path / "run", "--data.replay.dataset", "three")


@pytest.mark.parametrize(("own", "told"), [("test", "test"), ("train", "validation")])
def test_images_that_the_origin_learned_from_are_not_tested_or_validated_on(
    origin, data, config_file, phantom_source, tmp_path, own, told
):
    films = shutil.copytree(phantom_source, tmp_path / "again")
    # other films, but for the training images of the origin, which make up one split
    for path in films.rglob("*.jpeg"):
        path.write_bytes(cv2.imencode(".jpg", cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)[::-1])[1].tobytes())
    shutil.rmtree(films / own)
    shutil.copytree(phantom_source / "train", films / own)
    prepare.main([str(films), "--name", "again"])
    with pytest.raises(UserError, match=rf"origin has learned from \d+ of the {told} images of again: results on them"):
        learn_on(config_file, origin.path, tmp_path / "run", "--data.dataset", "again")
    assert not (tmp_path / "run").exists()


def test_another_origin_is_not_resumed_from(learned, data, config_file, tmp_path):
    both = shutil.copytree(learned, tmp_path / "both")
    run, origin = RunFolder(both / "learned"), RunFolder(both / "origin")
    other = shutil.copytree(origin.path, both / "other")
    with pytest.raises(UserError, match=r"began with the network of .*origin: leave --from and --av.* out, or start"):
        learn_on(config_file, other, run.path, *REPLAY, "--resume")
    with pytest.raises(UserError, match="did not begin with the network of another run: leave --from and"):
        train.main([str(config_file), "--from", str(other), "--out", str(origin.path), "--resume"])
    # a run that has saved nothing begins again, with the network that it had begun with or not at all
    shutil.rmtree(run.checkpoints)
    change_network(origin, "best", 1)
    with pytest.raises(UserError, match="has another network than when this run began with it, by its sha256"):
        train.main([str(run.config), "--out", str(run.path), "--resume"])
