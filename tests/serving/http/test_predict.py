"""What the service answers, asked over a real socket."""

import base64
import io
import json
import struct
import zlib
from urllib.parse import quote

import cv2
import httpx
import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from pydantic import TypeAdapter
from pydicom.dataset import FileMetaDataset

from cxr_jax.bundle.record import content_of, read_bundle
from cxr_jax.serving.http.answers import Answer, Health, Mistake
from cxr_jax.vocabulary import DISCLAIMER
from tests.serving.http.bundles import FILMS, film, probability


def dicom(level, *, pixels=True):
    """A flat radiograph as a computed radiography image."""
    data = pydicom.Dataset()
    data.SOPClassUID, data.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", "1.2.3"
    data.PatientName, data.Modality = "Secret^Name", "CR"
    if pixels:
        data.Rows, data.Columns, data.SamplesPerPixel = 32, 40, 1
        data.PhotometricInterpretation, data.PixelRepresentation = "MONOCHROME2", 0
        data.BitsAllocated = data.BitsStored = 8
        data.HighBit = 7
        data.PixelData = bytes([level]) * (32 * 40)
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    stream = io.BytesIO()
    data.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


HUGE_PNG = (
    b"\x89PNG\r\n\x1a\n"
    + chunk(b"IHDR", struct.pack(">IIBBBBB", 25_000, 20_000, 8, 0, 0, 0, 0))
    + chunk(b"IDAT", zlib.compress(bytes(1000)))
    + chunk(b"IEND", b"")
)
HUGE_JPEG = (
    b"\xff\xd8\xff\xc0\x00\x0b\x08" + struct.pack(">HH", 20_000, 25_000) + b"\x01\x01\x11\x00\xff\xda\x00\x02\xff\xd9"
)
COLOUR = cv2.imencode(".png", np.dstack([np.full((32, 40), level, np.uint8) for level in (20, 90, 200)]))[1].tobytes()


def test_every_kind_of_file_gets_its_own_answer(server, bundle):
    response = server.predict(("a.png", film(90)), ("b.jpeg", film(140, kind=".jpg")), ("c.dcm", dicom(180)))
    assert response.status_code == 200
    answer = TypeAdapter(Answer).validate_python(response.json(), strict=False)
    assert [entry.file for entry in answer.files] == ["a.png", "b.jpeg", "c.dcm"]
    # a DICOM file without a window is stretched over its grey levels
    for entry, level in zip(answer.files[:2], (90, 140), strict=True):
        assert entry.probability == pytest.approx(probability(level), abs=0.01)
        assert entry.label == ("PNEUMONIA" if level >= 128 else "NORMAL")
    for entry in answer.files:
        assert (entry.status, entry.error, entry.map) == (200, None, None)
        assert (entry.threshold, entry.threshold_rule, entry.disclaimer) == (0.5, "youden", DISCLAIMER)
        assert entry.model == "mean of flat, exported" and entry.compared_with_training
        assert entry.films == FILMS
    assert answer.rule == read_bundle(bundle).calls[0]
    assert answer.bundle_sha256 == content_of(bundle / "bundle.json").sha256
    assert (answer.model, answer.disclaimer, answer.error) == ("mean of flat, exported", DISCLAIMER, None)
    assert answer.films == FILMS


def test_a_file_that_fails_has_its_sentence_and_the_others_are_predicted(server):
    response = server.predict(("notes.txt", b"hello"), ("film.png", film(200)), ("cut.png", film(9)[:-10]))
    assert response.status_code == 200
    text, good, cut = response.json()["files"]
    assert (text["status"], text["error"]) == (415, "notes.txt is no JPEG, PNG or DICOM file by its content")
    assert (cut["status"], cut["error"]) == (422, "cut.png is truncated: the end of the PNG is missing")
    assert good["probability"] == pytest.approx(probability(200)) and good["error"] is None
    assert response.json()["error"] is None


@pytest.mark.parametrize(
    ("name", "content", "status", "sentence"),
    [
        ("a.txt", b"hello", 415, "a.txt is no JPEG, PNG or DICOM file by its content"),
        ("empty.png", b"", 415, "empty.png is no JPEG, PNG or DICOM file by its content"),
        ("no_pixels.dcm", dicom(0, pixels=False), 422, "no_pixels.dcm is a DICOM file, but it holds no image"),
        ("cut.jpeg", film(90, kind=".jpg")[:-2], 422, "cut.jpeg is truncated"),
        ("huge.png", HUGE_PNG, 422, "huge.png is 25,000 x 20,000 pixels; images may have up to 100 megapixels"),
        ("huge.jpeg", HUGE_JPEG, 422, "huge.jpeg is 25,000 x 20,000 pixels; images may have up to 100 megapixels"),
    ],
)
def test_a_file_that_cannot_be_predicted_is_refused_in_one_sentence(name, content, status, sentence, server):
    response = server.predict((name, content))
    assert response.status_code == status
    assert response.json()["error"].startswith(sentence)
    (entry,) = response.json()["files"]
    assert (entry["status"], entry["error"], entry["probability"]) == (status, response.json()["error"], None)


