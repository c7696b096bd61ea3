"""Lung masks beside prepared data: matched by file, checked, resized as the images are, and told in the card."""

import dataclasses
import json
import shutil
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr_jax.config.data import DataConfig, ReplayConfig
from cxr_jax.data.decode import to_square
from cxr_jax.data.masks.decoded import decoded_masks
from cxr_jax.data.masks.preparation import add_masks
from cxr_jax.data.phantoms.folder import write_phantoms
from cxr_jax.data.preparation import prepare
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.split_loading import left_out_for_masks, load_split, masks_of_split, rows_of_split
from cxr_jax.errors import UserError
from cxr_jax.images.regions import GREY, REGIONS, show_region

CONFIG = DataConfig(image_size=24, validation_fraction=0.25)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A folder that holds prepared phantoms, and their masks."""
    root = tmp_path_factory.mktemp("kept")
    write_phantoms(root / "others", train=12, val=0, test=3, seed=9, image_size_range=(40, 60))
    write_phantoms(root / "drawn", train=20, val=0, test=6, image_size_range=(40, 60), masks=root / "lungs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_PREPARED_DIR", str(root / "prepared root"))
        prepare(root / "drawn")
        prepare(root / "others", name="others")
    return root


@pytest.fixture
def drawn(kept, prepared_root, tmp_path):
    """Copies of both, to be changed at will."""
    shutil.copytree(kept / "prepared root", prepared_root)
    return PreparedData.open("phantoms"), Path(shutil.copytree(kept / "lungs", tmp_path / "lungs"))


def mask_of(masks, example):
    return cv2.imread(str((masks / example.file).with_suffix(".png")), cv2.IMREAD_GRAYSCALE)


def added(prepared, masks, **options):
    assert add_masks(prepared, masks, **options)
    return PreparedData.open(prepared.path)


def test_names_of_dicom_files_that_end_in_a_number_have_a_mask_each(drawn, tmp_path):
    prepared, masks = drawn
    numbered = [dataclasses.replace(entry, file=f"train/1.2.840.{row}") for row, entry in enumerate(prepared.examples)]
    for example, named in zip(prepared.examples, numbered, strict=True):
        path = tmp_path / "numbered" / f"{named.file}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy((masks / example.file).with_suffix(".png"), path)
    prepared.__dict__["examples"] = tuple(numbered)
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match=r"that of train/1\.2\.840\.0 is train/1\.2\.840\.0\.png there"):
        add_masks(prepared, tmp_path / "none")
    assert added(prepared, tmp_path / "numbered").masks.images == len(numbered)


def test_every_phantom_has_its_lungs_and_the_card_counts_them(drawn):
    prepared, masks = drawn
    assert prepared.masks is None
    prepared = added(prepared, masks)
    told = prepared.masks
    assert (told.images, told.absent, told.unmatched, told.source) == (26, (), 0, str(masks))
    assert told.counts == prepared.card["counts"]
    squares = decoded_masks(prepared, CONFIG, "a test")
    assert squares.shape == (26, 24, 24) and squares.dtype == np.uint8
    for example, square in zip(prepared.examples, squares, strict=True):
        mask = mask_of(masks, example)
        assert mask.shape == (example.height, example.width) and set(np.unique(mask)) == {0, 255}
        np.testing.assert_array_equal(square, to_square(mask, 24) >= 128)
    assert 0.1 < squares.mean() < 0.6
    # the same masks again are nothing to do
    assert not add_masks(prepared, masks)


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
def test_a_mask_lies_on_its_image_however_that_is_resized(drawn, resize):
    prepared, masks = drawn
    config = DataConfig(image_size=24, resize=resize)
    prepared = added(prepared, masks)
    whole = decoded_masks(prepared, config, "a test")
    # squashed beforehand, as masks of squashed radiographs are: it is the same but for rounding at the edge
    for path in masks.rglob("*.png"):
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        cv2.imwrite(str(path), np.where(to_square(mask, 64) >= 128, 255, 0))
    prepared = added(prepared, masks, replace_old=True)
    squashed = decoded_masks(prepared, config, "a test")
    assert np.mean(whole != squashed) < 0.02
    assert whole.any(axis=(1, 2)).all()


def test_images_without_a_mask_are_left_out_of_a_region_and_named_in_the_card(drawn):
    prepared, masks = drawn
    rows = rows_of_split(prepared, CONFIG, "train")
    gone = prepared.examples[rows[2]]
    (masks / gone.file).with_suffix(".png").unlink()
    cv2.imwrite(str(masks / "train" / "NORMAL" / "nobody.png"), np.eye(40, dtype=np.uint8) * 255)
    prepared = added(prepared, masks)
    assert prepared.masks.absent == (gone.file,) and prepared.masks.images == 25
    assert prepared.masks.counts[gone.split][gone.label] == prepared.card["counts"][gone.split][gone.label] - 1
    assert (prepared.masks.unmatched, prepared.masks.unmatched_files) == (1, ("train/NORMAL/nobody.png",))
    config = DataConfig(image_size=24, validation_fraction=0.25, region="lungs")
    np.testing.assert_array_equal(rows_of_split(prepared, config, "train"), np.delete(rows, 2))
    np.testing.assert_array_equal(rows_of_split(prepared, CONFIG, "train"), rows)
    assert left_out_for_masks(prepared, config, ("train", "val")) == 1
    assert left_out_for_masks(prepared, CONFIG, ("train", "val")) == 0


@pytest.mark.parametrize("region", REGIONS)
def test_a_split_shows_the_region_alone(drawn, region):
    prepared, masks = drawn
    prepared = added(prepared, masks)
    config = DataConfig(image_size=24, validation_fraction=0.25, region=region)
    for split in ("train", "val", "test"):
        whole, shown = load_split(prepared, CONFIG, split), load_split(prepared, config, split)
        lungs = decoded_masks(prepared, CONFIG, "a test")[whole.ids] > 0
        np.testing.assert_array_equal(shown.images, show_region(whole.images, lungs, region))
        assert shown.files == whole.files and isinstance(shown.images, np.ndarray)
        mapped = load_split(prepared, config, split, mapped=True)
        assert not isinstance(mapped.images, np.ndarray)
        np.testing.assert_array_equal(mapped.images[1:3], shown.images[1:3])
        assert (shown.images == GREY).mean() > 0.1 or region == "mask"


def test_images_that_are_mixed_in_have_the_masks_of_their_own_data_or_none(drawn):
    prepared, masks = drawn
    prepared = added(prepared, masks)
    config = dataclasses.replace(CONFIG, replay=ReplayConfig("others", 0.5))
    own = len(rows_of_split(prepared, config, "val"))
    images = load_split(prepared, config, "val")
    assert len(images) > own
    found = masks_of_split(prepared, config, "val", "a test")
    np.testing.assert_array_equal(found[:own], decoded_masks(prepared, CONFIG, "a test")[images.ids[:own]])
    assert len(found) == len(images) and not found[own:].any()
    with pytest.raises(ValueError, match=r'crop is .*"none" where replay mixes in other data'):
        dataclasses.replace(config, crop="lungs")


def test_a_region_without_masks_is_one_sentence(drawn):
    prepared, _ = drawn
    config = DataConfig(image_size=24, region="border")
    for split in ("train", "test"):
        with pytest.raises(
            UserError, match=r'data\.region "border" needs lung masks, and .* has none: `cxr-jax prepare'
        ):
            load_split(prepared, config, split)


def spoil(masks, prepared, how):
    path = (masks / prepared.examples[0].file).with_suffix(".png")
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if how == "size":
        cv2.imwrite(str(path), mask[:-1])
    elif how == "twice":
        cv2.imwrite(str(path.with_suffix(".jpg")), mask)
    elif how == "named twice":
        cv2.imwrite(str(path.with_name(f"{path.stem}_mask.png")), mask)
    elif how == "ones":
        cv2.imwrite(str(path), mask // 255)
    elif how == "white":
        cv2.imwrite(str(path), mask | 255)
    elif how == "text":
        path.write_text("not an image")
    return path


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("size", r"is \d+ x \d+ pixels, and its radiograph \d+ x \d+: a mask has that size, or is a square"),
        ("twice", "are masks of the same radiograph: keep one"),
        ("named twice", "are masks of the same radiograph: keep one"),
        ("ones", r"marks nothing: in a mask lungs are white \(255\)"),
        ("white", "marks everything: in a mask"),
        ("text", "is no JPEG, PNG or DICOM file"),
    ],
)
def test_a_mask_that_cannot_be_one_is_one_sentence_and_nothing_is_stored(drawn, how, sentence):
    prepared, masks = drawn
    path, before = spoil(masks, prepared, how), sorted(prepared.path.iterdir())
    with pytest.raises(UserError, match=sentence) as raised:
        add_masks(prepared, masks)
    assert path.stem in str(raised.value)
    assert sorted(prepared.path.iterdir()) == before and PreparedData.open(prepared.path).masks is None


def test_a_mask_of_two_radiographs_is_refused_and_two_without_a_mask_are_not(drawn):
    prepared, masks = drawn
    first, *others = prepared.examples
    twin = dataclasses.replace(first, file=str(Path(first.file).with_suffix(".png")))
    twins = [dataclasses.replace(first, file=f"train/NORMAL/new{suffix}") for suffix in (".jpeg", ".png")]
    prepared.__dict__["examples"] = [first, *others, *twins]
    assert added(prepared, masks).masks.images == len(prepared.examples) - 2
    prepared.__dict__["examples"] = [first, *others, twin]
    with pytest.raises(UserError, match=rf"would be the mask of both {first.file} and {twin.file}: rename one"):
        add_masks(prepared, masks)


def test_masks_of_other_images_and_a_folder_that_is_none(drawn, tmp_path):
    prepared, masks = drawn
    masks.rename(tmp_path / "deeper")
    with pytest.raises(UserError, match=r"no mask in .* belongs to a radiograph: that of .*\.jpeg is .*\.png there"):
        add_masks(prepared, tmp_path / "deeper" / "train")
    with pytest.raises(UserError, match="is not a folder of masks"):
        add_masks(prepared, tmp_path / "nowhere")


def test_other_masks_are_put_in_the_place_of_old_ones_only_when_asked(drawn):
    prepared, masks = drawn
    prepared = added(prepared, masks)
    old, squares = prepared.masks, decoded_masks(prepared, CONFIG, "a test")
    path = (masks / prepared.examples[0].file).with_suffix(".png")
    cv2.imwrite(str(path), 255 - cv2.imread(str(path), cv2.IMREAD_GRAYSCALE))
    with pytest.raises(UserError, match=r"has other masks already, from .*: put these in their place with --replace"):
        add_masks(prepared, masks)
    assert PreparedData.open(prepared.path).masks == old
    new = added(prepared, masks, replace_old=True)
    assert new.masks.fingerprint != old.fingerprint
    assert [path.name for path in prepared.path.glob("masks-*")] == [new.masks.file]
    changed = decoded_masks(new, CONFIG, "a test")
    assert not np.array_equal(squares[0], changed[0])
    np.testing.assert_array_equal(squares[1:], changed[1:])


def test_data_that_are_replaced_leave_their_masks_to_the_same_images(kept, drawn, tmp_path):
    prepared, masks = drawn
    having = added(prepared, masks)
    old, pixels = having.masks, np.array(decoded_masks(having, CONFIG, "this test"))
    again = prepare(kept / "drawn", name="phantoms", replace_old=True)
    assert (again.prepared.masks, again.lost_masks) == (old, None)
    np.testing.assert_array_equal(decoded_masks(again.prepared, CONFIG, "this test"), pixels)
    # other images in the place of some, and another order
    other = Path(shutil.copytree(kept / "drawn", tmp_path / "other"))
    gone = [other / example.file for example in prepared.examples[:3]]
    for path in gone:
        path.unlink()
    outcome = prepare(other, name="phantoms", replace_old=True)
    assert (outcome.lost_masks.count, outcome.lost_masks.source) == (3, old.source)
    assert outcome.prepared.masks.images == old.images - 3
    assert add_masks(outcome.prepared, masks) is True
    # nothing of it is in both
    outcome = prepare(kept / "others", name="phantoms", replace_old=True)
    assert outcome.lost_masks.count == old.images - 3 and outcome.prepared.masks is None


def test_a_lost_or_damaged_file_of_masks_is_told_and_can_be_made_again(drawn):
    prepared, masks = drawn
    prepared = added(prepared, masks)
    file = prepared.path / prepared.masks.file
    content = file.read_bytes()
    file.write_bytes(content[:100])
    config = DataConfig(image_size=24, region="lungs")
    with pytest.raises(UserError, match="cannot be read: add them again by"):
        load_split(prepared, config, "train")
    file.unlink()
    assert add_masks(prepared, masks)
    assert file.read_bytes() == content
    card = json.loads((prepared.path / "data_card.json").read_text())
    card["masks"]["images"] = "many"
    (prepared.path / "data_card.json").write_text(json.dumps(card))
    with pytest.raises(UserError, match=r"the data card is damaged \(masks.images"):
        PreparedData.open(prepared.path).require_masks("a test")


def test_masks_take_one_bit_a_pixel(drawn):
    prepared, masks = drawn
    prepared = added(prepared, masks)
    with zipfile.ZipFile(prepared.path / prepared.masks.file) as archive:
        assert len(archive.namelist()) == 26 and archive.testzip() is None
    pixels = sum(example.width * example.height for example in prepared.examples)
    assert (prepared.path / prepared.masks.file).stat().st_size < pixels / 4


def test_phantoms_are_the_same_with_and_without_their_masks(tmp_path):
    for name, masks in (("a", None), ("b", tmp_path / "masks")):
        write_phantoms(tmp_path / name, train=6, val=0, test=3, image_size_range=(32, 40), masks=masks)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.jpeg"))
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
    found = sorted(
        path.relative_to(tmp_path / "masks").with_suffix(".jpeg") for path in (tmp_path / "masks").rglob("*.png")
    )
    assert found == files
    for place, sentence in (("b", "is not an empty folder: choose a new one for the phantoms"), ("new", "is inside")):
        with pytest.raises(UserError, match=sentence):
            write_phantoms(tmp_path / place, train=3, val=0, test=0, masks=tmp_path / place / "masks")
    with pytest.raises(UserError, match="choose a new one for the masks"):
        write_phantoms(tmp_path / "new", train=3, val=0, test=0, masks=tmp_path / "masks")
