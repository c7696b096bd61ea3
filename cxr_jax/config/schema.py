"""The fields of an experiment, their defaults and their bounds; plain dataclasses without a dependency."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Literal

from cxr_jax.config.section import Section as _Section
from cxr_jax.config.section import require as _require
from cxr_jax.config.synthesis import IMAGE_SIZES, SynthesisConfig
from cxr_jax.runs.files import at_home


@dataclass(frozen=True)
class ReplayConfig(_Section):
    """Images of other data that are mixed in, so that a network that learns on does not forget them."""

    dataset: str = ""  # name or path of prepared data, as data.dataset; empty: nothing is mixed in
    # theirs of the images that an epoch visits, drawn anew in every epoch; and of the validation images, drawn once
    share: float = 0.5

    def __post_init__(self) -> None:
        _require(0 < self.share < 1, "share", self.share, "above 0 and below 1")

    def beside(self, images: int, there: int) -> int:
        """Returns how many of the `there` other images are mixed in with `images`: as the share says, or all."""
        return min(max(1, round(images * self.share / (1 - self.share))), there)


@dataclass(frozen=True)
class DataConfig(_Section):
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
    # border: the outer tenth of the image, without lungs. What is not shown is one grey
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
        _require(16 <= self.image_size <= 2048, "image_size", self.image_size, "from 16 to 2048")
        fraction = self.validation_fraction
        _require(0 < fraction < 0.5, "validation_fraction", fraction, "above 0 and below 0.5")
        _require(self.folds >= 2, "folds", self.folds, "2 or more")
        alone = self.crop == "none" or not self.replay.dataset
        _require(alone, "crop", self.crop, '"none" where replay mixes in other data')
        _require(self.crop == "none" or self.region == "whole", "crop", self.crop, '"none" where region is not "whole"')
        size = self.reduced_size
        _require(16 <= size <= 2048, "reduced_size", size, "from 16 to 2048")
        named = self.balancing != "dcgan" or bool(self.synthetic)
        _require(named, "synthetic", self.synthetic, 'a folder of `cxr-jax synthesize` where balancing is "dcgan"')
        if self.balancing in ("reduced", "dcgan"):
            whole = (self.region, self.crop) == ("whole", "none")
            rule = '"none", "barnett" or "oversampling" where region or crop shows less than whole images'
            _require(whole, "balancing", self.balancing, rule)
            rule = '"none" or "oversampling" where clarify changes images, which the others hold as they were'
            _require(self.clarify == "none", "balancing", self.balancing, rule)
        alone = self.clarify == "none" or (self.region, self.crop, self.replay.dataset) == ("whole", "none", "")
        rule = '"none" where region, crop or replay is asked for'
        _require(alone, "clarify", self.clarify, rule)
        if self.balancing == "reduced":
            _require(size < self.image_size, "reduced_size", size, "below image_size where balancing is reduced")
        _require(0 <= self.fold < self.folds, "fold", self.fold, f"from 0 to {self.folds - 1}, one of data.folds")
        if self.replay.dataset:
            one_set = self.validation not in ("fold", "out_of_fold") and self.balancing == "none"
            rule = 'empty where data.validation is that of folds, or data.balancing is not "none": these are of one set'
            _require(one_set, "replay.dataset", self.replay.dataset, rule)
            whole = (self.region, self.crop) == ("whole", "none")
            rule = "empty where data.region or data.crop shows less than whole images"
            _require(whole, "replay.dataset", self.replay.dataset, rule)

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


@dataclass(frozen=True)
class ModelConfig(_Section):
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
    # looks at an image, and ten with flip_average; 0: off
    shift_average: float = 0.0

    def __post_init__(self) -> None:
        for name in ("dropout", "stochastic_depth"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name), "at least 0 and below 1")
        _require(0 <= self.shift_average <= 0.25, "shift_average", self.shift_average, "from 0 (off) to 0.25")
        _require(0 <= self.denoiser <= 256, "denoiser", self.denoiser, "from 0 (none) to 256")
        _require(0 <= self.transition <= 8192, "transition", self.transition, "from 0 (none) to 8192")
        sharpness = self.pooling_sharpness
        _require(0.01 <= sharpness <= 1000, "pooling_sharpness", sharpness, "from 0.01 to 1000")


@dataclass(frozen=True)
class AugmentationConfig(_Section):
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
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "a probability from 0 to 1")
        largest = {"rotation": 180, "scale": 4, "translation": 1, "brightness": 1, "contrast": 4, "gamma": 4, "gain": 4}
        largest |= {"crop_aspect": 4, "tone": 20, "blur": 10, "noise": 1, "cutout": 1, "mixup": 8}
        for name, limit in largest.items():
            _require(0 <= getattr(self, name) <= limit, name, getattr(self, name), f"from 0 (off) to {limit}")
        _require(self.crop == 0 or 0.05 <= self.crop < 1, "crop", self.crop, "0 (off), or at least 0.05 and below 1")
        aspect_alone = self.crop_aspect > 0 and self.crop == 0
        _require(not aspect_alone, "crop_aspect", self.crop_aspect, "0 (off) where crop is 0 (off)")

    @property
    def is_random(self) -> bool:
        """True if any change can happen: then features of an image differ between epochs."""
        return any(getattr(self, entry.name) > 0 for entry in dataclasses.fields(self))


@dataclass(frozen=True)
class OptimizerConfig(_Section):
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
        _require(self.learning_rate >= 0, "learning_rate", self.learning_rate, "0 or more")
        _require(0 <= self.momentum < 1, "momentum", self.momentum, "at least 0 and below 1")
        _require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        _require(0 < self.layer_decay <= 1, "layer_decay", self.layer_decay, "above 0 and at most 1")
        _require(0 <= self.sharpness_radius <= 10, "sharpness_radius", self.sharpness_radius, "from 0 (off) to 10")


@dataclass(frozen=True)
class ScheduleConfig(_Section):
    """How the learning rate moves over one phase."""

    kind: Literal["constant", "cosine", "linear"] = "constant"  # the form of the curve after the warm-up
    warmup_iterations: int = 0  # linear rise, whose first step has the rate over (warmup_iterations + 1)
    final_fraction: float = 0.0  # share of the rate that cosine and linear end at

    def __post_init__(self) -> None:
        _require(self.warmup_iterations >= 0, "warmup_iterations", self.warmup_iterations, "0 or more")
        _require(0 <= self.final_fraction <= 1, "final_fraction", self.final_fraction, "from 0 to 1")


@dataclass(frozen=True)
class LossConfig(_Section):
    """Softmax cross-entropy, or binary cross-entropy of each finding where several may occur together."""

    # balanced: inverse to the class's share of train; of each finding its presence counts as much as its absence, and a
    # rare one as much as a common one. balanced_in_batch: for findings, presence as much as absence, counted in every
    # batch over all findings together (Wang et al. 2017). A label that nobody knows carries no loss
    class_weights: Literal["none", "balanced", "balanced_in_batch"] = "none"
    label_smoothing: float = 0.0  # share of the label that is spread evenly over all classes; 0: off
    focal_gamma: float = 0.0  # gamma of the focal loss, which turns from examples that are easy; 0: plain cross-entropy

    def __post_init__(self) -> None:
        _require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "at least 0 and below 1")
        _require(0 <= self.focal_gamma <= 10, "focal_gamma", self.focal_gamma, "from 0 (off) to 10")


@dataclass(frozen=True)
class TrainingConfig(_Section):
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
        _require(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "at least 0 and below 1")
        for name in ("epochs", "batch_size", "accumulation_steps", "evaluation_batch_size"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        _require(0 <= self.seed < 2**31, "seed", self.seed, "from 0 to 2147483647")


@dataclass(frozen=True)
class ValidationConfig(_Section):
    """When the network is validated, what counts as better, when to stop, and which state the run stands for."""

    every_iterations: int = 0  # 0: at the end of every epoch
    patience: int = 0  # validations without improvement before training stops; 0: never stops early
    monitor: Literal["loss", "accuracy", "roc_auc"] = "loss"  # decides the best checkpoint and patience
    checkpoint: Literal["best", "last"] = "best"  # which of them is evaluated, explained and used to predict

    def __post_init__(self) -> None:
        for name in ("every_iterations", "patience"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")


@dataclass(frozen=True)
class ParallelConfig(_Section):
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
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _require(self.rank >= -1, "rank", self.rank, "-1 or more")
        for name in ("startup_timeout", "heartbeat_timeout", "step_timeout"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")

    def anywhere(self) -> ParallelConfig:
        """Returns the same without what belongs to one launch, as a run folder keeps it."""
        return dataclasses.replace(self, coordinator="", world_size=0, rank=-1)


@dataclass(frozen=True)
class OperatingPointConfig(_Section):
    """The rule that turns a probability into a call, applied to validation predictions only."""

    rule: Literal["fixed", "youden", "sensitivity", "cost_ratio"] = "fixed"  # how the threshold is chosen
    threshold: float = 0.5  # rule `fixed`
    target_sensitivity: float = 0.975  # rule `sensitivity`: the highest threshold that reaches it on validation
    cost_ratio: float = 5.0  # rule `cost_ratio`: how many false alarms a missed pneumonia is worth

    def __post_init__(self) -> None:
        _require(0 <= self.threshold <= 1, "threshold", self.threshold, "from 0 to 1")
        target = self.target_sensitivity
        _require(0 < target <= 1, "target_sensitivity", target, "above 0 and at most 1")
        _require(self.cost_ratio > 0, "cost_ratio", self.cost_ratio, "above 0")


@dataclass(frozen=True)
class ReportConfig(_Section):
    """What the report is written for."""

    # share of PNEUMONIA among the radiographs on which somebody would use the network; the report tells for it how
    # many calls would be right. 0: not declared
    prevalence: float = 0.0

    def __post_init__(self) -> None:
        _require(0 <= self.prevalence < 1, "prevalence", self.prevalence, "0 (not declared), or above 0 and below 1")


@dataclass(frozen=True)
class ProbeConfig(_Section):
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
        _require(positive, "strengths", self.strengths, "one number or more, each above 0")
        _require(self.folds >= 2, "folds", self.folds, "2 or more")

    @property
    def is_asked_for(self) -> bool:
        """True where a classifier is fitted, and nothing trained."""
        return self.classifier != "none"


@dataclass(frozen=True)
class PhaseConfig(_Section):
    """One stretch of training; what it leaves out (None) is taken from the sections of the same name."""

    name: str = "train"  # by which options, sweeps and figures call it
    epochs: int = 1  # of this phase
    trainable: tuple[str, ...] = ()  # dotted prefixes of parameter names such as blocks.5; empty: all
    batch_norm: Literal["train", "frozen"] | None = None  # as training.batch_norm, for this phase
    optimizer: OptimizerConfig | None = None  # in this phase, whole in place of that section
    schedule: ScheduleConfig | None = None  # in this phase, whole in place of that section
    augmentation: AugmentationConfig | None = None  # in this phase, whole in place of that section

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "epochs", self.epochs, "1 or more")


@dataclass(frozen=True)
class Config(_Section):
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
        _require(len(set(names)) == len(names), "phases", names, "named differently from each other")
        twice = self.loss.class_weights == "balanced" and self.training.sampling == "balanced"
        rule = '"none" where training.sampling is "balanced": together they would make up for the rare class twice'
        _require(not twice, "loss.class_weights", self.loss.class_weights, rule)
        twice = self.loss.class_weights == "balanced" and self.probe.is_asked_for and self.probe.balancing != "none"
        rule = f'"none" where probe.balancing is "{self.probe.balancing}": classes have as many rows already'
        _require(not twice, "loss.class_weights", self.loss.class_weights, rule)

        own = (self.model.pooling, self.model.transition) == ("average", 0)
        rule = '"average", and model.transition 0, where probe.classifier is asked for: it has a head of its own'
        _require(own or not self.probe.is_asked_for, "model.pooling", self.model.pooling, rule)

        replayed = self.data.replay.dataset
        rule = "empty where probe.classifier is asked for: a probe is fitted once, on images of one set"
        _require(not (replayed and self.probe.is_asked_for), "data.replay.dataset", replayed, rule)
        trains = not (self.probe.is_asked_for or self.synthesis.is_asked_for)
        rule = "0 where probe.classifier or synthesis.generator is asked for: these train no denoiser"
        _require(trains or self.model.denoiser == 0, "model.denoiser", self.model.denoiser, rule)
        made = self.data.balancing == "dcgan"
        rule = (
            "another one where probe.classifier is asked for: its cross-validation would judge by images that were made"
        )
        _require(not (made and self.probe.is_asked_for), "data.balancing", self.data.balancing, rule)
        if self.synthesis.is_asked_for:
            self._require_synthesis()

    def _require_synthesis(self) -> None:
        """Raises ValueError for what bears no generator beside it."""
        _require(not self.probe.is_asked_for, "probe.classifier", self.probe.classifier, '"none" beside a generator')
        size = self.data.image_size
        rule = f"one of {', '.join(map(str, IMAGE_SIZES))} where synthesis.generator is asked for"
        _require(size in IMAGE_SIZES, "data.image_size", size, rule)
        data = self.data
        plain = (data.balancing, data.region, data.crop, data.clarify) == ("none", "whole", "none", "none")
        rule = '"none" where synthesis.generator is asked for, as crop and clarify, and region "whole"'
        _require(plain, "data.balancing", self.data.balancing, rule)
        _require(
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
