"""What `scripts/measure_accelerator` measures, in full and as a trial."""

from __future__ import annotations

from dataclasses import dataclass

from cxr_jax.bench.cases import Precision, Work
from cxr_jax.bench.measure import Effort


@dataclass(frozen=True)
class Sizes:
    """What is measured, and how long."""

    steps: tuple[tuple[str, int, int, Work, Precision], ...]  # model, image size, batch size, work, precision
    depthwise: tuple[tuple[str, int, int, Precision], ...]  # model, image size, batch size, precision
    # model, image size, batch size, precision of the epoch and of jit beside pmap
    trained: tuple[str, int, int, Precision]
    training: tuple[str, ...]  # overrides of the config that is trained
    effort: Effort


FULL = Sizes(
    steps=(
        ("mobilenetv2_100", 224, 256, "train", "bfloat16"),
        ("tf_efficientnetv2_s", 300, 64, "train", "bfloat16"),
        ("mobilenetv2_100", 224, 256, "inference", "bfloat16"),
        ("tf_efficientnetv2_s", 300, 64, "inference", "bfloat16"),
        ("mobilenetv2_100", 224, 256, "train", "float32"),
        ("tf_efficientnetv2_s", 300, 64, "train", "float32"),
        ("mobilenetv2_100", 224, 64, "train", "bfloat16"),
        ("mobilenetv2_100", 224, 1024, "train", "bfloat16"),
        ("mobilenetv2_100", 300, 256, "train", "bfloat16"),
        ("tf_efficientnetv2_s", 224, 128, "train", "bfloat16"),
        ("mobilenetv2_100", 224, 256, "inference", "float32"),
        ("tf_efficientnetv2_s", 300, 64, "inference", "float32"),
        ("mobilenetv2_100", 224, 1, "inference", "bfloat16"),
        ("tf_efficientnetv2_s", 300, 1, "inference", "bfloat16"),
    ),
    depthwise=(
        ("mobilenetv2_100", 224, 256, "bfloat16"),
        ("mobilenetv2_100", 224, 256, "float32"),
        ("tf_efficientnetv2_s", 300, 64, "bfloat16"),
    ),
    trained=("mobilenetv2_100", 224, 128, "bfloat16"),
    training=(),
    effort=Effort(warm_up=3, rounds=4, steps=10, seconds=0.5),
)

QUICK = Sizes(
    steps=(("mobilenetv2_tiny", 32, 4, "train", "bfloat16"), ("mobilenetv2_tiny", 32, 4, "inference", "float32")),
    depthwise=(("mobilenetv2_tiny", 32, 4, "float32"),),
    trained=("mobilenetv2_tiny", 32, 4, "float32"),
    training=(
        *("--model.name", "mobilenetv2_tiny", "--data.image-size", "32", "--training.epochs", "1"),
        *("--training.batch-size", "8", "--training.evaluation-batch-size", "8", "--validation.patience", "0"),
    ),
    effort=Effort(warm_up=1, rounds=1, steps=1, seconds=0.0),
)
