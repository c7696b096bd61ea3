"""No file that is read can run code: nothing in the package or the scripts unpickles."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "cxr_jax").rglob("*.py"), *(ROOT / "scripts").glob("*.py")])
UNPICKLING = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "jsonpickle", "marshal", "shelve"}


def offences(text: str) -> list[str]:
    """What in a module could run code out of a file."""
    found = []
    for node in ast.walk(ast.parse(text)):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        found += [f"imports {name}" for name in modules if name.split(".")[0] in UNPICKLING]
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            words = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if called in ("np.load", "numpy.load") and words.get("allow_pickle") != "False":
                found.append(f"{called} without allow_pickle=False")
            if called.endswith("torch.load") and words.get("weights_only") != "True":
                found.append(f"{called} without weights_only=True")
            if called.endswith("read_pickle") or called in ("eval", "exec"):
                found.append(called)
    return found


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "def f():\n    import cloudpickle as c",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "exec(text)",
    ],
)
def test_the_search_finds_what_it_looks_for(text):
    assert len(offences(text)) == 1


def test_nothing_unpickles():
    assert len(SOURCES) > 100
    assert {
        str(path.relative_to(ROOT)): found for path in SOURCES if (found := offences(path.read_text(encoding="utf-8")))
    } == {}
