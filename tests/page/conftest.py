"""The modules of the page in a browser, served from a folder into which tests put files."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import numpy as np
import pytest

import cxr_jax.page
from tests.browser import Browser, served

SOURCE = Path(cxr_jax.page.__file__).parent
VENDORED = (SOURCE / "vendor" / "codecs.js").is_file()
NOT_VENDORED = "what the page takes from npm is not there: scripts/vendor_page fetches it"


class Modules:
    """Runs what stands in the modules of the page."""

    def __init__(self, browser, folder):
        self.browser, self.folder = browser, folder

    def write(self, name: str, data: bytes | np.ndarray) -> str:
        """Put a file, or the bytes of an array, where scripts can fetch it."""
        path = self.folder / "files" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else np.ascontiguousarray(data).tobytes())
        return f"/files/{name}"

    def run(self, script: str):
        """Return what a script returns that may await; it has `load(module)`, `bytes(address)` and `coded(array)`."""
        return self.browser.run_async(f"""
            const load = (name) => import(`/app/${{name}}.js`);
            const asked = (address) => fetch(address, {{cache: "no-store"}});
            const bytes = async (address) => new Uint8Array(await (await asked(address)).arrayBuffer());
            const coded = (array) => {{
                const all = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
                let text = "";
                for (let i = 0; i < all.length; i += 32768) text += String.fromCharCode(...all.subarray(i, i + 32768));
                return btoa(text);
            }};
            {script}
        """)


def array_of(coded: str, dtype, shape) -> np.ndarray:
    return np.frombuffer(base64.b64decode(coded), dtype).reshape(shape)


@pytest.fixture(scope="session")
def modules(tmp_path_factory):
    folder = tmp_path_factory.mktemp("modules")
    shutil.copytree(SOURCE / "static" / "app", folder / "app")
    if VENDORED:
        shutil.copytree(SOURCE / "vendor", folder / "vendor")
    (folder / "index.html").write_text("<!doctype html><title>modules</title>")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    try:
        with served(folder) as address:
            browser.open(address, 800)
            yield Modules(browser, folder)
    finally:
        browser.close()
