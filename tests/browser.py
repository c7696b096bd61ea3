"""A real browser for tests: a headless Chromium that obeys over two pipes, so that nothing else is needed."""

import base64
import contextlib
import fcntl
import functools
import http.server
import json
import os
import select
import shutil
import signal
import threading
import time

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)

MISSING = "no Chromium on the path (Debian: apt-get install chromium)"
"""Why a test without a browser is skipped."""

PATIENCE = 60
"""Seconds after which a browser that does not answer fails the test."""


class _Silent(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_told):
        pass


@contextlib.contextmanager
def served(folder):
    """Yield the address of a web server that hosts a folder as any does."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Silent, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Browser:
    """A headless Chromium with one tab, under the DevTools protocol: JSON objects, each ended by a NUL byte."""

    def __init__(self, profile):
        read_by_browser, self.outgoing = os.pipe()
        self.incoming, written_by_browser = os.pipe()
        # The browser reads at 3 and writes at 4; its ends must not lie there themselves when they are copied.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (read_by_browser, written_by_browser)]
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
        # A phone lays its scroll bars over the page.
        options += ["--hide-scrollbars", "--disable-background-networking"]
        self.process = os.posix_spawn(
            PROGRAM,
            [PROGRAM, *options, f"--user-data-dir={profile}", "--remote-debugging-pipe", "about:blank"],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, ends[0], 3),
                (os.POSIX_SPAWN_DUP2, ends[1], 4),
                (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
            ],
        )
        for end in (*ends, read_by_browser, written_by_browser):
            os.close(end)
        self.number, self.pending, self.events, self.session = 0, b"", [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def receive(self):
        end = time.monotonic() + PATIENCE
        while b"\0" not in self.pending:
            assert select.select([self.incoming], [], [], max(0, end - time.monotonic()))[0], "Chromium is silent"
            part = os.read(self.incoming, 1 << 20)
            assert part, "Chromium has ended"
            self.pending += part
        message, _, self.pending = self.pending.partition(b"\0")
        return json.loads(message)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session is not None:
            message["sessionId"] = self.session
        os.write(self.outgoing, json.dumps(message).encode() + b"\0")
        while (answer := self.receive()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, page, width, scheme="light", media="screen"):
        """Show a file, or an address, at that width in pixels; `events` are those from the start of loading on."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=844, deviceScaleFactor=1, mobile=False)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.events = []
        self.call("Page.navigate", url=page if isinstance(page, str) else page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self.receive())

    def run(self, script):
        """Return what a function body returns in the page."""
        answer = self.call("Runtime.evaluate", expression=f"(() => {{ {script} }})()", returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, script, seconds=PATIENCE):
        """Wait until a function body, which may await, returns something true in the page, and return that."""
        end = time.monotonic() + seconds
        while not (found := self.run_async(script)):
            assert time.monotonic() < end, f"still not after {seconds} s: {script}"
            time.sleep(0.05)
        return found

    def run_async(self, script):
        """Return what a function body that may await returns in the page."""
        expression = f"(async () => {{ {script} }})()"
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def choose_files(self, selector, files):
        """Have a person choose files."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])

    def picture(self, path):
        """Write what the window shows as a PNG."""
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self):
        os.kill(self.process, signal.SIGTERM)
        os.waitpid(self.process, 0)
        os.close(self.outgoing)
        os.close(self.incoming)
