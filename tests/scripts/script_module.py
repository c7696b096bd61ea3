"""A script of the project as a module, which has no package to be imported from."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

SCRIPTS = Path(__file__).parents[2] / "scripts"


def module_of(name: str) -> ModuleType:
    """Returns scripts/NAME.py as a module, read anew."""
    specification = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    # dataclasses look their module up there
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module
