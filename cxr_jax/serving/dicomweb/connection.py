"""HTTP to an archive: bounded in time and size, tried again where that may help, every failure as one sentence."""

from __future__ import annotations

import base64
import logging
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from cxr_jax.errors import UserError

if TYPE_CHECKING:
    from requests import PreparedRequest, Response

T = TypeVar("T")

WAITS = (1.0, 3.0, 9.0)
"""Seconds before each further try of a request."""

LONGEST_WAIT = 60.0
"""Seconds of an archive's wish to be asked later that are obeyed."""

CONNECT_SECONDS = 10.0

_CHUNK = 2**16
_PASSING = {408, 425, 429, 500, 502, 503, 504}
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class ArchiveError(UserError):
    """What an archive did not do, in one sentence that quotes nothing of its answer."""

    def __init__(self, sentence: str, *, everywhere: bool = False, passing: bool = False, after: float = 0.0) -> None:
        super().__init__(sentence)
        self.everywhere = everywhere  # other requests would fare no better
        self.passing = passing  # the same request may fare better soon
        self.after = after  # seconds that the archive asks to wait


class TooLargeError(ArchiveError):
    """An answer was larger than it may be."""


@dataclass(frozen=True)
class Access:
    """Where an archive is, and who asks."""

    url: str  # of its DICOMweb service, without a slash at the end
    user: str = ""
    password_file: Path | None = None
    token_file: Path | None = None
    authority: Path | None = None  # certificates that are trusted in place of the usual ones
    timeout: float = 60.0  # seconds for one request, its answer included

    def __post_init__(self) -> None:
        """Raises UserError for an address or files that cannot be meant."""
        try:
            parts = urlsplit(self.url)
            usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            usable = False
        if not usable or parts.query or parts.fragment:
            raise UserError(
                f"--dicomweb {self.url.split('@')[-1]} is no address of a DICOMweb service: give one such as "
                "http://localhost:8042/dicom-web"
            )
        if parts.username is not None:
            raise UserError("--dicomweb holds a user or a password: give them by --user and --password-file")
        if self.user and self.token_file:
            raise UserError("--user and --token-file are two ways to sign in: give one of them")
        if bool(self.user) != (self.password_file is not None):
            raise UserError("--user and --password-file belong together: give both or none")
        if self.authority is not None:
            try:
                ssl.create_default_context(cafile=self.authority)
            except OSError as error:
                raise UserError(f"--ca {self.authority} is no file of certificates in PEM") from error
        if not self.timeout > 0:
            raise UserError(f"--timeout is {self.timeout:g}, but must be above 0")
        self.authorization()

    @property
    def in_clear(self) -> bool:
        """True if who listens on the way could read patients and passwords."""
        parts = urlsplit(self.url)
        return parts.scheme == "http" and parts.hostname not in _LOOPBACK

    def authorization(self) -> str | None:
        """Returns the header that signs in, its file read anew: it may have been exchanged; UserError if unreadable."""
        if self.token_file is not None:
            return f"Bearer {_secret(self.token_file)}"
        if self.password_file is not None:
            pair = f"{self.user}:{_secret(self.password_file)}"
            return f"Basic {base64.b64encode(pair.encode()).decode()}"
        return None


def _secret(path: Path) -> str:
    """Returns the text of a file, which is one line; UserError if there is none, or it cannot be sent."""
    try:
        text = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}") from error
    if not text or not text.isprintable():
        raise UserError(f"{path} must hold one line of text: the password or the token")
    return text


@dataclass(frozen=True)
class Answer:
    """What an archive answered."""

    status: int
    content_type: str
    body: bytes


