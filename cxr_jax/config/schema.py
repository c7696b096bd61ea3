"""The fields of an experiment, their defaults and their bounds; plain dataclasses without a dependency."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from cxr_jax.config.data import DataConfig
from cxr_jax.config.section import Section, require
from cxr_jax.config.synthesis import IMAGE_SIZES, SynthesisConfig
from cxr_jax.config.training import (
    AugmentationConfig,
    LossConfig,
    OptimizerConfig,
    ParallelConfig,
    PhaseConfig,
    ScheduleConfig,
    TrainingConfig,
    ValidationConfig,
)
from cxr_jax.runs.files import at_home


@dataclass(frozen=True)
class ModelConfig(Section):
    """Which network, and where its weights come from."""

    name: str = "mobilenetv2_100"  # `cxr-jax models` lists them
    weights: str = ""  # safetensors file under timm's names, looked for in CXR_WEIGHTS_DIR too; empty: random
    dropout: float = 0.0  # rate before the classifier
    stochastic_depth: float = 0.0  # share of examples that skip the last block; rises linearly from 0 at the first
    # channels of a small network before the first stage that takes noise from images, 16 as a rule; it is trained on
    # train with noise that is added, before all else, and then left alone. 0: there is none
    denoiser: int = 0
    # channels of a transition layer behind the last stage: a 3 x 3 convolution, BatchNorm and ReLU; 0: there is none
    transition: int = 0
    # how the last maps become one number each. average: their mean, or what the network has of its own. max: their
    # maximum. log_sum_exp: 1/r log(mean of exp(r x)), between the two (Wang et al. 2017)
    pooling: Literal["average", "max", "log_sum_exp"] = "average"
    pooling_sharpness: float = 10.0  # r of log_sum_exp: near 0 it is the mean, and the larger the nearer to the maximum
    # the trained network answers with the mean logits of an image and of its mirror image, left to right, wherever it
    # is evaluated or used; validation while training, and heat maps, are of the image alone
    flip_average: bool = False
    # likewise with the image moved by this share of its side to the left, right, up and down, the edge repeated: five
    # copies of an image, and ten with flip_average; 0: off
    shift_average: float = 0.0

    def __post_init__(self) -> None:
        for name in ("dropout", "stochastic_depth"):
            require(0 <= getattr(self, name) < 1, name, getattr(self, name), "at least 0 and below 1")
        require(0 <= self.shift_average <= 0.25, "shift_average", self.shift_average, "from 0 (off) to 0.25")
        require(0 <= self.denoiser <= 256, "denoiser", self.denoiser, "from 0 (none) to 256")
        require(0 <= self.transition <= 8192, "transition", self.transition, "from 0 (none) to 8192")
        sharpness = self.pooling_sharpness
        require(0.01 <= sharpness <= 1000, "pooling_sharpness", sharpness, "from 0.01 to 1000")


@dataclass(frozen=True)
class OperatingPointConfig(Section):
    """The rule that turns a probability into a call, applied to validation predictions only."""

    rule: Literal["fixed", "youden", "sensitivity", "cost_ratio"] = "fixed"  # how the threshold is chosen
    threshold: float = 0.5  # rule `fixed`
    target_sensitivity: float = 0.975  # rule `sensitivity`: the highest threshold that reaches it on validation
    cost_ratio: float = 5.0  # rule `cost_ratio`: how many false alarms a missed pneumonia is worth

    def __post_init__(self) -> None:
        require(0 <= self.threshold <= 1, "threshold", self.threshold, "from 0 to 1")
        target = self.target_sensitivity
        require(0 < target <= 1, "target_sensitivity", target, "above 0 and at most 1")
        require(self.cost_ratio > 0, "cost_ratio", self.cost_ratio, "above 0")


@dataclass(frozen=True)
class ReportConfig(Section):
    """What the report is written for."""

    # share of PNEUMONIA among the radiographs on which somebody would use the network; the report tells for it how
    # many calls would be right. 0: not declared
    prevalence: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.prevalence < 1, "prevalence", self.prevalence, "0 (not declared), or above 0 and below 1")


@dataclass(frozen=True)
class ProbeConfig(Section):
    """A linear classifier on features of the frozen network, fitted by `cxr-jax probe` in place of training."""

    classifier: Literal["none", "logistic", "svm"] = "none"  # none: the network is trained
    features: str = ""  # stage whose output is averaged over the image; empty: the last; logits: those of ImageNet
    # of the L2 penalty, 1/C in scikit-learn, on standardised features; cross-validation on train chooses one
    strengths: tuple[float, ...] = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0, 30000.0)
    folds: int = 5  # of that cross-validation, of whole groups
    # how rare classes come to as many rows of features as the most frequent one, in what a classifier is fitted on and
    # nowhere else: repeated at random, or by SMOTE (Chawla et al. 2002), which draws new ones between neighbours
    balancing: Literal["none", "oversampling", "smote"] = "none"

    def __post_init__(self) -> None:
        positive = len(self.strengths) > 0 and all(0 < strength < math.inf for strength in self.strengths)
        require(positive, "strengths", self.strengths, "one number or more, each above 0")
        require(self.folds >= 2, "folds", self.folds, "2 or more")

    @property
    def is_asked_for(self) -> bool:
        """True where a classifier is fitted, and nothing trained."""
        return self.classifier != "none"


@dataclass(frozen=True)
class Config(Section):
    """One experiment, whole."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    parallel: ParallelConfig = field(default_factory=ParallelConfig)
    operating_point: OperatingPointConfig = field(default_factory=OperatingPointConfig)
    report: ReportConfig = field(default_factory=ReportConfig)
    probe: ProbeConfig = field(default_factory=ProbeConfig)
    synthesis: SynthesisConfig = field(default_factory=SynthesisConfig)
    phases: tuple[PhaseConfig, ...] = ()  # empty: one phase of training.epochs epochs

    def __post_init__(self) -> None:
        names = [phase.name for phase in self.phases]
        require(len(set(names)) == len(names), "phases", names, "named differently from each other")
        twice = self.loss.class_weights == "balanced" and self.training.sampling == "balanced"
        rule = '"none" where training.sampling is "balanced": together they would make up for the rare class twice'
        require(not twice, "loss.class_weights", self.loss.class_weights, rule)
        twice = self.loss.class_weights == "balanced" and self.probe.is_asked_for and self.probe.balancing != "none"
        rule = f'"none" where probe.balancing is "{self.probe.balancing}": classes have as many rows already'
        require(not twice, "loss.class_weights", self.loss.class_weights, rule)

        own = (self.model.pooling, self.model.transition) == ("average", 0)
        rule = '"average", and model.transition 0, where probe.classifier is asked for: it has a head of its own'
        require(own or not self.probe.is_asked_for, "model.pooling", self.model.pooling, rule)

        replayed = self.data.replay.dataset
        rule = "empty where probe.classifier is asked for: a probe is fitted once, on images of one set"
        require(not (replayed and self.probe.is_asked_for), "data.replay.dataset", replayed, rule)
        trains = not (self.probe.is_asked_for or self.synthesis.is_asked_for)
        rule = "0 where probe.classifier or synthesis.generator is asked for: these train no denoiser"
        require(trains or self.model.denoiser == 0, "model.denoiser", self.model.denoiser, rule)
        made = self.data.balancing == "dcgan"
        rule = (
            "another one where probe.classifier is asked for: its cross-validation would judge by images that were made"
        )
        require(not (made and self.probe.is_asked_for), "data.balancing", self.data.balancing, rule)
        if self.synthesis.is_asked_for:
            self._require_synthesis()

    def _require_synthesis(self) -> None:
        """Raises ValueError for what bears no generator beside it."""
        require(not self.probe.is_asked_for, "probe.classifier", self.probe.classifier, '"none" beside a generator')
        size = self.data.image_size
        rule = f"one of {', '.join(map(str, IMAGE_SIZES))} where synthesis.generator is asked for"
        require(size in IMAGE_SIZES, "data.image_size", size, rule)
        data = self.data
        plain = (data.balancing, data.region, data.crop, data.clarify) == ("none", "whole", "none", "none")
        rule = '"none" where synthesis.generator is asked for, as crop and clarify, and region "whole"'
        require(plain, "data.balancing", self.data.balancing, rule)
        require(
            not self.data.replay.dataset, "data.replay.dataset", self.data.replay.dataset, "empty beside a generator"
        )

    def computed_as(self, other: Config) -> Config:
        """Returns the same experiment, computed where `other` is, with its images kept where the other's are.

        Data that are given as the same folder in another way, such as by a relative path, are called as the other does.
        A precision that was left open is the other's.
        """
        dataset = _called_alike(self.data.dataset, other.data.dataset)
        replayed = _called_alike(self.data.replay.dataset, other.data.replay.dataset)
        replay = dataclasses.replace(self.data.replay, dataset=replayed)
        synthetic = _called_alike(self.data.synthetic, other.data.synthetic)
        called = {"dataset": dataset, "replay": replay, "synthetic": synthetic}
        data = dataclasses.replace(self.data, placement=other.data.placement, **called)
        training = self.training
        if training.precision == "auto":
            training = dataclasses.replace(training, precision=other.training.precision)
        # how many images a generator makes in the end changes nothing of its training
        synthesis = dataclasses.replace(self.synthesis, samples=other.synthesis.samples)
        return dataclasses.replace(self, data=data, training=training, parallel=other.parallel, synthesis=synthesis)

    def without_folders(self) -> Config:
        """Returns the same experiment, in which data, samples and weights are called by their names alone.

        What somebody else reads names no folder of this machine.
        """
        replay = dataclasses.replace(self.data.replay, dataset=Path(self.data.replay.dataset).name)
        dataset, synthetic = Path(self.data.dataset).name, Path(self.data.synthetic).name
        data = dataclasses.replace(self.data, dataset=dataset, replay=replay, synthetic=synthetic)
        model = dataclasses.replace(self.model, weights=Path(self.model.weights).name)
        return dataclasses.replace(self, data=data, model=model)

    def resolved_phases(self) -> tuple[PhaseConfig, ...]:
        """Returns the phases to train, every field filled from the sections where a phase leaves it out."""
        phases = self.phases or (PhaseConfig(epochs=self.training.epochs),)
        return tuple(
            dataclasses.replace(
                phase,
                batch_norm=phase.batch_norm or self.training.batch_norm,
                optimizer=phase.optimizer or self.optimizer,
                schedule=phase.schedule or self.schedule,
                augmentation=phase.augmentation or self.augmentation,
            )
            for phase in phases
        )


def _called_alike(dataset: str, other: str) -> str:
    """Returns `other` where it is the same folder of prepared data as `dataset`, else `dataset`."""
    same = bool(dataset and other) and at_home(dataset).resolve() == at_home(other).resolve()
    return other if same else dataset
