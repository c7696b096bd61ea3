"""The command's work beside an archive that behaves, and beside one that does not."""

import contextlib
import json
import re
import threading
import time

import pytest

from cxr_jax.errors import UserError
from cxr_jax.serving.dicomweb.archive import Archive
from cxr_jax.serving.dicomweb.connection import Access, ArchiveError, Connection
from cxr_jax.serving.dicomweb.journal import Journal
from cxr_jax.serving.dicomweb.multipart import encode_parts
from cxr_jax.serving.dicomweb.watch import Pass, Since, Watch
from tests.serving.dicomweb.archive_server import header
from tests.serving.dicomweb.conftest import FIRST, SECOND, SECRET


@pytest.fixture(autouse=True)
def unwritten_captions(monkeypatch):
    """Pictures are stored without their text, which takes most of their time; other tests look at them."""
    monkeypatch.setattr("cxr_jax.serving.dicomweb.capture.with_caption", lambda picture, lines: picture)


@pytest.fixture
def looking(archive, network, tmp_path):
    """Passes over the archive, each as after a new start; `said` holds the lines of all."""
    said = []

    def once(*, journal="journal.jsonl", **access):
        with opened(journal, **access) as watch:
            return watch.once()

    @contextlib.contextmanager
    def opened(journal="journal.jsonl", *, stop=None, waits=(0.01, 0.01, 0.01), **access):
        stop = stop or threading.Event()
        connection = Connection(Access(archive.url, **{"timeout": 60, **access}), stop=stop, waits=waits)
        with Journal.open(tmp_path / journal, network.digest) as held:
            yield Watch(Archive(connection), network, held, since=Since.read("2026-11-01"), stop=stop, say=said.append)

    once.said, once.opened = said, opened
    yield once
    kept = "".join(path.read_text() for path in tmp_path.glob("*.jsonl*"))
    told = "".join(said) + kept
    assert SECRET not in told and not re.search(r"1\.2\.840|19411207|20261120", told)


def pairs(archive):
    """How often each radiograph has a report, and a picture."""
    counted = {}
    for made in archive.made("SR"):
        uid = made.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
        counted.setdefault(uid.ReferencedSOPInstanceUID, [0, 0])[0] += 1
    for made in archive.made("OT"):
        counted.setdefault(made.SourceImageSequence[0].ReferencedSOPInstanceUID, [0, 0])[1] += 1
    return counted


def finished(archive, *studies):
    """Whether every radiograph in `studies`, and no other, has one report and one picture."""
    films = {uid for uid, data in archive.files.copy().items() if header(data).Modality in ("CR", "DX")}
    wanted = {uid for uid in films if any(uid.startswith(f"{study}.") for study in studies)}
    return pairs(archive) == {uid: [1, 1] for uid in wanted}


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


def answering(status, body=b"<html>log in</html>", content_type="text/html", **headers):
    return lambda request: request.answer(status, body, content_type, **headers) or True


def trickle(request):
    request.handler.send_response(200)
    request.handler.send_header("Content-Length", "1000")
    request.handler.end_headers()
    for _ in range(100):
        request.handler.wfile.write(b" ")
        time.sleep(0.05)
    return True


def cut_off(request):
    request.handler.send_response(200)
    request.handler.send_header("Content-Length", "1000")
    request.handler.end_headers()
    request.handler.wfile.write(b"[")
    request.break_off()
    return True


FAULTS = [
    (answering(200), "something else than"),
    (answering(200, b"[{", "application/dicom+json"), "something else than"),
    (answering(200, b'[{"0020000D": {"vr": "UI", "Value": ["../x"]}}]'), "something else than"),
    (answering(200, b"[" * 100_000), "something else than"),
    (answering(200, b"--x\r\n\r\nabc", "multipart/related; boundary=x"), "something else than"),
    (answering(302, Location="http://127.0.0.1/login"), "sends to another address"),
    (answering(401), "asks who is there"),
    (answering(403), "does not allow this"),
    (answering(404), "404 Not Found"),
    (answering(500), "500 Internal Server Error"),
    (answering(503, Retry_After="0"), "503 Service Unavailable"),
    (lambda request: time.sleep(1.5) or request.break_off() or True, "did not answer within 0.5 s"),
    (trickle, "did not answer within 0.5 s"),
    (cut_off, "broke off in the middle of an answer"),
    (lambda request: request.break_off() or True, "broke off the connection"),
]


def timeout_for(sentence):
    """Seconds for a request: few where that is what is told, else so many that a busy machine never exceeds them."""
    return 0.5 if "0.5 s" in sentence else 60


@pytest.mark.parametrize(("fault", "sentence"), FAULTS)
def test_an_archive_that_gives_no_list_is_told_in_one_sentence(archive, looking, fault, sentence):
    archive.fault = fault
    with pytest.raises(ArchiveError) as told:
        looking(timeout=timeout_for(sentence))
    assert sentence in str(told.value) and "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("fault", "sentence"), [pair for pair in FAULTS if pair[0] not in (FAULTS[5][0], FAULTS[6][0])]
)
def test_a_study_that_always_fails_is_set_aside_and_the_others_are_finished(
    archive, looking, radiograph, fault, sentence
):
    archive.add(radiograph(FIRST), radiograph(SECOND))
    archive.fault = lambda request: request.path.startswith(f"/studies/{FIRST}/") and fault(request)
    assert looking(timeout=timeout_for(sentence)).unfinished == 1
    assert finished(archive, SECOND)
    (line,) = [line for line in looking.said if "failed" in line]
    assert sentence in line and line.endswith("set aside for 1 min")
    archive.requests.clear()
    assert looking().unfinished == 1
    assert not [request for request in archive.requests if request.path.startswith(f"/studies/{FIRST}/")]


