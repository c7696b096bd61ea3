"""Fields that bear on nothing in the company of others: an option that sets one is refused, a file is told of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cxr_jax.config.command_line import option_of
from cxr_jax.config.overrides import values_of
from cxr_jax.config.schema import Config, OptimizerConfig, PhaseConfig, ScheduleConfig
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.terminal import as_typed

_OF_PHASES = ("optimizer", "schedule", "augmentation")
_OF_SEVERAL_PROCESSES = tuple(
    f"parallel.{name}" for name in ("coordinator", "rank", "startup_timeout", "heartbeat_timeout", "step_timeout")
)


_OF_PROBES = ("data", "operating_point", "report", "probe")
_ALSO_OF_PROBES = (
    *(f"model.{name}" for name in ("name", "weights", "flip_average", "shift_average")),
    *(f"training.{name}" for name in ("seed", "evaluation_batch_size")),
    *("loss.class_weights", "parallel.devices", "validation.checkpoint"),
)


_OF_GENERATORS = ("data", "synthesis")
_ALSO_OF_GENERATORS = (
    *(f"model.{name}" for name in ("name", "weights")),
    *(f"training.{name}" for name in ("epochs", "batch_size", "evaluation_batch_size", "seed", "precision")),
    *("parallel.devices", "parallel.backend", "parallel.world_size"),
)


def without_effect(config: Config) -> dict[str, str]:
    """Returns why each field that has no effect in `config` has none, and what has, by dotted key.

    A phase goes by its name. How many processes train together is not looked at.
    """
    return dict(_without_effect(config))


def _without_effect(config: Config) -> Iterator[tuple[str, str]]:
    if config.probe.is_asked_for or config.synthesis.is_asked_for:
        yield from _untrained(config)
    else:
        for field in dataclasses.fields(config.probe)[1:]:
            yield f"probe.{field.name}", 'probe.classifier is "none"; it counts where that is "logistic" or "svm"'
        for field in dataclasses.fields(config.synthesis)[1:]:
            yield f"synthesis.{field.name}", 'synthesis.generator is "none"; it counts where that is "dcgan"'
        yield from _of_training(config)
    yield from _of_any(config)


def _untrained(config: Config) -> Iterator[tuple[str, str]]:
    """Yields every field that only training a network that tells classes apart looks at."""
    if config.synthesis.is_asked_for:
        sections, also = _OF_GENERATORS, _ALSO_OF_GENERATORS
        why = (
            f'synthesis.generator is "{config.synthesis.generator}", and no network that tells classes apart is trained'
        )
    else:
        sections, also = _OF_PROBES, _ALSO_OF_PROBES
        why = f'probe.classifier is "{config.probe.classifier}", and a probe trains nothing'
    for key in values_of(config):
        if key.partition(".")[0] not in sections and key not in also:
            yield key, why


def _of_training(config: Config) -> Iterator[tuple[str, str]]:
    """Yields fields that others switch off in training."""
    if config.phases:
        yield "training.epochs", f"every phase has epochs of its own: {_in_phases(config, 'epochs')}"
        if all(phase.batch_norm for phase in config.phases):
            yield "training.batch_norm", f"every phase has its own: {_in_phases(config, 'batch_norm')}"
    for section in _OF_PHASES:
        own = getattr(config, section)
        replaced = bool(config.phases) and all(getattr(phase, section) for phase in config.phases)
        if replaced:
            for field in dataclasses.fields(own):
                here = _in_phases(config, f"{section}.{field.name}")
                yield f"{section}.{field.name}", f"every phase has its own {section}: {here}"
        else:
            yield from _within(section, own)
        for phase in config.phases:
            yield from _within(f"phases.{phase.name}.{section}", getattr(phase, section))


def _of_any(config: Config) -> Iterator[tuple[str, str]]:
    """Yields fields that others switch off, whether the network is trained or probed."""
    validation, used = config.data.validation, config.data.cut()
    if config.model.pooling != "log_sum_exp":
        why = f'model.pooling is "{config.model.pooling}"; it counts where that is "log_sum_exp"'
        yield "model.pooling_sharpness", why
    if "validation_fraction" not in used:
        why = "has its own images" if validation == "official" else "holds out one of data.folds"
        yield "data.validation_fraction", f'data.validation is "{validation}", which {why}'
    if "split_seed" not in used:
        yield "data.split_seed", f'data.validation is "{validation}", which draws nothing at random'
    for name in ("folds", "fold"):
        if name not in used:
            yield f"data.{name}", f'data.validation is "{validation}"; it counts where that is "fold"'
    if config.data.balancing != "reduced":
        yield "data.reduced_size", f'data.balancing is "{config.data.balancing}"; it counts where that is "reduced"'
    if config.data.balancing != "dcgan":
        yield "data.synthetic", f'data.balancing is "{config.data.balancing}"; it counts where that is "dcgan"'
    if not config.data.replay.dataset:
        yield "data.replay.share", "data.replay.dataset is empty; it counts where that names prepared data"
    rules = {"threshold": "fixed", "target_sensitivity": "sensitivity", "cost_ratio": "cost_ratio"}
    for name, rule in rules.items():
        if config.operating_point.rule != rule:
            yield (
                f"operating_point.{name}",
                f'operating_point.rule is "{config.operating_point.rule}"; it counts where that is "{rule}"',
            )


def _within(place: str, section: Any) -> Iterator[tuple[str, str]]:
    """Yields fields of one section that others of the same section switch off."""
    if isinstance(section, ScheduleConfig) and section.kind == "constant":
        yield f"{place}.final_fraction", f'{place}.kind is "constant"; choose "cosine" or "linear"'
    if isinstance(section, OptimizerConfig):
        if section.momentum == 0:
            yield f"{place}.nesterov", f"{place}.momentum is 0"
        if section.weight_decay == 0:
            yield f"{place}.decayed", f"{place}.weight_decay is 0"


def _in_phases(config: Config, field: str) -> str:
    """Returns the options of `field` in every phase."""
    return f"use {' or '.join(as_typed(option_of(f'phases.{phase.name}.{field}')) for phase in config.phases)}"


def _typed_option(key: str) -> str:
    return as_typed(option_of(key))


def refuse_without_effect(config: Config, changes: Iterable[str], called: Callable[[str], str] = _typed_option) -> None:
    """Raises UserError if the change of one of these keys, which made `config` what it is, has no effect.

    `called` gives the words for a change; by default the option for it.
    """
    idle = without_effect(config)
    for key in changes:
        if key in idle:
            raise UserError(f"{called(key)} has no effect, because {idle[key]}", EXIT_USAGE)


def refuse_options_of_several(changes: Iterable[str]) -> None:
    """Raises UserError if the option for one of these keys bears on several processes; for a process that is alone."""
    for key in changes:
        if key in _OF_SEVERAL_PROCESSES:
            raise UserError(
                f"{option_of(key)} has no effect, because one process trains alone: say with --parallel.world-size how "
                "many train together",
                EXIT_USAGE,
            )


def refuse_generator(config: Config) -> None:
    """Raises UserError for the config of a generator, where networks are trained that tell classes apart."""
    if config.synthesis.is_asked_for:
        raise UserError(
            f'synthesis.generator is "{config.synthesis.generator}", which tells no classes apart: cxr-jax synthesize '
            "with the same config trains it"
        )


def notes(config: Config) -> list[str]:
    """Returns a sentence for every field of `config` that is set to something and has no effect.

    Of a probe or a generator it is one sentence for all that only other training looks at.
    """
    here, defaults = values_of(config), values_of(Config(phases=tuple(map(_plain, config.phases))))
    idle = {key: why for key, why in without_effect(config).items() if here[key] != defaults[key]}
    other = config.probe.is_asked_for or config.synthesis.is_asked_for
    untrained = [key for key in dict(_untrained(config)) if key in idle] if other else []
    told = [f"{key} has no effect, because {why}" for key, why in idle.items() if key not in untrained]
    if untrained:
        sections = ", ".join(f"[{name}]" for name in dict.fromkeys(key.partition(".")[0] for key in untrained))
        told.append(f"what {sections} say of training has no effect, because {idle[untrained[0]]}")
    return told


def _plain(phase: PhaseConfig) -> PhaseConfig:
    """Returns a phase with the sections that `phase` has, each as it is by default."""
    own = {name: type(section)() for name in _OF_PHASES if (section := getattr(phase, name)) is not None}
    return PhaseConfig(name=phase.name, **own)