class Connection:
    """Requests to one archive, one at a time."""

    def __init__(
        self, access: Access, *, stop: threading.Event | None = None, waits: Sequence[float] | None = None
    ) -> None:
        """Tries a request again after each of `waits` seconds (WAITS), until `stop` is set."""
        import requests

        # its warnings quote addresses, and these name studies
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)
        self._access = access
        self._stop = stop or threading.Event()
        self._waits = tuple(WAITS if waits is None else waits)
        self._session = requests.Session()

    @property
    def where(self) -> str:
        """The archive, as sentences call it."""
        return f"the PACS at {self._access.url}"

    def get(self, path: str, *, accept: str, parameters: Mapping[str, str] | None = None, limit: int = 2**26) -> Answer:
        """Returns the answer to a GET of `path` below the service's address, of at most `limit` bytes.

        Raises:
            ArchiveError: there is no answer, or one that says that it failed, or a TooLargeError.
        """
        return self.persistently(
            lambda: self._once("GET", path, {"Accept": accept}, limit=limit, params=dict(parameters or {}))
        )

    def post(self, path: str, body: bytes, *, content_type: str, accept: str, limit: int = 2**22) -> Answer:
        """Returns the answer to a POST, which is sent once; 409 is an answer, too: it tells what was refused.

        Raises:
            ArchiveError: as in `get`; what was sent may have arrived nevertheless.
        """
        headers = {"Accept": accept, "Content-Type": content_type}
        return self._once("POST", path, headers, limit=limit, data=body)

    def persistently(self, attempt: Callable[[], T]) -> T:
        """Returns what `attempt` returns, which is called again after a failure that may pass.

        Raises:
            ArchiveError: of the last try, not to be tried again soon.
        """
        for wait in (*self._waits, None):
            try:
                return attempt()
            except ArchiveError as error:
                if wait is None or not error.passing or self._stop.wait(max(wait, error.after)):
                    error.passing = False
                    raise
        raise AssertionError("the last try returns or raises")

    def _once(self, method: str, path: str, headers: dict[str, str], *, limit: int, **sent: Any) -> Answer:
        import requests
        import urllib3

        access = self._access
        try:
            signed = _Signed(access.authorization())
        except UserError as error:
            raise ArchiveError(str(error), everywhere=True) from error
        deadline = time.monotonic() + access.timeout
        try:
            with self._session.request(
                method,
                access.url + path,
                headers={**headers, "Accept-Encoding": "identity"},
                auth=signed,
                timeout=(min(CONNECT_SECONDS, access.timeout), access.timeout),
                verify=True if access.authority is None else str(access.authority),
                allow_redirects=False,
                stream=True,
                **sent,
            ) as response:
                body = self._read(response, limit, deadline)
        except requests.exceptions.SSLError as error:
            raise ArchiveError(
                f"{self.where} shows a certificate that is not trusted: name the authority that signed it by --ca",
                everywhere=True,
            ) from error
        except (requests.Timeout, urllib3.exceptions.TimeoutError, TimeoutError) as error:
            connecting = isinstance(error, requests.ConnectTimeout)
            raise ArchiveError(
                f"{self.where} did not answer within {access.timeout:g} s", everywhere=connecting, passing=True
            ) from error
        except (requests.ConnectionError, ConnectionError) as error:
            if _is_unreachable(error):
                raise ArchiveError(
                    f"{self.where} cannot be reached: is it running, and is the address right?",
                    everywhere=True,
                    passing=True,
                ) from error
            raise ArchiveError(f"{self.where} broke off the connection", passing=True) from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, HTTPException, OSError, ValueError) as error:
            raise ArchiveError(f"{self.where} broke off in the middle of an answer", passing=True) from error
        self._check(response, method)
        return Answer(response.status_code, response.headers.get("Content-Type", ""), body)

    def _read(self, response: Response, limit: int, deadline: float) -> bytes:
        """Returns the body; ArchiveError if it is larger than `limit`, TimeoutError after `deadline`."""
        parts, size = [], 0
        # whatever has come is taken at once: waiting for a full chunk would let a trickle go on for ever
        while chunk := response.raw.read1(_CHUNK, decode_content=True):
            parts.append(chunk)
            size += len(chunk)
            if size > limit:
                raise TooLargeError(f"{self.where} sent more than {limit / 2**20:.0f} MiB in one answer")
            if time.monotonic() > deadline:
                raise TimeoutError
        return b"".join(parts)

    def _check(self, response: Response, method: str) -> None:
        """Raises ArchiveError unless an answer is a success."""
        status = response.status_code
        if 200 <= status < 300 or (status == 409 and method == "POST"):
            return
        if status in (401, 403):
            advice = "check --user and --password-file, or --token-file"
            refusal = "asks who is there" if status == 401 else "does not allow this"
            raise ArchiveError(f"{self.where} {refusal} ({status}): {advice}", everywhere=status == 401)
        if 300 <= status < 400:
            raise ArchiveError(
                f"{self.where} sends to another address ({status}): give the address of the service itself",
                everywhere=True,
            )
        if status == 413:
            raise ArchiveError(f"{self.where} refuses objects of this size (413): raise its limit")
        after = response.headers.get("Retry-After", "")
        raise ArchiveError(
            f"{self.where} answers with an error ({status} {_phrase(status)})",
            passing=status in _PASSING,
            after=min(float(after), LONGEST_WAIT) if after.isdecimal() else 0.0,
        )


class _Signed:
    """Signs a request in; without a header, too, so that no password of a .netrc is sent unasked."""

    def __init__(self, authorization: str | None) -> None:
        self._authorization = authorization

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        if self._authorization is not None:
            request.headers["Authorization"] = self._authorization
        return request


def _is_unreachable(error: Exception) -> bool:
    """Returns whether no connection came about; one that breaks may be the fault of what was sent."""
    from requests.exceptions import ProxyError
    from urllib3.exceptions import NewConnectionError

    reason = getattr(error.args[0] if error.args else None, "reason", None)
    return isinstance(error, ProxyError) or isinstance(reason, NewConnectionError)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "unknown"
