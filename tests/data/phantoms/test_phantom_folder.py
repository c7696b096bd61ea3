import struct
from collections import Counter

import cv2
import numpy as np
import pytest

from cxr_jax.data.file_names import parse_file_name
from cxr_jax.data.phantoms import write_phantoms
from cxr_jax.data.phantoms.exposure import MARK
from cxr_jax.data.phantoms.folder import draw_phantom
from cxr_jax.data.preparation import prepare
from cxr_jax.data.sources.layout import PHANTOM_MARK
from cxr_jax.errors import UserError

SIZES = (64, 96)


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn") / "phantoms"
    write_phantoms(folder, train=60, val=8, test=24, seed=3, image_size_range=SIZES)
    return folder


def images_of(folder):
    return sorted(folder.rglob("*.jpeg"))


def test_layout_counts_and_grammar(phantoms):
    files = images_of(phantoms)
    assert Counter(path.relative_to(phantoms).parts[0] for path in files) == {"train": 60, "val": 8, "test": 24}
    kinds = Counter()
    for path in files:
        said = parse_file_name(path.name)
        split, folder, _ = path.relative_to(phantoms).parts
        assert ("NORMAL", "PNEUMONIA")[said.label] == folder
        kinds[split, said.subtype] += 1
    assert kinds == {
        ("train", "normal"): 16, ("train", "bacteria"): 29, ("train", "virus"): 15,
        ("val", "normal"): 4, ("val", "bacteria"): 3, ("val", "virus"): 1,
        ("test", "normal"): 9, ("test", "bacteria"): 10, ("test", "virus"): 5,
    }  # fmt: skip


def test_several_images_a_person_and_none_in_two_splits(phantoms):
    groups = {}
    for path in images_of(phantoms):
        groups.setdefault(parse_file_name(path.name).group, []).append(path.relative_to(phantoms).parts[0])
    assert all(len(set(splits)) == 1 for splits in groups.values())
    assert set(Counter(len(splits) for splits in groups.values())) >= {1, 2, 3}


def test_images_are_grey_jpegs_of_varying_size(phantoms):
    shapes = set()
    for path in images_of(phantoms):
        image = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert image.ndim == 2
        assert image.dtype == np.uint8
        assert SIZES[0] <= image.shape[0] <= SIZES[1]
        shapes.add(image.shape)
    assert len(shapes) > 50


def segments(data):
    """Markers and contents of a JPEG up to its image data."""
    position = 2
    while data[position + 1] != 0xDA:
        length = struct.unpack_from(">H", data, position + 2)[0]
        yield data[position + 1], data[position + 4 : position + 2 + length]
        position += 2 + length


def test_every_image_says_three_times_that_it_is_a_phantom(phantoms):
    assert MARK in (phantoms / PHANTOM_MARK).read_text()
    for path in images_of(phantoms):
        kinds = list(segments(path.read_bytes()))
        assert kinds[0][0] == 0xE0  # JFIF has to come first
        assert next(content for kind, content in kinds if kind == 0xFE).startswith(b"PHANTOM: drawn by a program")


def test_the_mark_stands_in_the_lower_left_corner():
    images = [draw_phantom("normal", person, person, image_size_range=(256, 256)) for person in range(6)]
    height = min(image.shape[0] for image in images)
    corners = [image[-round(0.07 * height) :, :30] for image in images]
    for corner in corners:
        assert np.percentile(corner, 30) < 30  # a black box
        assert corner.max() > 200  # with white letters
    # the same letters in all images, though exposure and noise differ
    assert np.corrcoef(corners[0].ravel(), corners[1].ravel())[0, 1] > 0.9


def test_preparation_knows_them(phantoms, tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path))
    card = prepare(phantoms).prepared.card
    assert card["name"] == "phantoms"
    assert card["phantom"] is True
    assert card["proof"]["holds"]
    assert card["left_out"] == card["contradicting_names"] == []
    assert card["groups"]["named"] == 92
    assert card["identical_files"]["sets"] == 0


def test_seed_and_counts_decide_every_byte(tmp_path):
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        write_phantoms(tmp_path / name, train=12, val=3, test=3, seed=seed, image_size_range=SIZES)
    first, again, other = (
        {str(path.relative_to(tmp_path / name)): path.read_bytes() for path in images_of(tmp_path / name)}
        for name in ("first", "again", "other")
    )
    assert len(set(first.values())) == 18
    assert first == again
    assert not set(first.values()) & set(other.values())


