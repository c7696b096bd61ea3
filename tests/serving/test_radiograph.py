import os
from dataclasses import replace

import cv2
import numpy as np
import pytest

from cxr_jax.data.decode import to_square
from cxr_jax.data.encoded import MAX_BYTES
from cxr_jax.errors import UserError
from cxr_jax.images.clarity import clarified
from cxr_jax.serving.radiograph import read_bytes, read_radiograph


@pytest.fixture
def description(trained):
    return trained.description


def png_of(image):
    return cv2.imencode(".png", image)[1].tobytes()


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width), dtype=np.uint8)


@pytest.mark.parametrize("resize", ["squash", "pad", "crop"])
def test_the_square_is_made_as_for_training(description, resize):
    grey = noise(60, 90)
    asked = replace(description, resize=resize, interpolation="cubic", image_size=40)
    radiograph = read_radiograph(png_of(grey), "a.png", asked)
    np.testing.assert_array_equal(radiograph.grey, grey)
    np.testing.assert_array_equal(radiograph.square, to_square(grey, 40, resize, "cubic"))
    assert radiograph.warnings == ()


def test_a_network_of_clarified_images_sees_such_a_square_and_its_neighbour_the_plain_one(description):
    grey = noise(60, 60)
    clear, plain = read_radiograph(png_of(grey), "a", [replace(description, clarify="clahe"), description]).squares
    np.testing.assert_array_equal(plain, to_square(grey, 32))
    np.testing.assert_array_equal(clear, clarified(plain, "clahe"))
    assert not np.array_equal(clear, plain)


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (noise(20, 40), "enlarged"),
        (noise(40, 120), "unusual shape"),
        (np.full((50, 50), 130, np.uint8), "contrast"),
    ],
)
def test_images_that_are_hardly_radiographs_carry_one_warning(description, image, word):
    warnings = read_radiograph(png_of(image), "a.png", description).warnings
    assert len(warnings) == 1
    assert word in warnings[0]


def test_damage_is_told_with_the_name(description):
    with pytest.raises(UserError, match=r"scan\.png"):
        read_radiograph(png_of(noise(40, 40))[:-20], "scan.png", description)


def test_files_are_read_whole(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"content")
    assert read_bytes(path) == b"content"


def test_what_is_no_readable_file_is_told_in_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"is a folder: name the files in it"):
        read_bytes(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        read_bytes(tmp_path / "missing.png")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="no regular file"):
        read_bytes(tmp_path / "pipe")
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(UserError, match="64 MiB"):
        read_bytes(tmp_path / "huge.png")
    with pytest.raises(UserError, match="cannot be read"):
        read_bytes(tmp_path / ("n" * 300))


def test_a_file_without_permission_is_told(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"x")

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(type(path), "read_bytes", refuse)
    with pytest.raises(UserError, match="cannot be read: Permission denied"):
        read_bytes(path)


def test_colour_is_told_and_grey_stored_in_colour_is_not(description):
    grey = noise(64, 64)
    photo = cv2.merge([grey, 255 - grey, grey // 2])
    assert any("a colour image" in warning for warning in read_radiograph(png_of(photo), "a.png", description).warnings)
    for image in (grey, cv2.merge([grey] * 3)):
        for suffix in (".png", ".jpg"):
            data = cv2.imencode(suffix, image)[1].tobytes()
            assert not any("colour" in warning for warning in read_radiograph(data, "a", description).warnings)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("channels", [(), (3,)])
def test_the_smallest_images_are_warned_of_and_nothing_else(description, suffix, channels):
    for shape in ((200, 7), (7, 200), (1, 1)):
        data = cv2.imencode(suffix, np.zeros((*shape, *channels), np.uint8))[1].tobytes()
        radiograph = read_radiograph(data, "thin", description)
        assert radiograph.square.shape == (32, 32)
        assert any("enlarged" in warning for warning in radiograph.warnings)
        assert not any("colour" in warning for warning in radiograph.warnings)


def test_a_16_bit_image_that_hardly_uses_its_range_carries_a_warning(description):
    deep = noise(64, 64).astype(np.uint16)
    assert read_radiograph(png_of(deep * 257), "a.png", description).warnings == ()
    (warning,) = read_radiograph(png_of(deep * 16), "a.png", description).warnings
    assert "read as one of 12 bits" in warning
    np.testing.assert_array_equal(
        read_radiograph(png_of(deep * 16), "a.png", description).grey, np.rint(deep * 16 / 4095 * 255)
    )


def test_a_grey_file_is_decoded_once(description, monkeypatch):
    grey = noise(64, 64)
    decoded, imdecode = [], cv2.imdecode
    monkeypatch.setattr(cv2, "imdecode", lambda data, flags: decoded.append(flags) or imdecode(data, flags))
    for suffix in (".png", ".jpg"):
        decoded.clear()
        read_radiograph(cv2.imencode(suffix, grey)[1].tobytes(), "a", description)
        assert len(decoded) == 1
