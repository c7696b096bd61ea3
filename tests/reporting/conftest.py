from types import SimpleNamespace

import numpy as np
import pytest

from cxr_jax.evaluation.judge import judge
from cxr_jax.evaluation.measures import Confidence
from cxr_jax.evaluation.operating_point import choose_operating_point
from cxr_jax.reporting.figures import draw_evaluation
from cxr_jax.runs.predictions import Predictions


def made_up(normals, pneumonia, *, split, seed):
    """Predictions whose scores tell the classes apart fairly well."""
    random = np.random.default_rng(seed)
    label = np.r_[np.zeros(normals, int), np.ones(pneumonia, int)]
    margin = 2 * random.normal(size=len(label)) + 2 * (2 * label - 1)
    subtype = ["normal"] * normals + ["bacteria" if i % 3 else "virus" for i in range(pneumonia)]
    return Predictions.from_logits(
        np.stack([-margin / 2, margin / 2], axis=1),
        file=[f"{split}/{kind}/{i}.jpeg" for i, kind in enumerate(subtype)],
        split=[split] * len(label),
        group=[f"{split}-{kind}-{i // 2}" for i, kind in enumerate(subtype)],
        subtype=subtype,
        label=label,
    )


def training_lines():
    """Lines of a training in two phases, validated every five iterations."""
    lines = []
    for step in range(1, 41):
        place = {"step": step, "epoch": step / 20, "phase": "head" if step <= 20 else "all", "seconds": float(step)}
        loss = 0.2 + 0.5 * 0.95**step
        lines.append({"kind": "train", **place, "loss": loss, "accuracy": 1 - loss / 2, "learning_rate": 0.01})
        if step % 5 == 0:
            values = {"loss": loss + 0.05, "accuracy": 0.9 - loss / 2, "roc_auc": 0.95, "best": step == 30}
            lines.append({"kind": "validation", **place, **values})
    return [*lines, {"kind": "end", "reason": "patience", "step": 40, "seconds": 41.0}]


@pytest.fixture(scope="session")
def example():
    """Validation and test predictions, their judgement and the lines of the training before them."""
    validation = made_up(50, 90, split="val", seed=1)
    test = made_up(60, 80, split="test", seed=2)
    point = choose_operating_point(validation, rule="sensitivity", target_sensitivity=0.95)
    judgement = judge(validation, test, point.threshold, operating_point=point, confidence=Confidence(resamples=50))
    return SimpleNamespace(validation=validation, test=test, point=point, judgement=judgement, lines=training_lines())


@pytest.fixture(scope="session")
def drawn(example, tmp_path_factory):
    """The folder of every figure of the example, drawn once because drawing is slow."""
    folder = tmp_path_factory.mktemp("drawn") / "figures"
    draw_evaluation(folder, example.judgement, example.test, example.validation, example.lines)
    return folder
