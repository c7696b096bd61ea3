"""An archive that speaks as much DICOMweb as is asked of it, in memory, and misbehaves when it is told to."""

from __future__ import annotations

import contextlib
import io
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pydicom

from cxr_jax.serving.dicomweb.multipart import decode_parts, encode_parts

LISTED = {
    "studies": ("StudyInstanceUID", "StudyDate", "StudyTime", "PatientName"),
    "series": ("SeriesInstanceUID", "Modality", "BodyPartExamined"),
    "instances": ("SOPInstanceUID", "SOPClassUID"),
}


@dataclass
class Request:
    """What was asked."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    handler: BaseHTTPRequestHandler = field(repr=False)

    def answer(self, status: int, body: bytes = b"", content_type: str = "text/html", **headers: str) -> None:
        """Answers with what is given."""
        self.handler.send_response(status)
        for name, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **headers}.items():
            self.handler.send_header(name.replace("_", "-"), value)
        self.handler.end_headers()
        with contextlib.suppress(OSError):
            self.handler.wfile.write(body)

    def break_off(self) -> None:
        """Closes the connection without an answer."""
        self.handler.close_connection = True
        self.handler.connection.close()


Fault = Callable[[Request], bool]
"""Answers a request in place of the archive, or returns False."""


class ArchiveServer:
    """Files in memory behind an address."""

    def __init__(self) -> None:
        # by SOP instance UID; requests add to it from their threads, so loops go over a copy
        self.files: dict[str, bytes] = {}
        self.sent: list[str] = []  # UIDs in the order in which they were sent to be stored, refused ones too
        self.requests: list[Request] = []
        self.fault: Fault = lambda request: False
        self.refused: set[str] = set()  # modalities that are not stored
        self.hidden = False  # what is stored is not listed
        self.counts = True  # whether it tells how many objects a study has
        self.page = 100  # entries that it gives at most
        self.port = 0
        self.certificate: Path | None = None  # with its key, in PEM; speaks TLS with it
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"{'http' if self.certificate is None else 'https'}://127.0.0.1:{self.port}/dicom-web"

    def start(self) -> None:
        """Listens, at the same port as before if there was one."""
        archive = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with contextlib.suppress(OSError, ValueError):
                    super().handle_one_request()
                    return
                self.close_connection = True

            def do_GET(self) -> None:
                archive.respond(self)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        ThreadingHTTPServer.allow_reuse_address = True
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        if self.certificate is not None:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(self.certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Is not to be reached any more."""
        # forgotten first: another thread may start the next one as soon as this one is gone
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            server.server_close()

    def add(self, *files: bytes) -> None:
        """Stores files as a detector would."""
        for data in files:
            self.files[header(data).SOPInstanceUID] = data

    def made(self, modality: str) -> list[pydicom.Dataset]:
        """What was stored of a modality, whole."""
        read = [pydicom.dcmread(io.BytesIO(data), force=True) for data in self.files.copy().values()]
        return [entry for entry in read if entry.get("Modality") == modality]

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        """Answers one request."""
        parts = urlsplit(handler.path)
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        path = parts.path.removeprefix("/dicom-web")
        request = Request(handler.command, path, query, dict(handler.headers), body, handler)
        self.requests.append(request)
        if self.fault(request):
            return
        if request.method == "POST":
            self.store(request)
        elif re.search("/(studies|series|instances)$", path):
            self.list(request)
        else:
            self.give(request)

    def list(self, request: Request) -> None:
        level = request.path.rsplit("/", 1)[1]
        key, *_ = keywords = LISTED[level]
        within = dict(zip(("StudyInstanceUID", "SeriesInstanceUID"), request.path.split("/")[2::2], strict=False))
        headers = [header(data) for data in self.files.copy().values()]
        if self.hidden:
            headers = [entry for entry in headers if entry.Modality not in ("SR", "OT")]
        chosen = [entry for entry in headers if all(entry.get(name) == uid for name, uid in within.items())]
        wanted = request.query.get("ModalitiesInStudy")
        studies = {entry.StudyInstanceUID for entry in headers if wanted in (None, entry.Modality)}
        found = {}
        for entry in chosen:
            if level != "studies" or entry.StudyInstanceUID in studies:
                told = pydicom.Dataset()
                for keyword in keywords:
                    if keyword in entry:
                        told[keyword] = entry[keyword]
                if level == "studies" and self.counts:
                    same = [other for other in headers if other.StudyInstanceUID == entry.StudyInstanceUID]
                    told.NumberOfStudyRelatedInstances = len(same)
                found.setdefault(entry.get(key), told.to_json_dict())
        first = int(request.query.get("offset", 0))
        entries = list(found.values())[first : first + min(int(request.query.get("limit", 100)), self.page)]
        request.answer(
            200 if entries else 204, json.dumps(entries).encode() if entries else b"", "application/dicom+json"
        )

    def give(self, request: Request) -> None:
        data = self.files.get(request.path.rsplit("/", 1)[1])
        if data is None:
            request.answer(404, b"<html>no such thing</html>")
            return
        content_type, body = encode_parts([data])
        request.answer(200, body, content_type)

    def store(self, request: Request) -> None:
        failed = []
        for data in decode_parts(request.headers["Content-Type"], request.body):
            uid = header(data).SOPInstanceUID
            self.sent.append(uid)
            if header(data).Modality in self.refused:
                failed.append({"00081197": {"vr": "US", "Value": [272]}})
            else:
                self.files[uid] = data
        told = {"00081198": {"vr": "SQ", "Value": failed}} if failed else {"00081198": {"vr": "SQ"}}
        request.answer(202 if failed else 200, json.dumps(told).encode(), "application/dicom+json")


def header(data: bytes) -> pydicom.Dataset:
    """The elements of a file, its pixels apart."""
    return pydicom.dcmread(io.BytesIO(data), stop_before_pixels=True, force=True)


@contextlib.contextmanager
def running() -> Iterator[ArchiveServer]:
    """An archive that listens while the block runs."""
    server = ArchiveServer()
    server.start()
    try:
        yield server
    finally:
        server.stop()
