"""The network that a run begins with: random or pretrained, and the normalisation that it expects."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from flax import nnx

from cxr_jax.checkpoints import content_hash
from cxr_jax.config.schema import Config, ModelConfig
from cxr_jax.models.head import head_of
from cxr_jax.models.layers import Lowering
from cxr_jax.models.network import DENOISER, StageLayers, can_run_natively, has_prefix, stage_layers_of
from cxr_jax.models.pretrained import find_weights, load_weights
from cxr_jax.models.registry import build_model, find_architecture
from cxr_jax.models.state import ArrayDict, pack_network, split_model
from cxr_jax.runs.description import NetworkDescription
from cxr_jax.vocabulary import CLASS_NAMES, EXCLUSIVE, Kind


@dataclass(frozen=True)
class Network:
    """A network taken apart, with the statistics of the images that it expects."""

    graphdef: nnx.GraphDef
    params: ArrayDict
    batch_stats: ArrayDict
    mean: tuple[float, ...]  # of the three channels in [0, 1]
    std: tuple[float, ...]
    fresh: tuple[str, ...]  # parameters that the weights file does not give; empty without one too
    stages: StageLayers  # from input to classifier; empty for a plain module, which has none
    has_native_kernels: bool = False  # it knows the kernels in C++, where they can be had

    def fingerprint(self) -> str:
        """Returns a short text that is the same for networks with the same values."""
        arrays = pack_network(self.params, self.batch_stats)
        return content_hash({name: np.asarray(value) for name, value in arrays.items()})[:16]


def build_network(
    config: ModelConfig, seed: int, *, lowering: Lowering = "fast", classes: int = len(CLASS_NAMES)
) -> Network:
    """Returns the network of `config`, initialised from `seed` and then, if it names a file, from its weights.

    `lowering` is `plain` for XLA's stock convolutions, `classes` is how many it tells apart. Raises UserError for an
    unknown model, or weights that are missing or do not fit.
    """
    architecture = find_architecture(config.name)
    model = build_model(
        config.name,
        classes=classes,
        seed=seed,
        dropout_rate=config.dropout,
        stochastic_depth=config.stochastic_depth,
        lowering=lowering,
        head=head_of(config),
        denoiser=config.denoiser,
    )
    stages, natively = stage_layers_of(model), can_run_natively(model)
    graphdef, params, batch_stats = split_model(model)
    if not config.weights:
        return Network(graphdef, params, batch_stats, architecture.mean, architecture.std, (), stages, natively)
    published = {name: value for name, value in params.items() if not has_prefix(name, (DENOISER,))}
    loaded = load_weights(find_weights(config.weights, config.name), config.name, published, batch_stats)
    mean, std = loaded.image_statistics() or (architecture.mean, architecture.std)
    whole = {name: loaded.params.get(name, value) for name, value in params.items()}
    return Network(graphdef, whole, loaded.batch_stats, mean, std, loaded.fresh, stages, natively)


def describe(
    config: Config,
    network: Network,
    until: str = "",
    *,
    classes: tuple[str, ...] = CLASS_NAMES,
    kind: Kind = EXCLUSIVE,
) -> NetworkDescription:
    """Returns what network.json says of a network of `classes` of this kind, which is cut behind the stage `until`
    unless that is empty.
    """
    weights = find_weights(config.model.weights, config.model.name) if config.model.weights else None
    return NetworkDescription(
        architecture=config.model.name,
        classes=classes,
        image_size=config.data.image_size,
        resize=config.data.resize,
        interpolation=config.data.interpolation,
        mean=network.mean,
        std=network.std,
        weights=weights.name if weights else "",
        weights_sha256=hashlib.sha256(weights.read_bytes()).hexdigest() if weights else "",
        parameters=sum(value.size for value in network.params.values()),
        flip_average=config.model.flip_average,
        shift_average=config.model.shift_average,
        region=config.data.region,
        clarify=config.data.clarify,
        until=until,
        kind=kind,
        transition=config.model.transition,
        denoiser=config.model.denoiser,
        pooling=config.model.pooling,
        pooling_sharpness=config.model.pooling_sharpness,
    )
