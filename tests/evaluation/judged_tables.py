"""Tables of predictions made up to be judged."""

import numpy as np

from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.judge import judge
from cxr_jax.runs.predictions import Predictions

QUICK = Confidence(resamples=100)


def made_up(normals, pneumonia, *, split, groups, seed, difference=2.5):
    random = np.random.default_rng(seed)
    label = np.r_[np.zeros(normals, int), np.ones(pneumonia, int)]
    margin = 2 * random.normal(size=len(label)) + difference * (2 * label - 1)
    subtype = ["normal"] * normals + ["bacteria" if i % 3 else "virus" for i in range(pneumonia)]
    # Groups are of one subtype, as in the real data.
    number = random.integers(0, groups, len(label))
    return Predictions.from_logits(
        np.stack([-margin / 2, margin / 2], axis=1),
        file=[f"{split}/{i}.jpeg" for i in range(len(label))],
        split=[split] * len(label),
        group=[f"{split}-{kind}-{k}" for kind, k in zip(subtype, number, strict=True)],
        subtype=subtype,
        label=label,
    )


def judged(*arguments, **options):
    """The judgement as evaluation.json keeps it."""
    return judge(*arguments, **options).as_json()
