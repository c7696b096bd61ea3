"""The box of the lungs is predicted from the image alone, and never by a regression that learned from its group."""

import dataclasses

import numpy as np
import pytest

from cxr_jax.config.schema import DataConfig
from cxr_jax.data import prepared_boxes as room
from cxr_jax.data.cache import decoded_images
from cxr_jax.data.lung_boxes import crop_to_lungs, gradient_histograms, predict_boxes
from cxr_jax.data.masks.decoded import decoded_masks
from cxr_jax.data.masks.preparation import add_masks
from cxr_jax.data.phantoms.folder import write_phantoms
from cxr_jax.data.preparation import prepare
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.prepared_boxes import boxes_of_masks, fit_boxes, overlap_of_boxes, prepared_boxes
from cxr_jax.data.split_loading import load_split
from cxr_jax.errors import UserError
from cxr_jax.images.crops import crop_to_box

CONFIG = DataConfig(image_size=48, validation_fraction=0.25, crop="lungs")
WHOLE = dataclasses.replace(CONFIG, crop="none")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder with prepared phantoms and their masks."""
    folder = tmp_path_factory.mktemp("boxes")
    write_phantoms(folder / "drawn", train=90, val=0, test=12, image_size_range=(64, 80), masks=folder / "lungs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_PREPARED_DIR", str(folder / "prepared"))
        add_masks(prepare(folder / "drawn").prepared, folder / "lungs")
    return folder / "prepared"


@pytest.fixture
def prepared(root, monkeypatch):
    monkeypatch.setenv("CXR_PREPARED_DIR", str(root))
    return PreparedData.open("phantoms")


def test_the_box_of_a_mask_is_told_as_shares():
    masks = np.zeros((2, 10, 10), np.uint8)
    masks[0, 2:7, 1:4] = masks[0, 3:9, 6:8] = 1
    masks[1] = 1
    np.testing.assert_allclose(boxes_of_masks(masks), [[0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1]])
    halves = np.array([[0.0, 0.0, 0.5, 1.0], [0.0, 0.0, 1.0, 1.0]])
    np.testing.assert_allclose(overlap_of_boxes(halves, halves[::-1]), 0.5)
    np.testing.assert_allclose(overlap_of_boxes(np.array([[0, 0, 0.4, 0.4]]), np.array([[0.5, 0.5, 1, 1]])), 0)


def test_gradients_do_not_know_how_bright_a_film_is_or_which_side_of_an_edge():
    random = np.random.default_rng(0)
    image = np.kron(random.integers(40, 200, (8, 8)), np.ones((12, 12))).astype(np.uint8)
    told, *others = gradient_histograms(np.stack([image, image // 2, 255 - image]))
    for other in others:
        assert np.corrcoef(told, other)[0, 1] > 0.98
    turned = gradient_histograms(np.stack([image, np.ascontiguousarray(image[::-1])]))
    assert np.corrcoef(*turned)[0, 1] < 0.9


def test_predicted_boxes_lie_on_the_lungs_better_than_the_mean_box(prepared):
    found = prepared_boxes(prepared, CONFIG)
    real = boxes_of_masks(decoded_masks(prepared, CONFIG, "a test"))
    test = np.array([example.split == "test" for example in prepared.examples])
    for rows in (test, ~test):
        mean = np.broadcast_to(real[~test].mean(axis=0), real[rows].shape)
        by_image = overlap_of_boxes(found.boxes[rows], real[rows]).mean()
        assert by_image > 0.85 and by_image > overlap_of_boxes(mean, real[rows]).mean() + 0.04


def test_no_image_of_train_is_given_a_box_that_its_own_group_taught(prepared, monkeypatch):
    boxes, fitted = prepared_boxes(prepared, CONFIG).boxes, []
    decoded, groups = decoded_images(prepared, WHOLE), np.array([example.group for example in prepared.examples])
    features = gradient_histograms(decoded)

    def watched(chosen, targets):
        known = [row for row in range(len(features)) if (chosen == features[row]).all(axis=1).any()]
        fitted.append((set(groups[known]), fit_boxes(chosen, targets)))
        return fitted[-1][1]

    monkeypatch.setattr(room, "fit_boxes", watched)
    monkeypatch.setattr(room, "VERSION", "anew")
    np.testing.assert_array_equal(prepared_boxes(prepared, CONFIG).boxes, boxes)
    tests = {example.group for example in prepared.examples if example.split == "test"}
    assert len(fitted) == 6 and not any(tests & learned for learned, _ in fitted)
    whole, *of_folds = fitted
    for row, example in enumerate(prepared.examples):
        possible = [whole] if example.split == "test" else [entry for entry in of_folds if groups[row] not in entry[0]]
        assert len(possible) == 1
        np.testing.assert_allclose(predict_boxes(possible[0][1], features[[row]])[0], boxes[row])


def test_images_with_findings_have_boxes_alike(prepared, monkeypatch):
    cells = ("Effusion|Mass", "Mass?", "Effusion", "No Finding")
    examples = [dataclasses.replace(entry, label=cells[row % 4]) for row, entry in enumerate(prepared.examples)]
    prepared.__dict__["examples"] = tuple(examples)
    prepared.__dict__["card"] = prepared.card | {"kind": "findings", "classes": ["Effusion", "Mass"]}
    monkeypatch.setattr(room, "VERSION", "of findings")
    found, real = prepared_boxes(prepared, CONFIG).boxes, boxes_of_masks(decoded_masks(prepared, CONFIG, "a test"))
    assert overlap_of_boxes(found, real).mean() > 0.85


def test_a_rare_class_does_not_hinder_boxes_and_too_few_groups_do(prepared, monkeypatch):
    rare = {row for row, entry in enumerate(prepared.examples) if entry.split == "train"}
    rare = set(sorted(rare)[:3])
    examples = [
        dataclasses.replace(entry, label="rare", group=f"rare{row}") if row in rare else entry
        for row, entry in enumerate(prepared.examples)
    ]
    prepared.__dict__["card"] = prepared.card | {"classes": ["NORMAL", "PNEUMONIA", "rare"]}
    prepared.__dict__["examples"] = tuple(examples)
    monkeypatch.setattr(room, "VERSION", "of a rare class")
    assert prepared_boxes(prepared, CONFIG).boxes.shape == (len(examples), 4)
    prepared.__dict__["examples"] = tuple(dataclasses.replace(entry, group=entry.split) for entry in examples)
    monkeypatch.setattr(room, "VERSION", "of one group")
    with pytest.raises(UserError, match="of 5 groups that are not of test, and there are 1"):
        prepared_boxes(prepared, CONFIG)


def test_splits_are_cropped_and_a_film_alone_is_cropped_as_a_test_image_is(prepared):
    found = prepared_boxes(prepared, CONFIG)
    for split in ("train", "val", "test"):
        whole, cropped = load_split(prepared, WHOLE, split), load_split(prepared, CONFIG, split)
        expected = [crop_to_box(whole.images[row], found.boxes[whole.ids[row]]) for row in range(len(whole))]
        np.testing.assert_array_equal(cropped.images, expected)
        mapped = load_split(prepared, CONFIG, split, mapped=True).images
        assert not isinstance(mapped, np.ndarray)
        np.testing.assert_array_equal(mapped[2:5], cropped.images[2:5])
    np.testing.assert_array_equal(crop_to_lungs(np.asarray(whole.images[3]), found.regression), cropped.images[3])


def test_a_wrong_box_is_kept_inside_the_image_and_never_a_strip(prepared):
    regression = prepared_boxes(prepared, CONFIG).regression
    noise = np.random.default_rng(0).integers(0, 256, (4, 48, 48)).astype(np.uint8)
    images = np.concatenate([noise, np.zeros((1, 48, 48), np.uint8), np.full((1, 48, 48), 255, np.uint8)])
    boxes = predict_boxes(regression, 50 * gradient_histograms(images))
    assert boxes.min() >= 0 and boxes.max() <= 1
    assert (boxes[:, 2:] - boxes[:, :2]).min() >= 0.3 - 1e-9
    assert all(crop_to_lungs(image, regression).shape == (48, 48) for image in images)


def test_a_damaged_file_of_boxes_is_made_again(prepared):
    boxes = prepared_boxes(prepared, CONFIG).boxes
    (path,) = prepared.decoded.glob("*-boxes1-*.npz")
    path.write_bytes(path.read_bytes()[:50])
    np.testing.assert_array_equal(prepared_boxes(prepared, CONFIG).boxes, boxes)


def test_without_masks_or_beside_a_region_it_is_one_sentence(prepared, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r'crop is .lungs., but must be "none" where region is not "whole"'):
        DataConfig(crop="lungs", region="border")
    monkeypatch.setattr(room, "FEWEST", 1000)
    monkeypatch.setattr(room, "VERSION", "never")
    with pytest.raises(UserError, match=r"needs 1000 images with a lung mask that are not of test"):
        load_split(prepared, CONFIG, "train")
    card = {name: value for name, value in prepared.card.items() if name != "masks"}
    prepared.__dict__["card"] = card
    with pytest.raises(UserError, match=r'data\.crop "lungs" needs lung masks, and .* has none'):
        load_split(prepared, CONFIG, "train")
