"""How far an image lies from the training images in the features of a network: Mahalanobis distance by class.

The features are means and standard deviations over the image of every channel of one stage. They are standardised and
modelled as normal around a mean for each class with one covariance for all (Lee, Lee, Lee & Shin, "A simple unified
framework for detecting out-of-distribution samples", NeurIPS 2018). The covariance is shrunk towards the identity; the
directions of largest variance are kept, and one variance stands for all others (Tipping & Bishop, JRSS B 1999). What is
kept is aggregated: no image's features are among it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from cxr_jax.errors import UserError
from cxr_jax.evaluation.conformal import bounds_of
from cxr_jax.runs.files import write_bytes

SCHEMA_VERSION = 1
"""Version of feature_reference.safetensors."""

SHARE = 0.01
"""Of new images like those of validation, at most this share lies beyond the limit."""

DIRECTIONS = 256
"""Of largest variance that are kept, at most."""

SHRINKAGE = 0.01
"""Share of the identity in the covariance of standardised features."""


@dataclass(frozen=True)
class FeatureLimit:
    """From which distance on an image is unlike the training images.

    Attributes:
        distance: the largest that is usual; training images have about 1.
        share: of new images like those of validation, at most this share is further away.
        images: of validation, by which it was fixed.
    """

    distance: float
    share: float
    images: int

    def remark(self, distance: float) -> str | None:
        """Returns what is to be told of an image at this distance; None if it is a usual one."""
        if distance <= self.distance:
            return None
        return (
            "unlike the radiographs that this network learned from: its distance from them in the network's features "
            f"is {distance:.3g}, and at most {self.distance:.3g} for {1 - self.share:.0%} of films like them"
        )


@dataclass(frozen=True)
class FeatureReference:
    """The training images of a network in its own features.

    Attributes:
        stage: whose output is measured.
        scale: float32 [D], standard deviation of every feature.
        means: float32 [K, D], of the standardised features of each class.
        directions: float32 [D, d], orthonormal, of largest variance within classes.
        variances: float32 [d], along the directions.
        rest: variance along all others; 0 if there are none.
        images: of training, that it was fitted on.
        limit: from which distance on an image is unlike them.
    """

    stage: str
    scale: np.ndarray
    means: np.ndarray
    directions: np.ndarray
    variances: np.ndarray
    rest: float
    images: int
    limit: FeatureLimit

    @classmethod
    def of(
        cls, stage: str, training: tuple[np.ndarray, np.ndarray], validation: tuple[np.ndarray, np.ndarray]
    ) -> FeatureReference:
        """Returns the reference of training features, with a limit by features of validation.

        Args:
            stage: whose output they are.
            training: features float [N, D] and labels int [N].
            validation: features float [M, D] and groups int [M], equal for images of one group. A group counts once.
        """
        features, labels = training[0].astype(np.float64), training[1]
        deviation = features.std(axis=0)
        # a feature that never changes says nothing until it does, and then not infinitely much
        scale = np.maximum(deviation, 0.01 * np.median(deviation)) + 1e-6
        standardised = features / scale
        # a class that is not there has no mean
        means = np.stack([standardised[labels == label].mean(axis=0) for label in np.unique(labels)])
        centred = standardised - means[np.unique(labels, return_inverse=True)[1]]
        variances, directions = np.linalg.eigh(centred.T @ centred / len(centred))
        variances = (1 - SHRINKAGE) * np.maximum(variances[::-1], 0) + SHRINKAGE
        kept = min(DIRECTIONS, len(variances))
        fitted = cls(
            stage,
            scale.astype(np.float32),
            means.astype(np.float32),
            np.ascontiguousarray(directions[:, ::-1][:, :kept], np.float32),
            variances[:kept].astype(np.float32),
            float(variances[kept:].mean()) if kept < len(variances) else 0.0,
            len(features),
            FeatureLimit(0.0, 1.0, 0),
        )
        distance, groups = fitted.distance(validation[0].astype(np.float32)), validation[1]
        share = max(SHARE, 1 / (1 + len(np.unique(groups))))
        (lowest,) = bounds_of(-distance, groups, (share,))
        return replace(fitted, limit=FeatureLimit(float(-lowest), share, len(groups)))

    def distance(self, features: Any, numbers: ModuleType = np) -> Any:
        """Returns float32 [B]: how far each of `features` [B, D] is from the nearest class; about 1 on training images.

        `numbers` is numpy, or jax.numpy where it is part of a traced function.
        """
        nearest = None
        for mean in self.means:
            centred = features / self.scale[None] - mean[None]
            along = centred @ self.directions
            squares = along * along
            total = (squares / self.variances[None]).sum(axis=1)
            if self.rest:
                across = (centred * centred).sum(axis=1) - squares.sum(axis=1)
                total = total + numbers.maximum(across, 0) / self.rest
            nearest = total if nearest is None else numbers.minimum(nearest, total)
        return numbers.sqrt(nearest / len(self.scale))


_ARRAYS = ("scale", "means", "directions", "variances")


def write_feature_reference(path: Path, reference: FeatureReference) -> None:
    """Writes the reference as a safetensors file, atomically; UserError if it cannot be written."""
    from safetensors.numpy import save

    told = {name: getattr(reference, name) for name in ("stage", "rest", "images")}
    told |= {"schema_version": SCHEMA_VERSION, "limit": vars(reference.limit)}
    arrays = {name: getattr(reference, name) for name in _ARRAYS}
    write_bytes(path, save(arrays, metadata={"reference": json.dumps(told)}))


def read_feature_reference(path: Path) -> FeatureReference:
    """Reads feature_reference.safetensors.

    Raises:
        UserError: it cannot be read, or was written by another version.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            told = json.loads((file.metadata() or {})["reference"])
            arrays = {name: file.get_tensor(name) for name in _ARRAYS}
        if told["schema_version"] != SCHEMA_VERSION:
            raise UserError(f"{path} was written by another version of cxr_jax: evaluate the run again")
        limit = FeatureLimit(**told["limit"])
        return FeatureReference(told["stage"], **arrays, rest=told["rest"], images=told["images"], limit=limit)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} is damaged ({error}): evaluate the run again") from error
