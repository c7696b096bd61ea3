"""Networks that are shown a region of every image: prepared, trained, judged, and refused where no masks are."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest

from cxr_jax.commands import evaluate, explain, export, page, phantoms, predict, prepare, publish, train
from cxr_jax.config.loading import load_config
from cxr_jax.data.masks.decoded import decoded_masks
from cxr_jax.data.phantoms.folder import write_phantoms
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.run_folders import write_origin
from cxr_jax.data.split_loading import load_split
from cxr_jax.devices import names_of
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.evaluation.occlusion import read_occlusion
from cxr_jax.images.regions import REGIONS
from cxr_jax.inference.restore import restore_run
from cxr_jax.reporting import map_checks
from cxr_jax.reporting.occlusion import REGION_TITLES
from cxr_jax.runs.description import read_description
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.ledger import read_looks
from cxr_jax.runs.predictions import probability_of, read_predictions
from tests.made_once import made_once


@pytest.fixture(scope="session")
def lungs(tmp_path_factory):
    """The masks of the phantoms that all these tests share."""

    def draw(folder: Path) -> None:
        options = {"train": 64, "val": 4, "test": 24, "seed": 0, "image_size_range": (96, 128)}
        write_phantoms(folder / "again", **options, masks=folder / "lungs")

    return made_once(tmp_path_factory, "lungs", draw) / "lungs"


@pytest.fixture
def masked(prepared_folder, lungs, tmp_path, monkeypatch):
    """The prepared phantoms with their masks, but for one image of train."""
    monkeypatch.setenv("CXR_PREPARED_DIR", str(shutil.copytree(prepared_folder, tmp_path / "prepared")))
    mine = Path(shutil.copytree(lungs, tmp_path / "lungs"))
    sorted(mine.glob("train/NORMAL/*.png"))[0].unlink()
    prepare.main(["--name", "phantoms", "--masks", str(mine)])
    return mine


def test_masks_are_prepared_with_the_images_told_and_not_prepared_twice(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path / "prepared"))
    drawn, masks = tmp_path / "drawn", tmp_path / "lungs"
    small = ["--count", "40", "--smallest", "32", "--largest", "40"]
    phantoms.main([str(drawn), *small, "--masks", str(masks)])
    assert capsys.readouterr().out.splitlines()[-1] == f"Next: cxr-jax prepare {drawn} --masks {masks}"
    gone = sorted(masks.glob("test/PNEUMONIA/*.png"))[0]
    gone.rename(masks / "test" / "PNEUMONIA" / "nobody.png")
    prepare.main([str(drawn), "--masks", str(masks)])
    told = capsys.readouterr().out
    assert "Lung masks: 39 of 40 images have one." in told
    assert f"1 without a mask, which training on a region leaves out:\n  test/PNEUMONIA/{gone.stem}.jpeg" in told
    assert "1 mask of" in told and "belong to no image, such as test/PNEUMONIA/nobody.png" in told
    card = PreparedData.open("phantoms").card
    assert card["masks"]["absent"] == [f"test/PNEUMONIA/{gone.stem}.jpeg"]
    prepare.main(["--name", "phantoms", "--masks", str(masks)])
    assert "Nothing to do for the masks" in capsys.readouterr().out
    assert PreparedData.open("phantoms").card == card


def test_masks_alone_are_added_to_named_data_and_nothing_else_is_said_with_them(masked):
    for arguments in (["--masks", str(masked)], ["--name", "phantoms", "--masks", str(masked), "--subtypes"]):
        with pytest.raises(UserError, match=r"SOURCE") as raised:
            prepare.main(arguments)
        assert raised.value.code == EXIT_USAGE
    with pytest.raises(UserError, match="no prepared data called 'other'"):
        prepare.main(["--name", "other", "--masks", str(masked)])


def test_a_network_of_a_region_is_trained_judged_and_asked_for_masks(
    masked, config_file, tmp_path, monkeypatch, capsys
):
    seen = []
    from cxr_jax.training import run as training

    train_for_real = training.train

    def watched(plan, network, train_set, validation_set, *rest, **options):
        seen.extend((train_set, validation_set))
        return train_for_real(plan, network, train_set, validation_set, *rest, **options)

    monkeypatch.setattr(training, "train", watched)
    run = RunFolder(tmp_path / "run")
    train.main([str(config_file), "--data.region", "mask", "--training.epochs", "1", "--out", str(run.path)])
    assert "Note on the masks: 1 of the images have none and are left out" in capsys.readouterr().out
    # what the step gets before it augments are the masks, and so is what validation gets
    prepared = PreparedData.open("phantoms")
    masks = decoded_masks(prepared, training_data(run), "a test")
    for images in seen:
        np.testing.assert_array_equal(np.asarray(images.images), 255 * masks[images.ids])
    assert len(seen[0]) + len(seen[1]) == 63
    assert json.loads(run.network.read_text())["region"] == "mask"

    film = tmp_path / "film.png"
    cv2.imwrite(str(film), np.full((64, 64), 90, np.uint8))
    sentence = r'this network was trained on the region "mask" of images, which takes a lung mask of each'
    for command, arguments in (
        (predict.main, [str(run.path), str(film)]),
        (export.main, [str(run.path), str(tmp_path / "bundle")]),
        (explain.main, [str(run.path), str(film)]),
        (explain.main, [str(run.path)]),
    ):
        with pytest.raises(UserError, match=sentence):
            command(arguments)
    assert not (tmp_path / "bundle").exists()

    # with other masks it is another experiment
    path = sorted(masked.glob("train/*/*.png"))[0]
    cv2.imwrite(str(path), 255 - cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    prepare.main(["--name", "phantoms", "--masks", str(masked), "--replace"])
    with pytest.raises(UserError, match=r"are not those that .* was trained with"):
        evaluate.main([str(run.path)])
    with pytest.raises(UserError, match=r"are not those that .* was trained with"):
        train.main([str(run.config), "--out", str(run.path), "--resume"])


def training_data(run):
    return load_config(run.config).data


@pytest.fixture
def evaluated(evaluated_run, masked, tmp_path):
    """A run that was trained on whole images, with masks beside its data."""
    return RunFolder(shutil.copytree(evaluated_run, tmp_path / "evaluated"))


def test_a_network_of_whole_images_is_shown_regions_and_no_look_is_added(evaluated, capsys, undrawn_figures):
    looks = evaluated.ledger.read_bytes()
    evaluate.main([str(evaluated.path), "--occluded"])
    printed, found = capsys.readouterr().out, read_occlusion(evaluated.occlusion_of("val"))
    assert evaluated.ledger.read_bytes() == looks
    validation = read_predictions(evaluated.predictions_of("val"))
    gone = PreparedData.open("phantoms").masks.absent[0] in validation.file
    assert (found.split, found.images, found.without_mask) == ("val", len(validation) - gone, int(gone))
    assert tuple(entry.region for entry in found.regions) == REGIONS
    # whole images are called as at the evaluation
    kept = np.array([file not in PreparedData.open("phantoms").masks.absent for file in validation.file])
    called, sick = validation.probability >= found.threshold, validation.label == 1
    assert found.whole.sensitivity.value == pytest.approx(called[sick & kept].mean())
    assert found.whole.specificity.value == pytest.approx((~called[~sick & kept]).mean())
    # and a region as a network of whole images calls it
    trained = restore_run(evaluated)
    prepared, data = PreparedData.open("phantoms"), training_data(evaluated)
    images = load_split(prepared, dataclasses.replace(data, region="border"), "val")
    logits = trained.logits(np.asarray(images.images))
    calls = 1 / (1 + np.exp(logits[:, 0] - logits[:, 1])) >= found.threshold
    border = found.regions[REGIONS.index("border")]
    assert border.level.sensitivity.value == pytest.approx(calls[images.labels == 1].mean())
    assert all(title in printed for title in REGION_TITLES.values()) and "less that of whole images" in printed
    assert 'id="occlusion"' in evaluated.report.read_text()


def test_heat_maps_are_held_to_the_masks(evaluated, monkeypatch):
    seen = []

    def check_nothing(trained, sample, *rest, **options):
        seen.append(sample)
        raise UserError("seen enough")

    monkeypatch.setattr(map_checks, "check_maps", check_nothing)
    with pytest.raises(UserError, match="seen enough"):
        explain.main([str(evaluated.path), "--check", "--images", "12"])
    (sample,) = seen
    prepared = PreparedData.open("phantoms")
    rows = [[example.file for example in prepared.examples].index(file) for file in sample.files]
    masks = decoded_masks(prepared, training_data(evaluated), "a test")
    np.testing.assert_array_equal(sample.masks, masks[rows] > 0)


def test_masks_are_published_without_the_path_that_they_came_from(evaluated, tmp_path):
    card = {**json.loads(evaluated.data_card.read_text()), "masks": PreparedData.open("phantoms").card["masks"]}
    evaluated.data_card.write_text(json.dumps(card))
    assert card["masks"]["source"]
    evaluated.occlusion_of("val").write_text("{}")
    publish.main([str(evaluated.path), "--out", str(tmp_path / "results")])
    published = json.loads((tmp_path / "results" / "evaluated" / "data_card.json").read_text())
    assert published["masks"] == {**card["masks"], "source": ""}
    assert (tmp_path / "results" / "evaluated" / "occlusion_val.json").is_file()


def test_regions_of_test_images_are_one_look_more(evaluated, undrawn_figures):
    before = read_looks(evaluated)
    evaluate.main([str(evaluated.path), "--occluded", "--test"])
    *kept, look = read_looks(evaluated)
    assert kept == before and look["occluded"] is True and look["split"] == "test"
    assert read_occlusion(evaluated.occlusion_of("test")).images == 24
    assert not evaluated.occlusion_of("val").exists()
    # the stored predictions are still those of the look before
    evaluate.main([str(evaluated.path), "--stored"])
    assert len(read_looks(evaluated)) == len(before) + 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["RUN", "--occluded", "--degraded"], "one after the other"),
        (["RUN", "RUN", "--occluded"], "--occluded measures one run"),
        (["RUN", "--occluded", "--stored"], "--occluded goes with --test alone"),
        (["RUN", "--occluded", "--reference", "other"], "--reference is for --degraded"),
    ],
)
def test_options_that_contradict_each_other_are_refused(arguments, sentence, evaluated_run):
    with pytest.raises(UserError, match=sentence) as raised:
        evaluate.main([str(evaluated_run) if entry == "RUN" else entry for entry in arguments])
    assert raised.value.code == EXIT_USAGE


def test_networks_that_were_shown_parts_of_images_are_not_shown_others(evaluated):
    stored = json.loads(evaluated.network.read_text())
    for change, sentence in (
        ({"region": "border"}, r'trained on the region "border" of images'),
        ({"lung_boxes": {"weights": [[0.0] * 4]}}, r'takes no network of data\.crop "lungs"'),
    ):
        evaluated.network.write_text(json.dumps({**stored, **change}))
        with pytest.raises(UserError, match=sentence):
            evaluate.main([str(evaluated.path), "--occluded"])
    evaluated.network.write_text(json.dumps({**stored, "lung_boxes": {"weights": "none"}}))
    with pytest.raises(UserError, match=r"network\.json is damaged"):
        evaluate.main([str(evaluated.path), "--occluded"])


def test_a_run_without_masks_or_threshold_is_told(evaluated_run, run_path, tmp_path):
    with pytest.raises(UserError, match=r"has no threshold yet.*cxr-jax evaluate"):
        evaluate.main([str(run_path), "--occluded"])
    run = shutil.copytree(evaluated_run, tmp_path / "evaluated")
    with pytest.raises(UserError, match=r"--occluded needs lung masks, and .* has none: `cxr-jax prepare --name"):
        evaluate.main([str(run), "--occluded"])


def test_a_network_of_crops_finds_the_lungs_of_a_film_by_itself(
    masked, phantom_source, trained, config_file, tmp_path, capsys
):
    """A run that was trained on whole images stands in: what is tried is what its network is given."""
    run, out = RunFolder(shutil.copytree(trained, tmp_path / "run")), tmp_path / "bundle"
    config, prepared = load_config(run.config), PreparedData.open("phantoms")
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, crop="lungs"))
    origin = write_origin(tmp_path / "origin", config, read_description(run), prepared, names_of(jax.devices()[:1]))
    for path in (origin.config, origin.network, origin.data_card, origin.environment):
        shutil.copy(path, run.path / path.name)
    model = restore_run(run)
    cropped, whole = (
        load_split(prepared, config.data, "test"),
        load_split(prepared, training_data(RunFolder(trained)), "test"),
    )
    assert not np.array_equal(cropped.images, whole.images)
    expected = probability_of(model.logits(np.asarray(cropped.images)))

    def predicted(network):
        capsys.readouterr()
        predict.main([str(network), *(str(phantom_source / file) for file in cropped.files[:6]), "--json"])
        by_file = json.loads(capsys.readouterr().out)
        return [entry["probability"] for entry in by_file]

    # neither masks nor prepared data are needed any more
    shutil.rmtree(tmp_path / "prepared")
    np.testing.assert_allclose(predicted(run.path), expected[:6], atol=1e-6)
    export.main([str(run.path), str(out)])
    np.testing.assert_allclose(predicted(out), expected[:6], atol=1e-5)
    assert np.ptp(expected) > 0.01

    film = str(phantom_source / cropped.files[0])
    for command, arguments in (
        (explain.main, [str(run.path), film]),
        (predict.main, [str(run.path), film, "--maps", str(tmp_path / "maps")]),
        (predict.main, [str(out), film, "--maps", str(tmp_path / "maps")]),
        (page.main, [str(out), str(tmp_path / "page")]),
    ):
        with pytest.raises(UserError, match=r'takes no network of data\.crop "lungs"'):
            command(arguments)
    alone = subprocess.run([sys.executable, str(out / "predict.py"), film], capture_output=True, text=True)
    assert alone.returncode == 1 and "sees the lungs' box alone, which cxr-jax predict finds" in alone.stderr
