"""Odd zips, MedMNIST arrays, configs, tables, ledgers and weights."""

from __future__ import annotations

import csv
import io
import json
import struct
import warnings
import zipfile
from functools import cache
from pathlib import Path
from random import Random

import numpy as np

from cxr_jax.vocabulary import PREDICTION_COLUMNS

from .images import encoded_jpeg
from .mutations import ODD_NUMBERS, ODD_TEXTS

CONFIGS = Path(__file__).parents[2] / "configs"

ODD_NAMES = (
    "../../outside.jpeg",
    "/absolute/outside.jpeg",
    "..\\outside.jpeg",
    "C:\\outside.jpeg",
    "\\\\server\\share\\outside.jpeg",
    "train/NORMAL/line\nbreak.jpeg",
    "train/NORMAL/\x1b[31mred.jpeg",
    "train/NORMAL/\u202egpj.jpeg",
    "train/NORMAL/" + "n" * 3000 + ".jpeg",
    "train/NORMAL/" + "deep/" * 40 + "a.jpeg",
    "train/NORMAL/./a0.jpeg",
    "train//NORMAL/a0.jpeg",
    "train/NORMAL/.jpeg",
    "train/NORMAL/a0.jpeg",
    "test/NORMAL/folder.jpeg/",
    "train/normal/a0.jpeg",
    "__MACOSX/train/NORMAL/a.jpeg",
    "other/chest_xray/train/NORMAL/a9.jpeg",
    "train/NORMAL/notes.txt",
    ".jpeg",
    "",
)
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ODD_METHODS = (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


def archive(random: Random) -> bytes:
    """A zip of a small data set; with names that leave it, links, bombs, passwords or lies at times."""
    names = [f"train/{label}/a{number}.jpeg" for label in ("NORMAL", "PNEUMONIA") for number in range(2)]
    names += random.sample(ODD_NAMES, random.choice((0, 0, 1, 3)))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as packed, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that stands twice
        for name in names:
            member = zipfile.ZipInfo(name)
            member.compress_type = random.choice(METHODS if random.random() < 0.98 else ODD_METHODS)
            content = encoded_jpeg(random.randrange(6), False, False, 0)
            if random.random() < 0.05:
                member.external_attr = 0o120777 << 16  # a link
                content = b"/etc/passwd"
            if random.random() < 0.04:
                content = bytes(random.choice((200_000, 3_000_000)))
            packed.writestr(member, content)
    data = bytearray(stream.getvalue())
    if random.random() < 0.3:
        # a field of the index or of a local header: flags, method, checksum, sizes, offset
        signature, fields = random.choice(
            ((b"PK\x01\x02", (8, 10, 16, 20, 24, 28, 42)), (b"PK\x03\x04", (6, 8, 14, 18, 22, 26)))
        )
        at = data.index(signature) + random.choice(fields)
        struct.pack_into("<H", data, at, random.choice(ODD_NUMBERS) % 2**16)
    return bytes(data)


def _npy(array: np.ndarray, random: Random) -> bytes:
    """An array file, its header odd at times."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, allow_pickle=True)
    data = stream.getvalue()
    if random.random() > 0.3:
        return data
    length = struct.unpack_from("<H", data, 8)[0]
    description = random.choice(("|u1", "<f8", "|O", "<M8[s]", "|V7", "|S0", "<u2", "((((", "<c16"))
    shape = random.choice(("(12, 8, 8)", "(-1, 8, 8)", "(99999999999, 8, 8)", "()", "(12,)", "(12, 0, 8)", "(1" * 2000))
    header = f"{{'descr': '{description}', 'fortran_order': {random.choice((True, False))}, 'shape': {shape}, }}"
    if random.random() < 0.2:
        header = random.choice(("__import__('os').system('true')", "[" * 5000, "{'descr': '|u1'}", "\0" * 60))
    header = header.encode().ljust(118) + b"\n"
    return data[:8] + struct.pack("<H", len(header)) + header + data[10 + length :]


def arrays(random: Random) -> bytes:
    """A MedMNIST file; with odd headers, types, shapes or missing arrays at times."""
    generator = np.random.default_rng(random.randrange(6))
    stored = {}
    for split in random.choice((("train",), ("train", "val", "test"), ("test",))):
        stored[f"{split}_images"] = generator.integers(0, 256, (12, 8, 8)).astype(np.uint8)
        stored[f"{split}_labels"] = (np.arange(12) % 2).astype(np.uint8)[:, None]
    if random.random() < 0.2:
        name = random.choice(list(stored))
        odd = (np.zeros((12, 8, 8, 3), np.uint8), np.array([{}] * 12, object), np.zeros(0, np.uint8), np.float64(3))
        stored[name] = np.asarray(random.choice(odd))
    if random.random() < 0.1:
        del stored[random.choice(list(stored))]
    if random.random() < 0.05:
        stored["train_images"] = np.zeros((3000, 64, 64), np.uint8)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", random.choice(METHODS if random.random() < 0.95 else ODD_METHODS)) as packed:
        for name, array in stored.items():
            packed.writestr(f"{name}.npy", _npy(array, random))
    return stream.getvalue()


@cache
def _configs() -> tuple[str, ...]:
    return tuple(path.read_text(encoding="utf-8") for path in sorted(CONFIGS.glob("*.toml")))


def config(random: Random) -> bytes:
    """One of the project's configs; with odd values, keys, sections or nesting at times."""
    lines = random.choice(_configs()).splitlines()
    for _ in range(random.choice((0, 1, 1, 2, 5))):
        at = random.randrange(len(lines))
        name = lines[at].partition("=")[0].strip() or "odd"
        values = (*ODD_TEXTS, '"text"', "1", "0.5", "-3", "inf", "nan", "1979-05-27", "[1, 'a']", "{a = 1}", "true")
        odd = (
            f"{name} = {random.choice(values)}",
            f"{name} = {'[' * 5000}",
            f"{name} = {'[' * 300}{']' * 300}",
            f"{'.'.join('a' * 2000)} = 1",
            f"[{name}]",
            f"[[{name}]]",
            f'{name}.{name} = "{random.choice(ODD_TEXTS)}"',
            f'"{random.choice(ODD_TEXTS)}" = 1',
            f"{name} = 0x{'f' * 5000}",
            random.choice(ODD_TEXTS),
        )
        lines[at] = random.choice(odd)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def table(random: Random) -> bytes:
    """A predictions table; with odd cells, columns, separators or line ends at times."""
    header = list(PREDICTION_COLUMNS)
    rows = [
        [f"test/NORMAL/{n}.jpeg", "test", f"g{n % 3}", "normal", "NORMAL", "0.5", "-0.5", "0.2689414213699951", "1"]
        for n in range(8)
    ]
    rows[-1][3:8] = ["virus", "PNEUMONIA", "-1.0", "1.0", "0.8807970779778823"]
    for _ in range(random.choice((0, 1, 1, 3))):
        random.choice([header, *rows])[random.randrange(len(header))] = random.choice((*ODD_TEXTS, "x" * 140_000))
    if random.random() < 0.2:
        gone = random.randrange(len(header))
        for row in (header, *rows):
            del row[gone]
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter=random.choice((",",) * 8 + (";", "\t")), lineterminator="\r\n")
    writer.writerows([header, *rows])
    return stream.getvalue().encode("utf-8", "surrogatepass")


