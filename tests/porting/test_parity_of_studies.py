"""The networks of the studies give and learn what their originals do: live, in float64, with random weights."""

import our_networks
import pytest
from agreement import assert_below, errors

from cxr_jax.errors import UserError

try:
    import their_networks
except UserError as error:
    pytest.skip(str(error), allow_module_level=True)

TINY = ["mobilenetv1_tiny", "squeezenet_tiny", "resnet_tiny", "inception_tiny"]
ALIKE = ["efficientnet_lite_tiny", "resnet_basic_tiny", "densenet_tiny", "xception_tiny"]
"""Networks of the same layers as those before; what they learn is compared among the slow tests."""

WHOLE = ["mobilenetv1_100", "squeezenet1_1"]
LARGE = [
    "tf_mobilenetv1_100",
    "tf_efficientnet_lite0",
    "tf_efficientnet_lite4",
    "resnet18",
    "resnet50",
    "densenet121",
    "legacy_xception",
    "tf_legacy_xception",
    "inception_v3",
    "tf_inception_v3",
]


def slow(names):
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


def compared(what, *arguments):
    return errors(getattr(our_networks, what)(*arguments), getattr(their_networks, what)(*arguments))


@pytest.mark.parametrize("size", [80, 97])
@pytest.mark.parametrize("name", TINY + ALIKE)
def test_every_stage(name, size):
    assert_below(compared("stages", name, size, "float64"), 1e-10)


@pytest.mark.parametrize("name", [*TINY, *slow(ALIKE)])
def test_gradients_statistics_and_five_steps_of_sgd(name):
    assert_below(compared("learning", name), 1e-8)


@pytest.mark.parametrize("name", [*WHOLE, *slow(LARGE)])
def test_every_stage_of_a_whole_network(name):
    assert_below(compared("stages", name, 97, "float64"), 1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("name", WHOLE + LARGE)
def test_five_steps_of_a_whole_network(name):
    assert_below(compared("learning", name), 1e-8)
