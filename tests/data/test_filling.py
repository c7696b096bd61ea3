"""Classes filled up: by repetition, by reduced copies, and by samples that no validation image has taught."""

import dataclasses
import json

import cv2
import numpy as np
import pytest

from cxr_jax.config.data import DataConfig, ReplayConfig
from cxr_jax.data.cache import decoded_images
from cxr_jax.data.filling import repeated_rows, require_samples_of_run, told_added, told_filling
from cxr_jax.data.preparation import prepare
from cxr_jax.data.split_loading import load_split, split_without_images
from cxr_jax.data.synthetic.record import ARRAY, MANIFEST, TrainedOn, read_manifest, read_samples, write_samples
from cxr_jax.errors import UserError
from cxr_jax.images.stamp import marked_png
from cxr_jax.runs.folder import RunFolder

CUT = DataConfig(image_size=32, validation_fraction=0.25)


def filled(prepared, split="train", **changes):
    return load_split(prepared, dataclasses.replace(CUT, **changes), split)


@pytest.fixture
def samples(prepared, tmp_path):
    """Makes a folder of samples; `seen` are the images that their generator learned from, those of train by default."""

    def make(name="samples", *, count=40, label="NORMAL", size=16, seen=None, resize="squash", seed=0):
        train = load_split(prepared, CUT, "train")
        seen = [int(row) for row in train.ids[train.labels == 0]] if seen is None else seen
        (tmp_path / name).mkdir()
        images = np.random.default_rng(seed).integers(0, 256, (count, size, size)).astype(np.uint8)
        trained_on = TrainedOn("chest_xray", prepared.fingerprint, tuple(prepared.examples[row].sha256 for row in seen))
        told = {"label": label, "resize": resize, "config_sha256": "c", "trained_on": trained_on, "pictures": {}}
        write_samples(tmp_path / name, images, **told)
        return str(tmp_path / name)

    return make


def test_all_images_of_a_rare_class_are_repeated_as_often():
    labels = np.array([0, 1, 1, 0, 1, 1, 1, 1, 1, 0], np.int32)
    rows, visits = repeated_rows(labels, 0)
    assert len(rows) == 4
    assert sorted(np.bincount(rows, minlength=10)[[0, 3, 9]]) == [1, 1, 2]
    assert sorted(visits) == [1, 1, 1, 2]
    np.testing.assert_array_equal(repeated_rows(labels, 0)[0], rows)
    assert len({tuple(repeated_rows(labels, seed)[0]) for seed in range(20)}) == 3
    assert len(repeated_rows(np.array([0, 1], np.int32), 0)[0]) == 0


def test_repeated_images_are_the_same_pixels_under_names_and_ids_of_their_own(prepared):
    plain, train = filled(prepared), filled(prepared, balancing="oversampling")
    assert np.bincount(plain.labels).tolist() != np.bincount(train.labels).tolist()
    assert len(set(np.bincount(train.labels))) == 1
    added = np.arange(len(plain), len(train))
    assert set(train.labels[added]) == {0}
    for row in added:
        original = plain.files.index(train.files[row].partition("#")[0])
        np.testing.assert_array_equal(train.images[row], plain.images[original])
        assert (train.groups[row], train.subtypes[row]) == (plain.groups[original], plain.subtypes[original])
    assert len(np.unique(train.ids)) == len(set(train.files)) == len(train)
    np.testing.assert_array_equal(np.asarray(train.images)[: len(plain)], plain.images)