def test_files_that_all_fail_share_their_status_or_have_422(server):
    alike = server.predict(("a", b"x"), ("b", b"y"))
    assert alike.status_code == 415 and alike.json()["error"] == "none of 2 files could be predicted: see each"
    assert server.predict(("a", b"x"), ("b", HUGE_PNG)).status_code == 422


def test_an_unusual_image_is_predicted_with_a_warning(server):
    colour, dark = server.predict(("colour.png", COLOUR), ("dark.png", film(20))).json()["files"]
    assert "a colour image: radiographs are grey, this may not be one" in colour["warnings"]
    assert any(warning.startswith("mean brightness 20") for warning in dark["warnings"])


def test_a_heat_map_is_drawn_where_it_is_asked_for(server):
    large = film(200, width=2048, height=1024)
    response = server.predict(("large.png", large), ("a.txt", b"hello"), params={"map": "png"})
    drawn, refused = response.json()["files"]
    assert refused["map"] is None
    kind, _, data = drawn["map"].partition(",")
    assert kind == "data:image/png;base64"
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR)
    # the caption stands below the radiograph
    assert picture.shape[1] == 1024 and picture.shape[0] > 512
    assert np.ptp(picture[:512].astype(int), axis=2).max() > 50


@pytest.mark.parametrize(
    ("request_", "status", "sentence"),
    [
        ({"data": {"file": "film.png"}, "files": {}}, 415, "this is no upload of files: send one or several"),
        ({"content": film(9), "headers": {"Content-Type": "image/png"}}, 415, "this is no upload of files"),
        ({"content": b"", "headers": {"Content-Type": "multipart/form-data"}}, 415, "this is no upload of files"),
        (
            {"content": b"nonsense", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
            400,
            "the upload is damaged",
        ),
        (
            {"content": b"", "headers": {"Content-Type": "multipart/form-data; boundary=b"}},
            400,
            "the upload ends in the middle of a file",
        ),
        ({"files": {"file": (None, b"film.png")}}, 400, "the upload holds no file: send one or several"),
        ({"files": {"file": ("a", film(9))}, "params": {"map": "jpeg"}}, 422, "the option map is wrong"),
    ],
)
def test_what_is_no_upload_is_told(request_, status, sentence, server):
    response = server.client.post("/predict", **request_)
    assert response.status_code == status
    assert TypeAdapter(Mistake).validate_python(response.json()).error.startswith(sentence)


def test_other_addresses_and_methods_are_told(server):
    for response, status in ((server.client.get("/no"), 404), (server.client.get("/predict"), 405)):
        assert response.status_code == status
        assert "look at / for what there is" in response.json()["error"]


def test_neither_names_nor_images_are_kept(bundle, serve, tmp_path):
    folder = tmp_path / "temporary"
    folder.mkdir()
    own = serve(bundle, TMPDIR=str(folder))
    before = sorted(bundle.parent.rglob("*"))
    # larger than what form parsers keep in memory
    rng = np.random.default_rng(0)
    noise = cv2.imencode(".png", rng.integers(0, 256, (1500, 1500), dtype=np.uint8))[1].tobytes()
    assert len(noise) > 2 * 2**20
    assert own.predict(("DOE^JOHN.png", noise), ("DOE^JANE.txt", b"DOE^JANE")).status_code == 200
    assert own.client.get("/DOE^JOHN").status_code == 404
    assert own.client.get("/predict?name=DOE^JOHN").status_code == 405
    assert own.client.request("DOE", "/predict").status_code == 405
    metrics = own.client.get("/metrics").text
    assert own.stop() == 0
    assert "DOE" not in own.text and "DOE" not in metrics
    assert "cxr-jax: " not in own.text  # on loopback nobody is warned
    assert sorted(bundle.parent.rglob("*")) == before and list(folder.iterdir()) == []
    lines = [line for line in own.lines if " ms" in line]
    assert len(lines) == 5
    assert lines[0].split(" ", 2)[2].startswith("/predict 200 ") and lines[0].endswith(" ms, 2 images")
    assert "elsewhere 404" in lines[1]


def values_of(server):
    """Every value of the metrics, by name and labels."""
    families = text_string_to_metric_families(server.client.get("/metrics").text)
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value for family in families for sample in family.samples
    }


