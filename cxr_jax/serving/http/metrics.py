"""What the service counts, in the format of Prometheus: requests, the queue, batches, and the drift of its images."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from cxr_jax.bundle.record import Bundle
from cxr_jax.serving.predict import FilePrediction
from cxr_jax.vocabulary import CLASS_NAMES

WINDOW = 1000
"""Images over which drift is measured: those that were predicted last."""

FEWEST = 100
"""Images below which no drift is told: it would be chance."""

_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES = (1, 2, 4, 8, 16, 32, 64)
_PROBABILITIES = tuple(tenth / 10 for tenth in range(1, 10))


class Metrics:
    """Counts of one service; told of predictions from other threads, as `serving.batching.Observer`."""

    def __init__(self, bundle: Bundle, bundle_sha256: str) -> None:
        """Begins at nothing; drift is measured against what `bundle` tells of validation and training."""
        self._bundle = bundle
        self._lock = threading.Lock()
        self._probabilities: deque[float] = deque(maxlen=WINDOW)
        self._unlike: deque[tuple[str, ...]] = deque(maxlen=WINDOW)
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        known = {"name": bundle.name, "architecture": bundle.network.architecture, "sha256": bundle_sha256}
        Gauge("cxr_bundle", "The exported network that predicts; 1", known, registry=registry).labels(**known).set(1)
        self._requests = Counter("cxr_requests", "Requests answered", ("path", "status"), registry=registry)
        self._latency = Histogram(
            "cxr_request_seconds", "From a request's head to its answer", ("path",), buckets=_SECONDS, registry=registry
        )
        self._refused = Counter(
            "cxr_files_refused", "Files that could not be predicted", ("status",), registry=registry
        )
        told = "Images predicted, by their call; an image counts for each of its findings"
        self._images = Counter("cxr_images", told, ("label",), registry=registry)
        self._batches = Histogram(
            "cxr_batch_images", "Images run through the network together", buckets=_SIZES, registry=registry
        )
        usual = bundle.network.classes == CLASS_NAMES
        self._scores = Histogram(
            "cxr_probability",
            "Probabilities of PNEUMONIA" if usual else "Probabilities of each class",
            () if usual else ("label",),
            buckets=(*_PROBABILITIES, 1.0),
            registry=registry,
        )
        self._queue = Gauge("cxr_queue_images", "Images that wait or are under way", registry=registry)
        self._ready = Gauge("cxr_ready", "1 if the network answered when it was last asked", registry=registry)
        self._describe_drift(registry)

    def _describe_drift(self, registry: CollectorRegistry) -> None:
        window = f"the last {WINDOW} images"
        self._outside = Counter(
            "cxr_images_outside_training",
            "Images outside the usual range of the training images, by measure of quality",
            ("measure",),
            registry=registry,
        )
        share = Gauge("cxr_outside_training_share", f"The same as a share of {window}", ("measure",), registry=registry)
        for usual in self._bundle.quality:
            self._outside.labels(measure=usual.measure)
            share.labels(measure=usual.measure).set_function(self._share_outside(usual.measure))
        told = Gauge("cxr_drift_images", f"How many of {window} there are", registry=registry)
        told.set_function(lambda: len(self._unlike))
        if self._bundle.scores is not None:
            index = Gauge(
                "cxr_score_drift",
                f"Population stability index of {window}' probabilities against validation's",
                registry=registry,
            )
            index.set_function(self._score_drift)
            chance = Gauge(
                "cxr_score_drift_by_chance",
                "What that index exceeds in one case of twenty if the images are like those of validation",
                registry=registry,
            )
            chance.set_function(self._score_drift_by_chance)

    def watch(self, pending: Callable[[], int], ready: Callable[[], bool]) -> None:
        """Has the length of the queue and the state of the network asked for whenever the metrics are."""
        self._queue.set_function(pending)
        self._ready.set_function(ready)

    def request(self, path: str, status: int, seconds: float) -> None:
        """Counts a request that was answered."""
        self._requests.labels(path=path, status=str(status)).inc()
        self._latency.labels(path=path).observe(seconds)

    def refused(self, status: int) -> None:
        """Counts a file that could not be predicted."""
        self._refused.labels(status=str(status)).inc()

    def batch(self, images: int) -> None:
        """Counts a batch."""
        self._batches.observe(images)

    def predicted(self, prediction: FilePrediction, unlike: Sequence[str]) -> None:
        """Counts an image that was predicted; by the measures `unlike` it is unlike those of training."""
        for label in prediction.calls:
            self._images.labels(label=label).inc()
        if prediction.probabilities is None:
            self._scores.observe(prediction.probability)
        else:
            for label, probability in prediction.probabilities.items():
                self._scores.labels(label=label).observe(probability)
        for measure in unlike:
            self._outside.labels(measure=measure).inc()
        with self._lock:
            if prediction.probabilities is None:
                self._probabilities.append(prediction.probability)
            self._unlike.append(tuple(unlike))

    def exposition(self) -> bytes:
        """Returns everything in the text format of Prometheus."""
        return generate_latest(self._registry)

    def _share_outside(self, measure: str) -> Callable[[], float]:
        def share() -> float:
            with self._lock:
                images = list(self._unlike)
            if len(images) < FEWEST:
                return float("nan")
            return sum(measure in unlike for unlike in images) / len(images)

        return share

    def _window(self) -> np.ndarray | None:
        """Returns the last probabilities, or None while they are too few."""
        with self._lock:
            probabilities = np.array(self._probabilities)
        return probabilities if len(probabilities) >= FEWEST else None

    def _score_drift(self) -> float:
        window = self._window()
        return float("nan") if window is None else self._bundle.scores.stability_index(window)

    def _score_drift_by_chance(self) -> float:
        window = self._window()
        return float("nan") if window is None else self._bundle.scores.stability_index_by_chance(len(window))