def lines(random: Random) -> bytes:
    """A ledger of looks; with odd lines at times."""
    look = {"schema_version": 1, "date": "2026-01-01", "split": "test", "result": {"accuracy": 0.5}}
    written = [json.dumps({**look, "step": step}) for step in range(4)]
    for _ in range(random.choice((0, 1, 2))):
        odd = ("[1]", "3", "null", '{"a":' * 3000, "[" * 100_000, "9" * 5000, '{"a": NaN}', *ODD_TEXTS)
        written[random.randrange(len(written))] = random.choice(odd)
    return ("\n".join(written) + random.choice(("\n", ""))).encode("utf-8", "surrogatepass")


@cache
def _weights() -> tuple[dict[str, dict], bytes]:
    """Header and data of a safetensors file that fits mobilenetv2_tiny."""
    from cxr_jax.models.original_names import expected_tensors
    from cxr_jax.models.registry import model_shapes

    _, params, batch_stats = model_shapes("mobilenetv2_tiny", classes=2)
    header, end = {}, 0
    for name, shape in expected_tensors(params | batch_stats).items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    return header, np.full(end // 4, 0.01, np.float32).tobytes()


def weights(random: Random) -> bytes:
    """A safetensors file; with an odd header at times."""
    header, data = _weights()
    header = {name: dict(value) for name, value in header.items()}
    header["__metadata__"] = {"architecture": "mobilenetv2_tiny", "mean": "[0.5, 0.5, 0.5]"}
    for _ in range(random.choice((0, 1, 2))):
        name = random.choice(list(header))
        odd = (
            ("dtype", random.choice(("F16", "BF16", "F64", "I8", "F8_E4M3", "BOOL", "U64", "X"))),
            ("shape", random.choice(([], [0], [-1], [2**62, 2**62], [1] * 300, "a", [3.5]))),
            ("data_offsets", random.choice(([0, 4], [4, 0], [0, 2**63], [-4, 0], [0], "a"))),
            ("architecture", random.choice(ODD_TEXTS)),
            ("mean", random.choice(ODD_TEXTS)),
            ("sha256", random.choice(ODD_TEXTS)),
        )
        key, value = random.choice(odd)
        header[name][key] = value
    if random.random() < 0.1:
        del header[random.choice(list(header))]
    if random.random() < 0.1:
        header[random.choice(ODD_TEXTS)] = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    text = json.dumps(header).encode()
    if random.random() < 0.05:
        text = random.choice((b'{"a":' * 20_000, b"[]", b"{}", b"null", b""))
    length = len(text) if random.random() < 0.9 else random.choice(ODD_NUMBERS)
    return struct.pack("<Q", length) + text + data
