"""Images that arrive one by one, predicted in batches: decoded in threads, then run through the network together."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from cxr_jax.data.quality.reference import QualityReference
from cxr_jax.errors import UserError
from cxr_jax.process import available_cores
from cxr_jax.serving.predict import (
    BATCH_SIZE,
    FilePrediction,
    Predictor,
    Threshold,
    answered,
    prediction_of,
    probabilities_of,
)
from cxr_jax.serving.radiograph import Radiograph, read_radiograph

WAIT_SECONDS = 0.005
"""How long the network waits for more images, while others are being decoded."""

CAPACITY = 64
"""Images that may wait or be under way."""


class BusyError(Exception):
    """As many images as may wait are waiting: what was given is refused as a whole, and may come again later."""


class StoppedError(Exception):
    """Nothing is taken any more."""


class Observer(Protocol):
    """What is told of the work, from threads of its own."""

    def batch(self, images: int) -> None:
        """So many images were run through the network together."""

    def predicted(self, prediction: FilePrediction, unlike: Sequence[str]) -> None:
        """An image was predicted; by the measures `unlike` it is outside the usual range of the training images."""


@dataclass(frozen=True)
class Submission:
    """An encoded image, as it was handed over."""

    data: bytes
    name: str  # what answers and errors call it


@dataclass(frozen=True)
class _Decoded:
    """An image that waits for the network."""

    name: str
    radiograph: Radiograph  # without its pixels at full size
    future: Future[FilePrediction]


class BatchingPredictor:
    """Predicts images that several threads hand over, each answered by a future of its own.

    Images are decoded in as many threads as there are cores. One more thread runs those that are ready through the
    network, in the order in which they became so. The number of images under way is bounded, so that memory is.
    """

    def __init__(
        self,
        model: Predictor,
        threshold: Threshold,
        *,
        reference: QualityReference | None = None,
        batch_size: int = BATCH_SIZE,
        wait_seconds: float = WAIT_SECONDS,
        capacity: int = CAPACITY,
        observer: Observer | None = None,
    ) -> None:
        """Starts the threads; the first thing that the network is given is a black image, to see that it answers.

        Args:
            model: one network, or several that see the same square.
            threshold: how calls are made.
            reference: the usual quality of the training images; None if it is not known.
            batch_size: images that are run through the network together, at most.
            wait_seconds: how long the network waits for a batch to fill, while images are being decoded.
            capacity: images that may wait or be under way.
            observer: what is told of the work.
        """
        self.capacity = capacity
        self._model, self._threshold, self._reference = model, threshold, reference
        self._batch_size, self._wait_seconds, self._observer = batch_size, wait_seconds, observer
        self._changed = threading.Condition()
        self._ready: deque[_Decoded] = deque()
        self._pending = 0  # accepted and not yet answered
        self._stopping = False
        self._answering = False
        self._decoders = ThreadPoolExecutor(available_cores(), thread_name_prefix="decoding")
        self._network = threading.Thread(target=self._run, name="network", daemon=True)
        self._network.start()

    @property
    def answering(self) -> bool:
        """Whether the network answered when it was last asked, as it is once at the start."""
        return self._answering

    @property
    def pending(self) -> int:
        """How many images are accepted and not yet answered."""
        return self._pending

    def submit(self, data: bytes, name: str) -> Future[FilePrediction]:
        """Returns the future prediction of one encoded image; as `submit_all`."""
        return self.submit_all([Submission(data, name)])[0]

    def submit_all(self, given: Sequence[Submission]) -> list[Future[FilePrediction]]:
        """Returns the future prediction of every image, in order; all of them are accepted, or none.

        An image that cannot be decoded is answered by the sentence that says why. Predictions hold no radiograph, so
        that many of them take little memory. A future fails only where the network does. One that is cancelled before
        its image is decoded costs no more work.

        Raises:
            BusyError: there is no room for all of them now.
            StoppedError: `close` was called.
        """
        with self._changed:
            if self._stopping:
                raise StoppedError
            if self._pending + len(given) > self.capacity:
                raise BusyError
            self._pending += len(given)
        futures: list[Future[FilePrediction]] = [Future() for _ in given]
        for submission, future in zip(given, futures, strict=True):
            self._decoders.submit(self._decode, submission, future)
        return futures

    def close(self) -> None:
        """Takes nothing more, and returns when all that was accepted is answered."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._network.join()
        self._decoders.shutdown()

    def _decode(self, given: Submission, future: Future[FilePrediction]) -> None:
        if not future.set_running_or_notify_cancel():
            self._answered(1)
            return
        try:
            radiograph = read_radiograph(given.data, given.name, self._model.descriptions, self._reference)
        except UserError as error:
            self._answered(1)
            future.set_result(FilePrediction(given.name, error=str(error)))
        except BaseException as error:
            self._answered(1)
            future.set_exception(error)
        else:
            # those that wait take little memory
            radiograph = replace(radiograph, grey=np.zeros((0, 0), np.uint8))
            with self._changed:
                self._ready.append(_Decoded(given.name, radiograph, future))
                self._changed.notify_all()

    def _answered(self, images: int) -> None:
        with self._changed:
            self._pending -= images
            self._changed.notify_all()

    def _run(self) -> None:
        """Runs batches through the network until `close` was called and nothing is left."""
        self._try_out()
        while batch := self._next_batch():
            try:
                predictions = self._predict(batch)
            except BaseException as error:
                self._answering = False
                self._answered(len(batch))
                for decoded in batch:
                    decoded.future.set_exception(error)
                continue
            self._answering = True
            self._answered(len(batch))
            for decoded, prediction in zip(batch, predictions, strict=True):
                decoded.future.set_result(prediction)

    def _try_out(self) -> None:
        size = self._model.descriptions[0].image_size
        with contextlib.suppress(Exception):
            self._model.logits(np.zeros((1, size, size), np.uint8))
            self._answering = True

    def _next_batch(self) -> list[_Decoded]:
        """Returns images that are ready, as soon as there is one and no more are near; none at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._ready or (self._stopping and not self._pending))
            due = time.monotonic() + self._wait_seconds
            # a lone image is not kept waiting: only while others are being decoded can a batch still grow
            while len(self._ready) < min(self._batch_size, self._pending):
                remaining = due - time.monotonic()
                if remaining <= 0:
                    break
                self._changed.wait(remaining)
            return [self._ready.popleft() for _ in range(min(self._batch_size, len(self._ready)))]

    def _predict(self, batch: Sequence[_Decoded]) -> list[FilePrediction]:
        logits, remarks = answered(self._model, np.stack([decoded.radiograph.square for decoded in batch]))
        if not np.isfinite(logits).all():
            raise FloatingPointError("the network answers with what is no number")
        compared, classes = self._reference is not None, self._model.descriptions[0].classes
        predictions = []
        for decoded, probability, unlike in zip(batch, probabilities_of(self._model, logits), remarks, strict=True):
            radiograph = decoded.radiograph
            prediction = prediction_of(
                decoded.name, radiograph, probability, unlike, self._threshold, compared=compared, classes=classes
            )
            predictions.append(replace(prediction, radiograph=None))
        if self._observer:
            self._observer.batch(len(batch))
            for decoded, prediction in zip(batch, predictions, strict=True):
                self._observer.predicted(prediction, decoded.radiograph.unlike)
        return predictions
