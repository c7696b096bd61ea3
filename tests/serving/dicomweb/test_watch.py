"""The command's work beside an archive that behaves."""

import json
import re
import threading

import pytest

from cxr_jax.errors import UserError
from cxr_jax.serving.dicomweb.connection import ArchiveError
from cxr_jax.serving.dicomweb.watch import Pass, Since
from tests.serving.dicomweb.archive_server import header
from tests.serving.dicomweb.conftest import FIRST, SECOND, SECRET
from tests.serving.dicomweb.stored_pairs import finished, pairs


def test_every_radiograph_is_predicted_once_whatever_is_started_anew(archive, looking, radiograph):
    archive.add(radiograph(FIRST, 1), radiograph(FIRST, 2), radiograph(FIRST, 1, Modality="CR"), radiograph(SECOND, 1))
    archive.page = 1  # fewer than are asked for at a time
    assert looking() == Pass(studies=2, unfinished=0)
    assert finished(archive, FIRST, SECOND) and len(archive.sent) == 8
    for uid, made in ((made.SOPInstanceUID, made) for kind in ("SR", "OT") for made in archive.made(kind)):
        assert made.PatientName == header(archive.files[uid]).PatientName and SECRET in str(made.PatientName)
    looking()
    looking(journal="another.jsonl")
    assert len(archive.sent) == 8
    assert [re.sub("study [0-9a-f]{12}: ", "", line) for line in looking.said] == [
        "3 images predicted, report and heat map stored",
        "1 image predicted, report and heat map stored",
        "3 images done before",
        "1 image done before",
    ]


def test_a_settled_study_is_not_asked_for_again(archive, looking, radiograph):
    archive.add(radiograph(FIRST))
    looking()
    looking()
    archive.requests.clear()
    looking()
    assert {request.path for request in archive.requests} == {"/studies"}


def test_an_archive_that_counts_nothing_is_asked_each_time(archive, looking, radiograph):
    archive.counts = False
    archive.add(radiograph(FIRST, 1))
    looking()
    archive.add(radiograph(FIRST, 2))
    looking()
    looking()
    assert finished(archive, FIRST) and len(archive.sent) == 4


def test_new_images_of_a_study_are_predicted_when_they_come(archive, looking, radiograph):
    archive.add(radiograph(FIRST, 1))
    looking()
    archive.add(radiograph(FIRST, 2))
    looking()
    assert finished(archive, FIRST) and len(archive.sent) == 4
    assert "1 image predicted, report and heat map stored; 1 image done before" in looking.said[-1]


@pytest.mark.parametrize("kind", ["SR", "OT"])
def test_what_a_crash_left_out_is_made_and_nothing_else(archive, looking, radiograph, kind):
    archive.add(radiograph(FIRST))
    looking()
    (lost,) = archive.made(kind)
    del archive.files[lost.SOPInstanceUID]
    archive.sent.clear()
    looking(journal="another.jsonl")
    assert finished(archive, FIRST) and archive.sent == [lost.SOPInstanceUID]


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"ViewPosition": "LL"}, "another view than from the front"),
        ({"BodyPartExamined": "ABDOMEN"}, "another body part than the chest"),
        ({"BodyPartExamined": f"{SECRET}"}, "another body part than the chest"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.1.1.1"}, "a detector's raw values"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "a detector's raw values"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.11"}, "no radiograph"),
        ({"PixelData": None}, "it holds no image"),
        ({"PixelData": b"\0\0"}, "is truncated"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "in colour"),
    ],
)
def test_what_is_no_frontal_chest_is_passed_over_once_and_for_all(archive, looking, radiograph, elements, reason):
    archive.add(radiograph(FIRST, 1, **elements), radiograph(FIRST, 2))
    assert looking().unfinished == 0
    fetched = [request.path for request in archive.requests if request.path.endswith(".1")]
    assert pairs(archive) == {f"{FIRST}.1.2": [1, 1]}
    assert reason in looking.said[0] and "1 image predicted" in looking.said[0]
    looking()
    assert fetched == [request.path for request in archive.requests if request.path.endswith(".1")]


