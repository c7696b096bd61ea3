"""What a run says of its network, so that it can be used without the config's weights file at hand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Literal

from cxr_jax.errors import UserError
from cxr_jax.runs.files import write_json
from cxr_jax.runs.folder import SCHEMA_VERSION, RunFolder, read_json
from cxr_jax.runs.records import from_json
from cxr_jax.vocabulary import EXCLUSIVE, Kind


@dataclass(frozen=True)
class LungBoxes:
    """A linear regression that predicts the box of the lungs from an image, as `data.lung_boxes` fits it."""

    weights: tuple[
        tuple[float, ...], ...
    ]  # [F + 1, 4]: the intercept and one row a feature; of left, top, right, bottom


@dataclass(frozen=True)
class NetworkDescription:
    """The contents of network.json."""

    architecture: str
    classes: tuple[str, ...]
    image_size: int  # side in pixels
    resize: str
    interpolation: str
    mean: tuple[float, ...]  # of the three channels in [0, 1]
    std: tuple[float, ...]
    weights: str  # file that it began with; empty for random weights
    weights_sha256: str
    parameters: int
    flip_average: bool = False  # logits are the mean of the image's and of its mirror image's, left to right
    shift_average: float = 0.0  # likewise of the image moved four ways by this share of its side; 0: not
    region: str = "whole"  # of an image that it is shown, as data.region says; all others need a lung mask
    lung_boxes: LungBoxes | None = None  # by which an image is cropped to its lungs before it is seen; None: it is not
    clarify: Literal["none", "clahe"] = "none"  # what is done to an image before it is seen, by `images.clarity`
    until: str = ""  # the stage behind which it is cut, as `FirstStages` says; empty for a whole network
    kind: Kind = EXCLUSIVE  # of the classes: softmax over all, or one sigmoid for each finding
    transition: int = 0  # channels of the layer behind the last stage; 0: there is none
    pooling: Literal["average", "max", "log_sum_exp"] = "average"  # of the last maps over the image
    pooling_sharpness: float = 10.0  # of log_sum_exp
    denoiser: int = 0  # channels of the denoiser before the first stage; 0: there is none

    @property
    def shift(self) -> int:
        """By how many pixels an image is moved for the views that are averaged; 0: not at all."""
        return max(1, round(self.shift_average * self.image_size)) if self.shift_average > 0 else 0

    @property
    def title(self) -> str:
        """The architecture, and behind which stage it is cut."""
        return f"{self.architecture} up to {self.until}" if self.until else f"{self.architecture}{self._head()}"

    def _head(self) -> str:
        """Returns what is said of the head in a title; nothing of a usual one."""
        parts = [f"a transition layer of {self.transition}"] if self.transition else []
        if self.pooling != "average":
            sharpness = f" (r = {self.pooling_sharpness:g})" if self.pooling == "log_sum_exp" else ""
            parts.append(f"{self.pooling.replace('_', '-')} pooling{sharpness}")
        if self.denoiser:
            parts.append(f"a denoiser of {self.denoiser}")
        return f" with {' and '.join(parts)}" if parts else ""


def require_whole_images(descriptions: Iterable[NetworkDescription], taker: str) -> None:
    """Raises UserError unless all networks are shown whole images: `taker` has films, and no lung masks of them."""
    for description in descriptions:
        if description.region != "whole":
            raise UserError(
                f'{taker} takes films alone, and this network was trained on the region "{description.region}" of '
                "images, which takes a lung mask of each: cxr-jax evaluate judges it on the prepared data, where masks "
                "are"
            )


def require_uncropped(descriptions: Iterable[NetworkDescription], taker: str) -> None:
    """Raises UserError if a network sees images cropped to their lungs, which `taker` cannot do, or not undo."""
    if any(description.lung_boxes is not None for description in descriptions):
        raise UserError(f'{taker} takes no network of data.crop "lungs", which sees the lungs\' box of a film alone')


def require_unclarified(descriptions: Iterable[NetworkDescription], taker: str) -> None:
    """Raises UserError if a network sees images made clearer, which `taker` cannot do."""
    if any(description.clarify != "none" for description in descriptions):
        raise UserError(f"{taker} takes no network of data.clarify, before which every image is changed")


def write_description(run: RunFolder, description: NetworkDescription) -> None:
    """Writes network.json of `run`; UserError if it cannot be written."""
    write_json(run.network, {"schema_version": SCHEMA_VERSION, **asdict(description)})


def read_description(run: RunFolder) -> NetworkDescription:
    """Returns the network of `run`; UserError if network.json is missing or is not what a run writes.

    What a later version says besides is passed over.
    """
    if not run.network.is_file() and run.read_config().get("synthesis", {}).get("generator", "none") != "none":
        raise UserError(f"{run.path} holds a generator of images, and no network that tells classes apart")
    known = {entry.name for entry in fields(NetworkDescription)}
    stored = {name: value for name, value in read_json(run.network).items() if name in known}
    try:
        tuples = {name: tuple(stored[name]) for name in ("classes", "mean", "std")}
        boxes = stored.get("lung_boxes")
        found = None if boxes is None else from_json(LungBoxes, boxes, "lung_boxes")
        return NetworkDescription(**{**stored, **tuples, "lung_boxes": found})
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{run.network} is damaged ({error}): train the run again") from error
