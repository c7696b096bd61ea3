"""The fields of how a network is trained: augmentation, optimizer, schedule, loss, phases, validation and devices."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from cxr_jax.config.section import Section, require


@dataclass(frozen=True)
class AugmentationConfig(Section):
    """Random changes of training images, drawn anew for every example and epoch inside the compiled step."""

    horizontal_flip: float = 0.0  # probability
    vertical_flip: float = 0.0  # probability
    rotation: float = 0.0  # largest angle, degrees, either way
    scale: float = 0.0  # largest relative change of size: 0.1 draws from 1/1.1 to 1.1
    translation: float = 0.0  # largest shift, as a share of the side, either way
    brightness: float = 0.0  # largest additive change, as a share of the grey range, either way
    contrast: float = 0.0  # largest relative change about the image's mean: 0.2 draws from 1/1.2 to 1.2
    gamma: float = 0.0  # largest relative change of the exponent: 0.3 draws from 1/1.3 to 1.3
    # largest relative change of all grey levels: 0.3 draws from 1/1.3 to 1.3; torchvision's jitter calls it brightness
    gain: float = 0.0
    # smallest share of the image's area that is cut out and enlarged to the whole; 0: off, 0.5 draws from 0.5 to 1
    crop: float = 0.0
    crop_aspect: float = 0.0  # largest relative change of that part's aspect: 0.3 draws from 1/1.3 to 1.3
    clahe: float = 0.0  # probability of equalising each of 8 x 8 tiles by its own clipped histogram
    equalisation: float = 0.0  # probability of equalising the histogram of the whole
    tone: float = 0.0  # largest relative change of a monotone curve's slope before black and white are fixed
    blur: float = 0.0  # largest sigma of a Gaussian blur, pixels
    noise: float = 0.0  # largest standard deviation of white Gaussian noise, as a share of the grey range
    cutout: float = 0.0  # side of one square covered with the mean grey, as a share of the image's side
    # a and b of the Beta distribution by which two images and their labels are mixed; 0: off, 0.2 seldom mixes much
    mixup: float = 0.0

    def __post_init__(self) -> None:
        for name in ("horizontal_flip", "vertical_flip", "clahe", "equalisation"):
            require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a probability from 0 to 1")
        largest = {"rotation": 180, "scale": 4, "translation": 1, "brightness": 1, "contrast": 4, "gamma": 4, "gain": 4}
        largest |= {"crop_aspect": 4, "tone": 20, "blur": 10, "noise": 1, "cutout": 1, "mixup": 8}
        for name, limit in largest.items():
            require(0 <= getattr(self, name) <= limit, name, getattr(self, name), f"from 0 (off) to {limit}")
        require(self.crop == 0 or 0.05 <= self.crop < 1, "crop", self.crop, "0 (off), or at least 0.05 and below 1")
        aspect_alone = self.crop_aspect > 0 and self.crop == 0
        require(not aspect_alone, "crop_aspect", self.crop_aspect, "0 (off) where crop is 0 (off)")

    @property
    def is_random(self) -> bool:
        """True if any change can happen: then features of an image differ between epochs."""
        return any(getattr(self, entry.name) > 0 for entry in dataclasses.fields(self))


@dataclass(frozen=True)
class OptimizerConfig(Section):
    """SGD with momentum and coupled weight decay, as in torch and MATLAB."""

    # the highest rate of the schedule, the classifier's where layer_decay is not 1; with 0 the statistics of BatchNorm
    # are estimated anew, and nothing else changes
    learning_rate: float = 0.01
    momentum: float = 0.9  # share of the last update that is added to the next; 0: off
    nesterov: bool = False  # Nesterov's form of momentum
    weight_decay: float = 1e-4  # L2, added to the gradient before momentum
    decayed: Literal["kernels", "all"] = "kernels"  # kernels only, or BatchNorm and biases too
    layer_decay: float = 1.0  # a stage's rate as a share of the next stage's, up to the classifier; 1: one rate for all
    # rho of sharpness-aware minimisation (Foret et al. 2021): the gradient is taken where the loss is highest within
    # this distance, so that a step costs two; 0: off, 0.05 is usual
    sharpness_radius: float = 0.0

    def __post_init__(self) -> None:
        require(self.learning_rate >= 0, "learning_rate", self.learning_rate, "0 or more")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "at least 0 and below 1")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        require(0 < self.layer_decay <= 1, "layer_decay", self.layer_decay, "above 0 and at most 1")
        require(0 <= self.sharpness_radius <= 10, "sharpness_radius", self.sharpness_radius, "from 0 (off) to 10")


@dataclass(frozen=True)
class ScheduleConfig(Section):
    """How the learning rate moves over one phase."""

    kind: Literal["constant", "cosine", "linear"] = "constant"  # the form of the curve after the warm-up
    warmup_iterations: int = 0  # linear rise, whose first step has the rate over (warmup_iterations + 1)
    final_fraction: float = 0.0  # share of the rate that cosine and linear end at

    def __post_init__(self) -> None:
        require(self.warmup_iterations >= 0, "warmup_iterations", self.warmup_iterations, "0 or more")
        require(0 <= self.final_fraction <= 1, "final_fraction", self.final_fraction, "from 0 to 1")


@dataclass(frozen=True)
class LossConfig(Section):
    """Softmax cross-entropy, or binary cross-entropy of each finding where several may occur together."""

    # balanced: inverse to the class's share of train; of each finding its presence counts as much as its absence, and a
    # rare one as much as a common one. balanced_in_batch: for findings, presence as much as absence, counted in every
    # batch over all findings together (Wang et al. 2017). A label that nobody knows carries no loss
    class_weights: Literal["none", "balanced", "balanced_in_batch"] = "none"
    label_smoothing: float = 0.0  # share of the label that is spread evenly over all classes; 0: off
    focal_gamma: float = 0.0  # gamma of the focal loss, which turns from examples that are easy; 0: plain cross-entropy

    def __post_init__(self) -> None:
        require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "at least 0 and below 1")
        require(0 <= self.focal_gamma <= 10, "focal_gamma", self.focal_gamma, "from 0 (off) to 10")


@dataclass(frozen=True)
class TrainingConfig(Section):
    """Length, batches and seed of a run."""

    epochs: int = 2  # where there are no [[phases]], each of which has epochs of its own
    batch_size: int = 128  # images per step, over all devices
    # parts of a batch that are computed one after another, so that a batch fits that would not; the loss and its
    # gradient are those of the whole batch, but BatchNorm's statistics are those of each part, as in torch
    accumulation_steps: int = 1
    # what an epoch visits. shuffled: every image once. balanced: as many in all, of every class as many as of
    # the others; those of a rare class more than once, each time with changes of its own
    sampling: Literal["shuffled", "balanced"] = "shuffled"
    evaluation_batch_size: int = 64  # images per step of validation and test, over all devices
    seed: int = 0  # of weights, order and augmentation
    # of the activations in training; parameters, statistics, loss and update are float32 always. auto: bf16 on GPUs and
    # TPUs, and on a CPU with a C++ compiler where the native kernels were measured to be faster; float32 elsewhere
    precision: Literal["auto", "float32", "bf16"] = "auto"
    # train: the batch's statistics in every stage that is trained; frozen: running statistics, used and not updated
    batch_norm: Literal["train", "frozen"] = "train"
    # decay of the moving average over steps of parameters and statistics; above 0 the average is what is validated and
    # kept, and what the next phase begins with
    ema_decay: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "at least 0 and below 1")
        for name in ("epochs", "batch_size", "accumulation_steps", "evaluation_batch_size"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2147483647")


@dataclass(frozen=True)
class ValidationConfig(Section):
    """When the network is validated, what counts as better, when to stop, and which state the run stands for."""

    every_iterations: int = 0  # 0: at the end of every epoch
    patience: int = 0  # validations without improvement before training stops; 0: never stops early
    monitor: Literal["loss", "accuracy", "roc_auc"] = "loss"  # decides the best checkpoint and patience
    checkpoint: Literal["best", "last"] = "best"  # which of them is evaluated, explained and used to predict

    def __post_init__(self) -> None:
        for name in ("every_iterations", "patience"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")


@dataclass(frozen=True)
class ParallelConfig(Section):
    """How a step is spread over devices, and over processes.

    A run can be resumed with other values of all of them: they decide where it is computed, not what.
    """

    backend: Literal["jit", "pmap"] = "jit"  # what makes one program for all devices; the numbers are the same
    devices: int = 0  # how many devices to use, of all processes together; 0: all
    coordinator: str = ""  # HOST:PORT at which process 0 meets the others; empty: as SLURM or a TPU pod says
    world_size: int = 0  # how many processes train together; 0: as SLURM or a TPU pod says, elsewhere one
    rank: int = -1  # which of them this process is, from 0; -1: as SLURM or a TPU pod says
    startup_timeout: int = 120  # seconds for all processes to come
    heartbeat_timeout: int = 60  # seconds without a sign of life after which a process counts as lost
    step_timeout: int = 900  # seconds for loading the data, a compilation, a step or a batch of validation

    def __post_init__(self) -> None:
        for name in ("devices", "world_size"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        require(self.rank >= -1, "rank", self.rank, "-1 or more")
        for name in ("startup_timeout", "heartbeat_timeout", "step_timeout"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")

    def anywhere(self) -> ParallelConfig:
        """Returns the same without what belongs to one launch, as a run folder keeps it."""
        return dataclasses.replace(self, coordinator="", world_size=0, rank=-1)


@dataclass(frozen=True)
class PhaseConfig(Section):
    """One stretch of training; what it leaves out (None) is taken from the sections of the same name."""

    name: str = "train"  # by which options, sweeps and figures call it
    epochs: int = 1  # of this phase
    trainable: tuple[str, ...] = ()  # dotted prefixes of parameter names such as blocks.5; empty: all
    batch_norm: Literal["train", "frozen"] | None = None  # as training.batch_norm, for this phase
    optimizer: OptimizerConfig | None = None  # in this phase, whole in place of that section
    schedule: ScheduleConfig | None = None  # in this phase, whole in place of that section
    augmentation: AugmentationConfig | None = None  # in this phase, whole in place of that section

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "epochs", self.epochs, "1 or more")
