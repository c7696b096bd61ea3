"""`cxr-jax pacs` as it is typed: beside Orthanc, an archive that hospitals run, and with what can be typed wrongly."""

import importlib.util
import io
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pydicom
import pytest
import requests

from cxr_jax.commands import pacs
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.serving.dicomweb.multipart import encode_parts
from cxr_jax.vocabulary import DISCLAIMER
from tests.serving.dicomweb.archive_server import header
from tests.serving.dicomweb.conftest import FIRST, SECOND, SECRET
from tests.serving.without_jax import WITHOUT_JAX

SINCE = ("--since", "2026-11-01")
ORTHANC = shutil.which("Orthanc")
PLUGIN = next(Path("/usr/share/orthanc/plugins").glob("libOrthancDicomWeb.so*"), None)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch, tmp_path):
    """A request is tried again at once, and the journal lies in a folder of the test's own."""
    monkeypatch.setattr("cxr_jax.serving.dicomweb.connection.WAITS", (0.01,))
    monkeypatch.chdir(tmp_path)


class Orthanc:
    """An Orthanc of its own, empty at first, which asks for a password."""

    sign_in = ("cxr", "open sesame")

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.root = f"http://127.0.0.1:{port}"
        self.url = f"{self.root}/dicom-web"
        self.password = folder / "password"
        self.password.write_text(f"{self.sign_in[1]}\n")
        settings = {
            "Name": "tests",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "storage"),
            "HttpPort": port,
            "DicomServerEnabled": False,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": True,
            "RegisteredUsers": dict([self.sign_in]),
            "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self.log = (folder / "log").open("w")
        self.process = subprocess.Popen([ORTHANC, str(folder / "orthanc.json")], stdout=self.log, stderr=self.log)

    def wait(self) -> None:
        """Returns when it answers."""
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                return requests.get(f"{self.root}/system", auth=self.sign_in, timeout=60).raise_for_status()
            except requests.ConnectionError:
                time.sleep(0.1)
        raise AssertionError("Orthanc does not start")

    def add(self, *files: bytes) -> None:
        """Stores files as a detector would."""
        content_type, body = encode_parts(files)
        headers = {"Content-Type": content_type, "Accept": "application/dicom+json"}
        requests.post(
            f"{self.url}/studies", data=body, headers=headers, auth=self.sign_in, timeout=60
        ).raise_for_status()

    def get(self, path: str) -> requests.Response:
        answer = requests.get(self.root + path, auth=self.sign_in, timeout=60)
        answer.raise_for_status()
        return answer

    def files(self) -> list[bytes]:
        """Everything that it holds."""
        return [self.get(f"/instances/{name}/file").content for name in self.get("/instances").json()]


@pytest.fixture
def orthanc(tmp_path):
    if ORTHANC is None or PLUGIN is None:
        pytest.skip("no Orthanc with DICOMweb (Debian: apt-get install orthanc orthanc-dicomweb)")
    server = Orthanc(tmp_path)
    try:
        server.wait()
        yield server
    finally:
        server.process.terminate()
        server.process.wait(120)
        server.log.close()


