"""The network that answers, and the identifiers of everything that it writes into an archive."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass
from pathlib import Path

from cxr_jax import __version__
from cxr_jax.bundle.record import ONNX_FILE, Bundle
from cxr_jax.bundle.runtime import BundledModel, load_bundle
from cxr_jax.runs.description import require_uncropped
from cxr_jax.serving.predict import Threshold

SOFTWARE = f"cxr_jax {__version__}"

_NAMESPACE = uuid.UUID("6a1de1b4-0a0b-5d62-9f5e-3c9a7f1c6f0e")
_SHOWN = 12  # digits of a hash that are shown


@dataclass(frozen=True)
class Network:
    """An exported network, what it is called in an archive, and from which score it calls."""

    model: BundledModel
    digest: str  # sha256 of all that decides its answers
    threshold: Threshold

    @property
    def title(self) -> str:
        """Name and architecture, in characters that every archive takes."""
        return plain(f"{self.model.bundle.name} ({self.model.description.title})")

    @property
    def films(self) -> str:
        """Whose films it learned from, in a sentence of such characters; empty where nobody said."""
        return plain(self.model.bundle.films, 1000)

    @property
    def version(self) -> str:
        """The beginning of the digest: it tells networks apart that have the same name."""
        return self.digest[:_SHOWN]

    def uid(self, kind: str, source: str = "") -> str:
        """Returns the identifier of what this network makes of the object `source` (a UID): always the same one.

        Whoever makes it anew, after a crash or on another machine, finds what is stored already by that.
        """
        return f"2.25.{uuid.uuid5(_NAMESPACE, '|'.join((self.digest, kind, source))).int}"


def load_network(folder: str | Path) -> Network:
    """Returns the network of a bundle; UserError as in `load_bundle`."""
    model = load_bundle(folder)
    require_uncropped([model.description], "cxr-jax pacs")
    return Network(model, _digest(model.bundle), Threshold.of(model))


def _digest(bundle: Bundle) -> str:
    """Returns the hash of what decides probabilities and calls; a later export of the same network has the same."""
    weights = next(content.sha256 for content in bundle.files if content.name == ONNX_FILE)
    calls = [[call.label, call.threshold, call.rule] for call in bundle.calls]
    square = [bundle.network.image_size, bundle.network.resize, bundle.network.interpolation]
    return hashlib.sha256(json.dumps([weights, calls, square]).encode()).hexdigest()


def plain(text: str, longest: int = 64) -> str:
    """Returns `text` in printable ASCII without backslashes, which would part values in DICOM, and not too long."""
    kept = "".join(char if " " <= char <= "~" and char != "\\" else "?" for char in text)
    return kept if len(kept) <= longest else kept[: longest - 3] + "..."


def hashed(uid: str) -> str:
    """Returns what stands for a UID in the journal: half of its sha256, enough to tell all studies of a house apart."""
    return hashlib.sha256(uid.encode()).hexdigest()[:32]


def alias(uid: str) -> str:
    """Returns what a study or image is called in logs: the beginning of its hash."""
    return hashed(uid)[:_SHOWN]
