"""An ensemble of trained networks, which answers with the mean of their logits, restored from its folder."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cxr_jax.config.loading import load_config
from cxr_jax.config.schema import Config
from cxr_jax.data.prepared import PreparedData
from cxr_jax.data.progress import Track, silently
from cxr_jax.data.split_loading import load_split
from cxr_jax.errors import UserError
from cxr_jax.evaluation.conformal import ConformalSets, read_conformal
from cxr_jax.inference.predictions import predict_split
from cxr_jax.inference.restore import TrainedModel, restore_run, rule_of_findings, thresholds_of_findings
from cxr_jax.runs.class_probabilities import ClassProbabilities
from cxr_jax.runs.description import NetworkDescription
from cxr_jax.runs.ensemble import EnsembleRecord, is_ensemble, member_folder, read_ensemble
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.ledger import has_fixed
from cxr_jax.runs.predictions import Predictions, probability_of


@dataclass(frozen=True)
class Ensemble:
    """Trained networks that answer together, each on images of its own size."""

    record: EnsembleRecord
    members: tuple[TrainedModel, ...]
    configs: tuple[Config, ...]  # of the members
    threshold: float | None  # probability from which PNEUMONIA is called; None before the ensemble was evaluated
    threshold_rule: str | None
    sets: ConformalSets | None = None  # from which probability on a class is possible; None before it was evaluated
    thresholds: Mapping[str, float] | None = None  # from which each finding is called; None of others, and before

    feature_limit: None = None
    """Its members have features of their own, which are not compared with those of training."""

    step: None = None
    """An ensemble is of no step: its members are."""

    @property
    def title(self) -> str:
        """What it is in a few words."""
        return self.record.title

    @property
    def descriptions(self) -> tuple[NetworkDescription, ...]:
        """Of the members, in their order."""
        return tuple(member.description for member in self.members)

    @cached_property
    def checkpoint_sha256(self) -> str:
        """The sha256 of the hashes of all members, a line each, in their order."""
        return hashlib.sha256("".join(f"{member.checkpoint_sha256}\n" for member in self.members).encode()).hexdigest()

    def logits(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns logits [N, K] float64, the mean over the members.

        `images` has for each member the same N images, uint8 [N, S, S] in 0..255, with its own S. Raises ValueError
        for images of another type or size.
        """
        return _mean([member.logits(squares) for member, squares in zip(self.members, images, strict=True)])

    def predict_split(
        self, prepared: PreparedData, split: str, *, track: Track = silently
    ) -> Predictions | ClassProbabilities:
        """Returns the predictions on one split, by all members; UserError if it cannot be loaded."""
        tables = []
        for number, (member, config) in enumerate(zip(self.members, self.configs, strict=True), start=1):
            images = load_split(prepared, config.data, split, track=track)
            tables.append(
                predict_split(
                    member,
                    images,
                    split,
                    batch_size=config.training.evaluation_batch_size,
                    track=track,
                    by=f" by network {number} of {len(self.members)}",
                )
            )
        return mean_of(tables)


def mean_of(tables: Sequence[Predictions] | Sequence[ClassProbabilities]) -> Predictions | ClassProbabilities:
    """Returns the predictions of an ensemble: the mean of the logits of `tables`, which are of the same images.

    Raises:
        ValueError: they are not, or one has no logits.
    """
    first = tables[0]
    if any(table.file != first.file or table.logits is None for table in tables):
        raise ValueError("predictions of different images, or without logits, have no mean")
    logits = _mean([table.logits for table in tables])
    if isinstance(first, ClassProbabilities):
        return first.with_logits(logits)
    return dataclasses.replace(first, logits=logits, probability=probability_of(logits))


def _mean(logits: Sequence[np.ndarray]) -> np.ndarray:
    return np.mean(np.stack(logits).astype(np.float64), axis=0)


def restore(run: RunFolder) -> TrainedModel | Ensemble:
    """Returns what a folder holds: the network of a trained run, or an ensemble with its members.

    Raises:
        UserError: a run has no intact checkpoint, or a member of the ensemble is missing or has changed.
    """
    if not is_ensemble(run):
        return restore_run(run)
    record = read_ensemble(run)
    members, configs = [], []
    for member in record.members:
        folder = member_folder(run, member)
        restored = restore_run(folder, member.checkpoint)
        if restored.checkpoint_sha256 != member.sha256:
            raise UserError(
                f"{folder.path} has another checkpoint than the one that the ensemble {run.path} was made of (of step "
                f"{member.step} then, of step {restored.step} now): bring the old one back, or make the ensemble again "
                "in another folder"
            )
        members.append(restored)
        configs.append(load_config(folder.config))
    ensemble = Ensemble(record, tuple(members), tuple(configs), None, None)
    if not has_fixed(run, ensemble.step, ensemble.checkpoint_sha256):
        return ensemble
    point, described = read_json(run.operating_point), members[0].description
    return dataclasses.replace(
        ensemble,
        threshold=point.get("threshold"),
        threshold_rule=point.get("rule") or rule_of_findings(described, point),
        sets=read_conformal(run.conformal) if run.conformal.is_file() else None,
        thresholds=thresholds_of_findings(described, point),
    )
