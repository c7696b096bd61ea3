"""SGD as the studies used it, its schedules, and which parameters a phase trains."""

from __future__ import annotations

from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cxr_jax.config.schema import OptimizerConfig, PhaseConfig, ScheduleConfig
from cxr_jax.errors import UserError
from cxr_jax.models.network import CLASSIFIER, DENOISER, StageLayers, has_prefix, stage_of
from cxr_jax.models.state import ArrayDict


def make_schedule(optimizer: OptimizerConfig, schedule: ScheduleConfig, iterations: int) -> optax.Schedule:
    """Returns the learning rate as a function of the step within a phase of `iterations` steps.

    Raises UserError if the warm-up is as long as the phase.
    """
    peak, warmup = optimizer.learning_rate, schedule.warmup_iterations
    if warmup >= iterations:
        raise UserError(
            f"schedule.warmup_iterations is {warmup}, but the phase has only {iterations} iterations; shorten the "
            "warm-up"
        )
    remaining = iterations - warmup
    if schedule.kind == "cosine":
        main = optax.cosine_decay_schedule(peak, remaining, schedule.final_fraction)
    elif schedule.kind == "linear":
        main = optax.linear_schedule(peak, peak * schedule.final_fraction, remaining)
    else:
        main = optax.constant_schedule(peak)
    if warmup == 0:
        return main
    # the first step of a warm-up from 0 would change nothing
    rise = optax.linear_schedule(peak / (warmup + 1), peak, warmup)
    return optax.join_schedules([rise, main], [warmup])


def rates_of(schedule: optax.Schedule, iterations: int) -> list[float]:
    """Returns the rate at every step of a phase, each in the fewest digits that tell its float32 value."""
    rates = jax.vmap(lambda step: jnp.asarray(schedule(step), jnp.float32))(jnp.arange(iterations))
    return [float(str(rate)) for rate in np.asarray(rates)]


def make_optimizer(
    optimizer: OptimizerConfig, learning_rate: optax.Schedule, names: Collection[str], stages: StageLayers
) -> optax.GradientTransformation:
    """Returns SGD with momentum and L2 added to the gradient before momentum, as torch and MATLAB do it.

    `names` are those of the parameters that are trained. The decay of weights applies to kernels, or to all of them if
    the config says so. The rate of a stage may fall with its distance from the classifier, counted over all `stages` of
    the network.
    Raises UserError where it is to fall, but a parameter belongs to no stage.
    """
    mask = {name: optimizer.decayed == "all" or name.endswith(".kernel") for name in names}
    steps = [
        optax.add_decayed_weights(optimizer.weight_decay, mask),
        optax.sgd(learning_rate, optimizer.momentum or None, optimizer.nesterov),
    ]
    if optimizer.layer_decay != 1:
        shares = layer_shares(names, optimizer.layer_decay, stages)
        steps.append(
            optax.stateless(lambda updates, _: {name: shares[name] * update for name, update in updates.items()})
        )
    return optax.chain(*steps)


def layer_shares(names: Collection[str], decay: float, stages: StageLayers) -> dict[str, float]:
    """Returns the share of the learning rate that each of the parameters `names` has.

    It is 1 in the classifier, and in every stage `decay` times that of the next (Clark et al. 2020; Bao et al. 2022).
    Raises UserError for a parameter that belongs to none of `stages`.
    """
    order, shares = [*stages], {}
    for name in names:
        stage = stage_of(name, stages)
        if stage is None:
            raise UserError(
                f"the parameter {name} belongs to no stage of the network, so that its distance from the classifier "
                "is not known: set optimizer.layer_decay to 1"
            )
        shares[name] = decay ** (len(order) - 1 - order.index(stage))
    return shares


def uphill(params: ArrayDict, gradients: ArrayDict, radius: float) -> ArrayDict:
    """Returns the place at the distance `radius` from `params` where the loss is highest, as far as `gradients` tell.

    It is where sharpness-aware minimisation takes the gradient of its step (Foret et al. 2021). The distance is over
    all parameters together.
    """
    norm = optax.tree.norm(gradients)
    # a gradient of 0 points nowhere
    share = radius / jnp.maximum(norm, jnp.finfo(norm.dtype).tiny)
    return {name: value + share * gradients[name] for name, value in params.items()}


def partition(params: ArrayDict, phase: PhaseConfig) -> tuple[ArrayDict, ArrayDict]:
    """Returns `params` as those that the phase trains and those that it leaves alone.

    A denoiser is left alone by all phases: it was trained before them. Raises UserError for a prefix in
    `phase.trainable` that no other parameter has.
    """
    denoiser = {name: value for name, value in params.items() if has_prefix(name, (DENOISER,))}
    params = {name: value for name, value in params.items() if name not in denoiser}
    if not phase.trainable:
        return params, denoiser
    unmatched = [prefix for prefix in phase.trainable if not any(has_prefix(name, (prefix,)) for name in params)]
    if unmatched:
        parts = sorted({_part(name) for name in params})
        raise UserError(
            f"phase {phase.name!r}: no parameter is called {', '.join(unmatched)}; trainable takes names such as "
            f"{', '.join(parts)}"
        )
    trainable = {name: value for name, value in params.items() if has_prefix(name, phase.trainable)}
    return trainable, {name: value for name, value in params.items() if name not in trainable} | denoiser


def trains_head_alone(trainable: Collection[str]) -> bool:
    """Returns whether the backbone is frozen whole: none of the parameters `trainable` is outside the classifier."""
    return all(has_prefix(name, (CLASSIFIER,)) for name in trainable)


def frozen_stages(trainable: Collection[str], frozen: Collection[str], stages: StageLayers) -> tuple[str, ...]:
    """Returns the stages of which no parameter is `trainable`: they run as in evaluation, BatchNorm included.

    This is what Keras does with layers that are not trainable: their outputs stay those that they were trained to
    give, whatever the batch.
    """
    trained = {stage_of(name, stages) for name in trainable}
    return tuple(sorted({stage_of(name, stages) for name in frozen} - trained - {None}))


def _part(name: str) -> str:
    """Returns the layer that a parameter belongs to, with its number if it is one of several."""
    first, *rest = name.split(".")
    return f"{first}.{rest[0]}" if rest and rest[0].isdigit() else first
