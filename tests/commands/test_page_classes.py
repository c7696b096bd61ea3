"""Networks of findings, and of three classes, as pages: written, and used in Chromium where that is installed."""

import json

import pytest
from page_reader import given, opened, predicted, press, table_of, vendored

from cxr_jax.bundle.record import read_bundle
from cxr_jax.commands import page
from cxr_jax.errors import EXIT_USAGE, UserError
from tests.browser import served


@pytest.fixture(params=["several", "three"])
def written(request, tmp_path):
    """The folder of an evaluated run of other classes, and the page of its bundle."""
    folder = request.getfixturevalue(request.param)
    page.main([str(folder / "bundle"), str(tmp_path / "page")])
    return folder, tmp_path / "page"


@vendored
def test_the_page_tells_every_class_as_predict_does(browser, written, tmp_path, monkeypatch, capsys):
    folder, out = written
    films = sorted(path for path in (folder / "films").rglob("*.png"))[:3]
    expected = predicted(folder / "bundle", films, monkeypatch, capsys)
    classes = read_bundle(folder / "bundle").network.classes
    of_findings = "findings" in expected[0]
    with served(out) as address:
        opened(browser, address)
        assert not browser.run("return document.getElementById('practise')")
        given(browser, films)
        rows = table_of(browser, tmp_path / "down")
        verdict = browser.run("return document.querySelector('#verdict strong').textContent")
        scales = browser.run("return [...document.querySelectorAll('.scale')].map((e) => e.textContent)")
        press(browser, "#explained")
        chosen = """
            const select = document.getElementById("explained");
            const first = select.value;
            select.value = LAST;
            select.dispatchEvent(new Event("change"));
            return [select.checkVisibility(), first, document.getElementById("caption").textContent];
        """
        visible, first, caption = browser.run(chosen.replace("LAST", json.dumps(classes[-1])))
        browser.run("document.getElementById('teaching').click()")
        browser.run("document.querySelectorAll('#choices button')[1].click()")
        if of_findings:
            assert not browser.run("return document.getElementById('told').checkVisibility()")
            browser.run("document.querySelectorAll('#choices button')[0].click()")
            press(browser, "#choices button:last-child")
        marking = browser.run("return document.getElementById('marking').textContent")
    for row, entry in zip(rows, expected, strict=True):
        told = {name: float(row[f"probability_{name}"]) for name in classes}
        assert told == pytest.approx(entry["probabilities"], abs=0.005)
        assert (row["label"], row["threshold"], row["threshold_rule"]) == (entry["label"], "", entry["threshold_rule"])
        assert bool(row["probability"]) == (not of_findings)
    assert verdict == expected[0]["label"].replace("|", ", ")
    assert all(scale.startswith(f"P({name})") for name, scale in zip(classes, scales, strict=True))
    likeliest = max(expected[0].get("findings") or classes, key=expected[0]["probabilities"].get)
    assert visible and first == likeliest
    assert caption in (
        f"Warm colours: what speaks for {classes[-1]}.",
        f"Nothing in the picture speaks for {classes[-1]}.",
    )
    own = f"{classes[0]}, {classes[1]}" if of_findings else classes[1]
    assert marking.startswith(f"You called it {own}")


@vendored
def test_the_text_of_the_page_is_about_its_classes(written):
    folder, out = written
    text, told = (out / "index.html").read_text(), json.loads((out / "page.json").read_text())
    assert "PNEUMONIA" not in text.upper() and told["phantoms"] == []
    assert told["kind"] == read_bundle(folder / "bundle").kind
    thresholds = [call["threshold"] for call in told["calls"]]
    if told["kind"] == "findings":
        assert "<h1>Findings on chest radiographs</h1>" in text and None not in thresholds
    else:
        assert "<h1>clear, Lung Opacity or covid on chest radiographs</h1>" in text and thresholds == [None] * 3
        assert "called the class of its highest probability" in text


def test_phantoms_of_other_classes_are_refused(three, tmp_path):
    with pytest.raises(UserError, match="draws chests of NORMAL and PNEUMONIA, and the network tells other") as told:
        page.main([str(three / "bundle"), str(tmp_path / "page"), "--phantoms", "6"])
    assert told.value.code == EXIT_USAGE
    assert not (tmp_path / "page").exists()
