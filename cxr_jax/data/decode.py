"""Bytes of a radiograph to a grey array, and the one resize of training and serving."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

import cv2
import numpy as np
from jaxtyping import UInt8

from cxr_jax.data.dicom import decode_dicom
from cxr_jax.data.encoded import (
    JPEG_START,
    JpegHeader,
    PngHeader,
    check_bytes,
    check_pixels,
    jpeg_header,
    kind_of,
    png_header,
)
from cxr_jax.errors import UserError

IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".dcm", ".dicom")

Resize = Literal["squash", "pad", "crop"]
Interpolation = Literal["area", "linear", "cubic"]

_INTERPOLATIONS = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}


DECODING = 3
"""Version of the way from a file to its pixels; what was decoded in another way is not mixed with it."""

_REDUCED = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
"""How OpenCV is told to decode a JPEG at a fraction of its size, by what its sides are divided by."""

DARK = 2**14
"""What a 16-bit image without a value as large as this is remarked on for: it takes a quarter of its range at most."""

_SHALLOW_BITS = 12
_ROWS = 256  # converted at a time
_COLOUR_GRID = 128  # points along the shorter side


@dataclass(frozen=True)
class Depth:
    """How deep the samples of a 16-bit image are."""

    highest: int  # value of a pixel
    bits: int  # that white takes: 16, or fewer
    stated: bool  # by the file, rather than taken from its values


@dataclass(frozen=True)
class Decoded:
    """An image, and what its file told beside its pixels."""

    grey: UInt8[np.ndarray, "H W"]  # 0 (black) to 255
    measure_colour: Callable[[], float] = lambda: 0.0  # see `colourfulness`; a JPEG has to be decoded again for it
    depth: Depth | None = None  # of a PNG of 16 bits

    @functools.cached_property
    def colourfulness(self) -> float:
        """Grey levels by which the largest and the smallest channel differ, mean over pixels."""
        return self.measure_colour()

    @property
    def remark(self) -> str | None:
        """What a reader should know of the grey levels; None for a usual image."""
        if self.depth is None or self.depth.stated or self.depth.highest >= DARK:
            return None
        told = f"16-bit image without a value above {self.depth.highest:,}"
        if self.depth.bits < 16:
            return f"{told}: read as one of {self.depth.bits} bits, in which {2**self.depth.bits - 1:,} is white"
        return f"{told}, where 65,535 is white: it comes out dark"


def without_suffix(file: str) -> str:
    """Returns the path of a radiograph without its suffix, which is not the last number in the name of a DICOM file."""
    return str(PurePosixPath(file).with_suffix("")) if file.lower().endswith(IMAGE_SUFFIXES) else file


def decode(data: bytes, *, name: str) -> Decoded:
    """Decodes a JPEG, PNG or DICOM file to grey, once.

    Colour becomes luma by the weights of ITU-R BT.601. Transparent images are laid over black, the background of a
    radiograph. EXIF's orientation is obeyed. DICOM files are shown as they ask to be (see `data.dicom`).

    Samples of 16 bits are divided by 257, so that the full range maps to the full range. A PNG of 16 bits that holds no
    value above 4095 is read as a radiograph of 12 bits, which would otherwise be nearly black. White is then 4095, in
    every such file. Where the file itself states fewer bits than 16 (chunk sBIT), and holds no larger values, these
    bits count.

    Args:
        data: the encoded image.
        name: what to call the image in an error.

    Raises:
        UserError: too many bytes or pixels, another format, damaged or truncated data, or an image that says of itself
            that a generator made it. Truncation is found by the
            missing end of the file's structure, because the decoder would fill the missing part with grey.
    """
    header = _header(data, name)
    if header is None:
        return Decoded(decode_dicom(data, name))
    if isinstance(header, PngHeader):
        return _decoded_png(data, header, name)
    grey = _decoded_by_opencv(data, cv2.IMREAD_GRAYSCALE, name)
    if header.components == 1:
        return Decoded(grey)
    # an eighth of the size is enough for a mean
    return Decoded(grey, lambda: _colourfulness(_decoded_by_opencv(data, cv2.IMREAD_REDUCED_COLOR_8, name)))


def decode_grey(data: bytes, *, name: str) -> UInt8[np.ndarray, "H W"]:
    """Returns the pixels of `decode`; UserError as there."""
    return decode(data, name=name).grey


def decode_square(
    data: bytes,
    size: int,
    resize: Resize = "squash",
    interpolation: Interpolation = "area",
    *,
    name: str,
    decoded: Decoded | None = None,
) -> UInt8[np.ndarray, "{size} {size}"]:
    """Decodes a JPEG, PNG or DICOM file to the square that a network sees, uint8 [size, size]: in training and after
    it.

    It is `to_square` of `decode_grey`, with one exception. A JPEG of more than four times the wanted size is decoded at
    a half, a quarter or an eighth of its own size. The decoder then averages within its blocks, which takes a fraction
    of the time. At least twice the wanted size is left for `to_square` to average. On original radiographs of about
    1350 x 1000 pixels the squares of 224 differ from those of the whole image by 0.2 grey levels on average.

    Args:
        data: the encoded image.
        size: side of the square, in pixels.
        resize: as in `to_square`.
        interpolation: as in `to_square`.
        name: what to call the image in an error.
        decoded: what `decode` made of `data`, where that is at hand: it is used unless the square takes another size.

    Raises:
        UserError: as `decode`.
    """
    header = _header(data, name) if data.startswith(JPEG_START) else None
    if isinstance(header, JpegHeader):
        side = max if resize == "pad" else min
        divisor = _reduction(side(header.width, header.height), 2 * size)
        if divisor > 1:
            image = _decoded_by_opencv(data, _REDUCED[divisor], name)
            # the header's size, turned as the decoder turned the image
            turned = (header.height > header.width) != (image.shape[0] > image.shape[1])
            shape = (header.width, header.height) if turned else (header.height, header.width)
            return to_square(image, size, resize, interpolation, shape=shape)
    grey = decode_grey(data, name=name) if decoded is None else decoded.grey
    return to_square(grey, size, resize, interpolation)


def as_stored(data: bytes, *, name: str) -> tuple[bytes, Decoded]:
    """Returns an image as records keep it, and decoded.

    Records keep the file itself. For a DICOM file they keep a PNG of its pixels, which has no header that could tell of
    a patient. The decoded image is the same.

    Raises:
        UserError: as `decode`.
    """
    decoded = decode(data, name=name)
    if kind_of(data) == "DICOM":
        data = cv2.imencode(".png", decoded.grey)[1].tobytes()
    return data, decoded


def without_header(data: bytes, *, name: str) -> bytes:
    """Returns the first value of `as_stored`, without decoding an image that is kept as it is."""
    return as_stored(data, name=name)[0] if kind_of(data) == "DICOM" else data


def _header(data: bytes, name: str) -> JpegHeader | PngHeader | None:
    """Returns what the file says of its pixels, having checked the bounds; None for DICOM, which is checked elsewhere.

    Raises:
        UserError: as `decode`, for what a header tells.
    """
    check_bytes(len(data), name)
    kind = kind_of(data)
    if kind == "DICOM":
        return None
    if kind is None:
        raise UserError(f"{name} is no JPEG, PNG or DICOM file by its content")
    header = jpeg_header(data, name) if kind == "JPEG" else png_header(data, name)
    check_pixels(header.width, header.height, name)
    if isinstance(header, PngHeader) and header.synthetic:
        raise UserError(f"{name} is no radiograph: its file says that it is synthetic, a generator made it")
    if isinstance(header, JpegHeader) and not header.plain:
        described = "JPEG-LS file" if header.jpeg_ls else f"{'lossless ' if header.lossless else ''}JPEG"
        raise UserError(f"{name} is a {described} of {header.bits} bits a sample, which is not read: convert it to PNG")
    return header


def _decoded_by_opencv(data: bytes, flags: int, name: str) -> np.ndarray:
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise UserError(f"{name} is damaged and cannot be decoded")
    return image


def _decoded_png(data: bytes, header: PngHeader, name: str) -> Decoded:
    """Returns what `decode` makes of a PNG."""
    # with any other flag OpenCV drops what is transparent
    image = _upright(_decoded_by_opencv(data, cv2.IMREAD_UNCHANGED, name), header.orientation)
    colours = image[..., :3] if image.ndim == 3 else image
    colour = _colourfulness(colours) if image.ndim == 3 else 0.0
    if image.dtype == np.uint8:
        return Decoded(_over_black(image), lambda: colour)
    depth = _depth(int(colours.max()), header.significant_bits)
    grey, white = _over_black(image), 2**depth.bits - 1
    shallow = np.empty(grey.shape, np.uint8)
    for start in range(0, len(grey), _ROWS):
        rows = slice(start, start + _ROWS)
        # with half of the divisor added, to round
        shallow[rows] = (grey[rows].astype(np.uint32) * 255 + white // 2) // white
    return Decoded(shallow, lambda: colour * 255 / white, depth)


def _depth(highest: int, significant_bits: int | None) -> Depth:
    """Returns how deep the samples of a 16-bit image are that has no larger value than `highest`."""
    if significant_bits is not None and 8 <= significant_bits < 16 and highest < 2**significant_bits:
        return Depth(highest, significant_bits, stated=True)
    return Depth(highest, _SHALLOW_BITS if highest < 2**_SHALLOW_BITS else 16, stated=False)


def _colourfulness(colours: np.ndarray) -> float:
    """Returns by how much the largest and smallest channel of [H, W, 3] differ, mean over a grid of its pixels."""
    step = max(1, min(colours.shape[:2]) // _COLOUR_GRID)
    grid = colours[::step, ::step].astype(np.int32)
    return float(np.mean(grid.max(axis=2) - grid.min(axis=2)))


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Returns an image turned and mirrored as EXIF's `orientation` asks, 1 to 8."""
    if orientation > 4:
        image = cv2.transpose(image)
    # around the vertical axis, the horizontal one, or both
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return image if flip is None else cv2.flip(image, flip)


