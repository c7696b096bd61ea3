"""An exported network at work in onnxruntime, without JAX."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxr_jax.bundle.record import INT8_FILE, ONNX_FILE, Bundle, Call, read_bundle
from cxr_jax.data.quality.reference import QualityReference
from cxr_jax.errors import UserError
from cxr_jax.evaluation.conformal import ConformalSets
from cxr_jax.evaluation.feature_distance import FeatureLimit
from cxr_jax.runs.description import NetworkDescription
from cxr_jax.vocabulary import CLASS_NAMES, FINDINGS

if TYPE_CHECKING:
    from onnxruntime import InferenceSession


@dataclass(frozen=True)
class BundledModel:
    """An exported network that predicts as the run did that it came from."""

    bundle: Bundle
    session: InferenceSession
    int8: bool = False  # the network in 8 bits, whose distances were not tried and are not told

    @property
    def description(self) -> NetworkDescription:
        """What the network is, and what is done to an image before it."""
        return self.bundle.network

    @property
    def descriptions(self) -> tuple[NetworkDescription, ...]:
        """Its own; of an ensemble, too, it has one, as its members see the same square."""
        return (self.description,)

    @property
    def threshold(self) -> float | None:
        """Probability from which PNEUMONIA is called; None if the run was not evaluated, or the classes are others."""
        return self._call.threshold if self._call else None

    @property
    def threshold_rule(self) -> str | None:
        """The rule that fixed the threshold; of findings the rules of all."""
        if self.description.kind == FINDINGS and self.bundle.calls:
            return " or ".join(sorted({call.rule for call in self.bundle.calls}))
        return self._call.rule if self._call else None

    @property
    def thresholds(self) -> dict[str, float] | None:
        """Probability from which each finding is called; None of other classes, or if the run was not evaluated."""
        if self.description.kind != FINDINGS or not self.bundle.calls:
            return None
        return {call.label: call.threshold for call in self.bundle.calls}

    @property
    def _call(self) -> Call | None:
        """When PNEUMONIA is called; None where that is not known, or the classes are others."""
        usual = self.description.classes == CLASS_NAMES
        return self.bundle.calls[0] if usual and self.bundle.calls else None

    @property
    def sets(self) -> ConformalSets | None:
        """From which probability on a class is possible; None if the run had no such bounds."""
        return self.bundle.sets

    @property
    def feature_limit(self) -> FeatureLimit | None:
        """From which distance on an image is unlike the training images; None where it is not known."""
        return None if self.int8 else self.bundle.feature_limit

    def logits_and_distances(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns logits [N, K] and distances [N] from the training images of `images` [N, S, S] uint8 in 0..255."""
        logits, distances = self.session.run(["logits", "distance"], {"images": np.ascontiguousarray(images)})
        return logits, distances

    @property
    def reference(self) -> QualityReference | None:
        """The usual ranges of the training images; None if the run was not evaluated."""
        ranges = {usual.measure: (usual.low, usual.high) for usual in self.bundle.quality}
        return QualityReference.of_ranges(ranges, self.bundle.training_images) if ranges else None

    def logits(
        self, images: np.ndarray, *, batch_size: int = 64, advance: Callable[[int], None] = lambda _: None
    ) -> np.ndarray:
        """Returns logits [N, K] float32 of `images` [N, S, S] uint8 in 0..255, by batches of at most `batch_size`."""
        if not len(images):
            return np.zeros((0, len(self.description.classes)), np.float32)
        return in_batches(lambda batch: self._answer("logits", batch), images, batch_size, advance)

    def evidence(self, images: np.ndarray) -> np.ndarray:
        """Returns what speaks for each class where, [N, K, h, w] float32, for `images` [N, S, S] uint8 in 0..255."""
        return self._answer("evidence", images)

    def _answer(self, output: str, images: np.ndarray) -> np.ndarray:
        return self.session.run([output], {"images": np.ascontiguousarray(images)})[0]


def load_bundle(folder: str | Path, *, int8: bool = False) -> BundledModel:
    """Returns the network of a bundle, or with `int8` the one in 8 bits.

    Raises:
        UserError: as in `read_bundle`; onnxruntime is not installed; or there is no network in 8 bits.
    """
    bundle = read_bundle(folder)
    if int8 and bundle.int8 is None:
        raise UserError(f"{folder} has no network in 8 bits: export the run again with --int8")
    return BundledModel(bundle, open_session(Path(folder) / (INT8_FILE if int8 else ONNX_FILE)), int8)


def open_session(model: Path, *, threads: int = 0) -> InferenceSession:
    """Returns an ONNX file, loaded by onnxruntime on `threads` cores (0: on all), with all its optimisations.

    Raises:
        UserError: onnxruntime is not installed, or cannot read the file.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise UserError(
            "an exported network runs in onnxruntime, which is not installed: pip install onnxruntime"
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise UserError(f"onnxruntime cannot read {model}: export the run again") from error


def in_batches(
    logits: Callable[[np.ndarray], np.ndarray],
    images: np.ndarray,
    size: int,
    advance: Callable[[int], None] = lambda _: None,
) -> np.ndarray:
    """Returns the logits [N, K] of images [N, S, S] uint8 in 0..255, N at least 1, by batches of at most `size`."""
    parts = []
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        parts.append(logits(batch))
        advance(len(batch))
    return np.concatenate(parts)
