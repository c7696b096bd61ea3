"""The report in a real browser."""

import base64
import re
import shutil
import subprocess

import pytest

from cxr_jax.reporting.report import write_report
from cxr_jax.reporting.summary import outlook_sentence
from cxr_jax.vocabulary import DISCLAIMER

PHONE, DESKTOP = 390, 1280


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


SMALLEST = 11
"""Pixels that a letter has at least."""


def smallest_letters(svg):
    """Return the size of the smallest text of a figure, in units of its view box, and the box's width.

    Letters are outlines there, drawn in hundredths of their size.
    """
    text = base64.b64decode(svg.partition(",")[2]).decode()
    scales = [float(scale) for scale in re.findall(r"scale\(([\d.]+) -[\d.]+\)", text)]
    assert scales
    return 100 * min(scales), float(re.search(r'viewBox="0 0 ([\d.]+) ', text)[1])


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_no_letter_is_too_small_to_read(browser, page, width):
    browser.open(page, width)
    images = browser.run(
        "return [...document.images].map((e) => [e.alt, e.complete && e.naturalWidth, e.width, e.src])"
    )
    drawn = [image for image in images if image[3].startswith("data:image/svg")]
    assert len(drawn) > 10
    for alternative, natural_width, shown_width, source in images:
        assert alternative and natural_width
        if source.startswith("data:image/svg"):
            size, whole = smallest_letters(source)
            padding = 10  # at most, of both sides
            assert size * (shown_width - padding) / whole >= SMALLEST, alternative
        else:
            assert shown_width > 130, alternative
    letters = browser.run("""
        document.querySelectorAll("details").forEach((e) => { e.open = true; });
        return [...document.body.querySelectorAll("*")].filter((e) => e.checkVisibility())
            .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
            .map((e) => [parseFloat(getComputedStyle(e).fontSize), e.textContent]);
    """)
    assert len(letters) > 300
    for size, text in letters:
        assert size >= SMALLEST, text


@pytest.mark.parametrize(("width", "abreast"), [(PHONE, 1), (DESKTOP, 2)])
def test_curves_stand_two_abreast_and_on_a_phone_below_each_other(browser, page, width, abreast):
    browser.open(page, width)
    places = browser.run("""
        return ["confusion_matrix", "roc", "precision_recall", "score_distributions"].map((name) => {
            const box = document.querySelector(`#figure-${name} img`).getBoundingClientRect();
            return [box.left, box.right, box.top];
        });
    """)
    assert len({round(top) for _, _, top in places}) == 4 // abreast
    for left, right, _ in places:
        # shown whole, nothing to be swept
        assert left >= 0 and right <= width


def test_the_network_stands_beside_the_baselines_on_a_phone(browser, page):
    browser.open(page, PHONE)
    box, row = browser.run("""
        const box = (e) => { const b = e.getBoundingClientRect(); return [b.left, b.right]; };
        const row = document.querySelector("#baselines tbody tr");
        return [box(document.querySelector("#figure-baselines img")), [...row.children].slice(0, 3).map(box)];
    """)
    assert all(0 <= left < right <= PHONE for left, right in [box, *row])


def press(browser, key):
    code = {"Enter": 13, "Escape": 27}[key]
    told = {"key": key, "code": key, "windowsVirtualKeyCode": code, "text": "\r" if key == "Enter" else ""}
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, **told)


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_a_word_opens_its_meaning_by_key_and_by_touch(browser, page, width):
    browser.open(page, width)
    opened = """
        const open = [...document.querySelectorAll("[popover]:popover-open")];
        const box = open.length && open[0].getBoundingClientRect();
        return [open.map((e) => e.textContent), open.length ? [box.left, box.right, box.top, box.bottom] : null];
    """
    browser.run("""
        document.documentElement.style.scrollBehavior = "auto";
        document.querySelector(".headline .term").focus();
    """)
    press(browser, "Enter")
    told, (left, right, top, bottom) = browser.run(opened)
    assert len(told) == 1 and "Of 100 radiographs with pneumonia" in told[0]
    assert 0 <= left < right <= width and 0 <= top < bottom <= 844
    press(browser, "Escape")
    assert browser.run(opened)[0] == []
    browser.run("document.querySelectorAll('.headline .term')[3].click()")
    assert "the chance that the one with pneumonia gets the higher" in browser.run(opened)[0][0]


