"""NIH ChestX-ray14 in the layout in which it is published, drawn small."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr_jax.commands import prepare as command
from cxr_jax.config.schema import DataConfig
from cxr_jax.data.cache import encoded_images
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.sources import find_source
from cxr_jax.data.sources.nih import NIH_FINDINGS, years
from cxr_jax.data.split_loading import load_split
from cxr_jax.errors import UserError

# the header as it is published, in which a comma parts the names of one column in two
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
LABELS = ("No Finding", "Effusion", "Effusion|Mass", "Cardiomegaly|Effusion", "No Finding", "Mass")


def line(number, label=None, patient=None, age="058Y"):
    patient = number // 2 + 1 if patient is None else patient
    return (
        f"{name(number)},{LABELS[number % 6] if label is None else label},0,{patient},{age},M,PA,2682,2749,0.143,0.143,"
    )


def name(number):
    return f"{number // 2 + 1:08d}_{number % 2:03d}.png"


@pytest.fixture
def nih(tmp_path, monkeypatch):
    """24 images of 12 patients in two folders; the last four patients are in the official test list."""
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path / "prepared"))
    top = tmp_path / "ChestXray14"
    random = np.random.default_rng(0)
    for number in range(24):
        place = top / f"images_{number % 2 + 1:03d}" / "images" / name(number)
        place.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(place), random.integers(0, 255, (32, 32)).astype(np.uint8))
    write(top, [line(number) for number in range(24)])
    (top / "train_val_list.txt").write_text("".join(f"{name(i)}\n" for i in range(16)))
    (top / "test_list.txt").write_text("\n".join(name(i) for i in range(16, 24)))
    (top / "README_CHESTXRAY.pdf").write_bytes(b"%PDF")
    return top


def write(top: Path, lines) -> None:
    (top / "Data_Entry_2017.csv").write_text("\n".join([HEADER, *lines]) + "\n")


def test_the_published_layout_is_prepared_with_official_splits_and_patients(nih, capsys):
    command.main([str(nih)])
    prepared = PreparedData.open("nih")
    assert (prepared.kind, prepared.classes) == ("findings", ("Cardiomegaly", "Effusion", "Mass"))
    assert prepared.card["schema_version"] == 3
    by_name = {Path(example.file).name: example for example in prepared.examples}
    assert len(by_name) == 24
    for number in range(24):
        found = by_name[name(number)]
        assert (found.label, found.group) == (LABELS[number % 6], str(number // 2 + 1))
        assert found.split == ("train" if number < 16 else "test")
        assert dict(found.known) == {"age": "58", "sex": "M", "view": "PA"}
    assert prepared.card["proof"]["holds"]
    assert prepared.card["counts"]["test"] == {"Cardiomegaly": 1, "Effusion": 3, "Mass": 3}
    assert prepared.card["without_findings"] == {"train": 5, "test": 3}
    assert prepared.card["known"]["train"] == {"age": {"58": 16}, "sex": {"M": 16}, "view": {"PA": 16}}
    printed = " ".join(capsys.readouterr().out.split())
    for told in (
        "Groups are those that the table",
        "No training image shows Atelectasis",
        "README_CHESTXRAY.pdf: no JPEG",
    ):
        assert told in printed
    assert "Proof: no group and no identical file is in two splits." in printed
    command.main([str(nih)])
    assert "Nothing to do" in capsys.readouterr().out


def test_the_stored_records_and_the_splits_have_a_label_for_each_finding(nih):
    import tensorflow_datasets as tfds

    command.main([str(nih)])
    prepared = PreparedData.open("nih")
    assert len(list(encoded_images(prepared))) == 24
    config = DataConfig(dataset="nih", image_size=32)
    train, val, test = (load_split(prepared, config, split) for split in ("train", "val", "test"))
    assert (test.labels.dtype, test.labels.shape) == (np.float32, (8, 3))
    of_file = {Path(file).name: labels.tolist() for file, labels in zip(test.files, test.labels, strict=True)}
    assert of_file[name(21)] == [1, 1, 0]
    assert of_file[name(22)] == [0, 0, 0]
    assert not set(train.groups) & set(val.groups)
    assert len(train) + len(val) == 16
    folder = next(prepared.records.glob("*/*/dataset_info.json")).parent
    builder = tfds.builder_from_directory(folder)
    stored = builder.as_data_source("test", decoders={"image": tfds.decode.SkipDecoding()})
    assert [record["label"].tolist() for record in stored] == test.labels.tolist()


def test_findings_that_are_asked_for_alone_are_labels(nih):
    listing = find_source(nih, ("Mass",)).listing
    assert listing.classes == ("Mass",)
    assert {entry.findings for entry in listing.entries} == {"Mass", "No Finding"}
    assert "those that were asked for are labels: Mass." in " ".join(listing.notes)
    with pytest.raises(UserError, match=r"--classes names Gout, and the findings of NIH are Atelectasis"):
        find_source(nih, ("Gout",))


def test_a_finding_that_test_alone_shows_is_not_learnt(nih, capsys):
    write(nih, [line(number, label="Hernia|Mass" if number == 20 else None) for number in range(24)])
    listing = find_source(nih).listing
    assert listing.classes == ("Cardiomegaly", "Effusion", "Mass")
    (entry,) = [entry for entry in listing.entries if entry.place.endswith(name(20))]
    assert entry.findings == "Mass"
    assert "Fibrosis, Pleural_Thickening, Hernia: a network gives no answer" in " ".join(listing.notes)
    with pytest.raises(UserError, match="holds no training images with Hernia: a network needs both to learn it"):
        find_source(nih, ("Mass", "Hernia"))


def test_without_the_lists_whole_patients_are_cut_for_test(nih, capsys):
    for path in nih.glob("*_list.txt"):
        path.unlink()
    command.main([str(nih)])
    prepared = PreparedData.open("nih")
    splits = {}
    for example in prepared.examples:
        splits.setdefault(example.group, set()).add(example.split)
    assert {len(found) for found in splits.values()} == {1}
    assert "stratified by the rarest finding of an image" in " ".join(capsys.readouterr().out.split())


def test_a_change_of_a_label_or_of_a_list_is_another_source(nih):
    before = find_source(nih).listing.stamp
    assert find_source(nih).listing.stamp == before
    write(nih, [line(number, label="Mass" if number == 1 else None) for number in range(24)])
    assert find_source(nih).listing.stamp != before


def change(nih, what):
    lines = [line(number) for number in range(24)]
    if what == "no such finding":
        write(nih, [*lines[:-1], line(23, label="Effusion|Gout")])
    elif what == "twice":
        write(nih, [*lines, line(3, label="Mass")])
    elif what == "beside none":
        write(nih, [*lines[:-1], line(23, label="Effusion|No Finding")])
    elif what == "patient in two":
        write(nih, [*lines[:-1], line(23, patient=1)])
    elif what == "files missing":
        write(nih, [*lines, *(line(number, patient=90) for number in range(30, 37))])
        with (nih / "train_val_list.txt").open("a") as file:
            file.writelines(f"{name(number)}\n" for number in range(30, 37))
    elif what == "in both lists":
        with (nih / "test_list.txt").open("a") as file:
            file.write(f"\n{name(0)}\n")
    elif what == "in no list":
        (nih / "test_list.txt").write_text("\n".join(name(i) for i in range(18, 24)))
    elif what == "one list":
        (nih / "test_list.txt").unlink()
    elif what == "column":
        text = (nih / "Data_Entry_2017.csv").read_text()
        (nih / "Data_Entry_2017.csv").write_text(text.replace("Patient ID", "Person"))
    elif what == "two tables":
        (nih / "Data_Entry_2017_v2020.csv").write_text("x")
    elif what == "always there":
        write(nih, [line(number, label="Effusion") for number in range(24)])


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("no such finding", "row 25, column Finding Labels: 'Gout' is none of the findings Atelectasis"),
        ("twice", r"row 26.*00000002_001.png has the label Mass here, and Cardiomegaly\|Effusion in row 5"),
        ("beside none", r"row 25.*names findings beside 'No Finding'"),
        ("patient in two", "groups of column Patient ID in two splits, 1: put each into one"),
        (
            "files missing",
            r"names 7 of 31 files that are not in .*: 00000016_000.png.*00000018_000.png and 2 more; put them there",
        ),
        ("in both lists", "train_val_list.txt and test_list.txt both name 00000001_000.png"),
        ("in no list", "2 images of the table stand in neither train_val_list.txt nor test_list.txt: 00000009_000"),
        ("one list", "test_list.txt is missing, and the other official list is there"),
        ("column", "has no column Patient ID; it has Image Index"),
        ("two tables", "holds Data_Entry_2017.csv and Data_Entry_2017_v2020.csv: keep one"),
        ("always there", "holds no training images without Effusion: a network needs both"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(nih, what, sentence):
    change(nih, what)
    with pytest.raises(UserError, match=sentence) as error:
        command.main([str(nih)])
    assert "\n" not in str(error.value)
    assert not (nih.parent / "prepared" / "nih").exists()


@pytest.mark.parametrize(
    ("cell", "age"), [("058Y", "58"), ("58", "58"), ("011M", "0"), ("414", ""), ("", ""), ("old", "")]
)
def test_ages_are_whole_years(cell, age):
    assert years(cell) == age


def test_subtypes_are_no_findings(nih):
    with pytest.raises(UserError, match="--subtypes are of pneumonia"):
        command.main([str(nih), "--subtypes"])


def test_there_are_fourteen_findings():
    assert len(set(NIH_FINDINGS)) == 14
