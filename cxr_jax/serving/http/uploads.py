"""The files of an upload, read into memory under limits of bytes, number and time; nothing touches the disk."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from cxr_jax.serving.batching import Submission
from cxr_jax.serving.http.limits import Limits, RefusalError, Share

if TYPE_CHECKING:
    from starlette.requests import Request

HOW = "send one or several files as multipart/form-data, such as curl -F file=@film.png"

_MAX_FIELDS = 100  # beside the files; they are passed over


async def read_upload(request: Request, limits: Limits, share: Share) -> list[Submission]:
    """Returns the files of a request, in its order.

    Args:
        request: whose body was not yet read.
        limits: of the request.
        share: of the memory, which grows by what arrives.

    Raises:
        RefusalError: it is no upload of files (415, 400), is too large (413), did not arrive in time (408), or there
            is no room for it now (503).
        ClientDisconnect: it was broken off.
    """
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise RefusalError(415, f"this is no upload of files: {HOW}")
    too_large = RefusalError(413, f"an upload may have up to {limits.request_bytes / 2**20:.4g} MiB: send fewer files")
    if int(request.headers.get("content-length", 0)) > limits.request_bytes:
        raise too_large
    parts = _Parts(limits.files)
    try:
        parser = MultipartParser(options[b"boundary"], parts.callbacks())
        async with asyncio.timeout(limits.upload_seconds):
            async for chunk in request.stream():
                share.grow(len(chunk))
                if share.size > limits.request_bytes:
                    raise too_large
                parser.write(chunk)
    except TimeoutError:
        sentence = f"the upload did not arrive within {limits.upload_seconds:.4g} seconds: send it again"
        raise RefusalError(408, sentence, {"Connection": "close"}) from None
    except FormParserError:
        raise RefusalError(400, f"the upload is damaged: {HOW}") from None
    if not parts.ended:
        raise RefusalError(400, "the upload ends in the middle of a file: send it again")
    if not parts.files:
        raise RefusalError(400, f"the upload holds no file: {HOW}")
    return parts.files


class _Parts:
    """The parts of a multipart body, as a parser hands them over."""

    def __init__(self, most_files: int) -> None:
        self.files: list[Submission] = []
        self.ended = False
        self._most_files = most_files
        self._fields = 0
        self._header, self._value = bytearray(), bytearray()
        self._disposition = ""
        self._name: str | None = None  # of the file that is being read; None for another field
        self._content: list[bytes] = []

    def callbacks(self) -> dict:
        """Returns what the parser calls."""
        return {
            "on_part_begin": self._begin,
            "on_header_begin": self._begin_header,
            "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._find_name,
            "on_part_data": self._take,
            "on_part_end": self._end,
            "on_end": self._finish,
        }

    def _begin(self) -> None:
        self._disposition, self._content = "", []

    def _begin_header(self) -> None:
        self._header.clear()
        self._value.clear()

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value.decode("latin-1")

    def _find_name(self) -> None:
        _, options = parse_options_header(self._disposition)
        name = options.get(b"filename")
        # bytes of a file name that are no text are escaped
        self._name = None if name is None else name.decode("utf-8", "backslashreplace")
        self._fields += self._name is None
        if len(self.files) + (self._name is not None) > self._most_files or self._fields > _MAX_FIELDS:
            raise RefusalError(413, f"an upload may hold up to {self._most_files} files: send fewer at once")

    def _take(self, data: bytes, start: int, end: int) -> None:
        if self._name is not None:
            self._content.append(data[start:end])

    def _end(self) -> None:
        # a form in which no file was chosen sends one without name and content
        if self._name is not None and (self._name or any(self._content)):
            self.files.append(Submission(b"".join(self._content), self._name or f"file {len(self.files) + 1}"))
        self._content = []

    def _finish(self) -> None:
        self.ended = True
