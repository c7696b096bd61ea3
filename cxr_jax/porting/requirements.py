"""torch and timm, imported with a sentence where they are missing."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType
from typing import Any

from cxr_jax.errors import UserError

INSTALL = "pip install 'cxr-jax[port]'"

_kept: list[Any] = []
"""torch forgets operators together with the library object that defined them."""


def require_timm(purpose: str) -> None:
    """Raises UserError saying that `purpose` needs torch and timm unless both are installed; imports neither."""
    missing = [name for name in ("torch", "timm") if importlib.util.find_spec(name) is None]
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise UserError(f"{purpose} needs {' and '.join(missing)}, which {are} not installed; {INSTALL} brings both.")


def import_torch(purpose: str) -> ModuleType:
    """Returns the module torch. Raises UserError saying that `purpose` needs it if it is not installed."""
    return _import("torch", purpose)


def import_timm(purpose: str) -> ModuleType:
    """Returns the module timm. Raises UserError saying that `purpose` needs it if it or torch is not installed.

    timm imports torchvision. Its binaries load only with the build of torch that they were made for. With a CPU build
    of torch and another build of torchvision, two operators are not defined. timm uses neither of them in its networks,
    so their signatures are defined here and the import is tried again.
    """
    torch = import_torch(purpose)
    try:
        return _import("timm", purpose)
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
    for name in [name for name in sys.modules if name.split(".")[0] in ("timm", "torchvision")]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _kept.append(library)
    return _import("timm", purpose)


def import_torchvision(purpose: str) -> ModuleType:
    """Returns the module torchvision. Raises UserError saying that `purpose` needs it if it is not installed."""
    import_timm(purpose)
    return _import("torchvision", purpose)


def _import(name: str, purpose: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "timm", "torchvision"):
            raise
        raise UserError(f"{purpose} needs {error.name}, which is not installed: {INSTALL} brings it") from error
