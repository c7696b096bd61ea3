"""A process that reads one file after the other and says what came of each; it may be killed or crash at any time.

    python -m tests.fuzzing.worker FORMAT FOLDER

takes lines `seed INDEX SEED` or `file PATH` and answers each with one line of JSON.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import traceback
from pathlib import Path

MEMORY = 3 * 2**30
"""Bytes that a case may take beyond what the process has at its start."""

_WRITING = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link", "os.truncate", "shutil.rmtree")
_FORBIDDEN = ("socket.connect", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pickle.find_class")


class Watch:
    """Sees, by Python's audit hook, files that are written outside of a folder, connections, commands and pickles."""

    def __init__(self, folder: Path) -> None:
        """Watch from now on; what is found collects in `seen`."""
        self._folder = str(folder.resolve()) + os.sep
        self.seen: list[str] = []
        self.on = False
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple) -> None:
        if not self.on:
            return
        if event == "open":
            path, mode, flags = arguments
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) or any(c in (mode or "") for c in "wax+")
            if writes and not self._inside(path):
                self.seen.append(f"wrote {path!r}")
        elif event in _WRITING and not self._inside(arguments[0]):
            self.seen.append(f"{event} {arguments[0]!r}")
        elif event in _FORBIDDEN:
            self.seen.append(f"{event} {arguments!r}"[:300])

    def _inside(self, path: object) -> bool:
        if isinstance(path, int):
            return True
        text = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else str(path)
        return text == os.devnull or (os.path.realpath(text) + os.sep).startswith(self._folder)


def main(name: str, folder: str) -> None:
    """Answer lines until there are no more."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    # What libraries print in C must not mix with the answers.
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    from .misbehaviour import MISBEHAVIOUR
    from .readers import FORMATS, case, run

    place = Path(folder)
    if name in MISBEHAVIOUR:
        FORMATS[name] = MISBEHAVIOUR[name]
    path = place / FORMATS[name].name
    if name not in MISBEHAVIOUR:
        for index in range(20):  # imports, caches and first-time files
            path.write_bytes(case(name, -1, index))
            _outcome(run, name, path)
    watch = Watch(place)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    answers.write(json.dumps({"ready": True}) + "\n")
    for line in sys.stdin:
        kind, *words = json.loads(line)
        path.write_bytes(case(name, *words) if kind == "seed" else Path(words[0]).read_bytes())
        watch.seen.clear()
        watch.on = True
        outcome, detail = _outcome(run, name, path)
        watch.on = False
        left = sorted(p.name for p in place.iterdir() if p != path)
        for entry in left:
            shutil.rmtree(place / entry) if (place / entry).is_dir() else (place / entry).unlink()
        if watch.seen or left:
            outcome, detail = "escape", "; ".join([*watch.seen, *(f"left {entry}" for entry in left)])
        answers.write(json.dumps({"outcome": outcome, "detail": detail}) + "\n")


def _outcome(run: object, name: str, path: Path) -> tuple[str, str]:
    try:
        return run(name, path), ""
    except BaseException:
        return "traceback", traceback.format_exc(limit=-6)


if __name__ == "__main__":
    main(*sys.argv[1:])
