import functools
import struct
import zlib

import cv2
import numpy as np
import pytest

from cxr_jax.data.decode import decode, decode_square
from cxr_jax.errors import UserError
from cxr_jax.images.stamp import grid_of, marked_png, with_stamp

GREY = np.full((64, 64), 128, np.uint8)


def test_the_mark_is_drawn_into_a_corner_and_nowhere_else():
    shown = with_stamp(GREY)
    assert shown.shape == (128, 128)
    corner = shown[-16:, :90]
    assert corner.min() == 0
    assert corner.max() == 255
    assert np.all(shown[:-16] == 128)
    # the image itself is left as it is
    assert np.all(GREY == 128)


def test_a_large_image_keeps_its_size():
    assert with_stamp(np.zeros((300, 200), np.uint8)).shape == (300, 200)


def test_a_grid_begins_with_a_line_and_leaves_places_black():
    images = np.full((3, 16, 16), 200, np.uint8)
    sheet = grid_of(images, 2, "SYNTHETIC")
    assert sheet.shape == (16 + 128, 128)
    assert np.all(sheet[16:80] == 200)
    assert np.all(sheet[80:, :64] == 200)
    assert np.all(sheet[80:, 64:] == 0)
    assert sheet[:16].max() == 255


def test_the_file_says_what_it_is_and_any_viewer_opens_it():
    data = marked_png(GREY, {"Class": "NORMAL"})
    np.testing.assert_array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED), GREY)
    assert b"tEXtSynthetic\0not a radiograph" in data
    assert b"tEXtSoftware\0cxr_jax" in data
    assert b"tEXtClass\0NORMAL" in data


@pytest.mark.parametrize("read", [decode, functools.partial(decode_square, size=16)])
def test_no_reader_of_radiographs_takes_it(read):
    with pytest.raises(UserError, match=r"a\.png is no radiograph: its file says that it is synthetic"):
        read(marked_png(GREY, {}), name="a.png")


def test_other_texts_are_no_mark():
    plain = marked_png(GREY, {}).replace(b"Synthetic\0", b"Comments_\0")
    # the checksum of the changed chunk does not match any more, so the chunk is written anew
    place = plain.index(b"tEXtComments_")
    length = struct.unpack(">I", plain[place - 4 : place])[0]
    body = plain[place : place + 4 + length]
    mended = plain[: place + 4 + length] + struct.pack(">I", zlib.crc32(body)) + plain[place + 8 + length :]
    np.testing.assert_array_equal(decode(mended, name="a.png").grey, GREY)
