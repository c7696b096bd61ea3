"""What an archive is asked for: its studies, their radiographs, what is stored already, and to store more."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cxr_jax.data.dicom.header import MODALITIES
from cxr_jax.data.encoded import MAX_BYTES
from cxr_jax.serving.dicomweb.connection import Answer, ArchiveError, Connection
from cxr_jax.serving.dicomweb.multipart import decode_parts, encode_parts
from cxr_jax.serving.dicomweb.written import Written

PAGE = 100
"""Entries that are asked for at a time."""

MAX_PAGES = 1000

_JSON = "application/dicom+json"
_FILES = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_SLACK = 2**16  # bytes of headers around a file

_STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_SOP_CLASS, _MODALITY = "00080016", "00080060"
_DATE, _TIME, _COUNT = "00080020", "00080030", "00201208"
_FAILED, _REASON = "00081198", "00081197"


@dataclass(frozen=True)
class Study:
    """A study that an archive lists."""

    uid: str
    when: str  # its date and time as digits, for order alone
    instances: int | None  # how many objects it has; None where the archive does not tell


@dataclass(frozen=True)
class Listed:
    """A radiograph that an archive lists."""

    study: str
    series: str
    uid: str
    sop_class: str  # empty where the archive does not tell


class UnlistedError(ArchiveError):
    """What an archive took is not to be found in it, yet or ever: it may have given it other identifiers."""


class Archive:
    """A picture archive (PACS) that speaks DICOMweb."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def studies(self, since: str) -> list[Study]:
        """Returns the studies with CR or DX whose date is `since` (YYYYMMDD) or later, oldest first.

        Raises:
            ArchiveError: as in `Connection.get`, or the answer is no list of studies.
        """
        found: dict[str, Study] = {}
        for modality in MODALITIES:
            wanted = {"ModalitiesInStudy": modality, "StudyDate": f"{since}-", "includefield": _COUNT}
            for entry in self._list("/studies", wanted, _STUDY):
                uid, count = self._uid(entry, _STUDY), _value(entry, _COUNT)
                when = re.sub("[^0-9]", "", f"{_value(entry, _DATE)}{_value(entry, _TIME)}")
                found[uid] = Study(uid, when, int(count) if re.fullmatch("[0-9]{1,9}", count) else None)
        return sorted(found.values(), key=lambda study: (study.when, study.uid))

    def series(self, study: str) -> dict[str, str]:
        """Returns the UIDs of the series of a study with their modalities; ArchiveError as in `studies`."""
        entries = self._list(f"/studies/{study}/series", {}, _SERIES)
        return {self._uid(entry, _SERIES): _value(entry, _MODALITY) for entry in entries}

    def radiographs(self, study: str, series: Mapping[str, str]) -> list[Listed]:
        """Returns the objects of all CR and DX series among `series` of a study; ArchiveError as in `studies`."""
        return [
            Listed(study, uid, self._uid(instance, _INSTANCE), _value(instance, _SOP_CLASS))
            for uid, modality in series.items()
            if modality in MODALITIES
            for instance in self._instances(study, uid)
        ]

    def stored(self, study: str, wanted: Sequence[str], series: Mapping[str, str]) -> set[str]:
        """Returns the UIDs of the objects in the `wanted` ones of the `series` of a study; ArchiveError as above."""
        return {
            self._uid(instance, _INSTANCE)
            for uid in wanted
            if uid in series
            for instance in self._instances(study, uid)
        }

    def retrieve(self, image: Listed) -> bytes:
        """Returns the DICOM file of an image; ArchiveError as in `Connection.get`, or the answer is no DICOM file."""
        path = f"/studies/{image.study}/series/{image.series}/instances/{image.uid}"
        answer = self._connection.get(path, accept=_FILES, limit=MAX_BYTES + _SLACK)
        if answer.content_type.partition(";")[0].strip().lower() == "application/dicom":
            return answer.body
        try:
            (file,) = decode_parts(answer.content_type, answer.body)
        except ValueError:
            raise self._nonsense("an image") from None
        return file

    def store(self, study: str, objects: Sequence[Written]) -> None:
        """Stores objects in their study, and returns when the archive lists all of them.

        After a failure it is asked what has arrived nevertheless, and only what is missing is sent again.

        Raises:
            ArchiveError: as in `Connection.get`, or the archive refused an object.
            UnlistedError: it took all of them, and does not list them.
        """
        missing, series = list(objects), sorted({entry.series for entry in objects})
        sent = accepted = False

        def missing_still() -> list[Written]:
            there = self.stored(study, series, self.series(study))
            return [entry for entry in missing if entry.uid not in there]

        def attempt() -> None:
            nonlocal missing, sent, accepted
            if sent and not (missing := missing_still()):
                return
            if not accepted:
                sent = True
                self._send(study, missing)
                accepted = True
            if missing := missing_still():
                # it may take a while to list what it has
                raise UnlistedError(
                    f"{self._connection.where} took {_counted(missing)} and does not list them", passing=True
                )

        self._connection.persistently(attempt)

    def _send(self, study: str, objects: Sequence[Written]) -> None:
        content_type, body = encode_parts([entry.data for entry in objects])
        answer = self._connection.post(f"/studies/{study}", body, content_type=content_type, accept=_JSON)
        failed = _refusals(answer)
        if failed or answer.status == 409:
            reason = f" (reason {failed[0]})" if failed and failed[0] else ""
            refused = len(failed) or len(objects)
            raise ArchiveError(f"{self._connection.where} refused {refused} of {_counted(objects)}{reason}")

    def _instances(self, study: str, series: str) -> Iterator[dict[str, Any]]:
        return self._list(f"/studies/{study}/series/{series}/instances", {}, _INSTANCE)

    def _list(self, path: str, parameters: Mapping[str, str], key: str) -> Iterator[dict[str, Any]]:
        """Yields the entries of a list, page by page, each `key` once.

        An archive may give fewer than are asked for, or all of them on every page: what ends the list is a page that
        holds nothing new.
        """
        seen: set[str] = set()
        offset = 0
        for _ in range(MAX_PAGES):
            asked = {**parameters, "limit": str(PAGE), "offset": str(offset)}
            entries = self._entries(self._connection.get(path, accept=_JSON, parameters=asked))
            fresh = {self._uid(entry, key): entry for entry in entries}
            new = [entry for uid, entry in fresh.items() if uid not in seen]
            yield from new
            if not new:
                return
            seen.update(fresh)
            offset += len(entries)
        raise ArchiveError(f"{self._connection.where} lists without end")

    def _entries(self, answer: Answer) -> list[dict[str, Any]]:
        if answer.status == 204 or not answer.body.strip():
            return []
        try:
            entries = json.loads(answer.body)
        except (ValueError, RecursionError):
            entries = None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise self._nonsense("a list")
        return entries

    def _uid(self, entry: dict[str, Any], tag: str) -> str:
        uid = _value(entry, tag)
        # what is put into addresses must be what it is said to be
        if not re.fullmatch(r"[0-9.]{1,64}", uid):
            raise self._nonsense("a list")
        return uid

    def _nonsense(self, expected: str) -> ArchiveError:
        return ArchiveError(
            f"{self._connection.where} answers with something else than {expected}: is this the address of its "
            "DICOMweb service?"
        )


def _counted(objects: Sequence[Written]) -> str:
    return f"{len(objects)} {'object' if len(objects) == 1 else 'objects'}"


def _value(entry: Mapping[str, Any], tag: str) -> str:
    """Returns the first value of an element in DICOM's JSON as text; empty if it is not there."""
    element = entry.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    first = values[0] if isinstance(values, list) and values else ""
    return str(first) if isinstance(first, (str, int)) else ""


def _refusals(answer: Answer) -> list[str]:
    """Returns the reasons, as DICOM's codes, for which single objects were refused; an answer may tell none."""
    try:
        told = json.loads(answer.body)
        items = told.get(_FAILED, {}).get("Value", [])
        codes = [_value(item, _REASON) for item in items]
    except (AttributeError, TypeError, ValueError, RecursionError):
        return []
    return [f"{int(code):04X}H" if re.fullmatch("[0-9]{1,5}", code) else "" for code in codes]