def _reduction(side: int, at_least: int) -> int:
    """Returns what a JPEG's sides may be divided by so that `side` pixels stay `at_least` as many."""
    return max(divisor for divisor in _REDUCED if divisor == 1 or side // divisor >= at_least)


def to_square(
    image: UInt8[np.ndarray, "H W"],
    size: int,
    resize: Resize = "squash",
    interpolation: Interpolation = "area",
    *,
    shape: tuple[int, int] | None = None,
) -> UInt8[np.ndarray, "{size} {size}"]:
    """Returns grey `image`, uint8 [H, W], as a square, uint8 [size, size].

    Args:
        image: uint8 [H, W].
        size: side of the square, in pixels.
        resize: `squash` gives up the aspect ratio; `pad` keeps the whole image and adds black bands; `crop` keeps the
            central square.
        interpolation: used along an axis that shrinks; an axis that grows is interpolated linearly.
        shape: height and width whose aspect ratio counts, where `image` is a smaller copy that was rounded to pixels.
    """
    height, width = image.shape
    if resize == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
    if resize != "pad":
        return _resized(image, size, size, interpolation)
    height, width = shape or image.shape
    scale = size / max(height, width)
    inner_height, inner_width = (max(1, round(side * scale)) for side in (height, width))
    square = np.zeros((size, size), np.uint8)
    top, left = (size - inner_height) // 2, (size - inner_width) // 2
    inner = _resized(image, inner_height, inner_width, interpolation)
    square[top : top + inner_height, left : left + inner_width] = inner
    return square


def _resized(image: np.ndarray, height: int, width: int, interpolation: Interpolation) -> np.ndarray:
    """Returns uint8 [H, W] resized to [height, width]: axes that shrink first, then axes that grow."""
    smaller = (min(image.shape[1], width), min(image.shape[0], height))
    image = cv2.resize(image, smaller, interpolation=_INTERPOLATIONS[interpolation])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def _over_black(image: np.ndarray) -> np.ndarray:
    """Returns [H, W] or [H, W, 3 or 4] as grey [H, W] of the same type, what is transparent laid over black."""
    if image.ndim == 2:
        return image
    if image.shape[2] == 3:
        return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    grey, alpha, highest = cv2.cvtColor(image, cv2.COLOR_BGRA2GRAY), image[..., 3], np.iinfo(image.dtype).max
    # some rows at a time: in float64 all of a large image would take gigabytes
    for start in range(0, len(grey), _ROWS):
        rows = slice(start, start + _ROWS)
        grey[rows] = np.rint(grey[rows] * (alpha[rows] / highest))
    return grey
