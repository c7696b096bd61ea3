"""The report in a real browser: a headless Chromium that obeys over two pipes, so that nothing else is needed."""

import base64
import fcntl
import json
import os
import re
import select
import shutil
import signal
import time

import pytest

from cxr_jax.reporting.report import write_report

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="no Chromium on the path (Debian: apt-get install chromium)")

PHONE, DESKTOP = 390, 1280
PATIENCE = 60
"""Seconds after which a browser that does not answer fails the test."""


class Browser:
    """A headless Chromium with one tab, under the DevTools protocol: JSON objects, each ended by a NUL byte."""

    def __init__(self, profile):
        read_by_browser, self.outgoing = os.pipe()
        self.incoming, written_by_browser = os.pipe()
        # The browser reads at 3 and writes at 4; its ends must not lie there themselves when they are copied.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (read_by_browser, written_by_browser)]
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        # A phone lays its scroll bars over the page.
        options += ["--hide-scrollbars", "--disable-background-networking"]
        self.process = os.posix_spawn(
            PROGRAM,
            [PROGRAM, *options, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, ends[0], 3),
                (os.POSIX_SPAWN_DUP2, ends[1], 4),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
        )
        for end in (*ends, read_by_browser, written_by_browser):
            os.close(end)
        self.number, self.pending, self.events, self.session = 0, b"", [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def receive(self):
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.pending:
            assert select.select([self.incoming], [], [], max(0, end - time.monotonic()))[0], "Chromium is silent"
            part = os.read(self.incoming, 1 << 20)
            assert part, "Chromium has ended"
            self.pending += part
        message, _, self.pending = self.pending.partition(b"\0")
        return json.loads(message)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.outgoing, json.dumps(message).encode() + b"\0")
        while (answer := self.receive()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, page, width, scheme="light", media="screen"):
        """Show a file at that width in pixels; `events` are those from the start of loading on."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.events = []
        self.call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self.receive())

    def run(self, script):
        """Return what a function body returns in the page."""
        answer = self.call("Runtime.evaluate", expression=f"(() => {{ {script} }})()", returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def close(self):
        os.kill(self.process, signal.SIGTERM)
        os.waitpid(self.process, 0)
        os.close(self.outgoing)
        os.close(self.incoming)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def page(complete):
    return write_report(complete)


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_nothing_is_wider_than_the_window_but_what_can_be_swept(browser, page, width):
    browser.open(page, width)
    assert browser.run("return [document.documentElement.scrollWidth, innerWidth]") == [width, width]
    wider = browser.run("""
        const sweeps = (e) => e && (/auto|scroll/.test(getComputedStyle(e).overflowX) || sweeps(e.parentElement));
        return [...document.body.querySelectorAll("*")]
            .filter((e) => e.getBoundingClientRect().right > innerWidth + 1 && !sweeps(e)).map((e) => e.outerHTML);
    """)
    assert wider == []


def test_nothing_is_asked_for_and_nothing_complained_about(browser, page):
    browser.open(page, DESKTOP)
    # Opened, the details would show what is missing in them.
    browser.run("document.querySelectorAll('details').forEach((e) => { e.open = true; })")
    browser.call("Runtime.evaluate", expression="new Promise((f) => setTimeout(f, 200))", awaitPromise=True)
    asked = {event["params"]["request"]["url"] for event in browser.events if "requestWillBeSent" in event["method"]}
    assert {url for url in asked if not url.startswith("data:")} == {page.as_uri()}
    complaints = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Network.loadingFailed")
    assert [event for event in browser.events if event["method"] in complaints] == []


def test_every_image_is_there_and_large_enough_to_read(browser, page):
    browser.open(page, PHONE)
    images = browser.run("""return [...document.images].map((e) =>
        [e.alt, e.complete && e.naturalWidth, e.width / e.naturalWidth, e.src.startsWith("data:image/svg")])""")
    assert len(images) > 14
    for alternative, natural_width, scale, drawn in images:
        assert natural_width > 100, alternative
        assert alternative
        # The smallest letters of a figure are 7.5 points, 10 pixels.
        assert scale > 0.6 if drawn else scale * natural_width > 300, alternative


def test_every_section_stands_below_the_one_before_and_is_linked(browser, page):
    browser.open(page, DESKTOP)
    places = browser.run("""return [...document.querySelectorAll("nav a")].map((link) => {
        const target = document.querySelector(link.getAttribute("href"));
        return [target.id, target.getBoundingClientRect().top, target.getBoundingClientRect().height];
    })""")
    assert [name for name, _, _ in places] == [
        *("data", "training", "results", "operating-point", "calibration", "subgroups", "shift", "failures"),
        *("explanations", "quality", "baselines", "model-card", "looks", "environment", "reproduce"),
    ]
    tops = [top for _, top, _ in places]
    assert tops == sorted(tops)
    assert len(set(tops)) == len(tops)
    assert all(height > 15 for _, _, height in places)


CONTRASTS = """
    const channels = (text) => text.match(/[\\d.]+/g).map(Number);
    const light = (text) => channels(text).slice(0, 3).map((c) => c / 255)
        .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const opaque = (text) => { const c = channels(text); return c.length < 4 || c[3] === 1; };
    const paper = (e) => e === null ? "rgb(255, 255, 255)"
        : opaque(getComputedStyle(e).backgroundColor) ? getComputedStyle(e).backgroundColor : paper(e.parentElement);
    document.querySelectorAll("details").forEach((e) => { e.open = true; });
    return [...document.body.querySelectorAll("*")]
        .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
        .map((e) => {
            const pair = [light(getComputedStyle(e).color), light(paper(e))].sort((a, b) => b - a);
            return [(pair[0] + 0.05) / (pair[1] + 0.05), light(paper(e)), e.className + ": " + e.textContent];
        });
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_paper(browser, page, scheme):
    browser.open(page, DESKTOP, scheme)
    found = browser.run(CONTRASTS)
    assert len(found) > 300
    for contrast, paper, text in found:
        # WCAG 2.2, 1.4.3: 4.5 to 1 for text of this size.
        assert contrast >= 4.5, text
        assert paper > 0.8 if scheme == "light" else paper < 0.2, text


