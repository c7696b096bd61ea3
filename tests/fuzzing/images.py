"""Odd JPEG, PNG and DICOM files: small drawn pictures whose headers and structure say what is not so."""

from __future__ import annotations

import struct
import zlib
from functools import cache
from random import Random

import cv2
import jpeg_ls
import numpy as np
from pydicom.encaps import generate_frames

from ..data.dicom import frames
from ..data.dicom.drawn import compressed, dataset, dicom, encode, lut
from .mutations import ODD_NUMBERS, ODD_TEXTS

UNCOMPRESSED = tuple(f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".1.99", ".2"))
COMPRESSED = tuple(
    f"1.2.840.10008.1.2.{end}"
    for end in ("4.50", "4.51", "4.57", "4.70", "4.80", "4.81", "4.90", "4.91", "4.100", "4.201", "5")
)


@cache
def picture(seed: int, height: int = 24, width: int = 32) -> np.ndarray:
    """A smooth grey picture, uint8 [H, W]."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5)).astype(np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


@cache
def streams() -> tuple[tuple[str, bytes], ...]:
    """Transfer syntaxes and whole frames of 30 x 40 pixels, one for each decoder and more."""
    ramp = np.add.outer(np.arange(30) * 60, np.arange(40) * 50).astype("<u2")
    made = dataset(np.pad(ramp, ((0, 2), (0, 0))), bits=12)
    made.compress("1.2.840.10008.1.2.4.90", generate_instance_uid=False)
    large = next(generate_frames(made.PixelData, number_of_frames=1))
    return (
        ("1.2.840.10008.1.2.4.201", frames.HIGH_THROUGHPUT),
        ("1.2.840.10008.1.2.4.201", frames.HIGH_THROUGHPUT_SIGNED),
        ("1.2.840.10008.1.2.4.51", frames.TWELVE_BITS),
        ("1.2.840.10008.1.2.4.57", frames.LOSSLESS),
        ("1.2.840.10008.1.2.4.70", frames.LOSSLESS),
        ("1.2.840.10008.1.2.4.80", bytes(jpeg_ls.encode_array(ramp))),
        ("1.2.840.10008.1.2.4.81", bytes(jpeg_ls.encode_array(ramp, lossy_error=2))),
        ("1.2.840.10008.1.2.4.90", large),
    )


@cache
def encoded_jpeg(seed: int, colour: bool, progressive: bool, restart: int) -> bytes:
    """A picture as JPEG."""
    image = cv2.cvtColor(picture(seed), cv2.COLOR_GRAY2BGR) if colour else picture(seed)
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive), cv2.IMWRITE_JPEG_RST_INTERVAL, restart]
    return cv2.imencode(".jpg", image, options)[1].tobytes()


def jpeg(random: Random) -> bytes:
    """A JPEG of some kind; with an odd size, orientation, comment or number of components at times."""
    data = bytearray(
        encoded_jpeg(random.randrange(6), random.random() < 0.3, random.random() < 0.3, random.choice((0, 0, 1, 3)))
    )
    frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    odd = random.random()
    if odd < 0.15:
        at, layout = random.choice(((5, ">H"), (7, ">H"), (9, ">B"), (4, ">B"), (11, ">B")))
        struct.pack_into(layout, data, frame + at, random.choice(ODD_NUMBERS) % 256 ** struct.calcsize(layout))
    elif odd < 0.25:
        length = random.choice((2, 3, 8, 60_000))
        kind = random.choice((0xE1, 0xFE, 0xDB, 0xC4, 0xDD, 0xDC))
        start = random.choice((b"Exif\0\0MM\0*", b"Exif\0\0II*\0", b""))
        data[2:2] = struct.pack(">BBH", 0xFF, kind, length) + (start + random.randbytes(length))[: length - 2]
    elif odd < 0.35:
        # another kind of frame, or another depth
        data[frame + 1], data[frame + 4] = random.choice(range(0xC0, 0xD0)), random.choice((8, 12, 16, 0, 255))
    elif odd < 0.4:
        data[-2:-2] = data[data.find(b"\xff\xda") : -2] * random.choice((1, 30))
    return bytes(data)


def png(random: Random) -> bytes:
    """A PNG of some kind, its checksums right; with odd fields, chunks, animation or a bomb at times."""
    image = picture(random.randrange(6))
    if random.random() < 0.3:
        image = image.astype(np.uint16) * 257
    if random.random() < 0.3:
        image = np.stack([image] * random.choice((3, 4)), -1)
    height, width, *channels = image.shape
    kind = {(): 0, (3,): 2, (4,): 6}[tuple(channels)]
    fields = [width, height, 8 * image.itemsize, kind, 0, 0, 0]
    rows = b"".join(b"\0" + row.astype(image.dtype.newbyteorder(">")).tobytes() for row in image)
    chunks = [[b"IHDR", b""], [b"IDAT", zlib.compress(rows, 1)], [b"IEND", b""]]
    odd = random.random()
    if odd < 0.3:
        field = random.randrange(7)
        fields[field] = random.choice((*ODD_NUMBERS, 1, 2, 3, 4, 5, 6, 8, 16)) % (2**32 if field < 2 else 256)
    elif odd < 0.4:
        chunks[1][1] = zlib.compress(bytes(random.choice((0, 10, 3_000_000))))
    chunks[0][1] = struct.pack(">LLBBBBB", *fields)
    for _ in range(random.choice((0, 0, 1, 3))):
        packed = zlib.compress(bytes(random.choice((10, 2_000_000))))
        name, content = random.choice(
            (
                (b"tEXt", b"key\0value"),
                (b"zTXt", b"key\0\0" + packed),
                (b"iCCP", b"name\0\0" + packed),
                (b"PLTE", random.randbytes(random.choice((3, 6, 768, 5)))),
                (b"tRNS", random.randbytes(random.choice((1, 2, 6, 300)))),
                (b"gAMA", struct.pack(">L", random.choice(ODD_NUMBERS))),
                (b"acTL", struct.pack(">LL", random.choice((0, 1, 2, 2**31)), 0)),
                (b"fcTL", struct.pack(">LLLLLHHBB", 0, width, height, random.choice((0, 9)), 0, 1, 1, 2, 1)),
                (b"fdAT", b"\0\0\0\1" + chunks[1][1]),
                (b"eXIf", b"MM\0*" + random.randbytes(20)),
                (b"eXIf", b"MM\0*" + struct.pack(">LHHHLHH", 8, 1, 0x0112, 3, 1, random.choice((0, 3, 6, 8, 99)), 0)),
                (b"sBIT", random.randbytes(random.choice((0, 1, 3)))),
                (b"sBIT", bytes([random.choice((8, 10, 12, 14))])),
                (b"IDAT", random.randbytes(20)),
                (b"IHDR", chunks[0][1]),
            )
        )
        chunks.insert(random.randrange(1, len(chunks)), [name, content])
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">L", len(content)) + name + content + struct.pack(">L", zlib.crc32(name + content))
        for name, content in chunks
    )


def _changed(frame: bytes, random: Random) -> bytes:
    """A frame with some bytes of its own changed, cut out or put in, more often near its headers."""
    data = bytearray(frame)
    for _ in range(random.choice((0, 1, 1, 2, 5))):
        at = random.randrange(min(len(data), random.choice((120, len(data)))))
        how = random.random()
        if how < 0.7:
            data[at] = random.randrange(256)
        elif how < 0.85:
            del data[at : at + random.choice((1, 2, 50))]
        else:
            data[at:at] = random.randbytes(random.choice((1, 2, 50)))
    return bytes(data)


def film(random: Random) -> bytes:
    """A DICOM file of some kind; with odd values or pixels at times."""
    grey = picture(random.randrange(6))
    pixels = random.choice((grey, grey.astype("<u2") * 16, grey.astype("<i2") * 8 - 512))
    elements: dict[str, object] = {}
    if random.random() < 0.5:
        elements |= {"WindowCenter": f"{random.randint(-500, 4000)}", "WindowWidth": f"{random.randint(0, 4000)}"}
        elements["VOILUTFunction"] = random.choice(("LINEAR", "LINEAR_EXACT", "SIGMOID", "ODD"))
    if random.random() < 0.3:
        elements |= {"RescaleSlope": f"{random.uniform(-3, 3):.3f}", "RescaleIntercept": f"{random.randint(-9, 9)}"}
    if random.random() < 0.3:
        entries = [random.randrange(256) for _ in range(random.choice((1, 2, 300)))]
        table = lut(entries, random.choice((0, 1, 30_000)), random.choice((8, 8, 12, 16, 0, 99)))
        elements[random.choice(("VOILUTSequence", "ModalityLUTSequence"))] = table
    if random.random() < 0.3:
        elements["PixelPaddingValue"] = random.choice((0, 255, 4095, 30_000))
        elements["PixelPaddingRangeLimit"] = random.choice((None, 0, 4000))
    elements = {name: value for name, value in elements.items() if value is not None}
    for _ in range(random.choice((0, 0, 1, 2))):
        name = random.choice(("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel"))
        elements[name] = random.choice((None, 0, 1, 7, 8, 12, 16, 32, 24, 65_535))
    for _ in range(random.choice((0, 0, 0, 1))):
        name = random.choice(("Modality", "PhotometricInterpretation", "VOILUTFunction"))
        elements[name] = random.choice(("CR", "MR", "MONOCHROME1", "RGB", *ODD_TEXTS[:4]))
    if random.random() < 0.4:
        data = dicom(pixels, random.choice(UNCOMPRESSED), **elements)
        return data[random.choice((0, 0, 0, 132)) :]
    if random.random() < 0.6:
        syntax, frame = random.choice(streams())
        kind = random.choice(("<u2", "<i2"))
        rows = 32 if syntax.endswith(".90") else 30
        return compressed(np.zeros((rows, 40), kind), _changed(frame, random), syntax, **{"bits": 12, **elements})
    if random.random() < 0.3:
        made = dataset(pixels)
        made.compress("1.2.840.10008.1.2.5", generate_instance_uid=False)
        return encode(made)
    frame = random.choice(
        (
            encoded_jpeg(random.randrange(6), False, False, 0),
            b"\xff\x4f\xff\x51" + struct.pack(">HHLLLLLLLLHBBB", 41, 0, 32, 24, 0, 0, 32, 24, 0, 0, 1, 7, 1, 1),
            struct.pack("<16L", random.choice((1, 2)), 64, *[random.choice(ODD_NUMBERS)] * 14) + random.randbytes(900),
        )
    )
    return compressed(pixels, frame, random.choice(COMPRESSED), **elements)
