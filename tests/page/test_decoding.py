"""Files of every kind, read in the browser and by the trainer: the same pixels, or the same sentence."""

import io
import struct
import zlib

import cv2
import jpeg_ls
import numpy as np
import pytest
from PIL import Image
from pydicom.encaps import generate_frames

from cxr_jax.data.decode import decode, decode_square
from cxr_jax.data.encoded import MAX_BYTES, MAX_PIXELS
from cxr_jax.data.phantoms.folder import draw_phantom
from cxr_jax.errors import UserError
from tests.browser import MISSING, PROGRAM
from tests.data.dicom.drawn import compressed, dataset, dicom, encode, lut
from tests.data.dicom.frames import HIGH_THROUGHPUT, LOSSLESS, TWELVE_BITS
from tests.page.conftest import NOT_VENDORED, VENDORED, array_of

pytestmark = [
    pytest.mark.skipif(PROGRAM is None, reason=MISSING),
    pytest.mark.skipif(not VENDORED, reason=NOT_VENDORED),
]

READ = """
    const {{ takePrograms }} = await load("codecs");
    const {{ decode }} = await load("decoding");
    if (!window.programs) {{
        window.programs = {{}};
        for (const name of ["charls", "libjpegTurbo", "openjpeg", "openjph"]) {{
            window.programs[name] = await bytes(`/vendor/${{name}}.wasm`);
        }}
        takePrograms(window.programs);
    }}
    try {{
        const found = await decode(await bytes("{address}"), "{name}", {{ bytes: {bytes}, pixels: {pixels} }});
        return {{ ...found, grey: coded(found.grey) }};
    }} catch (error) {{
        return {{ kind: error.constructor.name, sentence: error.message }};
    }}
"""