def test_the_dark_turns_charts_round_and_leaves_radiographs_and_heat_maps(browser, page):
    filters = "return [...document.images].map((e) => [e.alt, getComputedStyle(e).filter])"
    browser.open(page, DESKTOP, "dark")
    turned = {alternative: "invert" in applied for alternative, applied in browser.run(filters)}
    true_colours = ("Failure cases: ", "Grad-CAM of ", "Checks of the maps: Weights drawn anew")
    assert all(turned[name] != name.startswith(true_colours) for name in turned)
    assert sorted(set(turned.values())) == [False, True]
    browser.open(page, DESKTOP, "light")
    assert {applied for _, applied in browser.run(filters)} == {"none"}


def test_a_table_that_is_swept_keeps_its_first_column_and_its_caption_in_sight(browser, page):
    browser.open(page, PHONE)
    kept = browser.run("""
        return [...document.querySelectorAll(".scroll")].filter((e) => e.scrollWidth > e.clientWidth).map((box) => {
            const caption = box.querySelector("caption");
            const fits = !caption || caption.getBoundingClientRect().right <= innerWidth;
            box.scrollLeft = 1000;
            const first = box.querySelector("tbody th[scope=row]");
            return [box.scrollLeft > 0, fits, !first || first.getBoundingClientRect().left >= 0];
        });
    """)
    assert len(kept) > 3
    assert all(all(entry) for entry in kept)


def test_it_prints_in_full_on_a_sensible_number_of_white_pages(browser, page):
    browser.open(page, DESKTOP, "dark", media="print")
    shown = browser.run("""
        const visible = (e) => e.checkVisibility({contentVisibilityAuto: true}) && e.getBoundingClientRect().height > 0;
        return {
            details: [...document.querySelectorAll("details > :not(summary)")].every(visible),
            nav: visible(document.querySelector("nav")),
            paper: getComputedStyle(document.body).backgroundColor,
            filters: [...new Set([...document.images].map((e) => getComputedStyle(e).filter))],
        };
    """)
    assert shown == {"details": True, "nav": False, "paper": "rgb(255, 255, 255)", "filters": ["none"]}
    browser.open(page, DESKTOP)
    printed = browser.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)
    pdf = base64.b64decode(printed["data"])
    assert pdf.startswith(b"%PDF-")
    assert 8 <= len(re.findall(rb"/Type\s*/Page\b", pdf)) <= 24
