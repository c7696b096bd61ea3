"""Labels of findings as tables have them: names joined by bars, or a column for each that says 1, 0, -1 or nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cxr_jax.data.class_names import require_names
from cxr_jax.data.findings import BETWEEN, MISSING, finding_cell
from cxr_jax.runs.table import Table, is_missing
from cxr_jax.vocabulary import FINDINGS, NO_FINDING

Policy = Literal["", "unknown", "present", "absent"]
"""What is made of a label that is uncertain or blank; an unknown one carries no loss and is not judged.

Empty: what is usual in the set.
"""

_PRESENT, _ABSENT = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")
_UNCERTAIN = ("-1", "-1.0", "u", "uncertain")

_VALUES = {"present": 1.0, "absent": 0.0, "unknown": MISSING}


@dataclass(frozen=True)
class Policies:
    """What is made of labels that say neither yes nor no."""

    uncertain: Policy = ""
    blank: Policy = ""

    def or_else(self, uncertain: Policy, blank: Policy) -> Policies:
        """Returns the same with these in the place of what is left open."""
        return Policies(self.uncertain or uncertain, self.blank or blank)


@dataclass(frozen=True)
class FindingCells:
    """The findings of a table, the cell of `data.findings` for each row, and sentences on how they were read."""

    names: tuple[str, ...]
    cells: list[str]
    notes: tuple[str, ...] = ()


def cells_of_joined_names(table: Table, column: str, names: tuple[str, ...], blank: Policy) -> FindingCells:
    """Returns the findings of a column that joins the names of those that are present, such as `Effusion|Mass`.

    `names` are all that there may be, in their order; without any they are those that occur, sorted. A cell of
    `No Finding` names none. Blank cells are what `blank` says of every finding.

    Raises:
        UserError: a name is none of `names`, stands twice in a cell, stands beside `No Finding`, or would mean
            something else in a cell.
    """
    told: list[tuple[str, ...] | None] = []
    for row, cell in enumerate(table.cells(column)):
        parts = tuple(part.strip() for part in cell.split(BETWEEN))
        if is_missing(cell):
            told.append(None)
            continue
        if len(set(parts)) < len(parts):
            raise table.error(row, column, f"{cell!r} names a finding twice")
        if NO_FINDING in parts and len(parts) > 1:
            raise table.error(row, column, f"{cell!r} names findings beside {NO_FINDING!r}")
        for part in parts:
            if names and part not in (*names, NO_FINDING):
                raise table.error(row, column, f"{part!r} is none of the findings {', '.join(names)}")
        told.append(parts)
    names = names or tuple(sorted({name for parts in told if parts for name in parts} - {NO_FINDING}))
    require_names(names, FINDINGS)
    of_blank = finding_cell([_VALUES[blank]] * len(names), names)
    cells = [
        of_blank if parts is None else finding_cell([float(name in parts) for name in names], names) for parts in told
    ]
    blanks = sum(parts is None for parts in told)
    return FindingCells(names, cells, (_note("blank", blanks, "images", blank),) if blanks else ())


def cells_of_columns(table: Table, columns: Sequence[str], policies: Policies) -> FindingCells:
    """Returns the findings of a table that has a column for each: 1 present, 0 absent, -1 uncertain, or blank.

    Raises:
        UserError: a cell says something else, or a column cannot be the name of a finding.
    """
    require_names(tuple(columns), FINDINGS)
    counts: Counter[str] = Counter()

    def label(cell: str) -> float:
        if cell.lower() in _PRESENT:
            return 1.0
        if cell.lower() in _ABSENT:
            return 0.0
        if cell.lower() not in _UNCERTAIN and not is_missing(cell):
            raise ValueError(f"{cell!r} is none of 1 (present), 0 (absent), -1 (uncertain) and blank")
        kind = "blank" if is_missing(cell) else "uncertain"
        counts[kind] += 1
        return _VALUES[getattr(policies, kind)]

    of_columns = [table.column(name, label) for name in columns]
    cells = [finding_cell(labels, columns) for labels in zip(*of_columns, strict=True)]
    notes = (_note(kind, counts[kind], "labels", getattr(policies, kind)) for kind in ("uncertain", "blank"))
    return FindingCells(tuple(columns), cells, tuple(note for note in notes if note))


def _note(kind: str, count: int, what: str, policy: Policy) -> str:
    """Returns the sentence on labels that say neither yes nor no; empty where there are none."""
    if not count:
        return ""
    means = "they carry no loss and are not judged" if policy == "unknown" else f"they count as {policy}"
    return f"{count:,} {what} of the table are {kind}: {means}."
