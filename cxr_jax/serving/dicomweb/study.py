"""One study: what it lacks of this network is made and stored."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from cxr_jax.errors import UserError
from cxr_jax.serving.dicomweb import capture, report
from cxr_jax.serving.dicomweb.archive import Archive, Listed, UnlistedError
from cxr_jax.serving.dicomweb.connection import ArchiveError, TooLargeError
from cxr_jax.serving.dicomweb.journal import SENT, STORED, ImageEntry, Journal
from cxr_jax.serving.dicomweb.network import Network, alias
from cxr_jax.serving.dicomweb.source import read_source, why_not
from cxr_jax.serving.predict import predict_files

_MAKERS = {report.KIND: report.report_of, capture.KIND: capture.capture_of}


@dataclass
class Outcome:
    """What became of the radiographs of a study."""

    stored: int = 0  # predicted now, and stored
    objects: int = 0  # that were stored for them
    present: int = 0  # stored before
    passed_over: Counter[str] = field(default_factory=Counter)  # by reason
    failures: list[str] = field(default_factory=list)  # sentences
    new: bool = False  # something was predicted or passed over for the first time

    def sentence(self) -> str:
        """Returns it as one line, without anything of the patient."""
        parts = [f"{_images(self.stored)} predicted, report and heat map stored"] if self.stored else []
        if self.present:
            parts.append(f"{_images(self.present)} done before")
        parts += [f"{_images(count)} passed over ({reason})" for reason, count in sorted(self.passed_over.items())]
        if self.failures:
            parts.append(f"{_images(len(self.failures))} failed ({self.failures[0]})")
        return "; ".join(parts) or "no radiographs"


def finish_study(archive: Archive, network: Network, journal: Journal, study: str) -> Outcome:
    """Predicts what is new in a study and stores a report and a heat map of each radiograph in it.

    What the archive holds already is not made again, be it of an earlier start or of one that was killed between the
    two. A radiograph that fails does not keep the others from being finished.

    Raises:
        ArchiveError: the study cannot be listed, or the archive not be reached.
    """
    outcome = Outcome()
    series = archive.series(study)
    images = archive.radiographs(study, series)
    ours = [network.uid(f"{kind} series", study) for kind in _MAKERS]
    there = archive.stored(study, ours, series) if images else set()
    for image in images:
        missing = [kind for kind in _MAKERS if network.uid(kind, image.uid) not in there]
        entry = journal.image(image.uid)
        if not missing or entry == STORED:
            # what a person has taken out of the archive is not put back
            outcome.present += 1
            entry = STORED
        elif entry == SENT:
            outcome.failures.append(
                f"the archive took the results of image {alias(image.uid)} earlier and does not list them: if they are "
                "lost, delete the journal to have them stored again"
            )
        elif entry is not None:
            outcome.passed_over[entry.reason] += 1
        else:
            entry = _try_image(archive, network, image, missing, outcome)
            outcome.new |= entry is not None
        if entry is not None:
            journal.write_image(image.uid, entry)
    return outcome


def _try_image(
    archive: Archive, network: Network, image: Listed, missing: list[str], outcome: Outcome
) -> ImageEntry | None:
    """Finishes a new radiograph, adds to `outcome` what became of it, and returns what is to be remembered of that."""
    try:
        reason = why_not(image.sop_class) or _finish_image(archive, network, image, missing)
    except ArchiveError as error:
        if error.everywhere:
            raise
        outcome.failures.append(str(error))
        return SENT if isinstance(error, UnlistedError) else None
    except Exception as error:  # one radiograph must not end the work on all others; the text may quote a patient
        outcome.failures.append(f"image {alias(image.uid)} met an unexpected error, {type(error).__name__}")
        return None
    if reason is None:
        outcome.stored += 1
        outcome.objects += len(missing)
        return STORED
    outcome.passed_over[reason] += 1
    return ImageEntry("passed over", reason)


def _finish_image(archive: Archive, network: Network, image: Listed, missing: list[str]) -> str | None:
    """Predicts one radiograph and stores what is missing of it; returns why not, if it is none to be predicted."""
    name = f"image {alias(image.uid)}"
    try:
        data = archive.retrieve(image)
    except TooLargeError as error:
        return str(error)
    try:
        source = read_source(data, name)
    except UserError as error:
        return str(error)
    if (source.study, source.uid) != (image.study, image.uid):
        raise ArchiveError(f"{name} came with other identifiers than it was asked for by")
    reason = source.why_not()
    if reason is not None:
        return reason
    (prediction,) = predict_files(
        network.model, [name], network.threshold, reference=network.model.reference, content=lambda _name: data
    )
    if prediction.error is not None:
        return prediction.error
    archive.store(image.study, [_MAKERS[kind](network, source, prediction) for kind in missing])
    return None


def _images(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"
