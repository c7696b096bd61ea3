#!/usr/bin/env python
"""Predicts on radiographs with the network in this folder: JPEG and PNG files, 8 or 16 bits.

    python predict.py film.png other.jpeg

Needs numpy, opencv-python-headless and onnxruntime. Research software. Not a medical device; not for diagnosis or
treatment.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import sys
from pathlib import Path

import cv2
import numpy as np

# onnxruntime from 1.29 on tells its maker of every network that is loaded, unless this stands there before its import
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
import onnxruntime

INTERPOLATIONS = {"area": cv2.INTER_AREA, "linear": cv2.INTER_LINEAR, "cubic": cv2.INTER_CUBIC}
REDUCED = {
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    1: cv2.IMREAD_GRAYSCALE,
}

SYNTHETIC = b"Synthetic\0not a radiograph"
"""What the file of an image says that a generator made."""


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Returns width and height of a JPEG, as its frame header says; None if it has none."""
    position = 2
    while position + 9 < len(data) and data[position] == 0xFF:
        marker, length = data[position + 1], struct.unpack(">H", data[position + 2 : position + 4])[0]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            return width, height
        position += 2 + length
    return None


def png_notes(data: bytes) -> tuple[int, int]:
    """Returns EXIF's orientation of a PNG, 1 to 8, and how many bits of a sample count, 0 where it does not say."""
    orientation, bits, position = 0, 0, 8
    while position + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        content = data[position + 8 : position + 8 + length]
        if kind == b"sBIT" and len(set(content)) == 1:
            bits = content[0]
        if kind == b"eXIf" and not orientation:
            orientation = orientation_of(content.removeprefix(b"Exif\0\0"))
        position += 12 + length
    return orientation or 1, bits


def orientation_of(block: bytes) -> int:
    """Returns the orientation that a block of EXIF tells, 1 to 8; 1, which is upright, if it tells none."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None or len(block) < 8:
        return 1
    (start,) = struct.unpack(f"{order}L", block[4:8])
    (count,) = struct.unpack(f"{order}H", block[start : start + 2]) if start + 2 <= len(block) else (0,)
    for at in range(start + 2, min(start + 2 + 12 * count, len(block) - 11), 12):
        tag, kind, _, value = struct.unpack(f"{order}HHLH", block[at : at + 10])
        if tag == 0x0112:
            return value if kind == 3 and 1 <= value <= 8 else 1
    return 1


def upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Returns an image turned and mirrored as EXIF's `orientation` asks."""
    image = cv2.transpose(image) if orientation > 4 else image
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return image if flip is None else cv2.flip(image, flip)


def white_of(colours: np.ndarray, bits: int) -> int:
    """Returns the value of white in an image: of 16 bits 65535, or less where fewer are stated or used."""
    if colours.dtype == np.uint8:
        return 255
    highest = int(colours.max())
    if 8 <= bits < 16 and highest < 2**bits:
        return 2**bits - 1
    return 4095 if highest < 4096 else 65535


