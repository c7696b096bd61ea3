"""Train, judge and explain networks that look for pneumonia on chest radiographs.

From Python: `load`, `judge` and `train`, described in `cxr_jax.api`. They are imported when they are first asked for.
"""

from __future__ import annotations

import os

# onnxruntime from 1.29 on tells its maker of every network that is loaded, unless this stands there before its import
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"

__all__ = ["Model", "Prediction", "TrainedRun", "Unreadable", "UserError", "Validation", "judge", "load", "train"]


def __getattr__(name: str) -> object:
    """Returns what the package offers; AttributeError for anything else."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module("cxr_jax.api"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