def test_beside_orthanc(orthanc, bundle, radiograph, tmp_path, capsys):
    """Report and picture of each radiograph come back out of a real archive, once, in the right study."""
    orthanc.add(radiograph(FIRST, 1), radiograph(FIRST, 2, ViewPosition="LL"), radiograph(SECOND, 1, Modality="CR"))
    command = [str(bundle), "--dicomweb", orthanc.url, "--once", *SINCE]
    with pytest.raises(UserError, match="asks who is there"):
        pacs.main(command)
    command += ["--user", orthanc.sign_in[0], "--password-file", str(orthanc.password)]
    assert pacs.main(command) == 0
    told = capsys.readouterr().out
    assert (
        DISCLAIMER in told
        and "1 image passed over (another view than from the front)" in told
        and "2 studies: nothing is left" in told
    )
    assert SECRET not in told + (tmp_path / "pacs-journal.jsonl").read_text()

    made = [pydicom.dcmread(io.BytesIO(data)) for data in orthanc.files()]
    films = {film.SOPInstanceUID: film for film in made if film.Modality in ("CR", "DX")}
    reports, pictures = ([entry for entry in made if entry.Modality == kind] for kind in ("SR", "OT"))
    assert {report.StudyInstanceUID for report in reports} == {FIRST, SECOND} and len(reports) == 2
    sources = [picture.SourceImageSequence[0].ReferencedSOPInstanceUID for picture in pictures]
    assert sorted(sources) == [f"{FIRST}.1.1", f"{SECOND}.2.1"]
    for source, picture in zip(sources, pictures, strict=True):
        assert picture.PatientName == films[source].PatientName and picture.PatientID == films[source].PatientID
        assert picture.StudyInstanceUID == films[source].StudyInstanceUID
        assert picture.pixel_array.shape[2] == 3
    # of two patients with one study each, none has become a third
    assert len(orthanc.get("/patients").json()) == 1 and len(orthanc.get("/studies").json()) == 2

    if shutil.which("dsrdump"):
        reports[0].save_as(tmp_path / "report.dcm")
        dumped = subprocess.run(["dsrdump", str(tmp_path / "report.dcm")], capture_output=True, timeout=60, check=True)
        assert b"Imaging Measurement Report" in dumped.stdout and not dumped.stderr

    before = sorted(entry.SOPInstanceUID for entry in made)
    (tmp_path / "pacs-journal.jsonl").unlink()
    orthanc.add(radiograph(FIRST, 3))
    assert pacs.main(command) == pacs.main(command) == 0
    after = sorted(header(data).SOPInstanceUID for data in orthanc.files())
    assert set(before) < set(after) and len(after) == len(before) + 3 == len(set(after))


