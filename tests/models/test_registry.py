import math

import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.models.registry import ARCHITECTURES, build_model, find_architecture, model_shapes
from cxr_jax.models.size import size_of
from cxr_jax.models.state import split_model

PARAMETERS = {
    "mobilenetv2_050": 1_968_680,
    "mobilenetv2_100": 3_504_872,
    "mobilenetv2_140": 6_108_776,
    "tf_efficientnetv2_b0": 7_139_704,
    "tf_efficientnetv2_b1": 8_141_052,
    "tf_efficientnetv2_b2": 10_096_086,
    "tf_efficientnetv2_b3": 14_358_406,
    "tf_efficientnetv2_s": 21_458_488,
    "tf_efficientnetv2_m": 54_139_356,
    "tf_efficientnetv2_l": 118_515_272,
    "mobilenetv1_100": 4_231_976,
    "tf_mobilenetv1_100": 4_231_976,
    "squeezenet1_1": 1_235_496,
    "tf_efficientnet_lite0": 4_652_008,
    "tf_efficientnet_lite1": 5_416_680,
    "tf_efficientnet_lite2": 6_092_072,
    "tf_efficientnet_lite3": 8_197_096,
    "tf_efficientnet_lite4": 13_006_568,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "densenet121": 7_978_856,
    "legacy_xception": 22_855_952,
    "tf_legacy_xception": 22_855_952,
    "inception_v3": 23_834_568,
    "tf_inception_v3": 23_834_568,
    "stephen2019": 6_794_944 + 512 * 1000 + 1000,
}
"""With 1000 classes, as counted in timm 1.0 and torchvision; Stephen's by its table of layers."""


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_are_as_many_as_in_timm_and_in_our_table(name):
    _, params, _ = model_shapes(name, classes=1000)
    assert sum(math.prod(value.shape) for value in params.values()) == PARAMETERS[name]
    assert size_of(name, classes=1000).parameters == PARAMETERS[name]


def test_every_published_network_is_counted():
    assert set(PARAMETERS) == {name for name in ARCHITECTURES if not name.endswith("_tiny")}


def test_an_unknown_name_meets_the_nearest():
    with pytest.raises(UserError, match="no model called 'efficientnetv2_s'; did you mean tf_efficientnetv2_s"):
        find_architecture("efficientnetv2_s")
    with pytest.raises(UserError, match="no model called 'resnet-50'; did you mean resnet50"):
        find_architecture("resnet-50")
    with pytest.raises(UserError, match="choose one of mobilenetv2_tiny, "):
        build_model("zebra", classes=2)


def test_equal_seeds_give_equal_parameters():
    def params(seed):
        return split_model(build_model("efficientnetv2_tiny", classes=2, seed=seed))[1]

    first, again, other = params(7), params(7), params(8)
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert all((first[name] != other[name]).any() for name in first if name.endswith("kernel"))


def test_the_published_statistics_of_the_images():
    assert find_architecture("mobilenetv2_100").mean == (0.485, 0.456, 0.406)
    small = find_architecture("tf_efficientnetv2_s")
    assert small.mean == small.std == (0.5, 0.5, 0.5)
    assert (small.image_size, small.evaluation_size) == (300, 384)
    assert find_architecture("tf_efficientnetv2_b0").std == (0.229, 0.224, 0.225)
