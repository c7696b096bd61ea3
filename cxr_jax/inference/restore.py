"""A trained network restored from its run folder."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from flax import nnx
from jax import Array

from cxr_jax.checkpoints import read_newest
from cxr_jax.devices import choose_devices
from cxr_jax.errors import UserError
from cxr_jax.evaluation.conformal import ConformalSets, read_conformal
from cxr_jax.evaluation.feature_distance import FeatureLimit, FeatureReference, read_feature_reference
from cxr_jax.inference.forward import ForwardProgram, compile_on_images, logits_and_distances_of, logits_of
from cxr_jax.models.head import head_of
from cxr_jax.models.network import StagedNetwork
from cxr_jax.models.registry import build_model
from cxr_jax.models.state import ArrayDict, differences, merge_model, pack_network, split_model, unpack_network
from cxr_jax.preprocessing.views import views
from cxr_jax.runs.description import NetworkDescription, read_description
from cxr_jax.runs.ensemble import first_network, is_ensemble, read_ensemble
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.ledger import has_fixed
from cxr_jax.terminal import as_typed
from cxr_jax.vocabulary import FINDINGS

Which = Literal["best", "last"]


@dataclass(frozen=True)
class TrainedModel:
    """A network with everything that it needs to be given radiographs."""

    description: NetworkDescription
    graphdef: nnx.GraphDef
    params: ArrayDict
    batch_stats: ArrayDict
    step: int  # of training, at which this state was saved
    threshold: float | None  # probability from which PNEUMONIA is called; None before the run was evaluated
    threshold_rule: str | None
    sets: ConformalSets | None = None  # from which probability on a class is possible; None before it was evaluated
    thresholds: Mapping[str, float] | None = None  # from which each finding is called; None of others, and before
    reference: FeatureReference | None = None  # the training images in its features; None before it was evaluated
    checkpoint_sha256: str = ""  # `content_hash` of the checkpoint that it was restored from; empty if from none

    @property
    def title(self) -> str:
        """What it is in a few words."""
        return self.description.title

    @property
    def descriptions(self) -> tuple[NetworkDescription, ...]:
        """Its own, as an ensemble has one for each member."""
        return (self.description,)

    @property
    def image_size(self) -> int:
        """Side of the square images, in pixels."""
        return self.description.image_size

    @property
    def mean(self) -> tuple[float, ...]:
        """Mean of the channels in [0, 1] that the network expects."""
        return self.description.mean

    @property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of the channels in [0, 1] that the network expects."""
        return self.description.std

    def model(self) -> StagedNetwork:
        """Returns the network as a module; call it without `train` and `keys`."""
        return merge_model(self.graphdef, self.params, self.batch_stats)

    def logits(
        self, images: np.ndarray, *, batch_size: int = 64, advance: Callable[[int], None] = lambda _: None
    ) -> np.ndarray:
        """Returns logits [N, K] float32 of `images` [N, S, S] uint8 in 0..255, by padded batches of `batch_size`.

        Where the run averages over flips or shifts they are the mean over the `views` of an image.
        `advance` is told how many more images are done. Raises ValueError for images of another type or size.
        """
        size = self.image_size
        if images.dtype != np.uint8 or images.shape[1:] != (size, size):
            raise ValueError(f"images are {images.dtype} {images.shape}, but must be uint8 [N, {size}, {size}]")
        parts = [np.zeros((0, len(self.description.classes)), np.float32)]
        for start in range(0, len(images), batch_size):
            batch, program = images[start : start + batch_size], self._program(min(batch_size, len(images)))
            looks = views(batch, flip=self.description.flip_average, shift=self.description.shift)
            # all views go through the same program, so that an image and its mirror image have the same mean
            logits = [program.over(self.params, self.batch_stats, look) for look in looks]
            parts.append(sum(logits[1:], start=logits[0]) / len(logits) if len(logits) > 1 else logits[0])
            advance(len(batch))
        return np.concatenate(parts)

    @property
    def feature_limit(self) -> FeatureLimit | None:
        """From which distance on an image is unlike the training images; None where it is not known."""
        return self.reference.limit if self.reference else None

    def logits_and_distances(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns logits [N, K] and distances [N] from the training images of one batch `images` [N, S, S] uint8.

        Raises ValueError where there is no reference.
        """
        if self.reference is None:
            raise ValueError("the network has no reference in its features")
        count, classes = len(images), len(self.description.classes)
        program = self._compiled(count, functools.partial(logits_and_distances_of, reference=self.reference))
        looks = views(images, flip=self.description.flip_average, shift=self.description.shift)
        found = [np.asarray(program(self.params, self.batch_stats, look)) for look in looks]
        logits = [each[:, :classes] for each in found]
        # the first view is the image as it is
        return sum(logits[1:], start=logits[0]) / len(logits), found[0][:, classes]

    def _program(self, batch_size: int) -> ForwardProgram:
        """Returns the program for batches of `batch_size`, compiled when it is first asked for."""
        return self._compiled(batch_size, logits_of)

    def _compiled(self, batch_size: int, answer: Callable[..., Array]) -> ForwardProgram:
        key = (batch_size, answer is logits_of)
        if key not in self._programs:
            self._programs[key] = self.compile(answer, batch_size)
        return self._programs[key]

    def compile(self, answer: Callable[..., Array], batch_size: int) -> ForwardProgram:
        """Returns the program of `answer`, a function as those of `inference.forward`, for batches of images."""
        return compile_on_images(
            answer,
            self.graphdef,
            self.params,
            self.batch_stats,
            mean=self.mean,
            std=self.std,
            image_size=self.image_size,
            batch_size=batch_size,
            devices=choose_devices(1),
        )

    @cached_property
    def _programs(self) -> dict[tuple[int, bool], ForwardProgram]:
        return {}


def restore_run(run: RunFolder, which: Which | None = None) -> TrainedModel:
    """Returns the network of `run` with the best validation, or the last one. The default is the one that its config
    names.

    Raises UserError if the run has no intact checkpoint, or one that belongs to another network, or is an ensemble.
    """
    if is_ensemble(run):
        raise UserError(
            f"{run.path} is the {read_ensemble(run).title}, and this takes one network: name one of its members, "
            f"such as {first_network(run)}"
        )
    which = which or chosen_checkpoint(run)
    description = read_description(run)
    classes, head = len(description.classes), head_of(description)
    shape = {"until": description.until, "head": head, "denoiser": description.denoiser}
    model = build_model(description.architecture, classes=classes, **shape)
    graphdef, params, batch_stats = split_model(model)
    checkpoint = read_newest(run.checkpoints / which)
    found_params, found_batch_stats = unpack_network(checkpoint.arrays)
    phrases = differences(pack_network(params, batch_stats), pack_network(found_params, found_batch_stats))
    if phrases:
        raise UserError(
            f"the checkpoint in {run.checkpoints / which} is not of {description.title}: "
            f"{'; '.join(phrases[:5])}; use the folder of the run that wrote it"
        )
    # what another network had fixed does not count, such as this one before it was trained on
    fixed = has_fixed(run, checkpoint.step, checkpoint.sha256)
    point = read_json(run.operating_point) if fixed else {}
    return TrainedModel(
        description=description,
        graphdef=graphdef,
        params={name: found_params[name] for name in params},
        batch_stats={name: found_batch_stats[name] for name in batch_stats},
        step=checkpoint.step,
        threshold=point.get("threshold"),
        threshold_rule=point.get("rule") or rule_of_findings(description, point),
        thresholds=thresholds_of_findings(description, point),
        sets=read_conformal(run.conformal) if fixed and run.conformal.is_file() else None,
        reference=read_feature_reference(run.feature_reference) if fixed and run.feature_reference.is_file() else None,
        checkpoint_sha256=checkpoint.sha256,
    )


def thresholds_of_findings(description: NetworkDescription, point: Mapping[str, Any]) -> dict[str, float] | None:
    """Returns from which probability each finding is called, as operating_point.json says; None of other classes."""
    if description.kind != FINDINGS or not point:
        return None
    return {name: entry["threshold"] for name, entry in point["classes"].items()}


def rule_of_findings(description: NetworkDescription, point: Mapping[str, Any]) -> str | None:
    """Returns the rules that chose the thresholds of findings; None of other classes."""
    if description.kind != FINDINGS or not point:
        return None
    return " or ".join(sorted({entry["rule"] for entry in point["classes"].values()}))


def require_fixed(run: RunFolder, trained: TrainedModel, what: str) -> None:
    """Raises UserError if a run has no threshold for its network, at which `what` could be called."""
    if not has_fixed(run, trained.step, trained.checkpoint_sha256):
        raise UserError(
            f"{run.path} has no threshold yet for its network of step {trained.step:,}, at which {what} could be "
            f"called: {as_typed('cxr-jax', 'evaluate', run.path)} fixes it"
        )


def chosen_checkpoint(run: RunFolder) -> Which:
    """Returns which checkpoint a run stands for, as its config says; UserError if the config cannot be read."""
    return run.configured("validation", "checkpoint")
