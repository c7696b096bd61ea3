"""Predictions as lines for the terminal: a row or a table for each file, and what is told below them all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cxr_jax.serving.predict import FilePrediction, Threshold
from cxr_jax.vocabulary import CLASS_NAMES, DISCLAIMER, NO_FINDING, PNEUMONIA

if TYPE_CHECKING:
    from cxr_jax.serving.loaded import Loaded

Line = tuple[str, str | None]
"""A text, and its style."""


@dataclass(frozen=True)
class Lines:
    """What is printed of predictions.

    Attributes:
        threshold: how calls are made.
        classes: of the network.
        alone: there is one file, of which every finding is told; of several a row tells those that are called.
    """

    threshold: Threshold
    classes: tuple[str, ...]
    alone: bool

    def header(self) -> str:
        """Returns the line above all others."""
        if self.threshold.of_findings is not None:
            if not self.alone:
                return "findings that are called, with their probabilities, and the file"
            return f"{'finding':<{self._width}}  probability  called from"
        if self.classes == CLASS_NAMES:
            return "P(PNEUMONIA)  call       file"
        return f"{'  '.join(f'P({name})' for name in self.classes)}  {'call':<{self._width}}  file"

    def of(self, prediction: FilePrediction) -> list[Line]:
        """Returns the lines about one file."""
        if self.threshold.of_findings is None:
            return [self._row(prediction)]
        if prediction.error is not None:
            return [(f"-  {prediction.file}  (not predicted, see the error)", "red")]
        called = ", ".join(f"{name} {prediction.probabilities[name]:.2f}" for name in prediction.findings)
        remarks = "; ".join(prediction.warnings)
        row = f"{called or NO_FINDING}  {prediction.file}{f'  ({remarks})' if remarks else ''}"
        return [*self._findings(prediction), (row, None)] if self.alone else [(row, None)]

    def _findings(self, prediction: FilePrediction) -> list[Line]:
        """Returns a line for each finding: its probability, its threshold, and whether it is called."""
        found = []
        for name in self.classes:
            called = name in prediction.findings
            numbers = f"{prediction.probabilities[name]:>11.4f}  {self.threshold.of_findings[name]:>11.4f}"
            line = f"{name:<{self._width}}  {numbers}{'  called' if called else ''}"
            found.append((line, "bold" if called else None))
        return found

    @property
    def _width(self) -> int:
        return max(map(len, self.classes))

    def _row(self, prediction: FilePrediction) -> Line:
        failed, usual = prediction.error is not None, self.classes == CLASS_NAMES
        told = prediction.probabilities or dict.fromkeys(self.classes)
        told = {CLASS_NAMES[PNEUMONIA]: prediction.probability} if usual else told
        widths = {name: len(f"P({name})") for name in told}
        numbers = "  ".join(f"{'-' if failed else f'{told[name]:.4f}':>{widths[name]}}" for name in told)
        remarks = "not predicted, see the error" if failed else "; ".join(prediction.warnings)
        called = "uncertain" if prediction.uncertain else prediction.label or "-"
        call = f"{called:<{self._width}}"
        line = f"{numbers}  {call}  {prediction.file}{f'  ({remarks})' if remarks else ''}"
        return line, "red" if failed else "bold" if usual and called == CLASS_NAMES[PNEUMONIA] else None

    def counts(self, entries: Sequence[dict[str, Any]]) -> str:
        """Returns how many files were called what; `entries` are what `FilePrediction.as_json` gives."""
        counts = Counter(call for entry in entries for call in _calls(entry))
        files = "1 file" if len(entries) == 1 else f"{len(entries):,} files"
        names = (*reversed(self.classes), NO_FINDING, "uncertain", "not predicted")
        return f"{files}: {', '.join(f'{counts[name]:,} {name}' for name in names if counts[name])}"

    def end(self, loaded: Loaded) -> list[str]:
        """Returns the sentences below: the calls, the network and its films, the check of inputs, the disclaimer."""
        more = "; --csv and --json give all probabilities" if self.threshold.of_findings and not self.alone else ""
        told = [f"Called: {self.threshold.in_words()}{more}. Model: {loaded.name}."]
        if loaded.films:
            told.append(loaded.films)
        if self.threshold.sets is not None:
            told.append(
                f"Uncertain: at an error rate of {self.threshold.sets.error_rate:.0%} for each class, fixed on "
                "validation, both classes are possible, or neither, or not the called one."
            )
        told.append(
            "Inputs were not compared with the training images: evaluate the run once, and they are."
            if loaded.reference is None
            else f"Inputs were compared with the {loaded.reference.images:,} training images; remarks tell what is "
            "unlike them."
        )
        return [*told, DISCLAIMER]


def _calls(entry: dict[str, Any]) -> list[str]:
    """Returns under which words an entry counts: its call, or each of its findings."""
    if "error" in entry:
        return ["not predicted"]
    if "findings" in entry:
        return entry["findings"] or [NO_FINDING]
    return ["uncertain" if entry["uncertain"] else entry["label"]]
