"""What the service refuses, when, and that nobody else suffers from it."""

import contextlib
import re
import time

import httpx
import pytest

from tests.serving.http.bundles import film, probability

TOKEN = "correct-horse"
SECONDS = 1.0
HEAD = b"POST /predict HTTP/1.1\r\nHost: localhost\r\n"


@pytest.fixture(scope="module")
def tight(bundle, serve):
    """A server of few and small things, which asks for a token."""
    server = serve(
        bundle,
        *("--max-megabytes", "1", "--queue", "3", "--upload-seconds", str(SECONDS)),
        CXR_SERVE_TOKEN=TOKEN,
    )
    server.client.headers["Authorization"] = f"Bearer {TOKEN}"
    return server


def head_of(server, **headers):
    """The head of an upload that is allowed, with further headers."""
    kind, _ = server.body()
    told = {"Authorization": f"Bearer {TOKEN}", **kind, **headers}
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in told.items()]
    return HEAD + "\r\n".join(lines).encode() + b"\r\n\r\n"


def answer_of(connection):
    """Status and text of what comes back until the other side closes or says no more."""
    received = b""
    with contextlib.suppress(TimeoutError, ConnectionResetError):
        while more := connection.recv(65536):
            received += more
            head, _, body = received.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head.lower())
            if length and len(body) >= int(length[1]):
                break
    return int(received.split()[1]) if received else None, received.partition(b"\r\n\r\n")[2].decode()


def is_closed(connection):
    """Whether the other side has hung up; TimeoutError where it goes on waiting."""
    with contextlib.suppress(ConnectionResetError):
        return connection.recv(1) == b""
    return True


def still_predicts(server):
    response = server.predict(("a.png", film(150)))
    return response.status_code == 200 and response.json()["files"][0]["probability"] == pytest.approx(probability(150))


@pytest.mark.parametrize(
    "sent", [{}, {"Authorization": ""}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}]
)
def test_without_the_token_nothing_is_predicted(sent, tight):
    with httpx.Client(base_url=tight.url, headers=sent, trust_env=False) as client:
        for response in (client.post("/predict", files={"file": film(1)}), client.get("/metrics")):
            assert response.status_code == 401
            assert response.json()["error"].startswith("this service asks for its token")
            assert response.headers["www-authenticate"] == "Bearer"
        assert client.get("/health").status_code == 200
        assert "Bearer" in client.get("/").text and "<form" not in client.get("/").text


def test_the_token_is_taken_and_stands_nowhere(tight):
    assert still_predicts(tight)
    assert tight.client.get("/metrics").status_code == 200
    assert TOKEN not in tight.text + tight.client.get("/").text + tight.client.get("/metrics").text


def test_an_upload_that_says_that_it_is_too_large_is_refused_before_it_comes(tight):
    with tight.connect() as connection:
        connection.sendall(head_of(tight, Content_Length=10**12))
        status, text = answer_of(connection)
    assert (status, text) == (413, '{"error":"an upload may have up to 1 MiB: send fewer files"}')
    assert still_predicts(tight)


def test_an_upload_that_does_not_say_its_size_is_refused_when_it_is_too_large(tight):
    with tight.connect() as connection:
        connection.sendall(head_of(tight, Transfer_Encoding="chunked"))
        piece = b"10000\r\n" + bytes(0x10000) + b"\r\n"
        _, body = tight.body(("a.png", b""))
        start = body[: body.index(b"\r\n\r\n") + 4]
        connection.sendall(f"{len(start):x}\r\n".encode() + start + b"\r\n" + piece * 20)
        status, text = answer_of(connection)
    assert status == 413 and "up to 1 MiB" in text
    assert still_predicts(tight)


def test_an_upload_of_the_largest_size_is_taken_and_one_of_a_byte_more_is_not(tight):
    room = 2**20 - len(tight.body(("a.bin", b""))[1])
    for size, status in ((room, 415), (room + 1, 413)):
        headers, body = tight.body(("a.bin", bytes(size)))
        assert tight.client.post("/predict", content=body, headers=headers).status_code == status