def test_reduced_images_are_what_a_perfect_generator_of_that_size_could_show(prepared):
    train = filled(prepared, balancing="reduced", reduced_size=16)
    repeated = filled(prepared, balancing="oversampling")
    np.testing.assert_array_equal(train.ids, repeated.ids)
    small = decoded_images(prepared, dataclasses.replace(CUT, image_size=16))
    for row in np.flatnonzero(train.ids >= len(prepared.examples)):
        original = small[train.ids[row] % len(prepared.examples)]
        expected = cv2.resize(np.asarray(original), (32, 32), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_array_equal(train.images[row], expected)
        assert "#reduced" in train.files[row]


def test_samples_fill_up_their_class_and_are_told_apart(prepared, samples):
    folder = samples()
    plain, train = filled(prepared), filled(prepared, balancing="dcgan", synthetic=folder)
    assert len(set(np.bincount(train.labels))) == 1
    added = np.arange(len(plain), len(train))
    assert {train.subtypes[row] for row in added} == {"synthetic"}
    assert len({train.groups[row] for row in added}) == len(added)
    assert not {train.groups[row] for row in added} & set(plain.groups)
    assert len(np.unique(train.ids)) == len(train)
    expected = [cv2.resize(image, (32, 32), interpolation=cv2.INTER_LINEAR) for image in read_samples(folder)]
    np.testing.assert_array_equal(train.images[added], expected[: len(added)])


@pytest.mark.parametrize("balancing", ["oversampling", "reduced", "dcgan"])
def test_validation_and_test_stay_as_they_are(prepared, samples, balancing):
    folder = samples() if balancing == "dcgan" else ""
    for split in ("val", "test"):
        plain = filled(prepared, split)
        other = filled(prepared, split, balancing=balancing, reduced_size=16, synthetic=folder)
        assert plain.files == other.files
        np.testing.assert_array_equal(plain.images, other.images)


@pytest.mark.parametrize("balancing", ["oversampling", "reduced", "dcgan"])
def test_what_is_known_of_the_images_is_known_without_them(prepared, samples, balancing):
    config = dataclasses.replace(
        CUT, balancing=balancing, reduced_size=16, synthetic=samples() if balancing == "dcgan" else ""
    )
    loaded, known = load_split(prepared, config, "train", mapped=True), split_without_images(prepared, config, "train")
    assert (known.files, known.groups, known.subtypes) == (loaded.files, loaded.groups, loaded.subtypes)
    np.testing.assert_array_equal(known.ids, loaded.ids)
    assert known.images[:].shape == (len(loaded), 1, 1)


def test_samples_that_a_validation_image_has_taught_are_refused(prepared, samples):
    leaked = int(filled(prepared, "val").ids[0])
    folder = samples(seen=[leaked, *map(int, filled(prepared).ids)])
    with pytest.raises(UserError, match=r"its generator learned from 1 of \d+ images .* validation would leak"):
        filled(prepared, balancing="dcgan", synthetic=folder)


def test_samples_of_another_cut_are_refused(prepared, samples):
    folder = samples()
    with pytest.raises(UserError, match="under this cut of validation"):
        filled(prepared, balancing="dcgan", synthetic=folder, split_seed=5, validation_fraction=0.4)


@pytest.mark.parametrize(
    ("made", "changes", "sentence"),
    [
        ({"count": 2}, {}, r"2 samples, and NORMAL lacks \d+ images: .* --resume --synthesis.samples \d+ makes more"),
        ({"label": "SICK"}, {}, "samples of SICK, and the classes here are NORMAL, PNEUMONIA"),
        ({"size": 64}, {}, "samples of 64 pixels, and data.image_size is 32"),
        ({"resize": "pad"}, {}, 'data.resize "pad", and here it is "squash"'),
    ],
)
def test_samples_that_do_not_suit_are_refused(prepared, samples, made, changes, sentence):
    folder = samples(**made)
    with pytest.raises(UserError, match=sentence):
        filled(prepared, balancing="dcgan", synthetic=folder, **changes)


def test_a_folder_without_samples_or_with_damaged_ones_is_told(prepared, samples, tmp_path):
    with pytest.raises(UserError, match="holds no samples of a generator: make the samples again"):
        filled(prepared, balancing="dcgan", synthetic=str(tmp_path))
    folder = samples()
    (tmp_path / "samples" / ARRAY).write_bytes(b"")
    with pytest.raises(UserError, match="is not what its manifest says"):
        filled(prepared, balancing="dcgan", synthetic=folder)
    (tmp_path / "samples" / MANIFEST).write_text('{"schema_version": 1}')
    with pytest.raises(UserError, match="is damaged"):
        filled(prepared, balancing="dcgan", synthetic=folder)


def test_the_data_card_of_a_run_counts_what_was_added(prepared, samples):
    config = dataclasses.replace(CUT, balancing="dcgan", synthetic=samples())
    train, first_id = load_split(prepared, config, "train"), len(prepared.examples)
    told = told_filling(config, train, first_id)["balancing"]
    count = sum(subtype == "synthetic" for subtype in train.subtypes)
    assert told["added"] == {"NORMAL": count, "PNEUMONIA": 0}
    manifest = read_manifest(config.synthetic)
    assert told["generator_trained_on"] == manifest.trained_on.fingerprint
    sentence = (
        f"Balanced: {count} of NORMAL of the {len(train)} training images are synthetic ones, which are no radiographs"
    )
    assert told_added(config, train, first_id) == sentence
    assert told_filling(CUT, filled(prepared), first_id) == {}
    assert told_added(CUT, filled(prepared), first_id) == ""


def test_a_run_goes_on_with_the_samples_that_it_began_with_or_not_at_all(prepared, samples, tmp_path):
    config = dataclasses.replace(CUT, balancing="dcgan", synthetic=samples())
    run = RunFolder.create(tmp_path / "run")
    run.data_card.write_text(json.dumps(told_filling(config, load_split(prepared, config, "train"), 36)))
    require_samples_of_run(run, config)
    # the generator made one more since
    require_samples_of_run(run, dataclasses.replace(config, synthetic=samples("more", count=41)))
    other = dataclasses.replace(config, synthetic=samples("other", seed=1))
    with pytest.raises(UserError, match=r"are not those that .*run was started with"):
        require_samples_of_run(run, other)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"balancing": "dcgan"}, "synthetic is '', but must be a folder of `cxr-jax synthesize`"),
        ({"balancing": "reduced", "image_size": 64}, "reduced_size is 64, but must be below image_size"),
        ({"balancing": "reduced", "crop": "lungs"}, 'balancing is \'reduced\', but must be "none", "barnett"'),
        (
            {"balancing": "oversampling", "replay": ReplayConfig("other")},
            "replay.dataset is 'other'",
        ),
    ],
)
def test_what_does_not_go_together_is_refused(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        DataConfig(**changes)


def test_prepare_takes_no_synthetic_image_into_any_split(official_tree, prepared_root):
    """Whoever puts samples beside radiographs finds them left out, with the reason, in all splits."""
    made = marked_png(np.full((40, 40), 90, np.uint8), {})
    for split in ("train", "val", "test"):
        (official_tree / split / "NORMAL" / "IM-0999-0001.png").write_bytes(made)
    prepared = prepare(official_tree).prepared
    assert len(prepared.examples) == 36
    left_out = prepared.card["left_out"]
    assert len(left_out) == 3
    assert all("is synthetic, a generator made it" in entry["reason"] for entry in left_out)
