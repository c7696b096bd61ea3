"""What the service does with a request: prediction, health, metrics."""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import cv2

from cxr_jax.bundle.record import BUNDLE_FILE, Bundle, content_of
from cxr_jax.errors import UserError
from cxr_jax.serving.batching import BATCH_SIZE, BatchingPredictor, BusyError, StoppedError, Submission
from cxr_jax.serving.http.answers import Answer, FileAnswer, Health, error_of, refusal_status, status_of
from cxr_jax.serving.http.limits import RETRY_AFTER, UPLOADS_HELD, Limits, RefusalError, Room
from cxr_jax.serving.http.metrics import Metrics
from cxr_jax.serving.http.uploads import read_upload
from cxr_jax.serving.loaded import Loaded, load
from cxr_jax.serving.maps import map_of
from cxr_jax.serving.predict import FilePrediction, Threshold
from cxr_jax.serving.radiograph import read_radiograph
from cxr_jax.vocabulary import CLASS_NAMES

if TYPE_CHECKING:
    from starlette.requests import Request

MAP_SIDE = 1024
"""Longer side of a heat map in an answer, in pixels, at most."""

_SECONDS_BETWEEN_LOOKS = 0.5  # at whether somebody still waits for an answer

BUSY = "too many images are waiting at this moment: try again in a second"


@dataclass(frozen=True)
class Network:
    """An exported network, and what is told of it."""

    loaded: Loaded
    bundle: Bundle
    sha256: str  # of bundle.json
    threshold: Threshold

    @classmethod
    def of(cls, folder: str | Path) -> Network:
        """Returns the network of a bundle; UserError if it is damaged or of a newer version."""
        loaded = load(folder)
        sha256 = content_of(Path(folder) / BUNDLE_FILE).sha256
        return cls(loaded, loaded.model.bundle, sha256, Threshold.of(loaded.model))


