"""CheXpert in the layout in which it is published, drawn small."""

from pathlib import Path

import pytest

from cxr_jax.data.findings import finding_labels
from cxr_jax.data.sources import Policies, find_source
from cxr_jax.errors import UserError

HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA,No Finding,Cardiomegaly,Edema,Fracture,Support Devices"


@pytest.fixture
def chexpert(tmp_path):
    """Five patients of train and two of valid; the last of train has a lateral view too."""
    rows = {
        "train": [
            row("train", 1, "Frontal,AP", "1.0,,,,1.0"),
            row("train", 2, "Frontal,AP", ",1.0,-1.0,,0.0", sex="Male"),
            row("train", 3, "Frontal,PA", ",0.0,1.0,,"),
            row("train", 4, "Frontal,AP", ",-1.0,,,", age=0),
            row("train", 5, "Frontal,AP", ",1.0,0.0,,1.0"),
            row("train", 5, "Lateral,", ",1.0,0.0,,1.0", view="view2_lateral"),
        ],
        "valid": [
            row("valid", 64541, "Frontal,AP", "0.0,1.0,0.0,0.0,0.0"),
            row("valid", 64542, "Frontal,PA", "0.0,0.0,1.0,0.0,1.0"),
        ],
    }
    for split, lines in rows.items():
        (tmp_path / f"{split}.csv").write_text("\n".join([HEADER, *lines]) + "\n")
        for line in lines:
            place = tmp_path / line.partition(",")[0].removeprefix("CheXpert-v1.0-small/")
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"image")
    return tmp_path


def row(split, patient, views, labels, *, sex="Female", age=60, view="view1_frontal"):
    return f"CheXpert-v1.0-small/{split}/patient{patient:05d}/study1/{view}.jpg,{sex},{age},{views},{labels}"


def labels(listing):
    cells = {entry.group: entry.findings for entry in listing.entries}
    rows = finding_labels(cells.values(), listing.classes)
    return {
        group: [None if label != label else int(label) for label in row] for group, row in zip(cells, rows, strict=True)
    }


def test_uncertain_is_unknown_and_blank_is_absent_unless_something_else_is_asked_for(chexpert):
    source = find_source(chexpert)
    listing = source.listing
    assert (source.kind, listing.kind, listing.name) == ("chexpert", "findings", "chexpert")
    assert listing.classes == ("Cardiomegaly", "Edema", "Support Devices")
    assert labels(listing) == {
        "patient00001": [0, 0, 1],
        "patient00002": [1, None, 0],
        "patient00003": [0, 1, 0],
        "patient00004": [None, 0, 0],
        "patient00005": [1, 0, 1],
        "patient64541": [1, 0, 0],
        "patient64542": [0, 1, 1],
    }
    told = " ".join(listing.notes)
    assert "train.csv: 2 labels of the table are uncertain: they carry no loss and are not judged." in told
    assert "they count as absent" in told
    assert "No training image shows Fracture" in told
    other = labels(find_source(chexpert, policies=Policies("present", "unknown")).listing)
    assert other["patient00002"] == [1, 1, 0]
    assert other["patient00004"] == [1, None, None]
    assert find_source(chexpert, policies=Policies("present")).listing.stamp != listing.stamp


def test_frontal_views_patients_and_splits(chexpert):
    listing = find_source(chexpert).listing
    assert {entry.split for entry in listing.entries} == {"train", "test"}
    assert [entry.place for entry in listing.entries if entry.split == "test"] == [
        f"valid/patient6454{number}/study1/view1_frontal.jpg" for number in (1, 2)
    ]
    (lateral,) = [group for group in listing.passed_over if "lateral" in group.reason]
    assert lateral.files == ("train/patient00005/study1/view2_lateral.jpg",)
    known = {entry.group: dict(entry.known) for entry in listing.entries}
    assert known["patient00002"] == {"age": "60", "sex": "M", "view": "AP"}
    assert known["patient00004"]["age"] == ""
    assert "valid.csv, which radiologists labelled, is the test split" in " ".join(listing.notes)


def test_the_findings_of_the_competition(chexpert):
    listing = find_source(chexpert, ("Edema", "Cardiomegaly")).listing
    assert listing.classes == ("Edema", "Cardiomegaly")
    assert labels(listing)["patient00002"] == [None, 1]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (",1.0,-1.0,,0.0", ",maybe,-1.0,,0.0", "row 3, column Cardiomegaly: 'maybe' is none of 1"),
        (
            "train/patient00003/",
            "train/patient00009/",
            "names 1 of 7 files that are not in .*train/patient00009/study1",
        ),
        ("train/patient00003/", "train/nobody/", "row 4, column Path: the path names no patient"),
        (
            "AP/PA,No Finding,Cardiomegaly",
            "AP/PA,No Finding,Heart",
            "valid.csv has no column Heart, which the set needs",
        ),
    ],
)
def test_a_mistake_is_told_in_one_sentence(chexpert, old, new, sentence):
    path = chexpert / "train.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(UserError, match=sentence):
        find_source(chexpert)


def test_a_patient_in_two_splits_is_refused(chexpert):
    path = chexpert / "valid.csv"
    path.write_text(path.read_text().replace("patient64541", "patient00001"))
    Path(chexpert / "valid" / "patient64541").rename(chexpert / "valid" / "patient00001")
    with pytest.raises(UserError, match="in two splits, patient00001: put each into one"):
        find_source(chexpert)


def test_policies_are_of_findings(grow):
    with pytest.raises(UserError, match="--uncertain and --blank are of findings"):
        find_source(grow("NORMAL/1.png", "PNEUMONIA/1.png"), policies=Policies("present"))
