"""Lengths of time, dates, counts and devices as people write them."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Sequence

_TIMES = {1: "once", 2: "twice"}


def counted(number: int, plural: str) -> str:
    """Returns a number with its noun, which loses its plural s where there is one."""
    return f"{number:,} {plural.removesuffix('s') if number == 1 else plural}"


def times(number: int) -> str:
    """Returns `once`, `twice`, `3 times`."""
    return _TIMES.get(number) or f"{number:,} times"


def duration_text(seconds: float) -> str:
    """Returns how long something took: seconds up to a minute and a half, then minutes, then hours and minutes."""
    if seconds < 90:
        return counted(max(round(seconds), 1), "seconds")
    minutes = round(seconds / 60)
    if minutes < 90:
        return counted(minutes, "minutes")
    hours, rest = divmod(minutes, 60)
    return counted(hours, "hours") + (f" {counted(rest, 'minutes')}" if rest else "")


def date_text(stamp: str) -> str:
    """Returns an ISO date and time as `22 November 2026, 07:41 UTC`; what is no date is returned as it is."""
    try:
        moment = datetime.datetime.fromisoformat(stamp)
    except ValueError:
        return stamp
    zone = moment.strftime(" %Z") if moment.tzinfo else ""
    return f"{moment.day} {moment:%B %Y, %H:%M}{zone}"


def devices_text(devices: Sequence[str]) -> str:
    """Returns devices, each `platform kind`, by their kinds: `CPU`, `8 × NVIDIA H100 (GPU)`; empty without any."""
    kinds = Counter(_device_text(device) for device in devices)
    return ", ".join(kind if count == 1 else f"{count} × {kind}" for kind, count in kinds.items())


def _device_text(device: str) -> str:
    platform, _, kind = device.partition(" ")
    if not kind or kind.lower() == platform.lower():
        return platform.upper()
    return f"{kind} ({platform.upper()})"
