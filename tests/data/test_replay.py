import dataclasses

import cv2
import numpy as np
import pytest

from cxr_jax.config.data import DataConfig, ReplayConfig
from cxr_jax.data.preparation import prepare
from cxr_jax.data.replay import drawn_for_validation, told_replay, told_visits
from cxr_jax.data.split_loading import load_split, parts_of_split, quality_of_split, split_without_images
from cxr_jax.errors import UserError

CONFIG = DataConfig(image_size=16, validation_fraction=0.25, replay=ReplayConfig("old", 0.4))


@pytest.fixture
def both(official_tree, prepared_root, tmp_path):
    """New data, and others called `old` with the same file names."""
    new = prepare(official_tree).prepared
    for number, path in enumerate(sorted(official_tree.rglob("*.jpeg"))):
        picture = np.random.default_rng(number).integers(0, 256, (40, 40)).astype(np.uint8)
        path.write_bytes(cv2.imencode(".jpg", picture)[1].tobytes())
    return new, prepare(official_tree, name="old").prepared


def test_train_holds_all_old_images_of_which_an_epoch_visits_a_share(both):
    new, old = both
    train = load_split(new, CONFIG, "train", mapped=True)
    alone = dataclasses.replace(CONFIG, replay=ReplayConfig())
    ours, theirs = load_split(new, alone, "train"), load_split(old, alone, "train")
    assert train.replay.first == len(ours) and len(train) == len(ours) + len(theirs)
    assert train.replay.visits == round(len(ours) * 0.4 / 0.6)
    assert train.images_per_epoch == len(ours) + train.replay.visits
    np.testing.assert_array_equal(np.asarray(train.images), np.concatenate([ours.images, theirs.images]))
    np.testing.assert_array_equal(train.labels, np.concatenate([ours.labels, theirs.labels]))
    assert train.files == (*ours.files, *(f"old/{file}" for file in theirs.files))
    assert train.groups == (*ours.groups, *(f"old/{group}" for group in theirs.groups))
    assert len(set(train.ids.tolist())) == len(train)
    validation = load_split(new, CONFIG, "val")
    told = told_visits(CONFIG, train, validation)
    assert f"{len(ours)} images of its own and {train.replay.visits} of {len(theirs)} of old, drawn anew;" in told
    assert f"of {len(validation)} validation images are of old" in told
    more = dataclasses.replace(CONFIG, replay=ReplayConfig("old", 0.9))
    assert load_split(new, more, "train").replay.visits == len(theirs)
    assert "a share of 0.50, as there are no more" in told_visits(more, load_split(new, more, "train"), validation)


def test_validation_is_mixed_in_the_same_share_and_test_is_not(both):
    new, old = both
    alone = dataclasses.replace(CONFIG, replay=ReplayConfig())
    ours, theirs = load_split(new, alone, "val"), load_split(old, alone, "val")
    validation = load_split(new, CONFIG, "val")
    drawn = validation.files[len(ours) :]
    assert validation.replay is None and len(drawn) == min(max(1, round(len(ours) * 0.4 / 0.6)), len(theirs))
    assert set(drawn) <= {f"old/{file}" for file in theirs.files}
    assert load_split(new, CONFIG, "val").files == validation.files == split_without_images(new, CONFIG, "val").files
    assert load_split(new, CONFIG, "test").files == load_split(new, alone, "test").files
    quality, labels = quality_of_split(new, CONFIG, "val")
    np.testing.assert_array_equal(labels, validation.labels)
    assert len(quality.columns["sharpness"]) == len(validation) == len(quality.thumbnails)
    assert [len(rows) for _, rows in parts_of_split(new, CONFIG, "val")] == [len(ours), len(drawn)]


def test_own_files_in_a_folder_called_as_the_other_data_are_not_counted_among_theirs(both, official_tree):
    new, _ = both
    prepare(official_tree, name="train")
    config = dataclasses.replace(CONFIG, replay=ReplayConfig("train", 0.4))
    train, validation = (split_without_images(new, config, split) for split in ("train", "val"))
    own = split_without_images(new, dataclasses.replace(CONFIG, replay=ReplayConfig()), "val")
    assert all(file.startswith("train/") for file in own.files)
    assert told_replay(config, train, validation)["validation_images"] == len(validation) - len(own)


def test_validation_keeps_the_shares_of_classes():
    labels = np.array(["a"] * 30 + ["b"] * 10)
    rows = np.arange(100, 140, dtype=np.int32)
    for count, shares in ((4, (3, 1)), (8, (6, 2)), (40, (30, 10))):
        drawn = drawn_for_validation(rows, labels, count, 0)
        assert len(drawn) == count and (np.diff(drawn) > 0).all()
        assert tuple(np.sum(labels[drawn - 100] == name) for name in "ab") == shares
    assert drawn_for_validation(rows, labels, 8, 0).tolist() != drawn_for_validation(rows, labels, 8, 1).tolist()


def test_data_that_cannot_be_mixed_are_told(both, official_tree, prepared_root):
    new, _ = both

    def with_replay(name, **changes):
        return load_split(new, dataclasses.replace(CONFIG, replay=ReplayConfig(name), **changes), "train")

    with pytest.raises(UserError, match=r"data\.replay\.dataset: no prepared data called 'nothing'"):
        with_replay("nothing")
    with pytest.raises(UserError, match=r"is chest_xray, which is data\.dataset itself"):
        with_replay("chest_xray")
    with pytest.raises(UserError, match=r"whose images have 40 pixels a side at most, and data\.image_size is 64"):
        with_replay("old", image_size=64)
    prepare(official_tree, subtypes=True, name="three")
    with pytest.raises(UserError, match="whose classes are normal, bacteria, virus, and those of chest_xray"):
        with_replay("three")


def test_a_test_image_of_one_that_is_a_training_image_of_the_other_is_told(official_tree, prepared_root):
    new = prepare(official_tree).prepared
    (test, *_), (train, *_) = (sorted((official_tree / split / "NORMAL").iterdir()) for split in ("test", "train"))
    train.write_bytes(test.read_bytes())
    for path in (official_tree / "test").rglob("*.jpeg"):
        path.write_bytes(cv2.imencode(".jpg", cv2.imread(str(path))[::-1])[1].tobytes())
    prepare(official_tree, name="old")
    with pytest.raises(UserError, match="1 test images of chest_xray are among the training images of old"):
        load_split(new, CONFIG, "train")


def test_an_image_of_both_is_told_for_it_could_be_learned_from_and_validated_on(official_tree, prepared_root):
    new = prepare(official_tree).prepared
    kept = sorted((official_tree / "train").rglob("*.jpeg"))[::2]
    for path in {*official_tree.rglob("*.jpeg")} - {*kept}:
        path.write_bytes(cv2.imencode(".jpg", cv2.imread(str(path))[::-1])[1].tobytes())
    prepare(official_tree, name="old")
    with pytest.raises(UserError, match=r"12 images are in chest_xray and in old: .* mix other data"):
        load_split(new, CONFIG, "train")
