"""The command's work beside an archive that does not behave, or is gone."""

import threading
import time

import pytest

from cxr_jax.serving.dicomweb.connection import ArchiveError
from cxr_jax.serving.dicomweb.multipart import encode_parts
from tests.serving.dicomweb.conftest import FIRST, SECOND
from tests.serving.dicomweb.stored_pairs import finished


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


def test_results_of_others_do_not_bring_back_a_study_that_was_set_aside(archive, looking, radiograph):
    archive.add(radiograph(FIRST), radiograph(FIRST, 2))
    archive.fault = lambda request: request.path.endswith(f"/instances/{FIRST}.1.2") and request.answer(500) is None
    assert looking().unfinished == 1
    assert len(archive.sent) == 2
    archive.requests.clear()
    assert looking().unfinished == 1
    assert not [request for request in archive.requests if request.path.startswith(f"/studies/{FIRST}/")]


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


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
