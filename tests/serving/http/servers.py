"""A real process of `cxr-jax serve`, asked over its socket."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import httpx

from tests.serving.without_jax import WITHOUT_JAX

ROOT = Path(__file__).parents[3]


class Server:
    """A process that serves, what it printed so far, and a client of it."""

    def __init__(self, bundle: Path, *options: str, **environment: str) -> None:
        command = [sys.executable, "-c", WITHOUT_JAX, "serve", str(bundle), *options]
        if "--port" not in options:
            command += ["--port", "0"]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=bundle.parent,
            env=os.environ | {"PYTHONPATH": str(ROOT), **environment},
        )
        self.lines: list[str] = []
        self._listening = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._listening.wait(120), self.text
        found = re.search(r"Listening on (http://\S+:(\d+))", self.text)
        assert found, self.text
        self.url, self.port = found[1], int(found[2])
        self.client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if line.startswith("Listening"):
                self._listening.set()
        self._listening.set()

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    def predict(self, *files: tuple[str, bytes], **options: object) -> httpx.Response:
        return self.client.post("/predict", files=[("file", file) for file in files], **options)

    def body(self, *files: tuple[str, bytes]) -> tuple[dict[str, str], bytes]:
        """Returns what the head of an upload says of its kind, and its body, to be sent in another way."""
        kind = {"Content-Type": "multipart/form-data; boundary=one-for-all"}
        request = self.client.build_request("POST", "/predict", files=[("file", file) for file in files], headers=kind)
        return kind, request.read()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Asks the process to end, waits for it, and returns its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        code = self.process.wait(120)
        self._reader.join(30)
        self.client.close()
        return code
