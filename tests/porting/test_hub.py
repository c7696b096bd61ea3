"""Published weights, fetched from a hub that stands on this machine and behaves as the real one does."""

import contextlib
import hashlib
import http.server
import json
import sys
import threading

import numpy as np
import pytest
from drawn import drawn_tensors
from safetensors.numpy import load_file, save

from cxr_jax.cli import main as cli
from cxr_jax.errors import UserError
from cxr_jax.models.pretrained import read_weights
from cxr_jax.models.registry import model_shapes
from cxr_jax.porting import hub
from cxr_jax.porting.hub import find_release, published_name

NAME = "mobilenetv2_050.lamb_in1k"
PAGE = f"/timm/{NAME}"


class Hub(http.server.ThreadingHTTPServer):
    """Serves `content` as the hub does: its address states size and sha256 and points to where the file lies."""

    daemon_threads = True

    def __init__(self, content):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.stated = {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"'}
        self.asked = []  # method, path and range of every request
        self.cut = 0  # after so many bytes the first connection ends
        self.status = 302

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.server.asked.append(("HEAD", self.path, None))
        if self.path.startswith("/timm/renamed/"):
            self.send_response(307)
            self.send_header("Location", f"{PAGE}/resolve/main/model.safetensors")
        else:
            self._state()
        self.end_headers()

    def do_GET(self):
        self.server.asked.append(("GET", self.path, self.headers.get("Range")))
        if self.path.startswith("/timm/"):
            self._state()
            self.end_headers()
            return
        content = self.server.content
        start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end, self.server.cut = self.server.cut or len(content), 0
        with contextlib.suppress(ConnectionError):
            self.wfile.write(content[start:end])

    def _state(self):
        self.send_response(self.server.status)
        for name, value in self.server.stated.items():
            self.send_header(name, value)
        self.send_header("Location", f"{self.server.address}/blob?signature=x")

    def log_message(self, *arguments):
        """Say nothing."""


class NoTorch:
    """Refuses imports, as if these were not installed."""

    names = ("torch", "torchvision", "timm")

    def find_spec(self, name, *_):
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


@pytest.fixture
def serve(monkeypatch):
    """Starts a hub with a content; the environment names it as the mirror."""
    monkeypatch.setattr(sys, "meta_path", [NoTorch(), *sys.meta_path])
    for name in [name for name in sys.modules if name.split(".")[0] in NoTorch.names]:
        monkeypatch.delitem(sys.modules, name)
    with contextlib.ExitStack() as stack:

        def start(content):
            server = stack.enter_context(Hub(content))
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            monkeypatch.setenv("HF_ENDPOINT", server.address)
            return server

        yield start


@pytest.fixture(scope="module")
def tensors():
    """What timm would publish under NAME, with torch's counters."""
    _, params, batch_stats = model_shapes("mobilenetv2_050", classes=1000)
    drawn = {key: value.astype(np.float32) for key, value in drawn_tensors(params | batch_stats).items()}
    return drawn | {"bn1.num_batches_tracked": np.array(7)}


def test_a_name_is_fetched_proven_and_ported_without_torch_or_timm(serve, tensors, tmp_path, capsys):
    content = save(tensors, {"format": "pt"})
    server, out = serve(content), tmp_path / "net.safetensors"
    assert cli(["port", "mobilenetv2_050", str(out)]) == 0
    printed = capsys.readouterr().out
    sha256 = hashlib.sha256(content).hexdigest()
    for told in (f"Fetching timm's {NAME}", sha256, f"{len(content)} bytes", "license: apache-2.0", str(out)):
        assert told in printed
    found, metadata = read_weights(out)
    assert found.keys() == tensors.keys() - {"bn1.num_batches_tracked"}
    for name, value in found.items():
        np.testing.assert_array_equal(value, tensors[name])
    address = f"{server.address}{PAGE}/resolve/main/model.safetensors"
    assert metadata["source"] == f"timm's {NAME}, {address}, {len(content)} bytes, sha256 {sha256}"
    assert (metadata["architecture"], metadata["license"]) == ("mobilenetv2_050", "apache-2.0")
    assert json.loads(metadata["mean"]) == [0.485, 0.456, 0.406]
    # nothing but the port stays
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_an_interrupted_fetch_goes_on_where_it_was(serve, tensors, tmp_path):
    content = save(tensors)
    server, out = serve(content), tmp_path / "net.safetensors"
    waiting = tmp_path / f".unfinished-{NAME}"
    waiting.mkdir()
    (waiting / f".unfinished-{NAME}.safetensors").write_bytes(content[:1_000_000])
    assert cli(["port", NAME, str(out)]) == 0
    ranges = [asked for method, path, asked in server.asked if path.startswith("/blob")]
    assert ranges == ["bytes=1000000-"]
    assert load_file(out)["conv_head.weight"].shape == tensors["conv_head.weight"].shape
    assert not waiting.exists()


def test_a_connection_that_ends_early_is_taken_up_again(serve, tensors, tmp_path):
    content = save(tensors)
    server = serve(content)
    server.cut = 500_000
    assert cli(["port", NAME, str(tmp_path / "net.safetensors")]) == 0
    assert [asked for method, path, asked in server.asked if path.startswith("/blob")] == ["bytes=0-", "bytes=500000-"]


def test_what_is_not_what_the_hub_states_is_thrown_away(serve, tensors, tmp_path, capsys):
    server = serve(save(tensors))
    server.stated["X-Linked-Etag"] = f'"{"0" * 64}"'
    assert cli(["port", NAME, str(tmp_path / "net.safetensors")]) == 1
    assert "its size or sha256 differs" in capsys.readouterr().err
    assert not (tmp_path / "net.safetensors").exists()
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize(
    ("status", "stated", "sentence"),
    [
        (404, {}, "the hub has no such file"),
        (401, {}, "the hub has no such file"),
        (503, {}, "the hub answered 503"),
        (302, {"X-Linked-Etag": '"abc"', "X-Linked-Size": "3"}, "states no size and sha256 of it"),
        (200, {}, "states no size and sha256 of it"),
    ],
)
def test_a_hub_that_does_not_help_is_told_with_the_way_around_it(serve, status, stated, sentence):
    server = serve(b"weights")
    server.status, server.stated = status, stated
    with pytest.raises(UserError, match=sentence) as raised:
        find_release(NAME)
    way = f"or fetch model.safetensors by hand from {server.address}{PAGE} and run cxr-jax port FILE OUT"
    assert str(raised.value).startswith(f"{NAME} could not be fetched: ")
    assert str(raised.value).endswith(way)


def test_no_connection_is_told(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(UserError, match=rf"{NAME} could not be fetched: no connection \(.*by hand from"):
        find_release(NAME)


def test_a_renamed_repository_is_followed(serve):
    server = serve(b"weights")
    assert find_release("renamed").sha256 == hashlib.sha256(b"weights").hexdigest()
    assert [path.split("/")[2] for _, path, _ in server.asked] == ["renamed", NAME]


def test_a_mirror_must_be_reached_by_https(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://example.org")
    with pytest.raises(UserError, match=r"HF_ENDPOINT is http://example.org, but must begin with https://"):
        find_release(NAME)
    monkeypatch.delenv("HF_ENDPOINT")
    assert hub.HUB.startswith("https://")


def test_names_that_cannot_be_fetched_are_told_before_anything_is_asked(monkeypatch):
    with pytest.raises(UserError, match="did you mean tf_efficientnetv2_s"):
        published_name("efficientnetv2_s")
    with pytest.raises(UserError, match="no published weights of mobilenetv2_tiny; give a file"):
        published_name("mobilenetv2_tiny")
    # timm has these, which expect images of other statistics
    sentence = r"called tf_efficientnetv2_b3\.in21k are known; choose one of tf_efficientnetv2_b3\.in1k"
    with pytest.raises(UserError, match=sentence):
        published_name("tf_efficientnetv2_b3.in21k")


def test_real_weights_come_through_the_hub_to_the_bit(serve, real_weights, tmp_path):
    serve(real_weights.read_bytes())
    assert cli(["port", "mobilenetv2_100", str(tmp_path / "net.safetensors")]) == 0
    found, expected = load_file(tmp_path / "net.safetensors"), load_file(real_weights)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_array_equal(found[name], value)