def test_the_reader_sets_how_common_pneumonia_is(browser, page, example):
    browser.open(page, DESKTOP)
    metrics = example.judgement["test"]["metrics"]
    rates = [metrics[name]["value"] for name in ("sensitivity", "specificity")]
    told = "return document.getElementById('prevalence-told').textContent"
    assert browser.run(told) == outlook_sentence(*rates, 0.1)
    enter = """
        const field = document.getElementById("prevalence");
        field.value = "%s";
        field.dispatchEvent(new Event("input", {bubbles: true}));
    """
    for percent in ("2", "37.5", "62.5", "0.5"):
        browser.run(enter % percent)
        assert browser.run(told) == outlook_sentence(*rates, float(percent) / 100)
    for wrong in ("", "0", "100", "-3"):
        browser.run(enter % wrong)
        assert browser.run(told) == "Enter a number above 0 and below 100."


def test_without_script_the_sentence_and_the_table_are_there(browser, page):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(page, DESKTOP)
        shown = browser.run("""
            const visible = (name) => document.getElementById(name).checkVisibility();
            return [visible("prevalence-told"), visible("prevalence-choice"), visible("use")];
        """)
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)
    assert shown == [True, False, True]


def test_every_section_stands_below_the_one_before_and_is_linked(browser, page):
    browser.open(page, DESKTOP)
    places = browser.run("""return [...document.querySelectorAll("nav a")].map((link) => {
        const target = document.querySelector(link.getAttribute("href"));
        return [target.id, target.getBoundingClientRect().top, target.getBoundingClientRect().height];
    })""")
    assert [name for name, _, _ in places] == [
        *("verdict", "use", "patients", "results", "operating-point", "calibration", "subgroups", "shift"),
        *("uncertainty", "failures", "explanations", "quality", "baselines", "looks", "training", "environment"),
        *("reproduce", "glossary"),
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
    applied = dict(browser.run(filters))
    true_colours = ("Radiograph ", "Heat map on ", "Checks of the maps: Weights drawn anew")
    for name, found in applied.items():
        if name.startswith("Failure cases: "):
            # a white sheet of an older run is dimmed
            assert found.startswith("brightness(0.")
        elif name.startswith(true_colours):
            assert found == "none", name
        else:
            assert "invert" in found, name
    assert len(set(applied.values())) == 3
    browser.open(page, DESKTOP, "light")
    assert {found for _, found in browser.run(filters)} == {"none"}


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


VISIBLE = "const visible = (e) => e.checkVisibility({contentVisibilityAuto: true}) && e.getClientRects().length > 0;"


def test_two_pages_are_printed_and_all_of_it_on_demand(browser, page):
    browser.open(page, DESKTOP, "dark", media="print")
    sections = VISIBLE + "return [...document.querySelectorAll('main > section')].filter(visible).map((e) => e.id);"
    assert browser.run(sections) == ["verdict", "use", "patients"]
    browser.run("document.getElementById('print-everything').click()")
    assert len(browser.run(sections)) == 19
    shown = browser.run(f"""{VISIBLE}
        return {{
            details: [...document.querySelectorAll("details > :not(summary)")].every(visible),
            nav: visible(document.querySelector("nav")),
            paper: getComputedStyle(document.body).backgroundColor,
            filters: [...new Set([...document.images].map((e) => getComputedStyle(e).filter))],
        }};
    """)
    assert shown == {"details": True, "nav": False, "paper": "rgb(255, 255, 255)", "filters": ["none"]}


def printed(browser):
    """Return the printed pages as bytes of PDF, and how many there are."""
    answer = browser.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)
    pdf = base64.b64decode(answer["data"])
    assert pdf.startswith(b"%PDF-")
    return pdf, len(re.findall(rb"/Type\s*/Page\b", pdf))


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="no pdftotext on the path (Debian: poppler-utils)")
def test_every_printed_page_names_the_run_and_is_no_medical_device(browser, page, complete, tmp_path):
    # an empty medium lets the printer choose, which then is print
    browser.open(page, DESKTOP, media="")
    for everything in (False, True):
        if everything:
            browser.run("document.getElementById('print-everything').click()")
        pdf, count = printed(browser)
        assert 8 <= count <= 24 if everything else count == 2
        (tmp_path / "report.pdf").write_bytes(pdf)
        words = subprocess.run(["pdftotext", "-layout", tmp_path / "report.pdf", "-"], capture_output=True, check=True)
        pages = words.stdout.decode().split("\f")[:-1]
        assert len(pages) == count
        for number, text in enumerate(pages, start=1):
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            assert lines[0].startswith(complete.name)
            assert lines[-1].startswith(DISCLAIMER) and lines[-1].replace(" ", "").endswith(f"{number}/{count}")
            # a page holds something besides head and foot
            assert len(lines) > 8
