"""What the service answers, as its OpenAPI description states it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from cxr_jax.bundle.record import Call
from cxr_jax.data.encoded import HEAD_BYTES, MAX_BYTES, kind_of
from cxr_jax.serving.loaded import Loaded
from cxr_jax.serving.predict import FilePrediction, Threshold
from cxr_jax.vocabulary import DISCLAIMER

_FILMS = Field(description="whose films the network learned from, and what it is for; null where nobody said")


@dataclass(frozen=True)
class Mistake:
    """Why a request was not answered."""

    error: Annotated[str, Field(description="one sentence: what is wrong, and what to do")]


@dataclass(frozen=True)
class FileAnswer:
    """What became of one file; the fields are those of `cxr-jax predict --json`, and a status."""

    file: Annotated[str, Field(description="its name in the upload")]
    status: Annotated[int, Field(description="200, or what a request of this file alone would have got: 413, 415, 422")]
    probability: Annotated[
        float | None,
        Field(description="of PNEUMONIA, 0 to 1; of other classes, of the one that is called; null of findings"),
    ]
    label: Annotated[str | None, Field(description="the class that is called, or all findings that are, with bars")]
    threshold: Annotated[
        float | None, Field(description="probability from which PNEUMONIA is called; null of other classes")
    ]
    threshold_rule: Annotated[str, Field(description="how a threshold was fixed, on validation images")]
    uncertain: Annotated[bool | None, Field(description="whether another class is possible, or none; null if unknown")]
    possible: Annotated[tuple[str, ...] | None, Field(description="classes at the error rate; null if unknown")]
    error_rate: Annotated[float | None, Field(description="of each class, how many images have a set without it")]
    warnings: Annotated[tuple[str, ...], Field(description="reasons to distrust the prediction")]
    compared_with_training: Annotated[bool, Field(description="no warning then means: like the training images")]
    model: str
    films: Annotated[str | None, _FILMS]
    disclaimer: str
    error: Annotated[str | None, Field(description="why the file was not predicted, in one sentence")] = None
    map: Annotated[
        str | None, Field(description="with ?map=png: what speaks for the label, as a PNG in a data: address")
    ] = None
    probabilities: Annotated[
        dict[str, float] | None, Field(description="of every class or finding; null of NORMAL and PNEUMONIA")
    ] = None
    findings: Annotated[tuple[str, ...] | None, Field(description="those that are called; null of other classes")] = (
        None
    )
    thresholds: Annotated[
        dict[str, float] | None, Field(description="from which each finding is called; null of other classes")
    ] = None

    @classmethod
    def of(
        cls, prediction: FilePrediction, status: int, threshold: Threshold, loaded: Loaded, map: str | None
    ) -> FileAnswer:
        """Returns the answer for a prediction; `status` is the one that it has if there is an error."""
        status = 200 if prediction.error is None else status
        return cls(**prediction.as_json(threshold, loaded.name, loaded.films), status=status, map=map)


@dataclass(frozen=True)
class Answer:
    """One answer for every file, in the order of the upload."""

    files: tuple[FileAnswer, ...]
    rule: Annotated[
        Call | None,
        Field(description="the threshold of PNEUMONIA, and what it promised on validation; null of other classes"),
    ]
    model: str
    bundle_sha256: Annotated[str, Field(description="of bundle.json, which holds the hash of every other file")]
    films: Annotated[str | None, _FILMS] = None
    rules: Annotated[
        tuple[Call, ...],
        Field(description="the threshold of each class that has one: a finding is called from it on"),
    ] = ()
    disclaimer: str = DISCLAIMER
    error: Annotated[str | None, Field(description="null unless no file at all could be predicted")] = None


@dataclass(frozen=True)
class Health:
    """Whether the service predicts."""

    status: Annotated[Literal["ready", "not ready"], Field(description="ready: the network has answered")]
    model: str
    bundle_sha256: str
    pending: Annotated[int, Field(description="images that wait or are under way")]
    films: Annotated[str | None, _FILMS] = None
    disclaimer: str = DISCLAIMER


def refusal_status(data: bytes) -> int:
    """Returns the status of a file that cannot be predicted: 413 too large, 415 no image by its content, 422 others."""
    if len(data) > MAX_BYTES:
        return 413
    return 415 if kind_of(data[:HEAD_BYTES]) is None else 422


def status_of(answers: Sequence[FileAnswer]) -> int:
    """Returns 200 if a file was predicted; otherwise what all files have in common, or 422."""
    statuses = {answer.status for answer in answers}
    if 200 in statuses:
        return 200
    return statuses.pop() if len(statuses) == 1 else 422


def error_of(answers: Sequence[FileAnswer]) -> str | None:
    """Returns why no file was predicted; None if one was."""
    if any(answer.error is None for answer in answers):
        return None
    return answers[0].error if len(answers) == 1 else f"none of {len(answers)} files could be predicted: see each"
