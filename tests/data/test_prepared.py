import grp
import json
import pwd
import shutil

import pytest

from cxr_jax.data.cache import encoded_images
from cxr_jax.data.examples import COLUMNS, Example, fingerprint, read_examples, write_examples
from cxr_jax.data.preparation import prepare
from cxr_jax.data.prepared import PreparedData, from_any_folder, prepared_root
from cxr_jax.errors import UserError


def test_the_root_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path / "here"))
    assert prepared_root() == tmp_path / "here"
    monkeypatch.delenv("CXR_PREPARED_DIR")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert prepared_root() == tmp_path / ".cache" / "cxr_jax" / "prepared"


@pytest.fixture
def nobody(monkeypatch):
    """As in a container without users: no home folder, for nobody."""

    def unknown(*arguments):
        raise KeyError("no such user")

    monkeypatch.delenv("HOME", raising=False)
    for name in ("getpwuid", "getpwnam"):
        monkeypatch.setattr(pwd, name, unknown)
    monkeypatch.setattr(grp, "getgrgid", unknown)
    yield
    assert pwd.getpwuid is unknown
    assert grp.getgrgid is unknown


@pytest.mark.parametrize("chosen", [None, "", "~", "~nobody-here/x"])
def test_without_a_home_folder_the_variable_is_named(nobody, monkeypatch, official_tree, chosen):
    monkeypatch.delenv("CXR_PREPARED_DIR")
    if chosen is not None:
        monkeypatch.setenv("CXR_PREPARED_DIR", chosen)
    for work in (prepared_root, lambda: PreparedData.open("phantoms"), lambda: prepare(official_tree)):
        with pytest.raises(UserError, match="home folder, and there is none: set CXR_PREPARED_DIR to the folder in"):
            work()


def test_without_a_home_folder_data_elsewhere_are_found(nobody, prepared_root, official_tree):
    path = prepare(official_tree).prepared.path
    assert PreparedData.open("chest_xray").path == PreparedData.open(path).path == path
    assert len(list(encoded_images(PreparedData.open(path)))) == 36
    with pytest.raises(UserError, match="~nobody/x means a home folder, and there is none: write the path in full"):
        PreparedData.open("~nobody/x")


def test_what_a_config_calls_data_from_any_folder(official_tree, prepared_root, tmp_path, monkeypatch):
    path = prepare(official_tree).prepared.path
    monkeypatch.chdir(tmp_path)
    shutil.copytree(path, tmp_path / "here")
    for name in ("./here", "here", str(tmp_path / "here")):
        assert from_any_folder(name) == str(tmp_path / "here")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert from_any_folder("~/here") == str(tmp_path / "here")
    for name in ("chest_xray", "./nowhere", "nowhere"):
        assert from_any_folder(name) == name


def test_open_by_name_and_by_path(official_tree, prepared_root):
    path = prepare(official_tree).prepared.path
    assert PreparedData.open("chest_xray").path == path
    assert PreparedData.open(path).path == path
    assert PreparedData.open(str(path)).fingerprint == PreparedData.open("chest_xray").fingerprint


@pytest.mark.parametrize("name", ["other", "a/b", "../chest_xray", ""])
def test_unknown_data_names_what_there_is(official_tree, prepared_root, name):
    prepare(official_tree)
    with pytest.raises(UserError, match=r"there: chest_xray.*run `cxr-jax prepare SOURCE` first"):
        PreparedData.open(name)


def test_nothing_prepared_yet(prepared_root):
    with pytest.raises(UserError, match="there: none yet"):
        PreparedData.open("chest_xray")


def test_another_version_is_refused(official_tree, prepared_root):
    path = prepare(official_tree).prepared.path / "data_card.json"
    card = json.loads(path.read_text())
    path.write_text(json.dumps({**card, "schema_version": 99}))
    with pytest.raises(UserError, match="was prepared by another version"):
        PreparedData.open("chest_xray")


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_a_damaged_card_is_told(official_tree, prepared_root, text):
    path = prepare(official_tree).prepared.path / "data_card.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"data_card\.json cannot be read"):
        PreparedData.open("chest_xray")


EXAMPLES = (
    Example('train/NORMAL/odd "name", with\nall of it.png', "train", "normal", "NORMAL", "g,1", 10, 20, "ab"),
    Example("test/PNEUMONIA/b.png", "test", "virus", "PNEUMONIA", "g2", 30, 40, "cd"),
)


def test_the_table_survives_odd_names(tmp_path):
    write_examples(tmp_path / "t.csv", EXAMPLES)
    assert read_examples(tmp_path / "t.csv") == EXAMPLES
    assert (tmp_path / "t.csv").read_text().splitlines()[0] == ",".join(COLUMNS)
    assert [example.label for example in EXAMPLES] == ["NORMAL", "PNEUMONIA"]


@pytest.mark.parametrize(
    "text", ["", "a,b\n", ",".join(COLUMNS) + "\nx,y\n", ",".join(COLUMNS) + "\na,b,c,d,e,f,g,h\n", "\xff"]
)
def test_other_tables_are_refused(tmp_path, text):
    (tmp_path / "t.csv").write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"t\.csv is not a table of prepared examples"):
        read_examples(tmp_path / "t.csv")
    with pytest.raises(UserError, match="is not a table"):
        read_examples(tmp_path / "missing.csv")


def test_fingerprint_depends_on_content_only():
    one, other = EXAMPLES
    assert fingerprint(EXAMPLES) == fingerprint((other, one))
    changed = [
        Example(**{**vars(one), **change})
        for change in ({"file": "x"}, {"split": "val"}, {"label": "PNEUMONIA"}, {"sha256": "ac"})
    ]
    assert len({fingerprint((example, other)) for example in (one, *changed)}) == 5
    assert fingerprint((Example(**{**vars(one), "group": "x", "width": 1}), other)) == fingerprint(EXAMPLES)
