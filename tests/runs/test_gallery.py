import json

import cv2
import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.runs.gallery import (
    Gallery,
    Group,
    Tile,
    chance_text,
    encode_picture,
    gallery_path,
    read_gallery,
    write_gallery,
)


def decoded(picture):
    import base64

    return cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_UNCHANGED)


@pytest.fixture
def sheet(tmp_path):
    return tmp_path / "panel-outcomes.png"


def test_a_gallery_is_read_as_it_was_written(sheet):
    picture = encode_picture(np.zeros((8, 8), np.uint8))
    tile = Tile("test/NORMAL/a <b>.jpeg", None, "NORMAL", 0.07, (picture, picture), "evidence for NORMAL")
    gallery = Gallery("Errors", (Group("", ()), Group("False positives", (tile,))))
    assert write_gallery(sheet, gallery) == gallery_path(sheet)
    assert read_gallery(sheet) == gallery
    assert tile.name == "a <b>.jpeg"
    assert not tile.is_wrong


def test_where_nothing_was_stored_there_is_none(sheet):
    assert read_gallery(sheet) is None


@pytest.mark.parametrize(
    "change",
    [
        {"schema_version": 99},
        {"groups": 3},
        {"groups": [{"heading": "", "tiles": [{"pictures": ["no base64!"]}]}]},
        {"groups": [{"heading": "", "tiles": [{"pictures": [], "wrong": 1}]}]},
    ],
)
def test_what_cannot_be_read_is_one_sentence(sheet, change):
    write_gallery(sheet, Gallery("", ()))
    path = gallery_path(sheet)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UserError, match="make it again"):
        read_gallery(sheet)


def test_pictures_keep_their_shape_and_colours_and_are_made_no_larger():
    red = np.zeros((900, 600, 3), np.uint8)
    red[..., 0] = 200
    small = decoded(encode_picture(red))
    assert small.shape == (384, 256, 3)
    assert np.abs(small.mean(axis=(0, 1)) - [0, 0, 200]).max() < 4  # cv2 reads blue first
    assert decoded(encode_picture(np.full((10, 30), 90, np.uint8))).shape == (10, 30)


@pytest.mark.parametrize(
    ("probability", "text"),
    [
        (0.07, "7 %"),
        (0.5, "50 %"),
        (0.0042, "0.4 %"),
        (0.00001, "under 0.1 %"),
        (0.9961, "99.6 %"),
        (1.0, "over 99.9 %"),
        (0.0, "under 0.1 %"),
    ],
)
def test_chances_are_written_as_people_write(probability, text):
    assert chance_text(probability) == f"P(pneumonia) {text}"
