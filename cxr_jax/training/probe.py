"""A frozen network and a linear classifier on its features (Sethy and Behera 2020), as one network."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cxr_jax.config.schema import Config
from cxr_jax.errors import UserError
from cxr_jax.evaluation.linear_probe import LinearClassifier
from cxr_jax.inference.forward import ForwardProgram, compile_on_images, pooled_features_of
from cxr_jax.models.first_stages import LOGITS, FirstStages, has_linear_head
from cxr_jax.models.network import CLASSIFIER, stage_layers_of
from cxr_jax.models.registry import IMAGENET_CLASSES, find_architecture
from cxr_jax.models.state import merge_model, split_model
from cxr_jax.runs.folder import RunFolder
from cxr_jax.training.network import Network, build_network
from cxr_jax.training.processes import ALONE
from cxr_jax.training.progress import Progress
from cxr_jax.training.saving import RunWriter
from cxr_jax.training.state import new_state
from cxr_jax.vocabulary import CLASS_NAMES

HALVES = np.array([[-0.5, 0.5]])
"""Of a score, which is the difference of the two logits."""

KERNEL, BIAS = f"{CLASSIFIER}.kernel", f"{CLASSIFIER}.bias"


@dataclass(frozen=True)
class FrozenNetwork:
    """A network whose features are probed."""

    whole: Network
    until_features: Network  # cut behind the stage that gives the features
    features: str  # the name of that stage

    @property
    def channels(self) -> int:
        """How many features an image has."""
        return self.until_features.params[KERNEL].shape[0]


def freeze(config: Config, names: tuple[str, ...] = CLASS_NAMES) -> FrozenNetwork:
    """Returns the network of `config`, with its weights, for the features that its probe asks for.

    `names` are those of the classes, or findings, that the classifier will tell.

    Raises:
        UserError: the network or the stage is not known, or the weights are missing or do not fit, or have no
            classifier where its logits are asked for.
    """
    classes = IMAGENET_CLASSES if config.probe.features == LOGITS else len(names)
    whole = build_network(config.model, config.training.seed, classes=classes)
    if config.probe.features == LOGITS and whole.fresh:
        raise UserError(
            f"{config.model.weights} has no classifier of {IMAGENET_CLASSES} classes, whose logits could be features: "
            "leave probe.features empty, or name a stage"
        )
    features = config.probe.features or _last_stage(whole)
    model = merge_model(whole.graphdef, whole.params, whole.batch_stats)
    cut = FirstStages(
        model,
        features,
        classes=len(names),
        image_size=find_architecture(config.model.name).image_size,
        generator=np.random.default_rng(config.training.seed),
    )
    graphdef, params, batch_stats = split_model(cut)
    kept = {"graphdef": graphdef, "params": params, "batch_stats": batch_stats, "stages": stage_layers_of(cut)}
    return FrozenNetwork(whole, dataclasses.replace(whole, **kept, fresh=()), features)


def _last_stage(network: Network) -> str:
    """Returns the name of the last stage; empty for a plain module, which has none."""
    return next((name for name in reversed(network.stages) if name != CLASSIFIER), "")


def compile_features(frozen: FrozenNetwork, config: Config, devices: Sequence[jax.Device]) -> ForwardProgram:
    """Returns the program that gives the features [B, C] float32 of a batch of images, for `until_features`."""
    network = frozen.until_features
    return compile_on_images(
        pooled_features_of,
        network.graphdef,
        network.params,
        network.batch_stats,
        mean=network.mean,
        std=network.std,
        image_size=config.data.image_size,
        batch_size=config.training.evaluation_batch_size,
        devices=devices,
    )


def with_classifier(frozen: FrozenNetwork, classifiers: Sequence[LinearClassifier]) -> tuple[Network, str]:
    """Returns the network that answers with `classifiers`, and the stage behind which it is cut, empty for none.

    Its logits are the scores; of NORMAL and PNEUMONIA, for which there is one, they are minus and plus half of it. A
    network whose own classifier is linear stays whole where its last stage gives the features, or its logits, which a
    linear classifier makes one with its own.
    """
    weights = np.stack([classifier.weights for classifier in classifiers], axis=1)
    bias = np.array([classifier.intercept for classifier in classifiers])
    if len(bias) < frozen.until_features.params[KERNEL].shape[1]:
        weights, bias = weights * HALVES, bias * HALVES[0]
    model = merge_model(frozen.whole.graphdef, frozen.whole.params, frozen.whole.batch_stats)
    if frozen.features not in (_last_stage(frozen.whole), LOGITS) or not has_linear_head(model):
        return _with_values(frozen.until_features, weights, bias), frozen.features
    if frozen.features == LOGITS:
        weights = np.asarray(frozen.whole.params[KERNEL], np.float64) @ weights
    return _with_values(frozen.whole, weights, bias), ""


def _with_values(network: Network, weights: np.ndarray, bias: np.ndarray) -> Network:
    values = {KERNEL: jnp.asarray(weights, jnp.float32), BIAS: jnp.asarray(bias, jnp.float32)}
    return dataclasses.replace(network, params=network.params | values)


def save_network(run: RunFolder, network: Network, monitor: str, figures: dict[str, float], seconds: float) -> None:
    """Writes the checkpoints and the metrics of a run whose network was fitted in one step."""
    state = new_state(network.params, network.batch_stats, (), optax.identity(), step=1)
    progress = Progress(phase=1, step=1, seconds=seconds, best_value=figures[monitor], best_step=1)
    position = {"step": 1, "epoch": 1.0, "phase": "probe"}
    with RunWriter(run, progress, ALONE) as writer:
        writer.log("validation", **position, **figures, best=True, seconds=seconds)
        writer.save_best(state, progress, monitor)
        writer.save(state, progress)
        writer.wait()
        writer.log("end", reason="finished", step=1, seconds=seconds)
