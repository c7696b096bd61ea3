"""The small network of Stephen et al. (2019), "An efficient deep learning approach to pneumonia classification".

Four 3 x 3 convolutions without padding, each activated and halved by pooling, dropout, a fully connected layer of 512
and the classifier. Biases, ReLU, and the places of padding and dropout are read from the paper's table and text; its
code is not published, so that nothing here could be compared with it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from jax import Array

from cxr_jax.errors import UserError
from cxr_jax.models.activations import relu
from cxr_jax.models.layers import Classifier, Convolution, LayerRules, Lowering, Mode, max_pool
from cxr_jax.models.network import DROPOUT_LAYER, NamedStage, StagedNetwork, refuse_stochastic_depth
from cxr_jax.models.regularisation import dropout


class Stephen2019(StagedNetwork):
    """Convolutions and a fully connected layer, which fixes the smallest image that the network takes.

    On larger images the fully connected layer looks at every part, and the mean goes to the classifier. Dropout is
    before the fully connected layer and nowhere else.
    """

    def __init__(
        self,
        *,
        classes: int,
        generator: np.random.Generator,
        image_size: int,
        channels: Sequence[int] = (32, 64, 128, 128),
        dense_channels: int = 512,
        dropout_rate: float = 0.0,
        stochastic_depth: float = 0.0,
        lowering: Lowering = "fast",
    ) -> None:
        refuse_stochastic_depth("Stephen2019", stochastic_depth)
        rules = LayerRules(padding="valid", activation=relu, epsilon=0.0, lowering=lowering)
        inputs, side = 3, image_size
        self.names = tuple(f"conv{number}" for number in range(1, len(channels) + 1))
        for name, outputs in zip(self.names, channels, strict=True):
            setattr(self, name, Convolution(inputs, outputs, 3, 1, rules, generator, bias=True))
            inputs, side = outputs, (side - 2) // 2
        self.dense = Convolution(inputs, dense_channels, side, 1, rules, generator, bias=True)
        self.image_size, self.dense_dropout = image_size, dropout_rate
        self.classifier = Classifier(dense_channels, classes, generator)

    @property
    def stages(self) -> Sequence[NamedStage]:
        """Every convolution with its pooling, and the fully connected layer."""
        convolutions = (
            NamedStage(name, (name,), functools.partial(self._halved, getattr(self, name))) for name in self.names
        )
        return (*convolutions, NamedStage("dense", ("dense",), self._dense))

    def _halved(self, convolution: Convolution, x: Array, mode: Mode) -> Array:
        if min(x.shape[1:3]) < 4:
            raise self._too_small()
        return max_pool(convolution.activated(x, mode, relu), "valid", mode, window=2)

    def _dense(self, x: Array, mode: Mode) -> Array:
        if min(x.shape[1:3]) < self.dense.kernel.shape[0]:
            raise self._too_small()
        if mode.keys is not None and self.dense_dropout > 0:
            x = dropout(x, self.dense_dropout, mode.keys_of(DROPOUT_LAYER))
        return self.dense.activated(x, mode, relu)

    def _too_small(self) -> UserError:
        return UserError(
            f"the fully connected layer of this network needs images of {self.image_size} px or more: set "
            f"data.image_size to {self.image_size}"
        )
