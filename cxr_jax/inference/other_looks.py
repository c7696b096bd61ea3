"""A trained network asked in another way: the same weights, with other looks at an image averaged."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cxr_jax.config.loading import format_config, load_config
from cxr_jax.config.overrides import values_of
from cxr_jax.config.schema import Config
from cxr_jax.errors import UserError
from cxr_jax.inference.new_ensemble import copy_network
from cxr_jax.runs.description import read_description, write_description
from cxr_jax.runs.files import atomic_path, write_text
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.metrics_log import is_finished

LOOKS = ("flip_average", "shift_average")
"""Fields of the model that say which looks at an image are averaged; no weight depends on them."""


def with_other_looks(run: RunFolder, path: Path, config: Config) -> None:
    """Makes the run of `config` at `path` of the network of `run`, whole or not at all; `run` stays as it is.

    Raises:
        UserError: `run` is not finished, was trained by a config that differs in more than in its looks, or cannot be
            copied.
    """
    if not is_finished(run.metrics):
        raise UserError(f"{run.path} is not finished: finish it before its network is asked in another way")
    stored = load_config(run.config).computed_as(config)
    looks = {name: getattr(config.model, name) for name in LOOKS}
    if dataclasses.replace(stored, model=dataclasses.replace(stored.model, **looks)) != config:
        theirs, ours = values_of(stored), values_of(config)
        own = tuple(f"model.{name}" for name in LOOKS)
        key = next(key for key in {**theirs, **ours} if key not in own and theirs.get(key) != ours.get(key))
        raise UserError(
            f"{run.path} was trained with {key} = {theirs.get(key, 'nothing')}, and is now asked for with "
            f"{ours.get(key, 'nothing')}: only {' and '.join(own)} may differ"
        )
    with atomic_path(path) as unfinished:
        copy = RunFolder(copy_network(run, unfinished))
        write_text(copy.config, format_config(dataclasses.replace(config, parallel=config.parallel.anywhere())))
        write_description(copy, dataclasses.replace(read_description(run), **looks))