def started(bundle, archive, *options):
    """The command in a process of its own, in which jax cannot be imported."""
    command = [str(bundle), "--dicomweb", archive.url, *SINCE, *options]
    return subprocess.Popen(
        [sys.executable, "-c", WITHOUT_JAX, "pacs", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_lets_the_study_at_hand_be_finished(archive, bundle, radiograph, number):
    archive.add(radiograph(FIRST), radiograph(SECOND))
    process = None

    def ask(request):
        if request.method == "POST":
            process.send_signal(number)
            time.sleep(0.3)
        return False

    archive.fault = ask
    process = started(bundle, archive, "--every", "0.1")
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 0, told
    assert "asked to stop" in told and "1 image predicted" in told and "stopped" in told
    assert sorted(header(data).StudyInstanceUID for data in archive.files.values()) == [FIRST] * 3 + [SECOND]


@pytest.mark.slow
def test_killed_at_any_moment_nothing_is_lost_or_doubled(archive, bundle, radiograph):
    archive.add(*(radiograph(f"1.2.840.99.{study}", number) for study in range(1, 16) for number in (1, 2)))
    generator, killed = random.Random(0), 0
    for _ in range(60):
        posts = len(archive.sent)
        process = started(bundle, archive, "--once")
        # every other time it is killed while something is stored, otherwise at any time
        wait_until = time.monotonic() + generator.uniform(0.5, 8)
        while time.monotonic() < wait_until and process.poll() is None:
            if generator.random() < 0.5 and len(archive.sent) > posts + generator.randint(0, 6):
                break
            time.sleep(0.005)
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += 1
    assert started(bundle, archive, "--once").wait(120) == 0
    assert killed >= 5
    made = [header(data) for data in archive.files.values()]
    for kind in ("SR", "OT"):
        assert sum(entry.Modality == kind for entry in made) == 30
    assert len(archive.sent) == len(set(archive.sent)) == 60


def test_an_archive_with_a_certificate_of_its_own(archive, bundle, radiograph, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("no openssl on the path")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    ask = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    ask += [
        "-subj",
        "/CN=pacs",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run(ask, check=True, capture_output=True, timeout=60)
    archive.stop()
    archive.certificate = tmp_path / "both.pem"
    archive.certificate.write_text(key.read_text() + certificate.read_text())
    archive.start()
    archive.add(radiograph(FIRST))
    command = [str(bundle), "--dicomweb", archive.url, "--once", *SINCE]
    with pytest.raises(UserError, match="certificate that is not trusted: name the authority that signed it by --ca"):
        pacs.main(command)
    assert pacs.main([*command, "--ca", str(certificate)]) == 0
    assert len(archive.files) == 3


def test_an_archive_that_is_not_there_is_told(archive, bundle):
    archive.stop()
    with pytest.raises(UserError, match=r"the PACS at .* cannot be reached: is it running, and is the address right\?"):
        pacs.main([str(bundle), "--dicomweb", archive.url, "--once"])


def test_a_study_that_could_not_be_finished_ends_with_an_error(archive, bundle, radiograph, capsys):
    archive.add(radiograph(FIRST), radiograph(SECOND))
    archive.refused = {"SR"}
    with pytest.raises(UserError, match="2 of 2 studies could not be finished, as told above"):
        pacs.main([str(bundle), "--dicomweb", archive.url, "--once", "--show-uids", *SINCE])
    assert f"study {FIRST}: 1 image failed (the PACS at" in capsys.readouterr().out


def test_a_damaged_bundle_is_told_before_anything_is_asked(archive, bundle, tmp_path):
    damaged = Path(shutil.copytree(bundle, tmp_path / "damaged"))
    (damaged / "model.onnx").write_bytes(b"\0" + (damaged / "model.onnx").read_bytes())
    with pytest.raises(UserError, match="sha256"):
        pacs.main([str(damaged), "--dicomweb", archive.url, "--once"])
    with pytest.raises(UserError, match=re.escape("bundle.json")):
        pacs.main([str(tmp_path / "nothing"), "--dicomweb", archive.url, "--once"])
    assert not archive.requests


URL = "http://127.0.0.1:1/dicom-web"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "name a bundle and an archive"),
        (["--dicomweb", "pacs.example"], "is no address of a DICOMweb service"),
        (["--dicomweb", "ftp://pacs.example"], "is no address of a DICOMweb service"),
        (["--dicomweb", "http://pacs:port/x"], "is no address of a DICOMweb service"),
        (["--dicomweb", f"{URL}?x=1"], "is no address of a DICOMweb service"),
        (["--dicomweb", "http://me:secret@pacs/x"], "give them by --user and --password-file"),
        (["--dicomweb", URL, "--every", "0"], "--every is 0, but must be above 0"),
        (["--dicomweb", URL, "--timeout", "-1"], "--timeout is -1, but must be above 0"),
        (["--dicomweb", URL, "--since", "tomorrow"], "--since is 'tomorrow'"),
        (["--dicomweb", URL, "--user", "me"], "--user and --password-file belong together"),
        (["--dicomweb", URL, "--password-file", "x"], "--user and --password-file belong together"),
        (["--dicomweb", URL, "--user", "me", "--password-file", "nothing"], "nothing cannot be read"),
        (["--dicomweb", URL, "--user", "me", "--token-file", "x"], "give one of them"),
        (["--dicomweb", URL, "--ca", "nothing"], "--ca nothing is no file of certificates in PEM"),
        (["--dicomweb", URL, "--ca", __file__], "is no file of certificates in PEM"),
        (["--dicomweb", URL, "--journal", "."], "--journal . is a folder"),
    ],
)
def test_what_is_typed_wrongly_is_told(options, sentence, bundle):
    with pytest.raises(UserError, match=sentence) as told:
        pacs.main([str(bundle), "--once", *options])
    assert "secret" not in str(told.value)
    if not options:
        assert told.value.code == EXIT_USAGE


@pytest.mark.parametrize("package", ["highdicom", "pydicom", "requests"])
def test_a_package_that_is_missing_is_told(package, bundle, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else found(name))
    with pytest.raises(UserError, match=rf"pacs needs {package}: pip install 'cxr-jax\[pacs\]'"):
        pacs.main([str(bundle), "--dicomweb", URL])


def test_a_password_in_clear_is_warned_of(bundle, capsys):
    with pytest.raises(UserError, match=r"cannot be reached|did not answer"):
        pacs.main([str(bundle), "--dicomweb", "http://pacs.invalid/x", "--once", "--timeout", "2"])
    assert "whoever listens on the way" in capsys.readouterr().err
