import contextlib
import fcntl
import hashlib
import http.server
import shutil
import threading
import time
from collections import namedtuple

import numpy as np
import pytest

from cxr_jax.data.download import MENDELEY, Patience, Release, download
from cxr_jax.errors import UserError

CONTENT = np.random.default_rng(0).bytes(300_000)
QUICK = Patience(timeout=60, attempts=3, pause=0.01)
HASTY = Patience(timeout=0.5, attempts=3, pause=0.01)
"""For servers that stall, which a test waits for."""


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT as its `answer` function does; keeps the Range headers that came."""

    daemon_threads = True

    def __init__(self, answer):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answer = answer
        self.ranges = []

    @property
    def release(self):
        return Release(
            url=f"http://127.0.0.1:{self.server_port}/file",
            file="archive.zip",
            size=len(CONTENT),
            sha256=hashlib.sha256(CONTENT).hexdigest(),
            page="https://example.org",
        )


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.ranges.append(self.headers.get("Range"))
        with contextlib.suppress(ConnectionError):
            self.server.answer(self, len(self.server.ranges))

    def log_message(self, *arguments):
        """Say nothing."""

    @property
    def start(self):
        return int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))

    def send(self, status, body, **headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def send_part(self, body=None, content=CONTENT):
        """What an honest server sends, or only `body` of it."""
        rest = content[self.start :]
        span = f"bytes {self.start}-{len(content) - 1}/{len(content)}"
        self.send(206, rest if body is None else body, Content_Range=span, Content_Length=str(len(rest)))


@pytest.fixture
def serve():
    with contextlib.ExitStack() as stack:

        def start(answer):
            server = stack.enter_context(Server(answer))
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return server

        yield start


def honest(request, number):
    request.send_part()


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_download_and_a_second_one(serve, tmp_path):
    server = serve(honest)
    path = download(server.release, tmp_path / "new" / "folder", patience=QUICK)
    assert path == tmp_path / "new" / "folder" / "archive.zip"
    assert path.read_bytes() == CONTENT
    assert names_in(path.parent) == ["archive.zip"]
    assert download(server.release, path.parent, patience=QUICK) == path
    assert server.ranges == ["bytes=0-"]


def test_an_interrupted_download_goes_on_where_it_was(serve, tmp_path):
    server = serve(honest)
    (tmp_path / ".unfinished-archive.zip").write_bytes(CONTENT[:123_456])
    assert download(server.release, tmp_path, patience=QUICK).read_bytes() == CONTENT
    assert server.ranges == ["bytes=123456-"]


def test_a_complete_partial_file_is_only_verified(serve, tmp_path):
    server = serve(honest)
    (tmp_path / ".unfinished-archive.zip").write_bytes(CONTENT)
    assert download(server.release, tmp_path, patience=QUICK).read_bytes() == CONTENT
    assert server.ranges == []


def test_a_server_that_truncates_is_asked_again(serve, tmp_path):
    server = serve(lambda request, number: request.send_part(CONTENT[request.start : request.start + 100_000]))
    assert download(server.release, tmp_path, patience=QUICK).read_bytes() == CONTENT
    assert server.ranges == ["bytes=0-", "bytes=100000-", "bytes=200000-"]


def test_a_server_that_stalls_is_left_and_asked_again(serve, tmp_path):
    def stall_at_first(request, number):
        request.send_part(CONTENT[:50_000] if number == 1 else None)
        if number == 1:
            request.wfile.flush()
            time.sleep(1.0)

    server = serve(stall_at_first)
    assert download(server.release, tmp_path, patience=HASTY).read_bytes() == CONTENT
    assert server.ranges == ["bytes=0-", "bytes=50000-"]


def test_a_server_that_stalls_for_ever_is_given_up_and_what_came_is_kept(serve, tmp_path):
    def stall(request, number):
        if number == 1:
            request.send_part(CONTENT[:50_000])
            request.wfile.flush()
        time.sleep(1.0)

    server = serve(stall)
    with pytest.raises(UserError, match=r"archive\.zip could not be fetched: .* 50,000 of 300,000 bytes are kept"):
        download(server.release, tmp_path, patience=HASTY)
    assert len(server.ranges) == 1 + HASTY.attempts
    assert (tmp_path / ".unfinished-archive.zip").read_bytes() == CONTENT[:50_000]
    assert names_in(tmp_path) == [".unfinished-archive.zip"]


def test_a_server_that_knows_no_ranges_starts_anew(serve, tmp_path):
    server = serve(lambda request, number: request.send(200, CONTENT, Content_Length=str(len(CONTENT))))
    (tmp_path / ".unfinished-archive.zip").write_bytes(b"x" * 1000)
    assert download(server.release, tmp_path, patience=QUICK).read_bytes() == CONTENT
    assert server.ranges == ["bytes=1000-"]


def test_a_server_without_lengths(serve, tmp_path):
    server = serve(lambda request, number: request.send(200, CONTENT))
    assert download(server.release, tmp_path, patience=QUICK).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda r, n: r.send(200, b"<html>", Content_Length="6"), "the server offers 6 bytes instead of 300,000"),
        (lambda r, n: r.send_part(content=CONTENT + b"more"), "the server offers 300,004 bytes"),
        (lambda r, n: r.send(200, CONTENT + b"more"), "the server sent more than 300,000 bytes"),
        (lambda r, n: r.send(206, CONTENT, Content_Range="bytes 7-299999/300000"), "another part of the file"),
        (lambda r, n: r.send(404, b""), "the server answered 404 Not Found"),
        (lambda r, n: r.send(503, b""), "the server answered 503 Service Unavailable"),
        (lambda r, n: r.wfile.write(b"SPDY nonsense\r\n"), "the connection broke"),
    ],
)
def test_a_server_that_lies_or_refuses(serve, tmp_path, answer, words):
    server = serve(answer)
    with pytest.raises(UserError, match=words) as caught:
        download(server.release, tmp_path, patience=QUICK)
    assert "fetch it by hand from https://example.org" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "archive.zip" not in names_in(tmp_path)


def test_other_content_of_the_right_size_is_thrown_away(serve, tmp_path):
    wrong = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    server = serve(lambda request, number: request.send_part(content=wrong))
    with pytest.raises(UserError, match=r"is not the published archive\.zip .*what came was thrown away"):
        download(server.release, tmp_path, patience=QUICK)
    assert names_in(tmp_path) == []


def test_another_file_of_that_name_is_not_touched(serve, tmp_path):
    server = serve(honest)
    (tmp_path / "archive.zip").write_bytes(b"theirs")
    with pytest.raises(UserError, match="remove it to fetch it again"):
        download(server.release, tmp_path, patience=QUICK)
    assert (tmp_path / "archive.zip").read_bytes() == b"theirs"
    assert server.ranges == []


def test_an_oversized_partial_file_is_begun_anew(serve, tmp_path):
    server = serve(honest)
    (tmp_path / ".unfinished-archive.zip").write_bytes(bytes(len(CONTENT) + 1))
    assert download(server.release, tmp_path, patience=QUICK).read_bytes() == CONTENT
    assert server.ranges == ["bytes=0-"]


def test_too_little_space_is_told_before_anything_is_fetched(serve, tmp_path, monkeypatch):
    server = serve(honest)
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6, 500_000))
    with pytest.raises(UserError, match="the disk is too full"):
        download(server.release, tmp_path, patience=QUICK)
    assert server.ranges == []


def test_nobody_listens(tmp_path):
    release = Release("http://127.0.0.1:9/file", "archive.zip", 10, "0" * 64, "https://example.org")
    with pytest.raises(UserError, match="no connection"):
        download(release, tmp_path, patience=QUICK)


def test_two_downloads_at_once_are_refused(serve, tmp_path):
    server = serve(honest)
    with (tmp_path / ".unfinished-archive.zip").open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another download is writing"):
            download(server.release, tmp_path, patience=QUICK)
    assert server.ranges == []


def test_no_place_to_write(serve, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="could not be written"):
        download(serve(honest).release, tmp_path / "file", patience=QUICK)


def test_progress_counts_what_was_there_and_what_is_thrown_away(serve, tmp_path):
    shown = {}

    @contextlib.contextmanager
    def track(description, total):
        assert total == len(CONTENT)
        seen = shown.setdefault(description, [0])

        def advance(steps):
            seen.append(seen[-1] + steps)

        yield advance

    (tmp_path / ".unfinished-archive.zip").write_bytes(b"x" * 1000)
    server = serve(lambda request, number: request.send(200, CONTENT, Content_Length=str(len(CONTENT))))
    download(server.release, tmp_path, track=track, patience=QUICK)
    assert shown["Downloading"][1:3] == [1000, 0]
    assert list(shown) == ["Downloading", "Checking"]
    assert all(seen[-1] == len(CONTENT) for seen in shown.values())
    # a file that is there already is summed up before the eyes of whoever waits, too
    shown.clear()
    download(server.release, tmp_path, track=track, patience=QUICK)
    assert {description: seen[-1] for description, seen in shown.items()} == {"Checking": len(CONTENT)}


def test_the_published_figures():
    assert MENDELEY.size == 1_235_512_464
    assert len(MENDELEY.sha256) == 64
    assert MENDELEY.url.startswith("https://data.mendeley.com/public-files/datasets/rscbjbr9sj/")
