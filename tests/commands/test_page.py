"""An exported network as a page, used in Chromium, where that is installed."""

import json
import os
import re
import socket
from pathlib import Path

import cv2
import numpy as np
import pytest
from page_reader import given, opened, predicted, press, read_all, table_of, vendored

from cxr_jax.bundle.record import read_bundle
from cxr_jax.cli import main as cli
from cxr_jax.commands import page, predict
from cxr_jax.data.phantoms.folder import draw_phantom
from cxr_jax.vocabulary import DISCLAIMER
from tests.browser import served
from tests.data.dicom.drawn import dicom
from tests.made_once import made_once

AXE = Path(__file__).parents[2] / "build" / "axe.min.js"


@pytest.fixture(scope="session")
def written(bundle, tmp_path_factory):
    """The page of the exported run; it is not to be changed."""
    return made_once(tmp_path_factory, "page", lambda folder: page.main([str(bundle), str(folder)]))


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A folder of phantoms of several kinds, and of files that are none."""
    folder = tmp_path_factory.mktemp("films")
    grey = draw_phantom("bacteria", 7, 8, image_size_range=(200, 220))
    cv2.imwrite(str(folder / "small.jpeg"), grey)
    cv2.imwrite(str(folder / "large.jpeg"), cv2.resize(grey, (1201, 930), interpolation=cv2.INTER_CUBIC))
    cv2.imwrite(str(folder / "deep.png"), grey.astype(np.uint16) * 257)
    cv2.imwrite(str(folder / "twelve.png"), grey.astype(np.uint16) * 16)
    cv2.imwrite(str(folder / "photo, in colour.png"), cv2.merge([grey, np.roll(grey, 30, axis=1), 255 - grey]))
    (folder / "film.dcm").write_bytes(
        dicom(4080 - 16 * grey.astype("<u2"), bits=12, PhotometricInterpretation="MONOCHROME1")
    )
    (folder / "damaged.png").write_bytes((folder / "deep.png").read_bytes()[:400])
    (folder / "empty.dcm").write_bytes(dicom(grey, PixelData=None, PhotometricInterpretation=None))
    return sorted(folder.iterdir())


def assert_same_warnings(row, entry):
    """The page says the same, with a distance in the features that may differ by what decoding differs."""
    distance = re.compile(r"(?<=network's features is )[0-9.]+")
    told, expected = row["warnings"], "; ".join(entry["warnings"])
    assert distance.sub("", told) == distance.sub("", expected)
    assert [float(found) for found in distance.findall(told)] == pytest.approx(
        [float(found) for found in distance.findall(expected)], rel=0.02
    )


@vendored
def test_it_says_what_its_sets_of_possible_classes_were_worth_on_test(written, bundle):
    text, sets = " ".join((written / "index.html").read_text().split()), read_bundle(bundle).test.sets
    for row in sets:
        told = "of all calls were uncertain" if row.images_of == "all" else f"of {row.images_of}"
        share = row.uncertain if row.images_of == "all" else row.covered
        assert f"{100 * share.value:.1f} % {told}" in text


@vendored
def test_the_page_says_what_predict_says(browser, bundle, written, films, tmp_path, monkeypatch, capsys):
    expected = predicted(bundle, films, monkeypatch, capsys)
    with served(written) as address:
        opened(browser, address)
        given(browser, films)
        rows = table_of(browser, tmp_path / "down")
        complaints = [
            event for event in browser.events if event["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")
        ]
    assert complaints == []
    assert list(rows[0])[:14] == [name for name in predict.COLUMNS if name != "map"]
    assert sum("error" in entry for entry in expected) == 2
    for row, entry in zip(rows, expected, strict=True):
        assert row["file"] == entry["file"]
        assert row["error"] == entry.get("error", ""), entry
        if "error" in entry:
            assert not row["probability"]
            continue
        assert float(row["probability"]) == pytest.approx(entry["probability"], abs=0.005)
        assert (row["label"], float(row["threshold"])) == (entry["label"], entry["threshold"])
        assert_same_warnings(row, entry)
        for name in ("threshold_rule", "model", "films", "disclaimer"):
            assert row[name] == entry[name]
        assert row["uncertain"] == str(entry["uncertain"])
        assert row["possible"] == "; ".join(entry["possible"])
        assert float(row["error_rate"]) == entry["error_rate"]
        assert row["compared_with_training"] == str(entry["compared_with_training"])


@vendored
def test_the_page_cannot_connect_once_it_reads(browser, written, films):
    attempt = "return fetch('page.json').then(() => 'sent', (error) => error.name)"
    from_worker = """
        const tries = "fetch('ADDRESS').then(() => postMessage('sent'), () => postMessage('refused'))";
        const worker = new Worker(URL.createObjectURL(new Blob([tries])));
        return await new Promise((told) => { worker.onmessage = (event) => told(event.data); });
    """
    with served(written) as address:
        opened(browser, address)
        assert browser.run_async(attempt) == "TypeError"
        assert browser.run_async(from_worker.replace("ADDRESS", address)) == "refused"
        browser.events = []
        given(browser, films[:3])
        asked = [
            event["params"]["request"]["url"] for event in browser.events if "requestWillBeSent" in event["method"]
        ]
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == []


@vendored
def test_teaching_hides_the_answer_until_the_call(browser, written):
    told = json.loads((written / "page.json").read_text())["phantoms"]
    with served(written) as address:
        opened(browser, address)
        press(browser, "#practise")
        read_all(browser, len(told))
        shown = "return document.getElementById('told').checkVisibility()"
        assert not browser.run(shown)
        cells = browser.run("return document.getElementById('rows').innerText")
        assert "0." not in cells and cells.count("hidden until your call") == len(told)
        right = 0
        for number, phantom in enumerate(told):
            choice = 1 + number % 2
            right += phantom["drawn_as"] == ("NORMAL", "PNEUMONIA")[number % 2]
            press(browser, f"#choices button:nth-child({choice})")
            assert browser.run(shown)
            marking = browser.run("return document.getElementById('marking').textContent")
            assert f"It was drawn as {phantom['drawn_as']}." in marking
            press(browser, "#next")
        score = browser.run("return document.getElementById('score-told').textContent")
    assert f"You were right on {right} of {len(told)} phantoms." in score
    assert {phantom["drawn_as"] for phantom in told} == {"NORMAL", "PNEUMONIA"}


@vendored
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_nobody_is_shut_out(browser, bundle, written, films, width, scheme):
    """axe finds nothing serious, nothing is wider than the window, and a heat map can be weakened by keys."""
    if not AXE.is_file():
        pytest.skip("axe-core is not there: scripts/vendor_page fetches it")
    with served(written) as address:
        opened(browser, address, width, scheme)
        given(browser, films)
        press(browser, "#teaching")
        press(browser, "#teaching")
        browser.run("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
        assert browser.run("return document.documentElement.scrollWidth") == width
        browser.call("Runtime.evaluate", expression=AXE.read_text())
        found = browser.run_async("return (await axe.run()).violations.map((v) => [v.impact, v.id, v.nodes[0].html])")
        assert [each for each in found if each[0] in ("serious", "critical")] == []
        browser.run("document.getElementById('strength').focus()")
        for kind in ("keyDown", "keyUp"):
            browser.call(
                "Input.dispatchKeyEvent", type=kind, key="ArrowLeft", code="ArrowLeft", windowsVirtualKeyCode=37
            )
        assert browser.run("return document.getElementById('strength-told').textContent") == "50 %"
        assert DISCLAIMER in browser.run("return document.querySelector('.banner').textContent")
        sentence = read_bundle(bundle).films
        for place in ("header", "#told", "footer"):
            assert sentence in browser.run(f"return document.querySelector('{place}').textContent")


def heard(browser):
    """What a screen reader is given of the page: role, name, description, value and live region of every part."""
    parts = []
    for node in browser.call("Accessibility.getFullAXTree")["nodes"]:
        told = {one["name"]: one["value"].get("value") for one in node.get("properties", [])}
        texts = [node.get(name, {}).get("value") for name in ("role", "name", "description", "value")]
        if not node["ignored"]:
            parts.append((*texts, told))
    return parts


@vendored
def test_who_hears_the_page_is_told_what_others_see(browser, written, films):
    film, damaged = (next(path for path in films if path.name == name) for name in ("deep.png", "damaged.png"))
    shown = "return ['verdict', 'marking'].map((name) => document.getElementById(name).textContent)"
    with served(written) as address:
        opened(browser, address)
        given(browser, [film])
        first = heard(browser)
        verdict, _ = browser.run(shown)
        probability = browser.run("return document.querySelector('#rows td').textContent")
        browser.choose_files("#files", [damaged])
        read_all(browser, 2)
        answered = heard(browser)
        # the tree that Chromium tells here has the number alone
        percent = browser.run("return document.getElementById('strength').getAttribute('aria-valuetext')")
        press(browser, "#clear")
        browser.run("document.getElementById('teaching').click()")
        given(browser, [film])
        withheld = heard(browser)
        press(browser, "#choices button")
        focused = browser.run("return document.activeElement.id")
        after, told = heard(browser), browser.run(shown)

    def only(parts, role, name=None):
        (part,) = [part for part in parts if part[0] == role and name in (None, part[1])]
        return part

    def announced(parts):
        return " ".join(part[1] for part in parts if part[0] == "StaticText" and " read" in part[1])

    def has_group(parts, text):
        return "".join(text.split()) in {"".join(part[1].split()) for part in parts if part[0] == "group"}

    called = "PNEUMONIA" if verdict.startswith("CalledPNEUMONIA") else "NORMAL"
    assert announced(first).startswith(f"1 of 1 read. deep.png: {called}, P(PNEUMONIA) {probability}.")
    _, _, description, _, state = only(answered, "button", "Choose radiographs")
    assert "or drop one or many" in description and "2 of 2 read" in description and state["focusable"]
    status = [part[4] for part in answered if part[0] == "status" and part[4].get("live") == "polite"]
    assert len(status) == 1
    assert "damaged.png is truncated" in announced(answered)
    only(answered, "table", "Radiographs")
    headers = [part[1] for part in answered if part[0] == "columnheader"]
    assert headers == ["File", "P(PNEUMONIA)", "Call"]
    assert [part[1] for part in answered if part[0] == "rowheader"] == ["deep.png", "damaged.png"]
    *_, value, state = only(answered, "slider", "Heat map strength")
    assert value == 55 and percent == "55 %" and state["focusable"]
    assert only(answered, "image")[1].startswith("Radiograph deep.png, 2")
    assert has_group(answered, verdict)
    assert announced(withheld) == "1 of 1 read. deep.png: hidden until your call."
    assert not [part for part in withheld if probability in (part[1] or "")]
    # a call moves the focus to the answer, whose name is read out
    assert focused == "told" and told[1].startswith("You called it NORMAL")
    assert has_group(after, " ".join(told))


@vendored
def test_the_page_works_without_a_connection(browser, written, films):
    with served(written) as address:
        opened(browser, address)
        names = len(json.loads((written / "page.json").read_text())["files"])
        browser.wait(f"return (await (await caches.open('cxr_jax page')).keys()).length >= {names}")
    port = int(re.search(r":(\d+)/", address)[1])
    with socket.socket() as closed:
        assert closed.connect_ex(("127.0.0.1", port)) != 0
    browser.call("Network.setCacheDisabled", cacheDisabled=True)
    try:
        opened(browser, address)
        given(browser, films[:3])
    finally:
        browser.call("Network.setCacheDisabled", cacheDisabled=False)


@vendored
@pytest.mark.slow
def test_originals_get_the_probabilities_of_predict(browser, real_radiographs, tmp_path, monkeypatch, capsys):
    """With the network that CXR_PAGE_BUNDLE names; one that was trained on drawn chests would tell little."""
    bundle = os.environ.get("CXR_PAGE_BUNDLE")
    originals = sorted((real_radiographs.parent / "original_sample").rglob("*.jpeg"))
    if not bundle or not originals:
        pytest.skip("CXR_PAGE_BUNDLE is not set, or CXR_DATA_DIR holds no original_sample")
    page.main([bundle, str(tmp_path / "page")])
    capsys.readouterr()
    cli(["predict", bundle, *map(str, originals), "--json"])
    expected = {Path(entry["file"]).name: entry for entry in json.loads(capsys.readouterr().out)}
    with served(tmp_path / "page") as address:
        opened(browser, address)
        browser.choose_files("#files", originals)
        browser.wait(
            "return /^\\d+ of \\d+ read/.test(document.getElementById('status').textContent) && "
            f"document.getElementById('status').textContent.startsWith('{len(originals)} of')",
            500,
        )
        rows = table_of(browser, tmp_path / "down")
    for row in rows:
        entry = expected[row["file"]]
        assert float(row["probability"]) == pytest.approx(entry["probability"], abs=0.005)
        assert row["label"] == entry["label"]
        assert_same_warnings(row, entry)
