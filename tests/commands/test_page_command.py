"""An exported network written as a page, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest

import cxr_jax.page.write as writing
from cxr_jax.commands import page
from cxr_jax.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def as_if_vendored(monkeypatch, tmp_path):
    """The package with small stand-ins for what npm gives."""
    source = Path(writing.__file__).parent
    shutil.copytree(source / "static", tmp_path / "package" / "static")
    (tmp_path / "package" / "vendor").mkdir()
    for name in writing.VENDORED:
        (tmp_path / "package" / "vendor" / name).write_text(name)
    monkeypatch.setattr(writing.resources, "files", lambda _: tmp_path / "package")
    return tmp_path / "package"


def test_a_damaged_bundle_is_refused(bundle, as_if_vendored, tmp_path):
    damaged = Path(shutil.copytree(bundle, tmp_path / "damaged"))
    (damaged / "model.onnx").write_bytes(b"\0" + (damaged / "model.onnx").read_bytes())
    with pytest.raises(UserError, match="sha256 differs"):
        page.main([str(damaged), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_what_is_no_bundle_is_told(evaluated_run, as_if_vendored, tmp_path):
    for place, sentence in ((evaluated_run, "is a run: export it first"), (tmp_path, "there is no bundle at")):
        with pytest.raises(UserError, match=sentence):
            page.main([str(place), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_nothing_of_another_is_overwritten(bundle, as_if_vendored, tmp_path):
    out = tmp_path / "out"
    page.main([str(bundle), str(out), "--phantoms", "0"])
    before = (out / "page.json").read_bytes()
    with pytest.raises(UserError, match="exists already; choose another place, or replace it by --replace"):
        page.main([str(bundle), str(out), "--phantoms", "0"])
    (out / "notes.txt").write_text("mine")
    page.main([str(bundle), str(out), "--phantoms", "6", "--replace"])
    assert (out / "notes.txt").read_text() == "mine"
    assert (out / "page.json").read_bytes() != before
    assert len(list((out / "phantoms").glob("*.jpeg"))) == 6
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "a.txt").write_text("mine")
    with pytest.raises(UserError, match="something else than a page"):
        page.main([str(bundle), str(tmp_path / "thesis"), "--replace"])
    assert [path.name for path in (tmp_path / "thesis").iterdir()] == ["a.txt"]
    assert not list(tmp_path.glob(".out*"))


def test_a_checkout_without_packages_of_npm_says_how_to_get_them(bundle, as_if_vendored, tmp_path):
    (as_if_vendored / "vendor" / "onnxruntime.wasm").unlink()
    with pytest.raises(UserError, match="scripts/vendor_page"):
        page.main([str(bundle), str(tmp_path / "out")])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "name a bundle"),
        (["{bundle}"], "name the folder to write"),
        (["{bundle}", "x", "--phantoms", "2"], "from 6"),
    ],
)
def test_what_is_missing_or_impossible_is_told(arguments, sentence, bundle):
    with pytest.raises(UserError, match=sentence):
        page.main([argument.replace("{bundle}", str(bundle)) for argument in arguments])


def test_the_lock_of_npm_has_hashes_and_no_addresses():
    text = (ROOT / "scripts" / "page_packages" / "package-lock.json").read_text()
    packages = {name: told for name, told in json.loads(text)["packages"].items() if name}
    assert "resolved" not in text and "http" not in text
    assert len(packages) > 20 and all(told["integrity"].startswith("sha512-") for told in packages.values())
    assert not [name for name, told in packages.items() if "GPL" in told.get("license", "")]
