"""The folder of a run on prepared data: what stands there before the first step, and whether the run can go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cxr_jax.config.loading import load_config, write_config
from cxr_jax.config.schema import Config
from cxr_jax.data.filling import require_samples_of_run
from cxr_jax.data.prepared import PreparedData, from_any_folder, replayed_of_run, require_groups_of_run
from cxr_jax.data.prepared_boxes import prepared_boxes
from cxr_jax.errors import UserError
from cxr_jax.runs.description import NetworkDescription, write_description
from cxr_jax.runs.environment import write_environment
from cxr_jax.runs.files import at_home, write_json
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.terminal import as_typed


def write_origin(
    folder: Path,
    config: Config,
    description: NetworkDescription | None,
    prepared: PreparedData,
    devices: Sequence[str],
    of_train: dict[str, Any] | None = None,
) -> RunFolder:
    """Makes the folder of a run, writes there what is known before the first step, and returns it.

    `description` is None for a run that trains no network which tells classes apart. `devices` are the names of those
    that it computes on. `of_train` are entries of the data card on images of train that the data do not have.
    """
    run = RunFolder.create(folder)
    write_environment(run, devices=devices, data_fingerprint=prepared.fingerprint)
    write_json(run.data_card, {**prepared.card, "groups_sha256": prepared.groups_sha256, **(of_train or {})})
    if config.data.crop == "lungs":
        regression = prepared_boxes(prepared, config.data).regression
        description = dataclasses.replace(description, lung_boxes=regression)
    if description is not None:
        write_description(run, description)
    replay = config.data.replay
    if replay.dataset:
        replay = dataclasses.replace(replay, dataset=from_any_folder(replay.dataset))
    synthetic = str(at_home(config.data.synthetic).resolve()) if config.data.synthetic else ""
    dataset = from_any_folder(config.data.dataset)
    data = dataclasses.replace(config.data, dataset=dataset, replay=replay, synthetic=synthetic)
    write_config(dataclasses.replace(config, data=data, parallel=config.parallel.anywhere()), run.config)
    return run


def require_same(run: RunFolder, config: Config, prepared: PreparedData, command: str = "train") -> None:
    """Raises UserError if the run of `command` to be resumed was started with another config or other data.

    Where it is computed may change, and where images wait: the state is the same. A precision that was left open may be
    asked for.
    """
    stored = load_config(run.config)
    if stored.computed_as(config) != config:
        raise UserError(
            f"{run.path} was started with another config than this; go on with "
            f"{as_typed('cxr-jax', command, run.config, '--out', run.path, '--resume')}, or start a new run"
        )
    if read_json(run.environment).get("data_fingerprint") != prepared.fingerprint:
        raise UserError(f"the prepared data is not what {run.path} was started with; prepare the same source again")
    require_groups_of_run(run, prepared)
    replayed_of_run(run)
    require_samples_of_run(run, config.data)
