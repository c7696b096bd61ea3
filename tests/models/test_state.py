import random

import jax
import jax.numpy as jnp
import numpy as np

from cxr_jax.models.networks.inverted_residual import Stage
from cxr_jax.models.networks.mobilenetv2 import DepthwiseSeparable, InvertedResidual, MobileNetV2
from cxr_jax.models.registry import build_model
from cxr_jax.models.state import batch_stats_of, differences, merge_model, split_model

DEEP = (Stage(DepthwiseSeparable, 8, 1, 1), Stage(InvertedResidual, 8, repeats=13, stride=1, expansion=1))


def deep_model():
    """Thirteen equal blocks in one stage: as strings their numbers sort as 0, 1, 10, 11, 12, 2, ..."""
    return MobileNetV2(classes=3, generator=np.random.default_rng(0), stages=DEEP, stem_channels=8, head_channels=8)


def leaf_of(model, name):
    for part in name.split("."):
        model = model[int(part)] if part.isdigit() else getattr(model, part)
    return model[...]


def test_names_are_dotted_and_the_two_kinds_of_array_are_apart():
    _, params, batch_stats = split_model(deep_model())
    assert "blocks.1.12.conv_pwl.kernel" in params
    assert "classifier.bias" in params
    assert {name.rsplit(".", 1)[1] for name in params} == {"kernel", "scale", "bias"}
    assert {name.rsplit(".", 1)[1] for name in batch_stats} == {"mean", "var"}
    assert not params.keys() & batch_stats.keys()


def test_every_array_comes_back_under_its_name_whatever_the_order():
    graphdef, *parts = split_model(deep_model())
    marked = [{name: jnp.full_like(value, index) for index, (name, value) in enumerate(part.items())} for part in parts]
    shuffled = []
    for part in marked:
        names = list(part)
        random.Random(0).shuffle(names)
        shuffled.append({name: part[name] for name in names})
    model = merge_model(graphdef, *shuffled)
    for part in marked:
        for name, value in part.items():
            np.testing.assert_array_equal(leaf_of(model, name), value, err_msg=name)


def test_statistics_after_a_training_pass_have_moved():
    graphdef, params, before = split_model(build_model("mobilenetv2_tiny", classes=2))

    @jax.jit
    def train(x):
        model = merge_model(graphdef, params, before)
        model(x, train=True)
        return batch_stats_of(model)

    after = train(jax.random.normal(jax.random.key(0), (2, 32, 32, 3)))
    assert list(before) == list(after)
    assert all((before[name] != after[name]).any() for name in before)


def test_differences_names_every_one():
    expected = {"a": np.zeros(2), "b": np.zeros((2, 3)), "c": np.zeros(1), "same": np.zeros(4)}
    found = {"b": np.zeros((3, 2)), "c": np.zeros(1, np.float32), "d": np.zeros(1), "same": np.ones(4)}
    assert differences(expected, found) == [
        "a is missing",
        "b has shape (3, 2) instead of (2, 3)",
        "c has dtype float32 instead of float64",
        "d is unknown",
    ]
    assert differences(expected, expected) == []
