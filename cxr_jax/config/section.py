"""What all sections of a config have in common."""

from __future__ import annotations

import math
from typing import ClassVar


class Section:
    """A section of a config; its dataclass refuses keys that it does not know."""

    # what pydantic reads to refuse unknown keys; a plain dict, so that pydantic is not imported here
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}


def require(condition: bool, name: str, value: object, rule: str) -> None:
    """Raises ValueError telling that field `name` breaks `rule`, or is infinite or no number."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} is {value!r}, but must be a finite number, {rule}")
    if not condition:
        raise ValueError(f"{name} is {value!r}, but must be {rule}")
