"""The compiled kernels: built once for each processor and version, loaded, and made known to XLA.

Without a compiler, or where one fails, nothing is lost but speed.
"""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
from pathlib import Path

import jax

from cxr_jax.errors import UserError
from cxr_jax.models.kernels.native.building import COMMON, built, kernels_folder
from cxr_jax.process import KERNELS_SWITCH

HANDLERS = {
    COMMON: (
        "statistics",
        "normalise",
        "normalise_gradient_sums",
        "normalise_gradient",
        "depthwise",
        "depthwise_input",
        "depthwise_kernel",
        "convolution",
        "convolution_input",
        "convolution_kernel",
        "normalised_depthwise",
        "normalised_depthwise_kernel",
        "normalised_convolution",
        "normalised_convolution_kernel",
        "activated_input",
    ),
    "any_depthwise": ("any_depthwise", "any_depthwise_input", "any_depthwise_kernel"),
    "inverted_residual": ("inverted_residual",),
    "pooling": ("max_pool", "max_pool_places", "max_pool_input", "average_pool", "average_pool_input"),
}
"""What XLA can call, by the library that holds it."""

_PREFIX = "cxr_jax_"


def native_kernels_work() -> bool:
    """Returns whether the kernels are there to be used; builds and loads the common ones at the first call."""
    return not why_not()


def why_not() -> str:
    """Returns why there are no kernels, as a sentence; empty if there are. Builds and loads the common ones at the
    first call.
    """
    return f"{KERNELS_SWITCH} is off" if os.environ.get(KERNELS_SWITCH) == "off" else _load(COMMON, kernels_folder())


def target(name: str) -> str:
    """Returns the name by which XLA knows the handler `name`, whose library is built and loaded if it is not the
    common one.

    Raises UserError if that fails, where the common one could be had.
    """
    library = next(library for library, handlers in HANDLERS.items() if name in handlers)
    if library != COMMON and (reason := _load(library, kernels_folder())):
        raise UserError(
            f"this network needs native kernels for {library.replace('_', ' ')} too, which cannot be had: {reason}; "
            f"set {KERNELS_SWITCH}=off to train without native kernels"
        )
    return _PREFIX + name


@functools.cache
def _load(name: str, folder: Path | None) -> str:
    """Builds the library `name` in `folder` unless it is there, loads it and tells XLA; returns why that failed, if
    it did.
    """
    if folder is None:
        return "there is no home folder to keep the native kernels in"
    try:
        library = ctypes.CDLL(str(built(name, folder)))
        handlers = {handler: getattr(library, _PREFIX + handler) for handler in HANDLERS[name]}
    except subprocess.CalledProcessError as error:
        return f"the C++ compiler failed: {_first_error(error.stderr)}"
    except subprocess.TimeoutExpired as error:
        return f"the C++ compiler took longer than {error.timeout:g} seconds, and was ended"
    except (OSError, AttributeError) as error:
        return " ".join(str(error).split())
    for handler, function in handlers.items():
        jax.ffi.register_ffi_target(_PREFIX + handler, jax.ffi.pycapsule(function), platform="cpu")
    return ""


def _first_error(text: str | None) -> str:
    """Returns the line of a compiler's output that says what is wrong."""
    lines = [line.strip() for line in (text or "").splitlines() if line.strip()]
    return next((line for line in lines if "error" in line), lines[0] if lines else "no message")[:200]
