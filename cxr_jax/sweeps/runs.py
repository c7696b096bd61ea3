"""The runs of a sweep in its folder: where each stands, and how far it has come.

A sweep's folder holds, beside its tables, `VARIANT/seedN` (the run), `VARIANT/seedN.toml` (its config) and
`VARIANT/seedN.log` (what training printed) for every variant and seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr_jax.config.loading import format_config, load_config
from cxr_jax.config.overrides import values_of
from cxr_jax.config.schema import Config, OptimizerConfig, ScheduleConfig
from cxr_jax.errors import UserError
from cxr_jax.runs.files import write_text
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.metrics_log import is_finished, newest_line
from cxr_jax.sweeps.sweep import Sweep

SUMMARY_FILE = "sweep.json"
"""In the folder of every sweep, by which it is known as one; holds what its runs reached."""


@dataclass(frozen=True)
class SweepRun:
    """One run of a sweep, which may not have begun; how far it has come is looked up whenever it is asked."""

    variant: str
    seed: int
    config: Config
    run: RunFolder

    @property
    def begun(self) -> bool:
        """True if there is a run in its folder."""
        return self.run.config.is_file()

    @property
    def finished(self) -> bool:
        """True if nothing of it is left to train."""
        return is_finished(self.run.metrics)

    @property
    def program(self) -> str:
        """What its compiled steps are known by: runs that differ in seeds, folds, rates or epochs share them."""
        config = self.config
        phases = tuple(
            dataclasses.replace(phase, epochs=1, schedule=None, optimizer=_at_one_rate(phase.optimizer))
            for phase in config.phases
        )
        same = dataclasses.replace(
            config,
            data=dataclasses.replace(config.data, fold=0),
            training=dataclasses.replace(config.training, seed=0, epochs=1),
            optimizer=_at_one_rate(config.optimizer),
            schedule=ScheduleConfig(),
            phases=phases,
        )
        return format_config(same)

    def has_compiled(self) -> bool:
        """Returns whether the steps of all its phases are compiled: it has come to the last phase."""
        line = newest_line(self.run.metrics)
        return line is not None and line.get("phase") == self.config.resolved_phases()[-1].name

    @property
    def name(self) -> str:
        """How a person is told of it."""
        return f"{self.variant} seed{self.seed}"

    @property
    def config_file(self) -> Path:
        """The resolved config that training is started with."""
        return self.run.path.with_name(f"{self.run.path.name}.toml")

    @property
    def log(self) -> Path:
        """What training printed; beside the run, whose folder training makes itself."""
        return self.run.path.with_name(f"{self.run.path.name}.log")

    def write_config_file(self) -> None:
        """Writes the resolved config, unless it stands there already; UserError if it cannot be written."""
        text = format_config(self.config)
        if not self.config_file.is_file() or self.config_file.read_text(encoding="utf-8") != text:
            write_text(self.config_file, text)


def sweep_runs(sweep: Sweep, folder: str | Path) -> list[SweepRun]:
    """Returns every run of `sweep` in `folder`, which need not exist, seed by seed so that all variants come on
    together.

    Raises:
        UserError: a run was begun with another config than the sweep now asks for.
    """
    return [
        _sweep_run(sweep, variant.name, seed, variant.with_seed(seed), Path(folder))
        for seed in sweep.seeds
        for variant in sweep.variants
    ]


def chosen(runs: Sequence[SweepRun], sweep: Sweep, variants: Sequence[str], seeds: Sequence[int]) -> list[SweepRun]:
    """Returns those of `runs` of the named variants and seeds; an empty choice means all.

    Raises:
        UserError: the sweep has no such variant or seed.
    """
    names = [variant.name for variant in sweep.variants]
    for kind, wished, known in (("variant", variants, names), ("seed", seeds, sweep.seeds)):
        for entry in wished:
            if entry not in known:
                raise UserError(f"{sweep.path} has no {kind} {entry}; it has {', '.join(map(str, known))}")
    return [run for run in runs if run.variant in (variants or names) and run.seed in (seeds or sweep.seeds)]


def _sweep_run(sweep: Sweep, variant: str, seed: int, config: Config, folder: Path) -> SweepRun:
    run = RunFolder(folder / variant / f"seed{seed}")
    if run.config.is_file() and (differing := _difference(run, config)) is not None:
        key, theirs, ours = differing
        raise UserError(
            f"{variant} of {sweep.path} has changed: {run.path} was begun with {key} = {theirs}, and now it would be "
            f"{ours}; undo the change, give the variant another name, or choose another --out"
        )
    return SweepRun(variant, seed, config, run)


def _at_one_rate(optimizer: OptimizerConfig | None) -> OptimizerConfig | None:
    return optimizer and dataclasses.replace(optimizer, learning_rate=1.0)


def _difference(run: RunFolder, config: Config) -> tuple[str, Any, Any] | None:
    """Returns the first field in which a run's config differs from `config`, with both values; where it computes is
    its own.
    """
    stored_form = dataclasses.replace(config, parallel=config.parallel.anywhere())
    # nearly always the very text, which saves reading it as a config
    if run.config.read_bytes() == format_config(stored_form).encode():
        return None
    stored = load_config(run.config).computed_as(config)
    if stored == config:
        return None
    theirs, ours = (
        {key: value for key, value in values_of(entry).items() if value not in (None, ())} for entry in (stored, config)
    )
    absent = "nothing"
    key = next(key for key in {**theirs, **ours} if theirs.get(key, absent) != ours.get(key, absent))
    return key, theirs.get(key, absent), ours.get(key, absent)
