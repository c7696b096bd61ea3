"""Pages that state figures say what the files say, and their claims hold."""

import re
import shutil
from pathlib import Path

import pytest

from cxr_jax.errors import UserError
from tests.scripts.script_module import module_of

ROOT = Path(__file__).parents[2]
BLOCKS = {
    "README.md": (".figures",),
    "docs/masks.md": (".boxes",),
    "docs/performance.md": (".avx2", ".beside_pytorch", ".networks", ".runtimes", ".zen4"),
    "docs/uncertainty.md": (".halves", ".pictures", ".stages"),
    "docs/using-a-network.md": (".load",),
    "results/best_study/README.md": (".starter",),
}
PAGES = [
    *BLOCKS,
    "docs/findings.md",
    "docs/intervals.md",
    *(f"results/{name}/README.md" for name in ("barnett", "external", "flips", "lee", "moderate_crops")),
]


@pytest.fixture(scope="module")
def write_pages():
    """The script's main, which takes arguments and the root of a project."""
    return module_of("write_pages").main


@pytest.fixture
def project(tmp_path):
    """The templates and files of this project in a folder of their own, without any run's figures as pictures."""
    for name in ("docs", "results", "scripts"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.png"))
    shutil.copy(ROOT / "README.md", tmp_path / "README.md")
    return tmp_path


def test_every_page_says_what_its_files_say(write_pages, capsys):
    """If this fails, run scripts/write_pages.py, and read what has changed."""
    assert (write_pages(["--check"]), *capsys.readouterr()) == (0, "", "")
    assert {page.relative_to(ROOT / "docs/pages").as_posix() for page in (ROOT / "docs/pages").rglob("*.jinja")} == {
        f"{page}{block}.jinja" for page in PAGES for block in BLOCKS.get(page, ("",))
    }


def test_a_figure_that_changes_is_told_and_written(write_pages, project, capsys):
    """A figure changed by hand in a page, or by a run in its file, makes the page differ; text around a block stays."""
    findings, readme = project / "docs/findings.md", project / "README.md"
    findings.write_text(findings.read_text().replace("0.984", "0.989", 1))
    ledger = project / "results/barnett/transfer_honest/seed0/ledger.jsonl"
    ledger.write_text(ledger.read_text() + ledger.read_text())
    readme.write_text(readme.read_text().replace("# cxr_jax", "# Some other title").replace("ROC-AUC |", "AUC |", 1))
    assert write_pages(["--check"], project) == 1
    changed = ["README.md", "docs/findings.md", "results/barnett/README.md"]
    assert capsys.readouterr().out.splitlines() == [f"{page} differs from its files" for page in changed]
    assert "0.989" in findings.read_text()
    assert write_pages([], project) == 0
    assert capsys.readouterr().out == "".join(f"{page} written\n" for page in changed)
    assert findings.read_text() == (ROOT / "docs/findings.md").read_text()
    assert "was looked at 4 times" in (project / "results/barnett/README.md").read_text()
    assert readme.read_text() == (ROOT / "README.md").read_text().replace("# cxr_jax", "# Some other title")
    assert write_pages(["--check"], project) == 0


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        (
            "{{ holds(each('moderate_crops', 'test.metrics.accuracy.value') | min > 0.99, 'it is perfect') }}",
            "it is perfect",
        ),
        ("{{ each('moderate_crops', 'test.metrics.brilliance.value') | spread }}", "brilliance"),
        ("{{ recipe('nobody', 'roc_auc').mean }}", "nobody"),
        ("{{ no_such_figure }}", "no_such_figure"),
    ],
)
def test_a_claim_that_does_not_hold_and_a_figure_that_is_not_there_write_nothing(
    template, sentence, write_pages, project
):
    (project / "docs/pages/docs/claim.md.jinja").write_text(template)
    (project / "docs/findings.md").write_text("stale")
    with pytest.raises(UserError) as raised:
        write_pages([], project)
    told = str(raised.value)
    assert "docs/pages/docs/claim.md.jinja" in told and sentence in told
    assert (project / "docs/findings.md").read_text() == "stale"


def test_the_page_of_all_results_holds_the_comparison_beside_it():
    comparison = (ROOT / "results/comparison/comparison.md").read_text()
    page = (ROOT / "results/README.md").read_text()
    held = page.partition("<!-- comparison: begin -->")[2].partition("<!-- comparison: end -->")[0]
    assert _rows(held) == _rows(comparison) != []


def _rows(text):
    """The rows of all tables, names in place of links, which depend on where a page lies."""
    return [re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", line) for line in text.splitlines() if line.startswith("|")]
