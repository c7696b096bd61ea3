"""`cxr-jax pacs BUNDLE --dicomweb URL`: predicts new radiographs of a picture archive, and stores the results there."""

from __future__ import annotations

import contextlib
import importlib.util
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated

from cxr_jax.config.command_line import Option, Positional, parse
from cxr_jax.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, EXIT_USAGE, UserError
from cxr_jax.terminal import Terminal
from cxr_jax.vocabulary import DISCLAIMER

SUMMARY = "predict new radiographs of a picture archive (PACS); store reports and heat maps there"


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    bundle: Annotated[str, Positional("BUNDLE")] = ""  # folder of an exported network
    dicomweb: Annotated[str, Option("URL")] = ""  # address of the archive's DICOMweb service
    # the earliest date of the studies: a date as 2026-11-20, or days before today as 7d
    since: Annotated[str, Option("WHEN")] = "2d"
    every: Annotated[float, Option("SECONDS")] = 60.0  # between two looks for new studies
    once: bool = False  # look once, and end
    user: Annotated[str, Option("NAME")] = ""  # who signs in, with --password-file
    password_file: Annotated[str, Option("FILE")] = ""  # holds the password of --user
    token_file: Annotated[str, Option("FILE")] = ""  # holds a bearer token; read anew for every request
    ca: Annotated[str, Option("FILE")] = ""  # certificates of the authority that signed the archive's, in PEM
    timeout: Annotated[float, Option("SECONDS")] = 60.0  # for one request
    # what is known between two starts; without it more is asked for, and nothing is stored twice
    journal: Annotated[str, Option("FILE")] = "pacs-journal.jsonl"
    show_uids: bool = False  # name studies by their UIDs; by default by hashes of them


def main(arguments: list[str]) -> int:
    """Looks for studies until it is asked to stop, or once; returns the exit code.

    Raises UserError if the network, the address, the journal or how to sign in cannot be used, and with --once if the
    archive fails or a study could not be finished.
    """
    options = parse(Options, arguments, prog="cxr-jax pacs", description=SUMMARY)
    if not options.bundle or not options.dicomweb:
        raise UserError("name a bundle and an archive: cxr-jax pacs BUNDLE --dicomweb URL", EXIT_USAGE)
    if not options.every > 0:
        raise UserError(f"--every is {options.every:g}, but must be above 0", EXIT_USAGE)
    for package in ("highdicom", "pydicom", "requests"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"pacs needs {package}: pip install 'cxr-jax[pacs]'")
    from cxr_jax.serving.dicomweb.connection import Access
    from cxr_jax.serving.dicomweb.watch import Since

    terminal = Terminal()
    since = Since.read(options.since)
    access = Access(
        options.dicomweb.rstrip("/"),
        user=options.user,
        password_file=_path(options.password_file),
        token_file=_path(options.token_file),
        authority=_path(options.ca),
        timeout=options.timeout,
    )
    if access.in_clear:
        terminal.complain("the address begins with http: whoever listens on the way can read patients and passwords")
    with terminal.waiting(f"Loading the network of {options.bundle}"):
        from cxr_jax.serving.dicomweb.archive import Archive
        from cxr_jax.serving.dicomweb.connection import Connection
        from cxr_jax.serving.dicomweb.journal import Journal
        from cxr_jax.serving.dicomweb.network import load_network
        from cxr_jax.serving.dicomweb.watch import Watch

        network = load_network(options.bundle)

    def say(line: str) -> None:
        terminal.say(f"{datetime.now().astimezone().isoformat(sep=' ', timespec='seconds')}  {line}")

    if network.films:
        terminal.say(network.films)
    terminal.say(DISCLAIMER)
    with _stopping(say) as stop, Journal.open(Path(options.journal), network.digest) as journal:
        archive = Archive(Connection(access, stop=stop.event))
        watch = Watch(archive, network, journal, since=since, stop=stop.event, say=say, full_names=options.show_uids)
        rhythm = "once" if options.once else f"every {options.every:g} s"
        say(f"{network.title}, {network.version}: looking for studies since {options.since} at {access.url}, {rhythm}")
        # in a log a line is written when something happens
        shown = terminal.waiting("Looking for studies") if terminal.interactive else contextlib.nullcontext()
        with shown:
            looked = watch.once() if options.once else watch.forever(options.every)
    if stop.signal is not None:
        say("stopped; the next start goes on from here")
        return (EXIT_INTERRUPTED if stop.signal == signal.SIGINT else EXIT_TERMINATED) if options.once else 0
    if looked.unfinished:
        raise UserError(f"{looked.unfinished} of {_studies(looked.studies)} could not be finished, as told above")
    say(f"{_studies(looked.studies)}: nothing is left to do")
    return 0


def _studies(count: int) -> str:
    return "1 study" if count == 1 else f"{count} studies"


def _path(text: str) -> Path | None:
    return Path(text) if text else None


class _Stop:
    """Whether, and by which signal, the command was asked to stop."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.signal: int | None = None


@contextlib.contextmanager
def _stopping(say: Callable[[str], None]) -> Iterator[_Stop]:
    """Yields what the first SIGINT or SIGTERM sets while the block runs; a second one acts at once."""
    stop, previous = _Stop(), {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)
        previous.clear()

    def remember(number: int, _frame: object) -> None:
        restore()
        stop.signal = number
        stop.event.set()

    def tell() -> None:
        stop.event.wait()
        if stop.signal is not None:
            say("asked to stop: the study at hand is finished first; ask again to stop at once")

    # a handler must not print: what it interrupts may be printing
    teller = threading.Thread(target=tell, name="stopping", daemon=True)
    teller.start()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, remember)
    try:
        yield stop
    finally:
        restore()
        stop.event.set()
        teller.join()
