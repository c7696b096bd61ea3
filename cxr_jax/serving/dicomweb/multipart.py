"""Bodies of several parts (multipart/related), in which DICOMweb carries files."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from email.message import Message

_LINE = b"\r\n"
_HEADERS_END = b"\r\n\r\n"


def encode_parts(files: Sequence[bytes]) -> tuple[str, bytes]:
    """Returns the content type and the body that carry DICOM files."""
    boundary = secrets.token_hex(16)
    while any(boundary.encode() in file for file in files):
        boundary = secrets.token_hex(16)
    mark = f"--{boundary}".encode()
    parts = [_LINE.join([mark, b"Content-Type: application/dicom", b"", file, b""]) for file in files]
    return f'multipart/related; type="application/dicom"; boundary={boundary}', b"".join([*parts, mark, b"--", _LINE])


def decode_parts(content_type: str, body: bytes) -> list[bytes]:
    """Returns the contents of the parts of a body.

    Raises:
        ValueError: it is no such body, or its end is missing.
    """
    told = Message()
    told["Content-Type"] = content_type
    boundary = told.get_boundary()
    if told.get_content_maintype() != "multipart" or not boundary:
        raise ValueError("not of several parts")
    mark = f"\r\n--{boundary}".encode("latin-1", "replace")
    # the first mark may open the body
    _before, *parts = (_LINE + body).split(mark)
    if not parts or not parts[-1].startswith(b"--"):
        raise ValueError("its end is missing")
    contents = []
    for part in parts[:-1]:
        # a part without headers begins with the empty line itself
        _, end, content = part.partition(_HEADERS_END)
        if not end:
            raise ValueError("a part without an end of its headers")
        contents.append(content)
    return contents
