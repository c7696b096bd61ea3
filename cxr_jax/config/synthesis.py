"""The fields of a generator of images that `cxr-jax synthesize` trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cxr_jax.config.section import Section, require

IMAGE_SIZES = (16, 32, 64, 128)
"""Sides of the images that a generator can make, in pixels; the smallest two are for tests."""


@dataclass(frozen=True)
class SynthesisConfig(Section):
    """A generator of images like those of one class of train, trained by `cxr-jax synthesize` in place of a network
    that tells classes apart.
    """

    generator: Literal["none", "dcgan"] = "none"  # dcgan: Radford et al. 2016; none: the network of [model] is trained
    label: str = "NORMAL"  # class whose training images it learns from, after the cut of validation
    latent_size: int = 100  # numbers that an image is made of
    channels: int = 64  # of the maps of half the image's side; each halving of the side doubles them
    adam_learning_rate: float = 2e-4  # of Adam, for both networks
    adam_beta1: float = 0.5  # of Adam
    label_smoothing: float = 0.0  # one-sided: real images count as real by one less this
    # how many images are made in the end; 0: as many as the class lacks to be as frequent as the most frequent one
    samples: int = 0

    def __post_init__(self) -> None:
        for name in ("latent_size", "channels"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(self.adam_learning_rate > 0, "adam_learning_rate", self.adam_learning_rate, "above 0")
        require(0 <= self.adam_beta1 < 1, "adam_beta1", self.adam_beta1, "at least 0 and below 1")
        require(0 <= self.label_smoothing < 0.5, "label_smoothing", self.label_smoothing, "at least 0 and below 0.5")
        rule = "0 (as many as the class lacks), or 4 or more, which can be judged"
        require(self.samples == 0 or self.samples >= 4, "samples", self.samples, rule)

    @property
    def is_asked_for(self) -> bool:
        """True where a generator is trained, and no network that tells classes apart."""
        return self.generator != "none"
