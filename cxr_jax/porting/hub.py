"""Weights that timm publishes on the hub of Hugging Face, fetched over HTTPS without timm or torch."""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from email.message import Message
from pathlib import Path

from cxr_jax import __version__
from cxr_jax.data.download import Patience, Release, download
from cxr_jax.data.progress import Track, silently
from cxr_jax.errors import UserError
from cxr_jax.models.registry import find_architecture
from cxr_jax.runs.files import TEMPORARY_PREFIX

HUB = "https://huggingface.co"
HUB_VARIABLE = "HF_ENDPOINT"
"""Names a mirror of the hub, as it does for the hub's own client."""

PUBLISHER = "timm"
PUBLISHED_FILE = "model.safetensors"
PUBLISHED_LICENSE = "apache-2.0"
"""What the publisher's pages state for all weights of the networks that are known here."""

PATIENCE = Patience()

_MOST_REDIRECTS = 5
_REDIRECTS = (301, 302, 303, 307, 308)


def published_name(name: str) -> str:
    """Returns timm's full name of `name`, which without a tag means the preferred weights.

    Raises:
        UserError: no such network is known, no weights of it are published, or of these it is not known which images
            they expect.
    """
    architecture, _, tag = name.partition(".")
    known = find_architecture(architecture).weights
    if not known:
        raise UserError(f"there are no published weights of {architecture}; give a file instead")
    if tag and tag not in known:
        names = ", ".join(f"{architecture}.{other}" for other in known)
        raise UserError(f"no published weights called {name} are known; choose one of {names}")
    return f"{architecture}.{tag or known[0]}"


def fetch(full_name: str, folder: Path, *, track: Track = silently, patience: Patience = PATIENCE) -> tuple[Path, str]:
    """Returns the published file of `full_name` (such as `mobilenetv2_100.ra_in1k`) in `folder`, and its origin.

    The origin is a text with address, size and sha256. An interrupted download is continued. The file must have the
    size and the sha256 that the hub states.

    Raises:
        UserError: the hub cannot be reached, has no such file or states no sha256; or as `download`.
    """
    release = find_release(full_name, patience.timeout)
    path = download(release, folder, track=track, patience=patience)
    return path, f"{release.url}, {release.size} bytes, sha256 {release.sha256}"


def find_release(full_name: str, timeout: float = PATIENCE.timeout) -> Release:
    """Returns address, size and sha256 of the published file of `full_name`, as the hub states them.

    Raises:
        UserError: as `fetch`.
    """
    page = f"{_hub()}/{PUBLISHER}/{urllib.parse.quote(full_name, safe='')}"
    url = f"{page}/resolve/main/{PUBLISHED_FILE}"
    headers = _headers(url, full_name, page, timeout)
    size, sha256 = headers.get("X-Linked-Size", ""), headers.get("X-Linked-Etag", "").strip('"')
    if not size.isdecimal() or not re.fullmatch("[0-9a-f]{64}", sha256):
        raise UserError(_by_hand(full_name, page, f"{_hub()} states no size and sha256 of it"))
    return Release(
        url=url,
        file=f"{full_name}.safetensors",
        size=int(size),
        sha256=sha256,
        page=page,
        command="cxr-jax port FILE OUT",
    )


def _hub() -> str:
    """Returns the address of the hub or of its mirror; UserError if what comes from there may change on the way."""
    address = os.environ.get(HUB_VARIABLE, "").rstrip("/") or HUB
    parts = urllib.parse.urlsplit(address)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        raise UserError(f"{HUB_VARIABLE} is {address}, but must begin with https://")
    return address


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Takes no redirect: the hub states size and sha256 in the answer that points to where the file lies."""

    def redirect_request(self, *arguments: object) -> None:
        """Returns None, which has the answer raised as an HTTPError."""


def _headers(url: str, full_name: str, page: str, timeout: float) -> Message:
    """Returns the headers in which the hub states what stands at `url`; renamed repositories are followed."""
    opener = urllib.request.build_opener(_StayHere)
    for _ in range(_MOST_REDIRECTS):
        request = urllib.request.Request(url, method="HEAD", headers={"User-Agent": f"cxr-jax/{__version__}"})
        try:
            with opener.open(request, timeout=timeout) as answer:
                return answer.headers
        except urllib.error.HTTPError as error:
            if error.code in (401, 403, 404):
                # the hub says 401 of a repository that does not exist
                raise UserError(_by_hand(full_name, page, "the hub has no such file")) from error
            if error.code not in _REDIRECTS:
                reason = f"the hub answered {error.code} {error.reason}"
                raise UserError(_by_hand(full_name, page, reason)) from error
            target = error.headers.get("Location", "")
            if "X-Linked-Etag" in error.headers or not target:
                return error.headers
            url = urllib.parse.urljoin(url, target)
        except (OSError, http.client.HTTPException) as error:
            reason = " ".join(str(getattr(error, "reason", error)).split()) or type(error).__name__
            raise UserError(_by_hand(full_name, page, f"no connection ({reason})")) from error
    raise UserError(_by_hand(full_name, page, "the hub sends from one address to the next"))


def _by_hand(full_name: str, page: str, reason: str) -> str:
    """Returns the sentence that ends a fetch, with the way around it."""
    return (
        f"{full_name} could not be fetched: {reason}; or fetch {PUBLISHED_FILE} by hand from {page} and run "
        "cxr-jax port FILE OUT"
    )


def download_folder(out: Path, full_name: str) -> Path:
    """Returns where the download for `out` waits, until the port is written; what is left there is continued."""
    return out.parent / f"{TEMPORARY_PREFIX}{full_name}"