def test_studies_without_radiographs_and_older_ones_are_left_alone(archive, looking, radiograph):
    archive.add(radiograph(FIRST, 1, Modality="MR"))
    looking()
    assert archive.requests[0].query["StudyDate"] == "20261101-"
    assert not archive.sent and not looking.said


def test_an_image_beyond_all_bounds_is_passed_over(archive, looking, radiograph, monkeypatch):
    monkeypatch.setattr("cxr_jax.serving.dicomweb.archive.MAX_BYTES", 1000)
    archive.add(radiograph(FIRST))
    assert looking().unfinished == 0
    assert "1 image passed over" in looking.said[0] and "sent more than" in looking.said[0]


def test_a_plain_file_is_taken_as_well_as_one_in_parts(archive, looking, radiograph):
    data = radiograph(FIRST)
    archive.add(data)
    archive.fault = lambda request: (
        "/instances/" in request.path and request.answer(200, data, "application/dicom") is None
    )
    looking()
    assert finished(archive, FIRST)


def test_what_a_person_took_out_of_the_archive_is_not_put_back(archive, looking, radiograph):
    archive.add(radiograph(FIRST, 1))
    looking()
    looking()
    for made in archive.made("SR") + archive.made("OT"):
        del archive.files[made.SOPInstanceUID]
    archive.sent.clear()
    assert looking().unfinished == 0
    archive.add(radiograph(FIRST, 2))
    assert looking().unfinished == 0
    assert pairs(archive) == {f"{FIRST}.1.2": [1, 1]}


def test_a_stop_is_obeyed_between_two_studies(archive, looking, radiograph):
    archive.add(radiograph(FIRST, 1), radiograph(FIRST, 2), radiograph(SECOND))
    stop = threading.Event()
    archive.fault = lambda request: request.method == "POST" and stop.set()
    with looking.opened(stop=stop) as watch:
        watch.once()
    assert finished(archive, FIRST)


def test_who_signs_in(archive, looking, radiograph, tmp_path):
    archive.add(radiograph(FIRST))
    token, password = tmp_path / "token", tmp_path / "password"
    token.write_text("old\n")
    password.write_text("open sesame\n")
    right = {"Bearer new", "Basic dTpvcGVuIHNlc2FtZQ=="}
    archive.fault = lambda request: request.headers.get("Authorization") not in right and request.answer(401) is None
    with pytest.raises(ArchiveError, match="asks who is there"):
        looking()
    with pytest.raises(ArchiveError, match="asks who is there"):
        looking(token_file=token)
    with looking.opened(token_file=token) as watch:
        token.write_text("new")
        assert watch.once().unfinished == 0
        token.unlink()
        with pytest.raises(ArchiveError, match="cannot be read"):
            watch.once()
    assert looking(user="u", password_file=password).studies == 1
    assert finished(archive, FIRST)


def test_two_at_once_do_not_double(archive, looking, radiograph):
    archive.add(radiograph(FIRST), radiograph(SECOND))
    with looking.opened("one.jsonl") as one, looking.opened("two.jsonl") as two:
        threads = [threading.Thread(target=watch.once) for watch in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert finished(archive, FIRST, SECOND)


def test_a_journal_is_one_process_s_and_survives_a_crash(looking, tmp_path, archive, radiograph):
    archive.add(radiograph(FIRST))
    looking()
    looking()
    path = tmp_path / "journal.jsonl"
    whole = path.read_text()
    path.write_text(whole + whole.splitlines()[-1][:60])
    looking()
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("state") or line["failures"] for line in kept] == ["stored", 0]
    with looking.opened(), pytest.raises(UserError, match="another process works with the journal"):
        looking()
    for notes in ("my notes\n", "my notes", '{"mine": 1}\n', "[]\n", "\n"):
        path.write_text(notes)
        with pytest.raises(UserError, match="is no journal"):
            looking()
        assert path.read_text() == notes


@pytest.mark.parametrize(
    ("text", "valid"), [("7d", True), ("0d", True), ("2026-11-20", True), ("yesterday", False), ("2026-13-01", False)]
)
def test_since(text, valid):
    if valid:
        assert re.fullmatch("[0-9]{8}", Since.read(text).digits())
    else:
        with pytest.raises(UserError, match="--since"):
            Since.read(text)
