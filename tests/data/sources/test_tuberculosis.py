"""The tuberculosis sets of Shenzhen and Montgomery in the layouts in which they are published."""

import pytest

from cxr_jax.data.sources import find_source
from cxr_jax.data.sources.leftovers import MASKS
from cxr_jax.errors import UserError

from .listed import told

SHENZHEN = [f"CXR_png/CHNCXR_{number:04d}_{number % 2}.png" for number in range(1, 5)]
MONTGOMERY = [f"CXR_png/MCUCXR_{number:04d}_{number % 2}.png" for number in range(1, 5)]


def readings(root, names, text):
    for name in names:
        path = root / name.replace("CXR_png", "ClinicalReadings").replace(".png", ".txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_shenzhen(grow):
    root = grow(*SHENZHEN, "mask/CHNCXR_0001_1_mask.png", "NLM-ChinaCXRSet-ReadMe.docx")
    readings(root, SHENZHEN, "male 45yrs\nnormal")
    source = find_source(root)
    listing = source.listing
    assert (source.kind, listing.kind, listing.name) == ("tuberculosis", "exclusive", "shenzhen")
    assert listing.classes == ("normal", "tuberculosis")
    assert {entry.place: entry.label for entry in listing.entries} == {name: int(name[-5]) for name in SHENZHEN}
    assert dict(listing.entries[0].known) == {"set": "shenzhen", "age": "45", "sex": "M"}
    assert sum(told(source).values()) == 2


def test_montgomery_with_masks_that_are_called_like_the_films(grow):
    masks = [name.replace("CXR_png", f"ManualMask/{side}Mask") for name in MONTGOMERY for side in ("left", "right")]
    root = grow(*MONTGOMERY, *masks)
    readings(root, MONTGOMERY, "Patient's Sex: F\nPatient's Age: 027Y\nnormal\n")
    source = find_source(root)
    assert source.listing.name == "montgomery"
    assert [entry.place for entry in source.listing.entries] == sorted(MONTGOMERY, key=lambda name: (name[-5], name))
    assert dict(source.listing.entries[0].known) == {"set": "montgomery", "age": "27", "sex": "F"}
    assert told(source) == {(f"ManualMask/{side}Mask", MASKS): 4 for side in ("left", "right")}


def test_both_together(grow):
    root = grow(*(f"Shenzhen/{name}" for name in SHENZHEN), *(f"MontgomerySet/{name}" for name in MONTGOMERY))
    listing = find_source(root).listing
    assert (listing.name, len(listing.entries)) == ("tuberculosis", 8)
    assert {dict(entry.known)["set"] for entry in listing.entries} == {"shenzhen", "montgomery"}
    assert dict(listing.entries[0].known)["age"] == ""


def test_films_of_one_class_alone_are_refused(grow):
    with pytest.raises(UserError, match="no training images of class tuberculosis: two classes are needed"):
        find_source(grow(*(name for name in SHENZHEN if name.endswith("_0.png"))))
