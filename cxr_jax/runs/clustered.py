"""Which images of a predictions table belong together."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

Rows = TypeVar("Rows", bound="Clustered")


class Clustered:
    """What predictions of any classes know of groups; its columns have equal length."""

    file: tuple[str, ...]
    split: tuple[str, ...]
    group: tuple[str, ...]

    @property
    def has_groups(self) -> bool:
        """True if every image has a group."""
        return all(self.group)

    def clusters(self) -> np.ndarray:
        """Returns int [N]: equal numbers for images of one group; an image without a group stands alone.

        The numbers follow the sorted names, so they do not depend on the order of the rows.
        """
        numbers = {name: number for number, name in enumerate(self.cluster_names())}
        return np.array([numbers[key] for key in self._cluster_keys()])

    def cluster_names(self) -> tuple[tuple[str, str], ...]:
        """Returns what the numbers of `clusters` stand for: `("group", name)`, or `("file", name)` without a group."""
        return tuple(sorted(set(self._cluster_keys())))

    def select(self: Rows, rows: np.ndarray) -> Rows:
        """Returns the given rows (indices or a mask, at least one row) in the given order."""
        raise NotImplementedError

    def _cluster_keys(self) -> list[tuple[str, str]]:
        pairs = zip(self.group, self.file, strict=True)
        return [("group", group) if group else ("file", file) for group, file in pairs]