def test_a_study_that_was_set_aside_is_tried_again_after_a_while_and_when_something_is_added(
    archive, looking, radiograph, monkeypatch
):
    archive.add(radiograph(FIRST))
    archive.fault = lambda request: "/instances/" in request.path and request.answer(500) is None
    looking()
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 61)
    looking()
    assert looking.said[-1].endswith("set aside for 2 min")
    monkeypatch.setattr(time, "time", lambda: clock() + 100)
    archive.fault = lambda request: False
    looking()
    assert not archive.sent
    archive.add(radiograph(FIRST, 2))
    looking()
    assert finished(archive, FIRST)


def test_a_passing_fault_is_not_noticed(archive, looking, radiograph):
    archive.add(radiograph(FIRST), radiograph(SECOND))
    met = set()

    def once_each(request):
        key = (request.method, request.path, request.query.get("ModalitiesInStudy"))
        if key in met:
            return False
        met.add(key)
        request.answer(503)
        return True

    archive.fault = once_each
    assert looking().unfinished == 0
    assert finished(archive, FIRST, SECOND) and len(archive.sent) == 4


def test_an_image_that_is_another_than_was_asked_for_is_not_predicted(archive, looking, radiograph):
    """Its results would be stored with another patient."""
    archive.add(radiograph(FIRST))
    archive.files[f"{FIRST}.1.1"], other = radiograph(FIRST), radiograph(SECOND)
    content_type, body = encode_parts([other])
    archive.fault = lambda request: "/instances/" in request.path and request.answer(200, body, content_type) is None
    assert looking().unfinished == 1
    assert not archive.sent and "other identifiers" in looking.said[0]


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


@pytest.mark.parametrize("refused", ["SR", "OT"])
def test_a_refused_half_is_told_and_sent_again_alone(archive, looking, radiograph, refused):
    archive.add(radiograph(FIRST))
    archive.refused = {refused}
    assert looking().unfinished == 1
    assert "refused 1 of 2 objects (reason 0110H)" in looking.said[0]
    archive.refused = set()
    archive.sent.clear()
    looking(journal="another.jsonl")
    assert finished(archive, FIRST) and len(archive.sent) == 1


@pytest.mark.parametrize("ending", ["break_off", "error"])
def test_a_lost_answer_stores_nothing_twice(archive, looking, radiograph, ending):
    archive.add(radiograph(FIRST))
    whole = archive.store

    def lose(request):
        if request.method != "POST":
            return False
        answer, request.answer = request.answer, lambda *_, **__: None
        whole(request)
        request.break_off() if ending == "break_off" else answer(500)
        return True

    archive.fault = lose
    assert looking().unfinished == 0
    assert finished(archive, FIRST) and len(archive.sent) == 2


def test_an_archive_that_lists_late_is_asked_again_and_sent_nothing_twice(archive, looking, radiograph):
    archive.add(radiograph(FIRST))
    archive.hidden = True
    assert looking().unfinished == 1
    assert "took 2 objects and does not list them" in looking.said[0] and len(archive.sent) == 2
    archive.hidden = False
    assert looking(journal="another.jsonl").unfinished == 0
    assert finished(archive, FIRST) and len(archive.sent) == 2


def test_an_archive_that_gives_what_it_takes_other_identifiers_is_not_filled(archive, looking, radiograph):
    """What it took is never found again, and would be stored anew at every look."""
    archive.add(radiograph(FIRST))
    archive.hidden = True
    assert looking().unfinished == 1
    assert "took 2 objects and does not list them" in looking.said[0]
    archive.add(radiograph(FIRST, 2, ViewPosition="LL"))
    assert looking().unfinished == 1
    assert "delete the journal" in looking.said[1] and len(archive.sent) == 2


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


@pytest.mark.parametrize(("status", "sentence"), [(413, "of this size"), (409, "refused 2 of 2 objects"), (400, "400")])
def test_an_archive_that_takes_nothing_is_told(archive, looking, radiograph, status, sentence):
    archive.add(radiograph(FIRST))
    archive.fault = lambda request: request.method == "POST" and request.answer(status, b"<html/>") is None
    assert looking().unfinished == 1
    assert sentence in looking.said[0]


def test_an_archive_that_is_gone_for_a_while_is_waited_for(archive, looking, radiograph):
    """The network goes off in the middle of a pass, and comes back; nothing is lost, and nothing set aside."""
    archive.add(radiograph(FIRST), radiograph(SECOND))
    stop = threading.Event()

    def vanish(request):
        if request.path.startswith(f"/studies/{SECOND}/"):
            archive.fault = lambda request: False
            threading.Thread(target=archive.stop).start()
            request.break_off()
            return True
        return False

    archive.fault = vanish
    with looking.opened(stop=stop) as watch:
        thread = threading.Thread(target=watch.forever, args=(0.02,))
        thread.start()
        wait_for(lambda: any("cannot be reached" in line for line in looking.said))
        assert finished(archive, FIRST)
        archive.start()
        wait_for(lambda: finished(archive, FIRST, SECOND))
        wait_for(lambda: any("answers again" in line for line in looking.said))
        stop.set()
        thread.join(60)
    assert not thread.is_alive() and len(archive.sent) == 4
    assert sum("cannot be reached" in line for line in looking.said) == 1


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


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
