"""Images in a folder with a table of labels, in the columns of any program."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from cxr_jax.commands import prepare as command
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.sources import Columns, find_source
from cxr_jax.errors import UserError
from cxr_jax.vocabulary import CLASS_NAMES


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Twelve images in two folders, as some archives part them, and a file beside them."""
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path / "prepared"))
    images = tmp_path / "films"
    random = np.random.default_rng(0)
    for number in range(12):
        place = images / f"images_{number % 2 + 1:03d}" / f"{number:08d}_000.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(place), random.integers(0, 255, (40, 40)).astype(np.uint8))
    (images / "README.txt").write_text("about")
    return images


def table(folder, rows, header="Image Index,Finding,Patient ID,Fold", name="labels.csv") -> Path:
    path = folder.parent / name
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def row(number, finding, patient=None, fold="train"):
    return f"{number:08d}_000.png,{finding},{number // 2 if patient is None else patient},{fold}"


FINDINGS = ("No Finding", "Effusion", "Mass")
ROWS = [row(i, FINDINGS[i // 2 % 3], fold="test" if i >= 6 else "train") for i in range(12)]
OPTIONS = ["--file-column", "Image Index", "--label-columns", "Finding", "--group-column", "Patient ID"]


def columns(path, labels=("Finding",), group="Patient ID", split="Fold"):
    return Columns(path, "Image Index", labels, group, split)


def test_any_table_gives_classes_groups_and_splits(folder, capsys):
    path = table(folder, ROWS)
    command.main([str(folder), "--table", str(path), *OPTIONS, "--split-column", "Fold"])
    prepared = PreparedData.open("films")
    assert prepared.classes == ("Effusion", "Mass", "No Finding")
    assert [example.split for example in prepared.examples].count("test") == 6
    by_name = {Path(example.file).name: example for example in prepared.examples}
    for line in ROWS:
        name, finding, patient, fold = line.split(",")
        found = by_name[name]
        assert (found.label, found.group, found.split) == (finding, patient, fold)
        assert found.file == f"{fold}/{finding}/images_{int(name[:8]) % 2 + 1:03d}/{name}"
    told = prepared.card["source"]["table"]
    assert (told["table"], told["group"], told["labels"]) == (str(path), "Patient ID", ["Finding"])
    printed = capsys.readouterr().out
    assert "Groups are those that the table of labels names." in printed
    assert "Proof: no group and no identical file is in two splits." in printed
    assert "README.txt: no JPEG, PNG or DICOM file" in printed
    # nothing changed, so nothing is done; another label changes the data
    command.main([str(folder), "--table", str(path), *OPTIONS, "--split-column", "Fold"])
    assert "Nothing to do" in capsys.readouterr().out
    table(folder, [*ROWS[:-1], row(11, "Effusion", fold="test")])
    with pytest.raises(UserError, match="was prepared from"):
        command.main([str(folder), "--table", str(path), *OPTIONS, "--split-column", "Fold"])


def test_without_a_column_of_splits_groups_stay_whole(folder):
    command.main([str(folder), "--table", str(table(folder, ROWS)), *OPTIONS, "--classes", *FINDINGS])
    prepared = PreparedData.open("films")
    assert prepared.classes == FINDINGS
    splits = {}
    for example in prepared.examples:
        splits.setdefault(example.group, set()).add(example.split)
    assert len(splits) == 6
    assert all(len(names) == 1 for names in splits.values())
    assert "were cut for test" in " ".join(prepared.card["notes"])


def test_labels_normal_and_pneumonia_are_the_usual_classes(folder):
    rows = [row(i, CLASS_NAMES[i % 2], patient=i) for i in range(12)]
    command.main([str(folder), "--table", str(table(folder, rows)), *OPTIONS])
    prepared = PreparedData.open("films")
    assert prepared.classes == CLASS_NAMES
    assert prepared.card["schema_version"] == 1
    assert {example.group for example in prepared.examples} == {str(i) for i in range(12)}


def test_a_column_for_each_class(folder):
    header = "Image Index;Effusion;Mass;Patient ID"
    rows = [f"{i:08d}_000.png;{'1.0' if i % 2 else ''};{0 if i % 2 else 1};{i}" for i in range(12)]
    listing = find_source(folder, (), columns(table(folder, rows, header), ("Mass", "Effusion"), split="")).listing
    assert listing.classes == ("Mass", "Effusion")
    assert [entry.label for entry in sorted(listing.entries, key=lambda entry: int(entry.group))] == [0, 1] * 6


def test_a_path_below_the_folder_and_the_table_in_it(folder):
    rows = [f"images_{i % 2 + 1:03d}/{i:08d}_000.png,{FINDINGS[i % 2]},," for i in range(11)]
    path = table(folder / "images_001", rows)
    path.rename(folder / "labels.csv")
    listing = find_source(folder, (), columns(folder / "labels.csv", split="")).listing
    assert len(listing.entries) == 11
    told = {group.reason: group.files for group in listing.passed_over}
    assert told["an image that the table does not name"] == ("images_002/00000011_000.png",)
    assert not any("labels.csv" in files for files in told.values())


@pytest.mark.parametrize(
    ("rows", "options", "sentence"),
    [
        (
            [*ROWS, row(3, "Mass", patient=1)],
            {},
            "row 14.*00000003_000.png has the label Mass here, and Effusion in row 5",
        ),
        ([*ROWS, row(3, "Effusion", patient=9)], {}, "has the group 9 here, and 1 in row 5"),
        (
            [*ROWS, row(20, "Mass"), row(21, "Mass")],
            {},
            "names 2 of 14 files that are not in .*films: 00000020_000.png, 0",
        ),
        ([*ROWS[:-1], row(11, "Mass", patient=0, fold="test")], {}, "column Patient ID in two splits, 0: put"),
        ([*ROWS[:-1], row(11, "", fold="test")], {}, "row 13, column Finding: the label is missing"),
        ([*ROWS[:-1], row(11, "Mass", fold="")], {}, "row 13, column Fold: the split is missing"),
        ([*ROWS[:-1], row(11, "Mass", fold="seen")], {}, "unknown split 'seen'"),
        ([row(0, "a/b"), *ROWS[1:]], {}, "'a/b' cannot be the name of a class"),
        (
            ROWS,
            {"classes": ("No Finding", "Mass")},
            "row 4, column Finding: 'Effusion' is none of the classes No Finding",
        ),
        (ROWS, {"classes": (*FINDINGS, "Hernia")}, "no training images of class Hernia"),
        (ROWS, {"labels": ("Label",)}, "has no column Label, which --label-columns names; it has Image Index, Finding"),
        (ROWS, {"group": "Person"}, "has no column Person, which --group-column names"),
        (ROWS, {"labels": ("Fold", "Finding")}, "column Fold: 'train' is neither 0 nor 1"),
    ],
)
def test_a_mistake_is_told_in_one_sentence_with_its_place(folder, rows, options, sentence):
    classes = options.pop("classes", ()) if options else ()
    chosen = columns(table(folder, rows), **options)
    arguments = [str(folder), "--table", str(chosen.table), "--file-column", chosen.file]
    arguments += ["--label-columns", *chosen.labels]
    arguments += ["--group-column", chosen.group, "--split-column", chosen.split]
    with pytest.raises(UserError, match=sentence):
        command.main([*arguments, *(["--classes", *classes] if classes else [])])
    assert not (folder.parent / "prepared" / "films").exists()


def test_findings_that_occur_together_are_refused(folder):
    header = "Image Index,Effusion,Mass,Patient ID"
    for cells, told in (("1,1", "Effusion and Mass"), ("0,0", "none")):
        rows = [f"{i:08d}_000.png,{'1,0' if i else cells},{i}" for i in range(12)]
        with pytest.raises(
            UserError, match=f"row 2.*the row is of {told} of the classes, and an image has exactly one"
        ):
            find_source(folder, (), columns(table(folder, rows, header), ("Effusion", "Mass"), split=""))


def test_a_name_that_is_there_twice_needs_its_path(folder):
    (folder / "images_002" / "00000000_000.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"00000000_000.png lies in .*films 2 times .*: give its path"):
        find_source(folder, (), columns(table(folder, ROWS)))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--group-column", "x"], "--group-column is of a table: name it by --table"),
        (["--table", "t.csv", "--subtypes"], "--subtypes and --table exclude each other"),
        (["--table", "t.csv", "--label-columns"], "--label-columns names no column"),
        (["--table", "t.csv"], "no such file"),
    ],
)
def test_options_that_have_no_effect_are_refused(folder, options, sentence):
    with pytest.raises(UserError, match=sentence):
        command.main([str(folder), *options])


def test_a_table_is_of_a_folder(folder):
    with pytest.raises(UserError, match="is no folder: with a table of labels give the folder"):
        find_source(folder / "README.txt", (), columns(table(folder, ROWS)))


def test_findings_in_a_column_each_with_what_is_uncertain_and_blank(folder, capsys):
    header = "Image Index,Effusion,Mass,Patient ID,Patient Age"
    values = ("1,0", "0,1.0", "-1,1", ",0", "1,1", "0,0")
    rows = [f"{i:08d}_000.png,{values[i // 2 % 6]},{i // 2},{40 + i}" for i in range(12)]
    arguments = [str(folder), "--table", str(table(folder, rows, header)), "--file-column", "Image Index"]
    arguments += ["--label-columns", "Effusion", "Mass", "--group-column", "Patient ID"]
    command.main([*arguments, "--findings", "--keep-columns", "Patient Age"])
    prepared = PreparedData.open("films")
    assert (prepared.kind, prepared.classes) == ("findings", ("Effusion", "Mass"))
    by_group = {example.group: example.label for example in prepared.examples}
    assert by_group == {
        "0": "Effusion",
        "1": "Mass",
        "2": "Effusion?|Mass",
        "3": "Effusion?",
        "4": "Effusion|Mass",
        "5": "No Finding",
    }
    assert sum(prepared.card["unknown"][split]["Effusion"] for split in prepared.card["unknown"]) == 4
    assert dict(prepared.examples[0].known) in [{"Patient Age": str(40 + i)} for i in range(12)]
    printed = " ".join(capsys.readouterr().out.split())
    assert "2 labels of the table are uncertain: they carry no loss and are not judged." in printed
    assert "2 labels of the table are blank" in printed
    with pytest.raises(UserError, match="was prepared from"):
        command.main([*arguments, "--findings", "--uncertain", "present"])
    command.main([*arguments, "--findings", "--uncertain", "present", "--blank", "absent", "--name", "other"])
    assert {example.group: example.label for example in PreparedData.open("other").examples} == {
        **by_group,
        "2": "Effusion|Mass",
        "3": "No Finding",
    }


@pytest.mark.parametrize(
    ("rows", "options", "sentence"),
    [
        (
            [*ROWS[:-1], row(11, "Mass|Gout", fold="test")],
            ["--classes", "Mass", "Effusion"],
            "'Gout' is none of the find",
        ),
        ([*ROWS[:-1], row(11, "Mass|Mass", fold="test")], [], "'Mass.Mass' names a finding twice"),
        (
            [row(i, "Normal" if i % 2 else "Mass") for i in range(12)],
            [],
            "Normal is no finding, but says that there is none",
        ),
        ([*ROWS, row(3, "Mass", patient=1)], [], "row 14.*has the label Mass here, and Effusion in row 5"),
        (ROWS, ["--keep-columns", "Sex"], "has no column Sex, which --keep-columns names"),
        ([row(i, "Effusion" if i % 2 else "Mass?") for i in range(12)], [], "'Mass.' cannot be the name of a finding"),
        ([row(i, "Effusion|" if i % 2 else "Mass") for i in range(12)], [], "'' cannot be the name of a finding"),
    ],
)
def test_a_mistake_in_findings_is_told_in_one_sentence(folder, rows, options, sentence):
    arguments = [str(folder), "--table", str(table(folder, rows)), *OPTIONS, "--split-column", "Fold", "--findings"]
    with pytest.raises(UserError, match=sentence) as error:
        command.main([*arguments, *options])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["Mass?", "Mass|Nodule"])
def test_a_column_whose_name_would_mean_something_else_in_a_cell_is_refused(folder, name):
    rows = [f"{number:08d}_000.png,{number % 2},{number % 3 % 2}" for number in range(12)]
    path = table(folder, rows, header=f"Image Index,Effusion,{name}")
    columns = ["--file-column", "Image Index", "--label-columns", "Effusion", name]
    with pytest.raises(UserError, match=r"'Mass.*' cannot be the name of a finding"):
        command.main([str(folder), "--table", str(path), *columns, "--findings"])


def test_uncertain_labels_are_of_findings(folder):
    arguments = [str(folder), "--table", str(table(folder, ROWS)), *OPTIONS]
    with pytest.raises(UserError, match="say --findings if an image may show several"):
        command.main([*arguments, "--uncertain", "present"])
    with pytest.raises(UserError, match="--findings is of a table"):
        command.main([str(folder), "--findings"])
