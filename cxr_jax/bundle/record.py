"""What stands in the folder of an exported network, written and read; no JAX is needed to read it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cxr_jax.bundle.scores import Scores
from cxr_jax.errors import UserError
from cxr_jax.evaluation.conformal import ConformalSets
from cxr_jax.evaluation.feature_distance import FeatureLimit
from cxr_jax.evaluation.numbers import TO, with_interval
from cxr_jax.runs.description import NetworkDescription
from cxr_jax.runs.files import write_json
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.records import from_json, to_json
from cxr_jax.terminal import as_typed
from cxr_jax.vocabulary import DISCLAIMER, Kind

SCHEMA_VERSION = 1
BUNDLE_FILE = "bundle.json"
ONNX_FILE = "model.onnx"
INT8_FILE = "model.int8.onnx"
STABLEHLO_FILE = "model.stablehlo"
CARD_FILE = "MODEL_CARD.md"
PROGRAM_FILE = "predict.py"


@dataclass(frozen=True)
class Call:
    """From which probability a class is called, and what that promised on validation."""

    label: str
    threshold: float
    rule: str
    sensitivity: float | None = None  # on validation
    specificity: float | None = None  # on validation
    images: int | None = None  # of validation


@dataclass(frozen=True)
class UsualRange:
    """The usual values of one measure of image quality on the training images; None where an end does not matter."""

    measure: str
    title: str
    low: float | None
    high: float | None


@dataclass(frozen=True)
class RuntimeCheck:
    """How far the probabilities of a bundle were from those of its run on the validation images."""

    runtime: str  # name and version
    batch_size: int
    images: int
    largest_difference: float


@dataclass(frozen=True)
class Rounding:
    """What a network in fewer bits loses on the validation images."""

    images: int  # of validation
    roc_auc: float  # in fewer bits; of other classes than NORMAL and PNEUMONIA, or of findings, the mean over them
    roc_auc_float32: float
    largest_difference: float  # of a probability
    other_calls: int | None  # images that are called otherwise; None without a threshold


@dataclass(frozen=True)
class Quantisation(Rounding):
    """What the network in 8 bits loses on the validation images."""

    calibration_images: int  # of training, from which the ranges of activations were taken


@dataclass(frozen=True)
class Figure:
    """A measure on the test images with the ends of its 95 % interval, if it has one."""

    title: str
    form: str  # in which it is written, as Python's `format` has it
    value: float
    low: float | None
    high: float | None

    def number(self) -> str:
        """Returns it without its title."""
        interval = None if self.low is None or self.high is None else self
        return with_interval(self.value, interval, self.form, word=TO)

    def text(self) -> str:
        """Returns it as it stands in a sentence."""
        return f"{self.title} {self.number()}"


@dataclass(frozen=True)
class SetsReached:
    """What the sets of possible classes, at the usual error rate, were worth on some of the test images."""

    images_of: str  # all, or those of a class or subtype
    images: int
    covered: Figure  # share whose set holds their class
    uncertain: Figure  # share whose set is not the called class alone
    wrong: Figure  # share that is called wrongly and is not uncertain


@dataclass(frozen=True)
class Reached:
    """What a network reached on the test images, at the threshold of its calls."""

    images: int
    figures: tuple[Figure, ...]
    sets: tuple[SetsReached, ...] = ()  # empty where it has none, and from an earlier version


@dataclass(frozen=True)
class Content:
    """One file of a bundle."""

    name: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """The contents of bundle.json."""

    name: str  # of the run
    kind: Kind  # of the classes: an image has exactly one, or shows any number of findings
    network: NetworkDescription  # with the names of the classes and what is done to an image before
    # of NORMAL and PNEUMONIA when the second is called; of other classes the threshold of each for whoever asks for it
    # alone, while an image is called the class of its highest probability; of findings when each is called
    calls: tuple[Call, ...]
    temperature: float | None  # by which logits are divided to be calibrated; None before the run was evaluated
    quality: tuple[UsualRange, ...]  # aggregated quantiles; no picture of any training image
    training_images: int
    step: int | None  # of training; None for an ensemble
    checkpoint: str  # best or last; empty for an ensemble
    checkpoint_sha256: str
    data_fingerprint: str
    software: dict[str, str]
    date: str
    files: tuple[Content, ...]
    disclaimer: str = DISCLAIMER
    runtimes: tuple[RuntimeCheck, ...] = ()  # empty where it was not checked on validation
    int8: Quantisation | None = None  # where there is a network in 8 bits, too
    scores: Scores | None = None  # of validation; None where the run was not evaluated, or by an earlier version
    weights: Literal["float32", "float16"] = "float32"  # as they are stored; arithmetic is in float32 either way
    half: Rounding | None = None  # of weights in float16, where that was tried on validation
    test: Reached | None = None  # None before the run was evaluated
    sets: ConformalSets | None = None  # from which probability a class is possible; None from an earlier version, too
    feature_limit: FeatureLimit | None = None  # of the distance that the network tells; None where it tells none
    films: str = ""  # whose films it learned from, in a sentence; empty from an earlier version


def is_bundle(folder: str | Path) -> bool:
    """Returns whether a folder holds an exported network."""
    return (Path(folder) / BUNDLE_FILE).is_file()


def require_bundle(place: str | Path) -> None:
    """Raises UserError if no exported network is there; for a run it says how that becomes one."""
    if is_bundle(place):
        return
    if RunFolder(Path(place)).config.is_file():
        raise UserError(f"{place} is a run: export it first, by {as_typed('cxr-jax', 'export', Path(place))} OUT")
    raise UserError(f"there is no bundle at {place}: it holds no {BUNDLE_FILE}, which cxr-jax export writes")


def content_of(path: Path) -> Content:
    """Returns name, size and hash of a file."""
    data = path.read_bytes()
    return Content(path.name, len(data), hashlib.sha256(data).hexdigest())


def write_bundle(folder: Path, bundle: Bundle) -> None:
    """Writes bundle.json; UserError if it cannot be written."""
    write_json(folder / BUNDLE_FILE, {"schema_version": SCHEMA_VERSION, **to_json(bundle)})


def read_bundle(folder: str | Path) -> Bundle:
    """Returns what bundle.json in `folder` says, after its files were held to their hashes.

    Raises:
        UserError: there is no bundle, it was made by another version, or a file is missing or not what it was.
    """
    folder = Path(folder)
    require_bundle(folder)
    value = read_json(folder / BUNDLE_FILE)
    version = value.get("schema_version")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise UserError(f"{folder} was exported by a newer version of cxr_jax: install that, or export the run again")
    try:
        bundle = from_json(Bundle, value, BUNDLE_FILE)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / BUNDLE_FILE} is damaged ({error}): export the run again") from error
    if ONNX_FILE not in {content.name for content in bundle.files}:
        raise UserError(f"{folder / BUNDLE_FILE} names no {ONNX_FILE}: export the run again")
    for content in bundle.files:
        if Path(content.name).name != content.name:
            raise UserError(f"{folder / BUNDLE_FILE} names a file outside the bundle: export the run again")
        path = folder / content.name
        if not path.is_file():
            raise UserError(f"{folder} lacks {content.name}: export the run again")
        if content_of(path).sha256 != content.sha256:
            raise UserError(f"{path} is not the file that was exported (its sha256 differs): export the run again")
    return bundle