class Service:
    """An exported network that answers requests; `close` ends it."""

    def __init__(self, network: Network, limits: Limits, *, batch_size: int = BATCH_SIZE, token: str = "") -> None:
        """Starts the network; with a `token`, predictions and metrics are for those alone who send it."""
        self.network = network
        self.limits = limits
        self.metrics = Metrics(network.bundle, network.sha256)
        self.predictor = BatchingPredictor(
            network.loaded.model,
            network.threshold,
            reference=network.loaded.reference,
            batch_size=batch_size,
            capacity=limits.files,
            observer=self.metrics,
        )
        self.metrics.watch(lambda: self.predictor.pending, lambda: self.predictor.answering)
        self._room = Room(UPLOADS_HELD * limits.request_bytes)
        # one at a time, since a picture at full size takes much memory
        self._drawing = ThreadPoolExecutor(1, thread_name_prefix="drawing")
        self._token = token.encode()

    @property
    def asks_for_token(self) -> bool:
        """Whether predictions and metrics are for those alone who send a token."""
        return bool(self._token)

    def close(self) -> None:
        """Returns when everything that was accepted is answered."""
        self.predictor.close()
        self._drawing.shutdown()

    def require_token(self, request: Request) -> None:
        """Raises RefusalError if there is a token and the request does not send it."""
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        right = hmac.compare_digest(given.strip().encode("utf-8", "surrogateescape"), self._token)
        if self._token and not (kind.lower() == "bearer" and right):
            sentence = "this service asks for its token: send the header 'Authorization: Bearer TOKEN'"
            raise RefusalError(401, sentence, {"WWW-Authenticate": "Bearer"})

    async def predict(self, request: Request, map: Literal["png"] | None) -> tuple[int, Answer]:
        """Returns status and answer for the files of an upload; with `map` each has a heat map.

        Raises:
            RefusalError: the request is refused as a whole.
            ClientDisconnect: nobody waits for the answer any more.
        """
        self.require_token(request)
        if map:
            self._require_maps()
        if self.predictor.pending >= self.limits.files:
            raise RefusalError(503, BUSY, RETRY_AFTER)
        with self._room.share() as share:
            given = await read_upload(request, self.limits, share)
            request.state.images = len(given)
            try:
                async with asyncio.timeout(self.limits.answer_seconds):
                    answers = await self._answers(request, given, map)
            except TimeoutError:
                seconds = f"{self.limits.answer_seconds:.4g}"
                sentence = f"the network did not answer within {seconds} seconds: try again later"
                raise RefusalError(503, sentence, RETRY_AFTER) from None
        for answer in answers:
            if answer.error is not None:
                self.metrics.refused(answer.status)
        loaded, rules = self.network.loaded, self.network.bundle.calls
        usual = self.network.bundle.network.classes == CLASS_NAMES
        answer = Answer(
            files=tuple(answers),
            rule=rules[0] if usual and rules else None,
            model=loaded.name,
            bundle_sha256=self.network.sha256,
            films=loaded.films or None,
            rules=rules,
            error=error_of(answers),
        )
        return status_of(answers), answer

    def _require_maps(self) -> None:
        """Raises RefusalError if there are no heat maps of this network."""
        try:
            _ = self.network.loaded.explain
        except UserError as error:
            raise RefusalError(422, f"{error}: ask without map") from None

    def health(self) -> tuple[int, Health]:
        """Returns 200 if the network answers, and 503 before and after that."""
        ready, loaded = self.predictor.answering, self.network.loaded
        status = "ready" if ready else "not ready"
        told = Health(status, loaded.name, self.network.sha256, self.predictor.pending, loaded.films or None)
        return 200 if ready else 503, told

    async def _answers(
        self, request: Request, given: Sequence[Submission], map: Literal["png"] | None
    ) -> list[FileAnswer]:
        futures = self._submit(given)
        try:
            predictions = await _predictions(request, given, futures)
        finally:
            # does nothing to what is done
            for future in futures:
                future.cancel()
        answers = []
        for submission, (prediction, failed) in zip(given, predictions, strict=True):
            picture = None
            if map and prediction.error is None:
                loop = asyncio.get_running_loop()
                picture = await loop.run_in_executor(self._drawing, self._draw, submission, prediction)
            status = 500 if failed else refusal_status(submission.data)
            answers.append(FileAnswer.of(prediction, status, self.network.threshold, self.network.loaded, picture))
        return answers

    def _submit(self, given: Sequence[Submission]) -> list[Future[FilePrediction]]:
        try:
            return self.predictor.submit_all(given)
        except BusyError:
            raise RefusalError(503, BUSY, RETRY_AFTER) from None
        except StoppedError:
            raise RefusalError(503, "the service is stopping: try again in a second", RETRY_AFTER) from None

    def _draw(self, given: Submission, prediction: FilePrediction) -> str:
        """Returns the heat map of a prediction as a data: address; the image is decoded again, which saves memory."""
        descriptions = self.network.loaded.model.descriptions
        radiograph = read_radiograph(given.data, given.name, descriptions)
        shrink = MAP_SIDE / max(radiograph.grey.shape)
        if shrink < 1:
            grey = cv2.resize(radiograph.grey, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
            radiograph = replace(radiograph, grey=grey)
        drawn = map_of(
            self.network.loaded.explain,
            replace(prediction, radiograph=radiograph),
            self.network.threshold,
            descriptions[0].resize,
            classes=descriptions[0].classes,
            films=self.network.loaded.films,
        )
        return "data:image/png;base64," + base64.b64encode(drawn.png()).decode()


async def _predictions(
    request: Request, given: Sequence[Submission], futures: Sequence[Future[FilePrediction]]
) -> list[tuple[FilePrediction, bool]]:
    """Returns what became of every file, and whether that is a failure of the service.

    Raises:
        ClientDisconnect: nobody waits for the answer any more.
    """
    from starlette.requests import ClientDisconnect

    waiting = {asyncio.wrap_future(future) for future in futures}
    while waiting:
        _, waiting = await asyncio.wait(waiting, timeout=_SECONDS_BETWEEN_LOOKS)
        if waiting and await request.is_disconnected():
            raise ClientDisconnect
    outcomes = []
    for submission, future in zip(given, futures, strict=True):
        failure = future.exception()
        told = f"{submission.name} could not be predicted: the service failed on it, try it again"
        outcomes.append(
            (future.result(), False) if failure is None else (FilePrediction(submission.name, error=told), True)
        )
    return outcomes