def grey_of(data: bytes, size: int, resize: str) -> tuple[np.ndarray, tuple[int, int]] | None:
    """Returns a file as grey uint8 [H, W] and the height and width whose aspect ratio counts; None if unreadable."""
    bytes_of_file = np.frombuffer(data, np.uint8)
    frame = jpeg_size(data) if data.startswith(b"\xff\xd8\xff") else None
    if frame:
        side = max(frame) if resize == "pad" else min(frame)
        divisor = next(divisor for divisor in REDUCED if divisor == 1 or side // divisor >= 2 * size)
        image = cv2.imdecode(bytes_of_file, REDUCED[divisor])
        if image is None:
            return None
        width, height = frame
        turned = (height > width) != (image.shape[0] > image.shape[1])
        return image, (width, height) if turned else (height, width)
    image = cv2.imdecode(bytes_of_file, cv2.IMREAD_UNCHANGED)
    if image is None:
        return None
    orientation, bits = png_notes(data)
    image = upright(image, orientation)
    white = white_of(image[..., :3] if image.ndim == 3 else image, bits)
    if image.ndim == 3:
        highest = np.iinfo(image.dtype).max
        alpha = image[..., 3] if image.shape[2] == 4 else None
        kind, image = image.dtype, cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_BGR2GRAY)
        image = image if alpha is None else np.rint(image * (alpha / highest)).astype(kind)
    if white > 255:
        image = ((image.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
    return image, image.shape


def resized(image: np.ndarray, height: int, width: int, interpolation: str) -> np.ndarray:
    """Returns uint8 [H, W] resized to [height, width]: axes that shrink first, then axes that grow."""
    smaller = (min(image.shape[1], width), min(image.shape[0], height))
    image = cv2.resize(image, smaller, interpolation=INTERPOLATIONS[interpolation])
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)


def to_square(image: np.ndarray, shape: tuple[int, int], size: int, resize: str, interpolation: str) -> np.ndarray:
    """Returns grey uint8 [H, W] as the square [size, size] that the network was trained on."""
    height, width = image.shape
    if resize == "crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
    if resize != "pad":
        return resized(image, size, size, interpolation)
    scale = size / max(shape)
    inner_height, inner_width = (max(1, round(side * scale)) for side in shape)
    square = np.zeros((size, size), np.uint8)
    top, left = (size - inner_height) // 2, (size - inner_width) // 2
    inner = resized(image, inner_height, inner_width, interpolation)
    square[top : top + inner_height, left : left + inner_width] = inner
    return square


def main(names: list[str]) -> int:
    """Prints a line for each file; returns 1 if one could not be predicted."""
    folder = Path(__file__).resolve().parent
    bundle = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    model = (folder / "model.onnx").read_bytes()
    stated = next(content["sha256"] for content in bundle["files"] if content["name"] == "model.onnx")
    if hashlib.sha256(model).hexdigest() != stated:
        print("predict.py: model.onnx is not the file that was exported", file=sys.stderr)
        return 1
    if not names:
        print("predict.py: name at least one JPEG or PNG file", file=sys.stderr)
        return 2
    if bundle["network"].get("lung_boxes"):
        print("predict.py: this network sees the lungs' box alone, which cxr-jax predict finds", file=sys.stderr)
        return 1
    network, session = bundle["network"], onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    failed = 0
    for name in names:
        try:
            data = Path(name).read_bytes()
            read = grey_of(data, network["image_size"], network["resize"])
        except (OSError, cv2.error):
            read = None
        if read is not None and SYNTHETIC in data:
            print(f"predict.py: {name} is no radiograph: its file says that it is synthetic", file=sys.stderr)
            failed = 1
            continue
        if read is None:
            print(f"predict.py: {name} cannot be read as JPEG or PNG", file=sys.stderr)
            failed = 1
            continue
        square = to_square(*read, network["image_size"], network["resize"], network["interpolation"])
        if network.get("clarify") == "clahe":
            square = cv2.createCLAHE(2.0, (8, 8)).apply(square)
        limit = bundle.get("feature_limit")
        outputs = ["probability", "distance"] if limit else ["probability"]
        probability, *distance = session.run(outputs, {"images": square[None]})
        shown = [f"P({label}) {value:.6f}" for label, value in zip(network["classes"], probability[0], strict=True)]
        called = [
            call["label"]
            for call in bundle["calls"]
            if probability[0][network["classes"].index(call["label"])] >= call["threshold"]
        ]
        told = f"called {', '.join(called) or network['classes'][0]}" if bundle["calls"] else "no threshold was fixed"
        if bundle["kind"] == "findings":
            told = f"called {', '.join(called) or 'No Finding'}" if bundle["calls"] else told
        elif network["classes"] != ["NORMAL", "PNEUMONIA"]:
            told = f"called {network['classes'][probability[0].argmax()]}, the highest probability"
        if limit and distance[0][0] > limit["distance"]:
            told += " (unlike the radiographs that this network learned from)"
        print(name, *shown, told, sep="  ")
    if bundle.get("films"):
        print(bundle["films"])
    print(bundle["disclaimer"])
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
