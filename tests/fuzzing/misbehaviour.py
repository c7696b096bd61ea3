"""Readers that do what no reader may, to see that the harness sees it. Odd cases misbehave, the others are refused."""

from __future__ import annotations

import os
import pickle
import signal
import time
from pathlib import Path
from random import Random

from cxr_jax.errors import UserError

from .readers import Format


def _make(random: Random) -> bytes:
    return bytes([random.randrange(256)])


def _misbehave(path: Path, deed: str) -> None:
    if not path.read_bytes() or path.read_bytes()[0] < 128:
        raise UserError("a sentence")
    if deed == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if deed == "hang":
        time.sleep(1000)
    if deed == "raise":
        raise KeyError("traceback")
    if deed == "silent":
        raise UserError(" ")
    if deed == "litter":
        (path.parent / "litter").mkdir(exist_ok=True)
    if deed == "escape":
        Path(path.parent.parent / "outside").write_text("x")
    if deed == "swallow":
        bytearray(2**35)
    if deed == "unpickle":
        pickle.loads(pickle.dumps(Path))


def _format(deed: str) -> Format:
    return Format("case", _make, lambda path: _misbehave(path, deed), most=0)


MISBEHAVIOUR = {
    deed: _format(deed) for deed in ("crash", "hang", "raise", "silent", "litter", "escape", "swallow", "unpickle")
}
