"""docs/architecture.md says what the import contracts say, and names files that are there."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def rooms_of_the_page() -> list[list[str]]:
    rows = re.findall(r"^\| (\d+) \| (.*?) \| ", PAGE.replace(r"\|", "/"), re.MULTILINE)
    assert [int(floor) for floor, _ in rows] == list(range(len(rows), 0, -1))
    return [re.findall(r"`(\w+)`", rooms) for _, rooms in rows]


def test_the_floors_are_those_of_the_import_contracts():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = (contract for contract in contracts if contract["type"] == "layers")
    assert rooms_of_the_page() == [re.findall(r"\w+", layer) for layer in layers["layers"]]


def test_every_room_is_there_and_on_the_page():
    package = ROOT / "cxr_jax"
    there = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert there - {"__init__"} == {room for rooms in rooms_of_the_page() for room in rooms}


def test_every_file_that_the_page_names_is_there():
    named = re.findall(r"`((?:\w+/)+\w*(?:\.py)?)`", PAGE)
    assert len(named) > 20
    assert [path for path in named if not (ROOT / "cxr_jax" / path).exists()] == []


def test_every_function_that_the_page_names_is_where_it_says():
    for function, path in re.findall(r"`(\w+)` (?:in|of) `([\w/]+\.py)`", PAGE):
        assert f"\ndef {function}(" in (ROOT / "cxr_jax" / path).read_text(encoding="utf-8")