def test_an_upload_longer_than_it_says_harms_nobody(tight):
    _, body = tight.body(("a.png", film(1)))
    with tight.connect() as connection:
        connection.sendall(head_of(tight, Content_Length=len(body) // 2) + body)
        assert answer_of(connection)[0] == 400
    assert still_predicts(tight)


def test_more_files_than_may_wait_are_refused(tight):
    response = tight.predict(*[(str(level), film(level)) for level in range(4)])
    assert response.status_code == 413
    assert response.json()["error"] == "an upload may hold up to 3 files: send fewer at once"
    assert tight.predict(*[(str(level), film(level)) for level in range(3)]).status_code == 200


def test_fields_beside_the_files_are_passed_over_unless_they_are_many(tight):
    response = tight.client.post("/predict", files={"file": ("a.png", film(150))}, data={"name": "x", "note": "y"})
    assert response.status_code == 200 and len(response.json()["files"]) == 1
    many = tight.client.post("/predict", files={"file": ("a.png", film(1))}, data={f"f{i}": "x" for i in range(200)})
    assert many.status_code == 413


def test_a_part_with_an_endless_head_is_refused(tight):
    name = "n" * 100_000
    assert tight.predict((name, film(1))).status_code == 400
    assert still_predicts(tight)


@pytest.mark.parametrize("part", ["head", "body"])
def test_half_an_upload_is_given_up_in_time_and_holds_nobody_up(part, tight):
    _, body = tight.body(("a.png", film(1)))
    whole = head_of(tight, Content_Length=len(body)) + body
    sent = HEAD if part == "head" else whole[:-30]
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(tight.connect()) for _ in range(50)]
        begun = time.monotonic()
        for connection in connections:
            connection.sendall(sent)
        assert still_predicts(tight)
        answers = [answer_of(connection) for connection in connections]
        assert time.monotonic() - begun > SECONDS * 0.9
        # half a head gets no answer
        assert part == "body" or all(is_closed(connection) for connection in connections)
    if part == "head":
        assert {status for status, _ in answers} == {None}
    else:
        assert set(answers) == {(408, '{"error":"the upload did not arrive within 1 seconds: send it again"}')}
    assert still_predicts(tight)


def test_an_upload_that_drips_is_given_up_too(tight):
    _, body = tight.body(("a.png", film(1)))
    with tight.connect() as connection:
        connection.sendall(head_of(tight, Content_Length=len(body)))
        for byte in body[:40]:
            with contextlib.suppress(ConnectionError):
                connection.sendall(bytes([byte]))
            time.sleep(SECONDS / 20)
        assert answer_of(connection)[0] in (408, None)
    assert still_predicts(tight)


def test_an_upload_that_is_broken_off_is_noted_and_forgotten(tight):
    _, body = tight.body(("a.png", film(1)))
    lines = len(tight.lines)
    with tight.connect() as connection:
        connection.sendall(head_of(tight, Content_Length=len(body)) + body[:-30])
    deadline = time.monotonic() + 120
    while not any(" /predict 499 " in line for line in tight.lines[lines:]):
        assert time.monotonic() < deadline, tight.text
        time.sleep(0.02)
    assert still_predicts(tight)


def test_no_library_logs_anything(tight):
    """What a parser says of an upload may quote it."""
    headers, body = tight.body(("a.png", film(1)))
    damaged = tight.client.post("/predict", content=b"DOE^JOHN" + body, headers=headers)
    assert damaged.status_code == 400
    begun = next(number for number, line in enumerate(tight.lines) if line.startswith("Listening")) + 1
    assert [
        line for line in tight.lines[begun:] if not re.match(r"\d{4}-\d\d-\d\d [\d:+]+ \S+ \d{3} \d+ ms", line)
    ] == []


def test_what_is_no_http_is_refused(tight):
    with tight.connect() as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00 this is TLS\r\n\r\n")
        assert answer_of(connection)[0] == 400
    assert still_predicts(tight)
