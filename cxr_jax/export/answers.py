"""What an exported network answers: one function of grey images, with all that surrounds the network inside."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import Array, export
from jax.stages import Wrapped

from cxr_jax.errors import UserError
from cxr_jax.inference.ensemble import Ensemble
from cxr_jax.inference.forward import channel_statistics
from cxr_jax.inference.restore import TrainedModel
from cxr_jax.models.kernels.platform import every_platform
from cxr_jax.models.network import StagedNetwork
from cxr_jax.preprocessing.normalise import normalise
from cxr_jax.preprocessing.views import views
from cxr_jax.vocabulary import FINDINGS

PLATFORMS = ("cpu", "cuda", "tpu")
"""What the StableHLO of a bundle runs on."""


def answers_of(model: TrainedModel | Ensemble) -> Callable[[Array], dict[str, Array]]:
    """Returns the function of images [B, S, S] uint8 in 0..255 that a bundle holds.

    It gives `logits` and `probability` [B, K], which of findings is the sigmoid of each logit, and `evidence`
    [B, h, w, K], the last feature map with the classifier's weights folded in (`StagedNetwork.evidence`). Where the run
    averages over flips or shifts all of them are means over the `views` of the image, the evidence turned back. It is
    not shifted back, by less than one of its cells. The answers of an ensemble are the means of its members'. A network
    that was evaluated also gives `distance` [B], of the image as it is from the training images in its features.

    Raises:
        UserError: a network is a plain module, which has no stages and so no last feature map; or the members of an
            ensemble see different squares, or have maps of different sizes.
    """
    if isinstance(model, Ensemble):
        return _answers_together([answers_of(member) for member in model.members], model)
    network = model.model()
    if not isinstance(network, StagedNetwork):
        raise UserError(
            f"{type(network).__name__} has no stages, so that it cannot be exported: make it a StagedNetwork, as "
            "docs/extending.md shows"
        )

    reference, activated = model.reference, activation_of(model)

    def once(images: Array) -> tuple[Array, Array, dict[str, Array]]:
        inputs, distance = normalise(images, model.mean, model.std), {}
        if reference is None:
            features = network.features(inputs)
        else:
            features, activations = network.features_by_way_of(inputs, reference.stage)
            distance = {"distance": reference.distance(channel_statistics(activations), jnp)}
        return network.classify(features), network.evidence(features), distance

    def answers(images: Array) -> dict[str, Array]:
        flip = model.description.flip_average
        looks = [once(view) for view in views(images, flip=flip, shift=model.description.shift)]
        logits = sum(look for look, _, _ in looks) / len(looks)
        upright = len(looks) // 2 if flip else len(looks)
        maps = [found if number < upright else jnp.flip(found, 2) for number, (_, found, _) in enumerate(looks)]
        evidence = sum(maps) / len(maps)
        (_, _, distance), *_ = looks
        return {"evidence": evidence, "logits": logits, "probability": activated(logits), **distance}

    return answers


def _answers_together(
    members: Sequence[Callable[[Array], dict[str, Array]]], model: Ensemble
) -> Callable[[Array], dict[str, Array]]:
    """Returns the means of the answers of several networks; the probability is that of the mean of the logits."""
    images, activated = images_of(model), activation_of(model)
    if len({jax.eval_shape(member, images)["evidence"].shape for member in members}) > 1:
        raise UserError("the networks of the ensemble have feature maps of different sizes: export them one by one")

    def answers(images: Array) -> dict[str, Array]:
        given = [member(images) for member in members]
        evidence, logits = (sum(each[name] for each in given) / len(given) for name in ("evidence", "logits"))
        return {"evidence": evidence, "logits": logits, "probability": activated(logits)}

    return answers


def activation_of(model: TrainedModel | Ensemble) -> Callable[[Array], Array]:
    """Returns what makes probabilities of logits [B, K]: softmax over classes, or the sigmoid of each finding."""
    return jax.nn.sigmoid if model.descriptions[0].kind == FINDINGS else jax.nn.softmax


def images_of(model: TrainedModel | Ensemble) -> jax.ShapeDtypeStruct:
    """Returns the shape of a batch of any size.

    Raises:
        UserError: the members of an ensemble see different squares.
    """
    first, *others = model.descriptions
    for name in ("image_size", "resize", "interpolation", "clarify", "lung_boxes"):
        if any(getattr(entry, name) != getattr(first, name) for entry in others):
            raise UserError(f"the networks of the ensemble see different squares ({name}): export them one by one")
    size = first.image_size
    (batch,) = export.symbolic_shape("batch")
    return jax.ShapeDtypeStruct((batch, size, size), jnp.uint8)


def stablehlo_of(model: TrainedModel | Ensemble) -> bytes:
    """Returns the answers as serialised StableHLO, which `jax.export.deserialize` reads without this package."""
    jitted: Wrapped = jax.jit(answers_of(model))
    with every_platform(True):
        return bytes(export.export(jitted, platforms=PLATFORMS)(images_of(model)).serialize())
