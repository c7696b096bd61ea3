"""The networks that ours are ports of, built by timm or torchvision."""

from __future__ import annotations

from typing import Any

from cxr_jax.errors import UserError
from cxr_jax.models.registry import AS_IN_TENSORFLOW, find_architecture
from cxr_jax.porting.requirements import import_timm, import_torchvision

BY_TENSORFLOW_RULES = {
    "tf_mobilenetv1_100": {"pad_type": "same", "bn_eps": 1e-3},
}
"""Options by which timm builds a network with TensorFlow's padding and epsilon."""

KERAS_EPSILON = 1e-3


def original_network(name: str, classes: int) -> Any | None:
    """Returns the freshly initialised network that our `name` is a port of, a torch module; None if there is none.

    With `classes` 0 it gives pooled features. Raises UserError for an unknown name, or if timm is not installed.
    """
    find_architecture(name)
    timm = import_timm("the comparison with the original")
    if name in BY_TENSORFLOW_RULES:
        theirs = name.removeprefix(AS_IN_TENSORFLOW)
        return timm.create_model(theirs, num_classes=classes, **BY_TENSORFLOW_RULES[name])
    if name == "tf_legacy_xception":
        return _as_in_keras(timm.create_model("legacy_xception", num_classes=classes), timm)
    if name == "tf_inception_v3":
        return _without_counting(timm.create_model("inception_v3", num_classes=classes))
    if name == "squeezenet1_1":
        return _squeezenet(classes)
    return timm.create_model(name, num_classes=classes) if timm.is_model(name) else None


def _squeezenet(classes: int) -> Any | None:
    try:
        torchvision = import_torchvision("the comparison with the original")
    except UserError:
        return None
    # torchvision's has no form without a classifier
    return torchvision.models.squeezenet1_1(num_classes=classes) if classes else None


def _as_in_keras(model: Any, timm: Any) -> Any:
    """Returns timm's Xception with the pools and the epsilon of Keras."""
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = KERAS_EPSILON
        for child, layer in module.named_children():
            if isinstance(layer, torch.nn.MaxPool2d):
                setattr(module, child, timm.layers.create_pool2d("max", 3, stride=2, padding="same"))
    return model


def _without_counting(model: Any) -> Any:
    """Returns timm's InceptionV3 with means of the values inside the image, as TensorFlow's pools have them."""
    import torch

    def before(branch: Any, inputs: tuple[Any]) -> tuple[Any]:
        del branch
        # what timm divided by 9 is divided by the count of the values inside
        (mean,) = inputs
        ones = torch.nn.functional.avg_pool2d(torch.ones_like(mean[:1, :1]), 3, stride=1, padding=1)
        return (mean / ones,)

    for name, module in model.named_modules():
        if name.endswith(".branch_pool"):
            module.register_forward_pre_hook(before)
    return model
