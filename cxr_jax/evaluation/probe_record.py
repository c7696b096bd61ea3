"""How a linear classifier on features of a frozen network was fitted: probe.json of its run."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cxr_jax.runs.files import write_json
from cxr_jax.runs.records import read_record, to_json

SCHEMA_VERSION = 1

Kind = Literal["logistic", "svm"]

Balancing = Literal["none", "oversampling", "smote"]


@dataclass(frozen=True)
class StrengthScore:
    """How well a strength of the penalty did in cross-validation."""

    strength: float
    roc_auc: tuple[float, ...]  # on what each fold holds out

    @property
    def mean(self) -> float:
        """The mean over the folds."""
        return statistics.fmean(self.roc_auc)

    @property
    def deviation(self) -> float:
        """The standard deviation over the folds."""
        return statistics.stdev(self.roc_auc)


@dataclass(frozen=True)
class ProbedFinding:
    """How the classifier of one finding was fitted.

    Attributes:
        name: of the finding.
        images: of which it is known whether they show it; the others play no part.
        shown: how many of these show it.
        strength: of the L2 penalty that was chosen.
        scores: of every strength that was tried, from the weakest.
        converged: whether scikit-learn found every fit to have come to its end.
    """

    name: str
    images: int
    shown: int
    strength: float
    scores: tuple[StrengthScore, ...]
    converged: bool

    @property
    def chosen(self) -> StrengthScore:
        """What the chosen strength reached."""
        return next(score for score in self.scores if score.strength == self.strength)


@dataclass(frozen=True)
class ProbeRecord:
    """What probe.json holds: how the classifier was fitted.

    Attributes:
        classifier: what it is.
        features: the stage that they are the pooled output of.
        channels: how many features an image has.
        images: that it was fitted on.
        groups: that these make up, and that folds were cut by.
        strength: of the L2 penalty, 1/C in scikit-learn, that was chosen; None of findings, which have one each.
        scores: of every strength that was tried, from the weakest; of more than two classes the mean over them.
        converged: whether scikit-learn found every fit to have come to its end.
        balancing: how rare classes got more rows.
        findings: each with its own classifier; empty where the classes exclude each other.
    """

    classifier: Kind
    features: str
    channels: int
    images: int
    groups: int
    strength: float | None
    scores: tuple[StrengthScore, ...]
    converged: bool = True
    balancing: Balancing = "none"
    findings: tuple[ProbedFinding, ...] = ()


def write_probe(path: Path, record: ProbeRecord) -> None:
    """Writes probe.json atomically; UserError as in `write_json`."""
    write_json(path, {"schema_version": SCHEMA_VERSION, **to_json(record)})


def read_probe(path: Path) -> ProbeRecord:
    """Returns what probe.json holds; UserError if it is missing, damaged, or of another version."""
    return read_record(path, ProbeRecord, version=SCHEMA_VERSION, where="the probe", advice="probe again")
