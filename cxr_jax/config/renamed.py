"""Keys of configs that had another name in earlier versions, which are read as ever."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from cxr_jax.errors import UserError

RENAMED = {
    "loss.focusing": "loss.focal_gamma",
    "training.average_decay": "training.ema_decay",
    "parallel.processes": "parallel.world_size",
    "parallel.process_id": "parallel.rank",
}
"""The key of today by that of earlier versions."""


def silently(sentence: str) -> None:
    """Tells nobody; what a stored run is called is no business of whoever reads it."""


def with_new_names(
    tables: Mapping[str, Any], place: str, tell: Callable[[str], None] = silently
) -> dict[str, dict[str, Any]]:
    """Returns the tables of a config with every key under the name of today; `tell` gets a sentence for each old one.

    Raises:
        UserError: a key stands there under both of its names; `place` says where.
    """
    renamed = dict(tables)
    for old, new in RENAMED.items():
        (section, before), after = old.split("."), new.rpartition(".")[2]
        fields = renamed.get(section)
        if not isinstance(fields, Mapping) or before not in fields:
            continue
        if after in fields:
            raise UserError(f"{place} gives {new} twice, also by its old name {old}: keep {new}")
        tell(f"{old} in {place} is called {new} now")
        renamed[section] = {(after if name == before else name): value for name, value in fields.items()}
    return renamed
