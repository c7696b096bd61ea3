"""Lists of boxes in the layout of NIH, and every mistake in them as one sentence."""

import pytest

from cxr_jax.data.box_list import read_boxes, write_boxes
from cxr_jax.errors import UserError
from cxr_jax.images.boxes import Box

HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,\n"


def listed(folder, text):
    path = folder / "boxes.csv"
    path.write_text(text)
    return path


def test_a_list_is_read_as_nih_writes_it_with_and_without_commas_at_the_end(tmp_path):
    text = HEADER + "00000001_000.png,Mass,10,20.5,30,40\n00000002_000.png,Infiltrate,1,2,3,4,,,\n"
    path = listed(tmp_path, text)
    first, second = read_boxes(path, ()).boxes
    assert (first.file, first.finding, first.box, first.row) == ("00000001_000.png", "Mass", Box(10, 20.5, 30, 40), 2)
    assert second.finding == "Infiltration"


def test_findings_are_called_as_the_classes_of_a_run_call_them(tmp_path):
    path = listed(tmp_path, HEADER + "a.png,Pneumonia,1,2,3,4\nb.png,Infiltrate,1,2,3,4\nc.png,mass,1,2,3,4\n")
    names = [entry.finding for entry in read_boxes(path, ("NORMAL", "PNEUMONIA", "Infiltrate")).boxes]
    assert names == ["PNEUMONIA", "Infiltrate", "Mass"]


def test_what_is_written_is_read_again(tmp_path):
    boxes = [("a.png", "Mass", Box(1.0, 2.0, 3.5, 4.0)), ("b.png", "Nodule", Box(0.0, 0.0, 9.0, 8.0))]
    write_boxes(tmp_path / "boxes.csv", boxes)
    found = read_boxes(tmp_path / "boxes.csv", ()).boxes
    assert [(entry.file, entry.finding, entry.box) for entry in found] == boxes


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file,finding,x,y,w,h\na,Mass,1,2,3,4\n", r"boxes\.csv has the columns file, finding, x, y, w, h, and a list"),
        (HEADER + "a.png,Masse,1,2,3,4\n", r"row 2, column Finding Label: 'Masse' is no finding .* did you mean Mass"),
        (HEADER + "a.png,Fracture,1,2,3,4\n", r"'Fracture' is no finding of the run nor of NIH's labels"),
        (HEADER + "a.png,Mass,1,two,3,4\n", r"row 2, column y: 'two'"),
        (HEADER + "a.png,Mass,1,2,0,4\n", r"row 2, column w: the box is 0 wide and 4 high: it is empty"),
        (HEADER + ",Mass,1,2,3,4\n", r"row 2, column Image Index: the name of the image is missing"),
        (HEADER + "a.png,Mass,1,2,3\n", r"row 2 has 5 cells, but the header has 6 columns"),
        (HEADER, "has a header but no row"),
    ],
)
def test_a_mistake_is_one_sentence_with_its_place(text, sentence, tmp_path):
    with pytest.raises(UserError, match=sentence):
        read_boxes(listed(tmp_path, text), ("PNEUMONIA",))


def test_a_list_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match="there is no table at"):
        read_boxes(tmp_path / "nowhere.csv", ())
