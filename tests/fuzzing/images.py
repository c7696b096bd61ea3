"""Odd JPEG, PNG and DICOM files: small drawn pictures whose headers and structure say what is not so."""

from __future__ import annotations

import struct
import zlib
from functools import cache
from random import Random

import cv2
import numpy as np

from ..data.dicom.drawn import compressed, dataset, dicom, encode, lut
from .mutations import ODD_NUMBERS, ODD_TEXTS

UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1")
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
    elif odd < 0.3:
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
                (b"IDAT", random.randbytes(20)),
                (b"IHDR", chunks[0][1]),
            )
        )
        chunks.insert(random.randrange(1, len(chunks)), [name, content])
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">L", len(content)) + name + content + struct.pack(">L", zlib.crc32(name + content))
        for name, content in chunks
    )


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
    for _ in range(random.choice((0, 0, 1, 2))):
        name = random.choice(("Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "SamplesPerPixel"))
        elements[name] = random.choice((None, 0, 1, 7, 8, 12, 16, 32, 24, 65_535))
    for _ in range(random.choice((0, 0, 0, 1))):
        name = random.choice(("Modality", "PhotometricInterpretation", "VOILUTFunction"))
        elements[name] = random.choice(("CR", "MR", "MONOCHROME1", "RGB", *ODD_TEXTS[:4]))
    if random.random() < 0.5:
        return dicom(pixels, random.choice(UNCOMPRESSED), **elements)
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
