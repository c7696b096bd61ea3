"""Looking for new studies again and again, whatever the archive does."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.serving.dicomweb.archive import Archive, Study
from cxr_jax.serving.dicomweb.connection import ArchiveError
from cxr_jax.serving.dicomweb.journal import Journal, StudyEntry
from cxr_jax.serving.dicomweb.network import Network, alias
from cxr_jax.serving.dicomweb.study import Outcome, finish_study

FIRST_WAIT, LONGEST_WAIT = 60.0, 3600.0
"""Seconds until a study that failed is tried again: twice as many after each failure, up to the longest."""

LONGEST_PAUSE = 300.0
"""Seconds between two tries to reach an archive that cannot be reached, unless passes are farther apart."""


@dataclass(frozen=True)
class Since:
    """The earliest date of the studies that are looked at: one that stays, or one that moves along with today."""

    day: date | None
    days: int = 0  # before today, where no day is given

    @classmethod
    def read(cls, text: str) -> Since:
        """Returns what `2026-11-20` or `7d` means; UserError for anything else."""
        if match := re.fullmatch(r"(\d{1,4})d", text):
            return cls(None, int(match[1]))
        try:
            return cls(datetime.strptime(text, "%Y-%m-%d").date())
        except ValueError:
            raise UserError(
                f"--since is {text!r}, but must be a date as 2026-11-20 or days as 7d", EXIT_USAGE
            ) from None

    def digits(self) -> str:
        """Returns the date of now as DICOM writes it."""
        return (self.day or date.today() - timedelta(days=self.days)).strftime("%Y%m%d")


@dataclass(frozen=True)
class Pass:
    """What one look at the studies of an archive met."""

    studies: int
    unfinished: int


class Watch:
    """Passes over the studies of one archive."""

    def __init__(
        self,
        archive: Archive,
        network: Network,
        journal: Journal,
        *,
        since: Since,
        stop: threading.Event,
        say: Callable[[str], None],
        full_names: bool = False,
    ) -> None:
        """Tells of every study by `say`, under its UID if `full_names`; ends soon after `stop` is set."""
        self._archive, self._network, self._journal = archive, network, journal
        self._since, self._stop, self._say, self._full_names = since, stop, say, full_names

    def once(self) -> Pass:
        """Looks at every study that is new, has changed, or whose time to be tried again has come.

        Raises:
            ArchiveError: the archive cannot be reached or gives no list of its studies.
            UserError: the journal cannot be written.
        """
        unfinished, studies = 0, self._archive.studies(self._since.digits())
        for study in studies:
            if self._stop.is_set():
                break
            entry = self._journal.study(study.uid)
            if _is_settled(entry, study):
                unfinished += bool(entry.failures)
                continue
            outcome = self._finish(study, entry)
            unfinished += bool(outcome.failures)
        return Pass(len(studies), unfinished)

    def forever(self, every: float) -> None:
        """Makes a pass every `every` seconds until it is asked to stop.

        An archive that cannot be reached is waited for; that is told once, and once that it is back.
        """
        told, failures = "", 0
        while not self._stop.is_set():
            try:
                self.once()
                if told:
                    self._say("the PACS answers again")
                told, failures, pause = "", 0, every
            except ArchiveError as error:
                pause = max(every, min(every * 2.0 ** min(failures, 20), LONGEST_PAUSE))
                failures += 1
                if str(error) != told:
                    told = str(error)
                    self._say(f"{told} (trying on)")
            self._stop.wait(pause)

    def _finish(self, study: Study, entry: StudyEntry | None) -> Outcome:
        """Finishes a study, tells what became of it, and remembers that."""
        try:
            outcome = finish_study(self._archive, self._network, self._journal, study.uid)
        except ArchiveError as error:
            if error.everywhere:
                raise
            outcome = Outcome(failures=[str(error)])
        failures = 1 + (entry.failures if entry else 0) if outcome.failures else 0
        wait = min(FIRST_WAIT * 2.0 ** min(failures - 1, 10), LONGEST_WAIT) if failures else 0.0
        told = outcome.sentence()
        if failures:
            told += f"; set aside for {wait / 60:.0f} min"
        # a study is looked at again when its own results are counted in it, which is no news
        if failures or outcome.new or entry is None or entry.failures:
            self._say(f"study {study.uid if self._full_names else alias(study.uid)}: {told}")
        sentence = outcome.failures[0] if outcome.failures else ""
        again = time.time() + wait if failures else 0.0
        # what was stored for other radiographs of a study that is set aside is no reason to try it at once
        counted = study.instances
        if failures and counted is not None:
            counted += outcome.objects
        self._journal.write_study(study.uid, StudyEntry(counted, failures, again, sentence))
        return outcome


def _is_settled(entry: StudyEntry | None, study: Study) -> bool:
    """Returns whether there is nothing to do for a study now: it is done or set aside, and nothing was added to it."""
    if entry is None or study.instances != entry.instances:
        return False
    # without a count nothing tells whether something was added
    return time.time() < entry.again if entry.failures else study.instances is not None
