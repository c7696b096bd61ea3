"""Public sample files as GDCM decodes them and PS3.3 shows them: what is right is computed here, from neither of ours.

The files are those that pydicom ships, and those of the package pydicom-data where it is installed. They are of all
kinds, so that each is told to be a radiograph of one frame before it is read.
"""

import io
from importlib.util import find_spec
from pathlib import Path

import gdcm
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID

from cxr_jax.data.decode import decode_grey
from cxr_jax.errors import UserError

SHIPPED = Path(pydicom.__file__).parent / "data" / "test_files"

REFUSED = {
    "liver_expb.dcm": "1 bits a pixel",
    "liver_expb_1frame.dcm": "1 bits a pixel",
    "rtdose_expb.dcm": "32 bits a pixel",
    "rtdose_expb_1frame.dcm": "32 bits a pixel",
    "JPEG2000-embedded-sequence-delimiter.dcm": "damaged",  # no decoder reads it
    "MR_truncated.dcm": "is truncated",
    "liver.dcm": "1 bits a pixel",
    "liver_1frame.dcm": "1 bits a pixel",
    "badVR.dcm": "32 bits a pixel",
    "rtdose.dcm": "32 bits a pixel",
    "rtdose_1frame.dcm": "32 bits a pixel",
    "rtdose_rle.dcm": "32 bits a pixel",
    "rtdose_rle_1frame.dcm": "32 bits a pixel",
}
"""Grey files that are not read, and why: every one of them."""


def grey_files(folder: Path) -> list[Path]:
    """The files below a folder that hold grey pixels."""
    found = []
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            try:
                made = pydicom.dcmread(path, force=True)
                if "PixelData" in made and str(made.get("PhotometricInterpretation")).startswith("MONOCHROME"):
                    found.append(path)
            except (pydicom.errors.InvalidDicomError, OSError, ValueError, TypeError, AttributeError):
                continue
    return found


def as_radiograph(path: Path) -> bytes:
    """The file with its first frame alone, of modality CR."""
    made = pydicom.dcmread(path, force=True)
    syntax = made.file_meta.TransferSyntaxUID
    if made.get("NumberOfFrames") is not None:
        try:
            frames = int(made.NumberOfFrames)
        except ValueError:
            frames = 1
        made.NumberOfFrames = 1
        if frames > 1 and UID(syntax).is_compressed:
            made.PixelData = encapsulate([next(generate_frames(made.PixelData, number_of_frames=frames))])
        elif frames > 1:
            made.PixelData = made.PixelData[: len(made.PixelData) // frames // 2 * 2]
    made.Modality = "CR"
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, made, enforce_file_format=False)
    return stream.getvalue()


def stored_by_gdcm(path: Path, made: pydicom.Dataset) -> np.ndarray:
    """The stored values of the first frame, with their sign, int64 [H, W]."""
    reader = gdcm.ImageReader()
    reader.SetFileName(str(path))
    assert reader.Read(), f"GDCM does not read {path.name}"
    image = reader.GetImage()
    width = image.GetPixelFormat().GetBitsAllocated() // 8
    words = np.frombuffer(image.GetBuffer().encode("utf-8", "surrogateescape"), f"<u{width}")
    words = words[: made.Rows * made.Columns].astype(np.int64)
    stored = words & (2**made.BitsStored - 1)
    if made.PixelRepresentation:
        stored = np.where(stored >= 2 ** (made.BitsStored - 1), stored - 2**made.BitsStored, stored)
    return stored.reshape(made.Rows, made.Columns)


def shown_by_the_standard(stored: np.ndarray, made: pydicom.Dataset) -> np.ndarray:
    """PS3.3 C.7.5.1.1.2, C.11.1, C.11.2 and C.7.6.3.1.2 pixel by pixel, float64 [H, W], 0 to 255."""
    padding = np.zeros(stored.shape, bool)
    if "PixelPaddingValue" in made:
        padding = stored == made.PixelPaddingValue
        real = stored[~padding]
        if real.size == 0 or (padding.any() and real.min() < made.PixelPaddingValue < real.max()):
            padding[:] = False
    values = stored.astype(float)
    if made.get("ModalityLUTSequence"):
        values = looked_up(values, made.ModalityLUTSequence[0], bool(made.PixelRepresentation))[0]
    else:
        values = values * float(made.get("RescaleSlope") or 1) + float(made.get("RescaleIntercept") or 0)
    if made.get("VOILUTSequence"):
        entries, bits = looked_up(values, made.VOILUTSequence[0], values.min() < 0)
        grey = entries / (2**bits - 1)
    elif made.get("WindowWidth") is not None:
        centre, width = (np.atleast_1d(made[name].value)[0] for name in ("WindowCenter", "WindowWidth"))
        centre, width = float(centre), float(width)
        grey = np.where(
            values <= centre - 0.5 - (width - 1) / 2,
            0,
            np.where(
                values > centre - 0.5 + (width - 1) / 2, 1, (values - (centre - 0.5)) / max(width - 1, 1e-9) + 0.5
            ),
        )
    else:
        low, high = values[~padding].min(), values[~padding].max()
        grey = np.clip((values - low) / max(high - low, 1e-9), 0, 1)
    if made.PhotometricInterpretation == "MONOCHROME1":
        grey = 1 - grey
    return np.where(padding, 0, 255 * grey)


def looked_up(values: np.ndarray, item: pydicom.Dataset, signed: bool) -> tuple[np.ndarray, int]:
    """What a table makes of values, and of how many bits its entries are."""
    count, first, bits = (int(part) for part in item.LUTDescriptor)
    first = first - 2**16 if signed and first >= 2**15 else first
    data = item.LUTData
    entries = np.frombuffer(data, "<u2") if isinstance(data, bytes) else np.array(data)
    entries = entries[: count or 2**16]
    return entries[np.clip(values - first, 0, len(entries) - 1).astype(int)].astype(float), bits


def check(path: Path) -> None:
    """Compare one file, or see that it is refused for the reason listed."""
    made = pydicom.dcmread(path, force=True)
    data = as_radiograph(path)
    if path.name in REFUSED:
        with pytest.raises(UserError, match=REFUSED[path.name]):
            decode_grey(data, name=path.name)
        return
    expected = shown_by_the_standard(stored_by_gdcm(path, made), made)
    assert np.abs(decode_grey(data, name=path.name) - expected).max() <= 1, path.name


SHIPPED_FILES = grey_files(SHIPPED)


@pytest.mark.parametrize("path", SHIPPED_FILES, ids=lambda path: path.name)
def test_the_files_that_pydicom_ships(path):
    check(path)


def test_there_are_files_and_every_exception_is_one_of_them():
    assert len(SHIPPED_FILES) > 50
    assert {path.name for path in SHIPPED_FILES} & set(REFUSED)


def test_the_files_of_pydicom_data():
    found = find_spec("data_store")
    if found is None or found.origin is None:
        pytest.skip("the package pydicom-data is not installed")
    files = grey_files(Path(found.origin).parent / "data")
    assert len(files) > 30
    for path in files:
        check(path)