def test_a_person_keeps_the_chest_and_changes_the_pose(monkeypatch):
    from cxr_jax.data.phantoms import folder

    drawn = []
    real = folder.draw_chest

    def draw_chest(canvas, person, generator):
        drawn.append((canvas, person))
        return real(canvas, person, generator)

    monkeypatch.setattr(folder, "draw_chest", draw_chest)
    for person, number in ((7, 1), (7, 2), (8, 3)):
        draw_phantom("normal", person, number, image_size_range=(64, 64))
    (first, one), (second, same), (_, other) = drawn
    assert one == same != other
    assert (first.angle, first.scale, first.shift) != (second.angle, second.scale, second.shift)


def test_pneumonia_adds_density_to_the_same_lungs():
    # The kind only adds something after everything else of the chest has been drawn.
    from cxr_jax.data.phantoms.anatomy import draw_chest, draw_person
    from cxr_jax.data.phantoms.canvas import Canvas
    from cxr_jax.data.phantoms.opacities import diffuse_opacity, focal_opacity

    canvas = Canvas(120, 150)
    for seed in range(10):
        generator = np.random.default_rng(seed)
        chest = draw_chest(canvas, draw_person(generator), generator)
        outside = chest.lungs < 0.01
        for opacity in (focal_opacity, diffuse_opacity):
            mild = opacity(canvas, chest, 0.2, np.random.default_rng(seed))
            severe = opacity(canvas, chest, 1.0, np.random.default_rng(seed))
            assert np.abs(severe[outside]).max() < 0.02
            assert 0 < mild.sum() < severe.sum()
            assert np.isfinite(severe).all()
        # focal: little of the lungs, diffuse: most of them
        focal = focal_opacity(canvas, chest, 0.6, np.random.default_rng(seed))[~outside]
        diffuse = diffuse_opacity(canvas, chest, 0.6, np.random.default_rng(seed))[~outside]
        assert (focal > 0.5 * focal.max()).mean() < 0.4
        assert focal.std() / focal.mean() > diffuse.std() / diffuse.mean()


def test_the_chest_looks_like_one():
    # Lungs darker than the flesh beside them, the spine and the belly brighter than the lungs, air black.
    from cxr_jax.data.phantoms.anatomy import draw_chest, draw_person
    from cxr_jax.data.phantoms.canvas import Canvas

    canvas = Canvas(200, 240)
    x, y = canvas.positions
    for seed in range(8):
        generator = np.random.default_rng(seed)
        chest = draw_chest(canvas, draw_person(generator), generator)
        lung = chest.density[(chest.lungs > 0.95) & (np.abs(x) > 0.35)].mean()
        spine = chest.density[(np.abs(x) < 0.04) & (np.abs(y) < 0.3)].mean()
        belly = chest.density[(y > 0.8) & (np.abs(x) < 0.5)].mean()
        assert lung < 0.6
        assert spine > lung + 0.5
        assert belly > lung + 0.5
        assert 0.15 < (chest.lungs > 0.5).mean() < 0.5


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"train": -1}, "-1 images of split train"),
        ({"val": 2}, "2 images of split val"),
        ({"image_size_range": (300, 200)}, "image sizes from 300 to 200"),
        ({"image_size_range": (8, 200)}, "image sizes from 8 to 200"),
        ({"image_size_range": (200, 10_000)}, "image sizes from 200 to 10000"),
        ({"seed": -1}, "the seed is -1"),
    ],
)
def test_impossible_numbers(tmp_path, change, words):
    with pytest.raises(UserError, match=words):
        write_phantoms(tmp_path / "new", **{"train": 10, "val": 3, "test": 3, **change})
    assert not (tmp_path / "new").exists()


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "thesis.txt").write_text("precious")
    (tmp_path / "file").write_text("x")
    for name in ("used", "file"):
        with pytest.raises(UserError, match="is not an empty folder"):
            write_phantoms(tmp_path / name, train=10, val=3, test=3)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "thesis.txt", "used"]


def test_an_empty_folder_is_filled_and_empty_splits_are_left_out(tmp_path):
    (tmp_path / "new").mkdir()
    write_phantoms(tmp_path / "new", train=3, val=0, test=0, image_size_range=(32, 40))
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [PHANTOM_MARK, "train"]
    assert len(images_of(tmp_path / "new")) == 3
    write_phantoms(tmp_path / "none", train=0, val=0, test=0)
    assert [path.name for path in (tmp_path / "none").iterdir()] == [PHANTOM_MARK]


def test_an_interruption_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("cxr_jax.data.phantoms.folder.draw_phantom_with_lungs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_phantoms(tmp_path / "new", train=10, val=3, test=3)
    assert list(tmp_path.iterdir()) == []
