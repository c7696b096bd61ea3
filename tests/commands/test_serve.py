"""`cxr-jax serve`: its mistakes, and how it begins and ends. What it answers is held in tests/serving/http."""

import json
import signal
import socket
import sys

import pytest

from cxr_jax.commands import serve
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.vocabulary import DISCLAIMER
from tests.serving.http.bundles import FILMS, film, write_mean_bundle
from tests.serving.http.servers import Server


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    monkeypatch.delenv(serve.TOKEN_VARIABLE, raising=False)
    return write_mean_bundle(tmp_path / "bundle")


def changed(bundle, **values):
    path = bundle / "bundle.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda bundle: (bundle / "model.onnx").write_bytes(b"other"), "is not the file that was exported"),
        (lambda bundle: (bundle / "model.onnx").unlink(), "lacks model.onnx: export the run again"),
        (lambda bundle: changed(bundle, schema_version=99), "was exported by a newer version of cxr_jax"),
        (lambda bundle: changed(bundle, network=None), "bundle.json is damaged"),
        (lambda bundle: (bundle / "bundle.json").write_text("{"), "is damaged, it is not JSON"),
        (lambda bundle: (bundle / "bundle.json").unlink(), "there is no bundle at .*: it holds no bundle.json"),
        (
            lambda bundle: (bundle / "bundle.json").rename(bundle / "config.toml"),
            "is a run: export it first, by cxr-jax",
        ),
    ],
)
def test_a_bundle_that_cannot_be_used_is_told(damage, sentence, bundle):
    damage(bundle)
    with pytest.raises(UserError, match=sentence):
        serve.main([str(bundle), "--port", "0"])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["BUNDLE", "--port", "70000"], "--port is 70000, but must be from 0 to 65535"),
        (["BUNDLE", "--queue", "0"], "--queue is 0, but must be from 1"),
        (["BUNDLE", "--max-megabytes", "0"], "--max-megabytes is 0, but must be from 1"),
        (["BUNDLE", "--upload-seconds", "nan"], "--upload-seconds is nan, but must be from"),
    ],
)
def test_an_option_out_of_range_is_told(options, sentence, bundle):
    with pytest.raises(UserError, match=sentence) as told:
        serve.main([str(bundle) if option == "BUNDLE" else option for option in options])
    assert told.value.code == EXIT_USAGE


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"", "is empty: write a token into it"),
        (b"\xff\xfe", "cannot be read: it is no text"),
        (b"two words", "must be letters, digits and signs of ASCII without spaces"),
    ],
)
def test_a_token_that_cannot_be_used_is_told(content, sentence, bundle, tmp_path):
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=sentence):
        serve.main([str(bundle), "--port", "0", "--token-file", str(file)])


def test_an_address_that_is_not_to_be_had_is_told(bundle):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1, port {port} .*: choose another --port"):
            serve.main([str(bundle), "--port", str(port)])
    with pytest.raises(UserError, match=r"the address no\.such\.host\.invalid is not known here"):
        serve.main([str(bundle), "--port", "0", "--host", "no.such.host.invalid"])


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "prometheus_client", "python_multipart"])
def test_a_missing_package_is_named_with_the_way_to_get_it(package, bundle, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("cxr_jax.serving.http", f"{package}."))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"^serve needs {package}: pip install 'cxr-jax\[serve\]'$"):
        serve.main([str(bundle), "--port", "0"])


def test_what_it_says_from_begin_to_end(bundle, tmp_path):
    (tmp_path / "token").write_text("secret\n")
    server = Server(bundle, "--host", "0.0.0.0", "--token-file", str(tmp_path / "token"))
    server.predict(("a.png", film(1)), headers={"Authorization": "Bearer secret"})
    assert server.stop(signal.SIGINT) == 0
    loading, model, films, disclaimer, listening, request, stopped = server.lines
    assert loading == f"Loading the network of {bundle}"
    assert model == (
        "Model: mean of flat, exported. Called: PNEUMONIA from 0.5000 (rule: youden); on 200 validation images "
        "sensitivity 90.0 % and specificity 80.0 %."
    )
    assert (films, disclaimer) == (FILMS, DISCLAIMER)
    assert listening == f"Listening on {server.url}; its page tells what to send. Ctrl-C ends it."
    assert request.split(" ", 2)[2].startswith("/predict 200 ") and request.endswith(", 1 image")
    assert stopped == "Stopped. Everything that was accepted is answered."


def test_whoever_opens_it_to_others_without_a_token_is_warned(bundle):
    server = Server(bundle, "--host", "0.0.0.0")
    assert server.stop() == 0
    (told,) = (line for line in server.lines if line.startswith("cxr-jax: "))
    assert told.startswith("cxr-jax: anybody who reaches 0.0.0.0 can use this service")
