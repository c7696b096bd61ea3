import importlib.util
import sys
from types import SimpleNamespace

import pytest

from cxr_jax.errors import UserError
from cxr_jax.porting import requirements


@pytest.mark.parametrize("missing", ["torch", "timm"])
def test_what_is_missing_is_named_with_the_way_to_get_it(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace())
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UserError, match=rf"porting x needs {missing}, .* pip install 'cxr-jax\[port\]' brings it"):
        requirements.import_timm("porting x")


def test_a_missing_module_of_another_kind_is_no_users_mistake(monkeypatch):
    def broken(name):
        raise ModuleNotFoundError("No module named 'sympy'", name="sympy")

    monkeypatch.setattr(requirements.importlib, "import_module", broken)
    with pytest.raises(ModuleNotFoundError):
        requirements.import_torch("porting x")


def fake_imports(monkeypatch, message):
    """Have timm fail to import with `message` until the operators are defined; returns their names."""
    defined = []

    class Library:
        def __init__(self, namespace, kind):
            self.namespace = namespace

        def define(self, signature):
            defined.append(f"{self.namespace}::{signature.split('(')[0]}")

    torch, timm = SimpleNamespace(library=SimpleNamespace(Library=Library)), SimpleNamespace()

    def import_module(name):
        if name == "timm" and not defined:
            raise RuntimeError(message)
        return {"torch": torch, "timm": timm}[name]

    monkeypatch.setattr(requirements.importlib, "import_module", import_module)
    monkeypatch.setattr(requirements.sys, "modules", {"torchvision.half": None, "timmy": None})
    return timm, defined


def test_a_torchvision_that_does_not_load_is_no_obstacle(monkeypatch):
    timm, defined = fake_imports(monkeypatch, "operator torchvision::nms does not exist")
    assert requirements.import_timm("porting x") is timm
    assert defined == ["torchvision::nms", "torchvision::qnms"]
    assert list(requirements.sys.modules) == ["timmy"]


def test_other_errors_of_the_import_pass(monkeypatch):
    fake_imports(monkeypatch, "something else")
    with pytest.raises(RuntimeError, match="something else"):
        requirements.import_timm("porting x")


@pytest.mark.parametrize(
    ("installed", "sentence"),
    [
        (set(), "needs torch and timm, which are not installed; pip install 'cxr-jax\\[port\\]' brings both"),
        ({"torch"}, "needs timm, which is not installed"),
        ({"timm"}, "needs torch, which is not installed"),
    ],
)
def test_missing_packages_are_named(monkeypatch, installed, sentence):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object() if name in installed else None)
    with pytest.raises(UserError, match=sentence):
        requirements.require_timm("the test")


def test_asking_for_timm_imports_nothing(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] in ("torch", "timm")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    requirements.require_timm("the test")
    assert not {"torch", "timm"} & set(sys.modules)
