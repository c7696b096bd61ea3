"""Damage that fits any file: bits, bytes, lengths and pieces, drawn from a generator so that every case comes again."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

ODD_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
"""What sizes and offsets like least."""

ODD_TEXTS = (
    "",
    " ",
    "\0",
    "\n",
    "\x1b[31mred",
    "nan",
    "inf",
    "-1",
    "1e999",
    "9" * 30,
    "9" * 5000,
    "true",
    '"',
    "'",
    "[" * 50,
    "{" * 3000,
    "../../etc/passwd",
    "\ud800",
    "\u202egpj.exe",
    "ä" * 300,
    "%s%n",
    "\ufeff",
)
"""What parsers of text like least."""


def flip_bits(data: bytearray, random: Random) -> None:
    """Flip up to eight bits anywhere."""
    for _ in range(random.randint(1, 8)):
        data[random.randrange(len(data))] ^= 1 << random.randrange(8)


def set_bytes(data: bytearray, random: Random) -> None:
    """Overwrite a stretch with one value or with noise."""
    start = random.randrange(len(data))
    length = min(random.choice((1, 2, 4, 16, 64)), len(data) - start)
    fill = bytes([random.choice((0, 0xFF, 0x41))]) * length
    data[start : start + length] = random.choice((fill, random.randbytes(length)))


def set_number(data: bytearray, random: Random) -> None:
    """Overwrite 2, 4 or 8 bytes with a number at the edge of its range, near the beginning more often than not."""
    layout = random.choice(("<H", ">H", "<L", ">L", "<Q", ">Q"))
    length = struct.calcsize(layout)
    if len(data) < length:
        return
    end = len(data) - length
    at = random.randint(0, min(end, 128) if random.random() < 0.6 else end)
    struct.pack_into(layout, data, at, random.choice(ODD_NUMBERS) % 2 ** (8 * length))


def truncate(data: bytearray, random: Random) -> None:
    """Cut the end off."""
    del data[random.randrange(len(data)) :]


def insert(data: bytearray, random: Random) -> None:
    """Insert noise, or a piece of the data itself."""
    at = random.randint(0, len(data))
    start = random.randrange(len(data))
    length = random.choice((1, 3, 8, 40, 200))
    data[at:at] = random.choice((random.randbytes(length), bytes(data[start : start + length])))


def remove(data: bytearray, random: Random) -> None:
    """Take a piece out."""
    start = random.randrange(len(data))
    del data[start : start + random.choice((1, 2, 8, 60))]


def repeat(data: bytearray, random: Random) -> None:
    """Repeat a piece up to a hundred times."""
    start = random.randrange(len(data))
    piece = bytes(data[start : start + random.choice((4, 12, 50))])
    data[start:start] = piece * random.choice((1, 2, 100))


def set_text(data: bytearray, random: Random) -> None:
    """Insert one of the texts that parsers like least."""
    at = random.randint(0, len(data))
    data[at:at] = random.choice(ODD_TEXTS).encode("utf-8", "surrogatepass")


MUTATIONS: tuple[Callable[[bytearray, Random], None], ...] = (
    flip_bits,
    set_bytes,
    set_number,
    set_number,
    truncate,
    insert,
    remove,
    repeat,
    set_text,
)


def mutate(data: bytes, random: Random, most: int = 4) -> bytes:
    """Return `data` after up to `most` mutations; often unchanged, where the data were made odd already."""
    damaged = bytearray(data)
    for _ in range(random.randint(0, most)):
        if damaged:
            random.choice(MUTATIONS)(damaged, random)
    return bytes(damaged)