def test_health_and_metrics(server, bundle):
    health = TypeAdapter(Health).validate_python(server.client.get("/health").json())
    assert (health.status, health.pending) == ("ready", 0)
    before = values_of(server)
    server.predict(("a", film(90)), ("b", film(200)), ("c", film(20)), ("d", b"x"))
    server.predict(("a", b"x"))
    after = values_of(server)

    def grown(*name):
        return after[name] - before.get(name, 0)

    assert grown("cxr_requests_total", "/predict", "200") == 1
    assert grown("cxr_requests_total", "/predict", "415") == 1
    assert grown("cxr_request_seconds_count", "/predict") == 2
    assert grown("cxr_images_total", "PNEUMONIA") == 1 and grown("cxr_images_total", "NORMAL") == 2
    assert grown("cxr_files_refused_total", "415") == 2
    assert (
        grown(
            "cxr_batch_images_sum",
        )
        == 3
    )
    assert grown("cxr_images_outside_training_total", "mean") == 1
    assert after["cxr_ready",] == 1 and after["cxr_queue_images",] == 0
    assert ("cxr_bundle", "flat", "mean", content_of(bundle / "bundle.json").sha256) in {
        (name, *sorted(rest, key=["flat", "mean"].__contains__, reverse=True))
        for name, *rest in after
        if name == "cxr_bundle"
    }


def test_drift_is_told_from_a_hundred_images_on(bundle, serve):
    own = serve(bundle, "--queue", "200")
    levels = list(range(60, 120)) + list(range(20, 60))
    own.predict(*[(str(level), film(level)) for level in levels[:99]])
    values = values_of(own)
    assert values["cxr_drift_images",] == 99
    assert np.isnan([values["cxr_score_drift",], values["cxr_outside_training_share", "mean"]]).all()
    own.predict(*[(str(level), film(level)) for level in levels[99:]])
    values = values_of(own)
    scores = read_bundle(bundle).scores
    expected = scores.stability_index(np.array([probability(level) for level in levels]))
    assert values["cxr_score_drift",] == pytest.approx(expected)
    assert expected > values["cxr_score_drift_by_chance",] == pytest.approx(scores.stability_index_by_chance(100))
    assert values["cxr_outside_training_share", "mean"] == pytest.approx(30 / 100)
    assert own.stop() == 0


def test_the_description_is_whole_and_the_page_fetches_nothing(server):
    described = server.client.get("/openapi.json").json()
    assert described["openapi"].startswith("3.") and described["info"]["description"] == f"{DISCLAIMER} {FILMS}"
    assert set(described["paths"]) == {"/", "/predict", "/health", "/metrics"}
    assert set(described["paths"]["/predict"]["post"]["responses"]) == {
        *("200", "400", "401", "408", "413", "415", "422", "500", "503")
    }
    fields = described["components"]["schemas"]["FileAnswer"]["properties"]
    assert set(fields) == set(server.predict(("a", film(1))).json()["files"][0])
    page = server.client.get("/").text
    assert DISCLAIMER in page and FILMS in page and "sensitivity 90.0 %" in page and '<input type="file"' in page
    assert all(address.startswith(("/", "#")) for address in _addresses(page))
    assert all(name in page for name in fields)


def _addresses(page):
    from html.parser import HTMLParser

    found = []

    class Reader(HTMLParser):
        def handle_starttag(self, tag, attributes):
            assert tag not in ("script", "img", "link")
            found.extend(value for name, value in attributes if name in ("src", "href", "action"))

    Reader().feed(page)
    assert found
    return found


@settings(max_examples=20)
@given(names=st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=3))
def test_any_name_comes_back_with_its_own_answer(names, server):
    levels = [100 + 20 * position for position in range(len(names))]
    response = server.predict(*[(name, film(level)) for name, level in zip(names, levels, strict=True)])
    assert response.status_code == 200
    for entry, name, level in zip(response.json()["files"], names, levels, strict=True):
        assert entry["probability"] == pytest.approx(probability(level))
        # as forms are sent by browsers, httpx included: a quote and a line break are escaped
        assert entry["file"] == sent_as(name) or "\\" in name


def sent_as(name):
    """A name as httpx writes it into the head of a part."""
    return "".join(quote(char) if char in '"\r\n' or (ord(char) < 32 and char != "\x1b") else char for char in name)


@settings(max_examples=25)
@given(data=st.data())
def test_an_upload_that_is_cut_at_any_byte_is_told_and_harms_nobody(data, server):
    kind, body = server.body(("a.png", film(90)), ("b.png", film(200)))
    cut = body[: data.draw(st.integers(0, len(body) - 1))]
    response = httpx.post(f"{server.url}/predict", content=cut, headers=kind, trust_env=False)
    if len(cut) < len(body) - 4:
        assert response.status_code == 400
        assert response.json()["error"] in (
            "the upload ends in the middle of a file: send it again",
            "the upload is damaged: send one or several files as multipart/form-data, such as curl -F file=@film.png",
        )
    else:
        # the last hyphens and line break say nothing more
        assert response.status_code in (200, 400)


@settings(max_examples=25)
@given(data=st.data())
def test_a_changed_byte_never_breaks_the_service(data, server):
    kind, body = server.body(("a.png", film(90)), ("b.png", film(200)))
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    response = httpx.post(f"{server.url}/predict", content=bytes(changed), headers=kind, trust_env=False)
    assert response.status_code in (200, 400, 413, 415, 422)
    assert isinstance(json.loads(response.text), dict)
