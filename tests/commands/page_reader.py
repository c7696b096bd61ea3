"""What a reader does with the page of a network in Chromium."""

import csv
import io
import json
import shutil

import pytest

from cxr_jax.cli import main as cli
from tests.page.conftest import NOT_VENDORED, VENDORED

vendored = pytest.mark.skipif(not VENDORED, reason=NOT_VENDORED)


def opened(browser, address, width=1280, scheme="light"):
    browser.open(address, width, scheme)
    browser.wait("return document.documentElement.dataset.ready")


def given(browser, files):
    """Choose files, and wait until all are read."""
    browser.choose_files("#files", files)
    read_all(browser, len(files))


def read_all(browser, count):
    browser.wait(f"""
        const rows = document.getElementById("rows");
        return rows.children.length === {count} && !rows.textContent.includes("reading");
    """)


def press(browser, selector):
    browser.run(f"document.querySelector({json.dumps(selector)}).click()")
    browser.run_async("await new Promise((done) => setTimeout(done, 50))")


def table_of(browser, folder):
    """The rows of the table that a reader downloads."""
    shutil.rmtree(folder, ignore_errors=True)
    browser.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    browser.run("document.getElementById('download').click()")
    for _ in range(200):
        browser.run_async("await new Promise((done) => setTimeout(done, 50))")
        if (folder / "predictions.csv").is_file():
            return list(csv.DictReader(io.StringIO((folder / "predictions.csv").read_text())))
    raise AssertionError("nothing was downloaded")


def predicted(bundle, files, monkeypatch, capsys):
    """What predict says of files, named without their folder."""
    monkeypatch.chdir(files[0].parent)
    capsys.readouterr()
    cli(["predict", str(bundle), *(file.name for file in files), "--json"])
    return json.loads(capsys.readouterr().out)
