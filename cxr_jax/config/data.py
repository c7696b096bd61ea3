"""The fields that say which images a network learns from, and how they are cut and shown."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Literal

from cxr_jax.config.section import Section, require


@dataclass(frozen=True)
class ReplayConfig(Section):
    """Images of other data that are mixed in, so that a network that learns on does not forget them."""

    dataset: str = ""  # name or path of prepared data, as data.dataset; empty: nothing is mixed in
    # theirs of the images that an epoch visits, drawn anew in every epoch; and of the validation images, drawn once
    share: float = 0.5

    def __post_init__(self) -> None:
        require(0 < self.share < 1, "share", self.share, "above 0 and below 1")

    def beside(self, images: int, there: int) -> int:
        """Returns how many of the `there` other images are mixed in with `images`: as the share says, or all."""
        return min(max(1, round(images * self.share / (1 - self.share))), there)


@dataclass(frozen=True)
class DataConfig(Section):
    """Which radiographs, at which size, cut how."""

    dataset: str = "chest_xray"  # name under which `cxr-jax prepare` stored the data, or the path of prepared data
    image_size: int = 224  # side of the square images that the network sees, in pixels
    resize: Literal["squash", "pad", "crop"] = "squash"  # what happens to the aspect ratio
    interpolation: Literal["area", "linear", "cubic"] = "area"  # used when images are shrunk; enlarging is linear
    # official: the source's own 16 images. The others cut whole groups from train: grouped at random; numbered the
    # lowest numbers; least_sharp the least sharp NORMAL images beside PNEUMONIA at random, which hurts as the official
    # test does and serves to compare recipes rather than to train a final network. fold: one fold of cross-validation,
    # of all images but those of test; out_of_fold: that of the ensemble of all folds, which `cxr-jax crossval` makes
    validation: Literal["grouped", "official", "numbered", "least_sharp", "fold", "out_of_fold"] = "grouped"
    validation_fraction: float = 0.1  # share of train's groups cut for validation
    split_seed: int = 0  # seed of what is cut at random
    folds: int = 5  # how many, where validation is one of them
    fold: int = 0  # number of the one that is held out, from 0
    # how rare classes come to more training images. barnett: changed copies of normals as in Barnett's study. The rest
    # give rarer classes as many as the most frequent one has: oversampling repeats images drawn at random, reduced does
    # so with copies that were made smaller and enlarged again, dcgan adds images that a generator made
    balancing: Literal["none", "barnett", "oversampling", "reduced", "dcgan"] = "none"
    reduced_size: int = 64  # side to which copies are reduced, in pixels, where balancing is reduced
    synthetic: str = ""  # folder of `cxr-jax synthesize` whose images are added, where balancing is dcgan
    replay: ReplayConfig = field(default_factory=ReplayConfig)  # what is mixed in of other data
    # what a network is shown of an image, in training and wherever it is judged; all but whole need the masks of
    # `cxr-jax prepare --masks`, and leave out images without one. mask: the lungs white, the rest black, no grey level
    # of the image. lungs: these alone. outside_lungs: all but these. outside_box: all but the upright box around them.
    # border: a rim as wide as a tenth of the side, without lungs. What is not shown is one grey
    region: Literal["whole", "mask", "lungs", "outside_lungs", "outside_box", "border"] = "whole"
    # lungs: every image is cropped to the box of its lungs, which a regression on its gradients predicts. The masks of
    # `cxr-jax prepare --masks` are needed to fit it, and a trained network keeps it and needs none
    crop: Literal["none", "lungs"] = "none"
    # what is done to every image before a network sees it, in training and wherever it is used. clahe: the histogram of
    # each of 8 x 8 tiles is equalised, with a limit
    clarify: Literal["none", "clahe"] = "none"
    # where training images wait for their batch: all on every device, or on the host, read batch by batch from a
    # memory-mapped file. auto: on GPUs and TPUs with room for them, else on the host. It changes no batch, and a run
    # can be resumed with another
    placement: Literal["auto", "device", "host"] = "auto"

    def __post_init__(self) -> None:
        require(16 <= self.image_size <= 2048, "image_size", self.image_size, "from 16 to 2048")
        fraction = self.validation_fraction
        require(0 < fraction < 0.5, "validation_fraction", fraction, "above 0 and below 0.5")
        require(self.folds >= 2, "folds", self.folds, "2 or more")
        alone = self.crop == "none" or not self.replay.dataset
        require(alone, "crop", self.crop, '"none" where replay mixes in other data')
        require(self.crop == "none" or self.region == "whole", "crop", self.crop, '"none" where region is not "whole"')
        size = self.reduced_size
        require(16 <= size <= 2048, "reduced_size", size, "from 16 to 2048")
        named = self.balancing != "dcgan" or bool(self.synthetic)
        require(named, "synthetic", self.synthetic, 'a folder of `cxr-jax synthesize` where balancing is "dcgan"')
        if self.balancing in ("reduced", "dcgan"):
            whole = (self.region, self.crop) == ("whole", "none")
            rule = '"none", "barnett" or "oversampling" where region or crop shows less than whole images'
            require(whole, "balancing", self.balancing, rule)
            rule = '"none" or "oversampling" where clarify changes images, which the others hold as they were'
            require(self.clarify == "none", "balancing", self.balancing, rule)
        alone = self.clarify == "none" or (self.region, self.crop, self.replay.dataset) == ("whole", "none", "")
        rule = '"none" where region, crop or replay is asked for'
        require(alone, "clarify", self.clarify, rule)
        if self.balancing == "reduced":
            require(size < self.image_size, "reduced_size", size, "below image_size where balancing is reduced")
        require(0 <= self.fold < self.folds, "fold", self.fold, f"from 0 to {self.folds - 1}, one of data.folds")
        if self.replay.dataset:
            one_set = self.validation not in ("fold", "out_of_fold") and self.balancing == "none"
            rule = 'empty where data.validation is that of folds, or data.balancing is not "none": these are of one set'
            require(one_set, "replay.dataset", self.replay.dataset, rule)
            whole = (self.region, self.crop) == ("whole", "none")
            rule = "empty where data.region or data.crop shows less than whole images"
            require(whole, "replay.dataset", self.replay.dataset, rule)

    def of_radiographs(self) -> DataConfig:
        """Returns the same without what is added to rare classes by repetition or by a generator: train as it was
        taken, for whoever asks what training images look like.
        """
        added = self.balancing in ("oversampling", "reduced", "dcgan")
        return dataclasses.replace(self, balancing="none") if added else self

    def cut(self) -> dict[str, str | int | float | tuple]:
        """Returns the fields that decide which images are validation, by name: two with equal ones cut alike."""
        used = {
            "official": (),
            "numbered": ("validation_fraction",),
            "grouped": ("validation_fraction", "split_seed"),
            "least_sharp": ("validation_fraction", "split_seed"),
            "fold": ("folds", "fold", "split_seed"),
            "out_of_fold": ("folds", "split_seed"),
        }
        mixed = {"replay": dataclasses.astuple(self.replay)} if self.replay.dataset else {}
        return {**{name: getattr(self, name) for name in ("validation", *used[self.validation])}, **mixed}