GREY = draw_phantom("bacteria", 3, 4, image_size_range=(90, 96))
HEIGHT, WIDTH = GREY.shape
DEEP = cv2.resize(GREY, (64, 40)).astype("<u2") * 16
SHALLOW = (DEEP // 16).astype("u1")
SIGNED = (DEEP.astype(int) - 2048).astype("<i2")
RAMP = np.add.outer(np.arange(30) * 60, np.arange(40) * 50).astype("<u2")
COLOUR = cv2.merge([GREY, np.roll(GREY, 9, axis=1), 255 - GREY])
TINTED = cv2.merge([GREY // 2 + 60, GREY // 2 + 40, GREY // 2 + 30])
WINDOW = {"WindowCenter": "1500", "WindowWidth": "2500"}

IMPLICIT, BIG, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
BASELINE, PROCESS_14, SV1 = "1.2.840.10008.1.2.4.50", "1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70"
EXTENDED, RLE, MPEG = "1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.4.102"
LS, NEAR_LS = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.81"
J2K, HTJ2K = "1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.201"


def encoded(kind, image, *options):
    return cv2.imencode(kind, image, options)[1].tobytes()


def with_chunk(data, kind, content):
    """A PNG with one more chunk after its header."""
    chunk = struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return data[:33] + chunk + data[33:]


def by_pillow(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def exif(orientation):
    return b"II*\0" + struct.pack("<LHHHLLL", 8, 1, 0x0112, 3, 1, orientation, 0)


def j2k(pixels, bits=12):
    made = dataset(pixels, bits=bits)
    made.compress(J2K, generate_instance_uid=False)
    return next(generate_frames(made.PixelData, number_of_frames=1))


def rle(pixels, **options):
    made = dataset(pixels, **options)
    made.compress(RLE, generate_instance_uid=False)
    return encode(made)


PNGS = {
    "grey": encoded(".png", GREY),
    "colour": encoded(".png", COLOUR),
    "transparent": encoded(".png", cv2.merge([COLOUR, np.roll(GREY, 5, axis=0)])),
    "16 bits": encoded(".png", GREY.astype(np.uint16) * 257),
    "16 bits of colour": encoded(".png", COLOUR.astype(np.uint16) * 200),
    "12 bits in 16": encoded(".png", GREY.astype(np.uint16) * 16),
    "dark 16 bits": encoded(".png", GREY.astype(np.uint16) * 30),
    "stated 14 bits": with_chunk(encoded(".png", GREY.astype(np.uint16) * 60), b"sBIT", b"\x0e"),
    "grey with transparency": by_pillow(Image.merge("LA", [Image.fromarray(GREY)] * 2), "PNG"),
    "palette": by_pillow(Image.fromarray(COLOUR).quantize(40), "PNG"),
    "palette of 4 bits": by_pillow(Image.fromarray(COLOUR).quantize(12), "PNG", bits=4),
    "one bit": by_pillow(Image.fromarray(GREY).convert("1"), "PNG"),
    **{f"turned {turn}": with_chunk(encoded(".png", GREY), b"eXIf", exif(turn)) for turn in range(1, 9)},
}
DICOMS = {
    "explicit": dicom(DEEP, bits=12),
    "implicit": dicom(DEEP, IMPLICIT, bits=12, **WINDOW),
    "deflated": dicom(DEEP, DEFLATED, bits=12, **WINDOW),
    "without preamble": dicom(DEEP, bits=12)[132:],
    "bytes": dicom(SHALLOW, PhotometricInterpretation="MONOCHROME1"),
    "signed": dicom(SIGNED, bits=12, RescaleSlope="2", RescaleIntercept="-17.5", WindowCenter="0", WindowWidth="900"),
    "exact window": dicom(DEEP, bits=12, **WINDOW, VOILUTFunction="LINEAR_EXACT"),
    "sigmoid": dicom(DEEP, bits=12, **WINDOW, VOILUTFunction="SIGMOID"),
    "several windows": dicom(DEEP, bits=12, WindowCenter=["0", "1500"], WindowWidth=["0", "2000"]),
    "padding": dicom(np.where(DEEP > 3000, 0, DEEP + 5).astype("<u2"), bits=12, PixelPaddingValue=0),
    "table": dicom(DEEP, bits=12, VOILUTSequence=lut([min(1023, i // 2) for i in range(4096)], 0, 16)),
    "modality table": dicom(DEEP, bits=12, ModalityLUTSequence=lut([4095 - i for i in range(4096)], 0, 12), **WINDOW),
    "upper bits": dicom(DEEP << 4, bits=12, HighBit=15, **WINDOW),
    "rle": rle(DEEP, bits=12, **WINDOW),
    "rle of bytes": rle(SHALLOW),
    "lossless jpeg": compressed(RAMP, LOSSLESS, SV1, bits=12),
    "lossless jpeg 14": compressed(RAMP, LOSSLESS, PROCESS_14, bits=12, **WINDOW),
    "jpeg-ls": compressed(DEEP, bytes(jpeg_ls.encode_array(DEEP)), LS, bits=12, **WINDOW),
    "lossy jpeg-ls": compressed(SHALLOW, bytes(jpeg_ls.encode_array(SHALLOW, lossy_error=2)), NEAR_LS),
    "jpeg 2000": compressed(DEEP, j2k(DEEP), J2K, bits=12, **WINDOW),
    "signed jpeg 2000": compressed(SIGNED, j2k(SIGNED), J2K, bits=12),
    "jpeg 2000 of bytes": compressed(SHALLOW, j2k(SHALLOW, 8), J2K),
    "high throughput": compressed(RAMP, HIGH_THROUGHPUT, HTJ2K, bits=12),
}
JPEGS = {
    "jpeg": encoded(".jpg", GREY, cv2.IMWRITE_JPEG_QUALITY, 90),
    "jpeg of colour": encoded(".jpg", TINTED, cv2.IMWRITE_JPEG_QUALITY, 95),
    "progressive": encoded(".jpg", GREY, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    **{
        f"jpeg {turn}": by_pillow(Image.fromarray(GREY), "JPEG", exif=b"Exif\0\0" + exif(turn)) for turn in (1, 3, 6, 8)
    },
    "jpeg in dicom": compressed(GREY, encoded(".jpg", GREY), BASELINE),
}


def big_endian():
    made = dataset(DEEP, BIG, bits=12, **WINDOW)
    made.PixelData = DEEP.astype(">u2").tobytes()
    return encode(made)


def read(modules, data, name):
    limits = {"bytes": MAX_BYTES, "pixels": MAX_PIXELS}
    return modules.run(READ.format(address=modules.write("film", data), name=name, **limits))


@pytest.mark.parametrize("files", [PNGS, {**DICOMS, "big endian": big_endian()}, JPEGS], ids=["png", "dicom", "jpeg"])
def test_files_of_every_kind_give_the_pixels_of_the_trainer(modules, files):
    for name, data in files.items():
        expected = decode(data, name=name)
        found = read(modules, data, name)
        assert "grey" in found, (name, found)
        grey = array_of(found["grey"], np.uint8, (found["height"], found["width"]))
        assert grey.shape == expected.grey.shape, name
        off = np.abs(grey.astype(int) - expected.grey)
        # of a JPEG in colour the trainer takes the brightness as it is stored, the browser from red, green and blue
        assert off.max() <= (0 if files is not JPEGS else 2 if "colour" in name else 1), name
        assert found["remark"] == expected.remark, name
        assert found["colourfulness"] == pytest.approx(expected.colourfulness, abs=1.5), name


@pytest.mark.parametrize(("size", "orientation", "quality"), [(40, 6, 75), (80, 1, 75), (160, 6, 75), (160, 1, 97)])
def test_a_large_jpeg_becomes_the_square_that_the_trainer_decodes_at_a_fraction(modules, size, orientation, quality):
    image = cv2.resize(GREY, (933, 750), interpolation=cv2.INTER_CUBIC)
    random = np.random.default_rng(0)
    image = np.clip(image + random.normal(0, 5, image.shape), 0, 255).astype(np.uint8)
    data = by_pillow(Image.fromarray(image), "JPEG", quality=quality, exif=b"Exif\0\0" + exif(orientation))
    squares = modules.run(f"""
        const {{ takePrograms }} = await load("codecs");
        const {{ decode, forSquare }} = await load("decoding");
        const {{ toSquare }} = await load("resampling");
        takePrograms({{ libjpegTurbo: await bytes("/vendor/libjpegTurbo.wasm") }});
        const image = await decode(await bytes("{modules.write("film", data)}"), "a", {{ bytes: 1e9, pixels: 1e9 }});
        return ["squash", "pad", "crop"].map((resize) => [
            resize, coded(toSquare(forSquare(image, {size}, resize), {size}, resize, "area", image).grey),
        ]);
    """)
    for resize, found in squares:
        expected = decode_square(data, size, resize, name="a").astype(int)
        off = array_of(found, np.uint8, (size, size)) - expected
        # at quality 97 the steps of the file are as small as the rounding of its pixels, which then hides some of them
        assert np.abs(off).mean() < (0.04 if quality == 75 else 0.1), resize
        assert abs(off.mean()) < 0.02 and np.abs(off).max() <= 2, resize


WRONG = {
    "empty.png": b"",
    "text.png": b"no image at all, whatever its name says",
    "cut.png": PNGS["grey"][:-30],
    "flipped.png": PNGS["grey"][:300] + b"?" + PNGS["grey"][301:],
    "animated.png": with_chunk(PNGS["grey"], b"acTL", bytes(8)),
    "huge.png": with_chunk(
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 25_000, 20_000, 8, 0, 0, 0, 0)
        + struct.pack(">I", zlib.crc32(struct.pack(">4sIIBBBBB", b"IHDR", 25_000, 20_000, 8, 0, 0, 0, 0))),
        b"IEND",
        b"",
    ),
    "cut.jpg": JPEGS["jpeg"][: len(JPEGS["jpeg"]) // 2],
    "head.jpg": JPEGS["jpeg"][:100],
    "lossless.jpg": LOSSLESS,
    "nothing.dcm": dicom(DEEP, PixelData=None),
    "ct.dcm": dicom(DEEP, Modality="CT"),
    "odd.dcm": dicom(DEEP, Modality="Quirinus"),
    "report.dcm": dicom(DEEP, Modality=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11"),
    "frames.dcm": dicom(DEEP, NumberOfFrames="3"),
    "rgb.dcm": dicom(DEEP, SamplesPerPixel=3, PhotometricInterpretation="RGB"),
    "rows.dcm": dicom(DEEP, Rows=4000),
    "none.dcm": dicom(DEEP, Rows=0),
    "large.dcm": dicom(DEEP, Rows=25_000, Columns=20_000),
    "bits.dcm": dicom(DEEP, BitsStored=4),
    "high.dcm": dicom(DEEP, bits=12, HighBit=3),
    "slope.dcm": dicom(DEEP, RescaleSlope="0"),
    "window.dcm": dicom(DEEP, **WINDOW, VOILUTFunction="CUBIC"),
    "cut.dcm": dicom(DEEP)[:600],
    "tail.dcm": dicom(DEEP)[:-50],
    "video.dcm": compressed(DEEP, b"\0" * 64, MPEG),
    "rle.dcm": compressed(DEEP, b"\0" * 80, RLE),
    "sizes.dcm": compressed(RAMP[:20], LOSSLESS, SV1, bits=12),
    "wavelet.dcm": compressed(DEEP, j2k(DEEP)[:60] + bytes(200), J2K, bits=12),
    "damaged.dcm": compressed(DEEP, bytes(jpeg_ls.encode_array(DEEP))[:30] + b"\xff\xd9", LS, bits=12),
}


def test_what_cannot_be_read_is_told_in_the_sentence_of_the_trainer(modules):
    for name, data in WRONG.items():
        with pytest.raises(UserError) as told:
            decode(data, name=name)
        # the trainer names the transfer syntax of a video
        assert read(modules, data, name) == {
            "kind": "Mistake",
            "sentence": str(told.value).replace(" (MPEG-4 AVC/H.264 High Profile / Level 4.1)", ""),
        }, name


def test_a_jpeg_of_12_bits_is_the_one_kind_that_the_page_cannot_decode(modules):
    found = read(modules, compressed(RAMP, TWELVE_BITS, EXTENDED, bits=12), "film.dcm")
    assert found["sentence"] == "film.dcm is a JPEG of 12 bits, which this page cannot decode: convert it to PNG"
