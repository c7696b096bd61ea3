"""Cross-validation as a sweep: a variant for each fold, so that it is trained and resumed as a sweep is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from cxr_jax.config.schema import Config
from cxr_jax.sweeps.sweep import Sweep, Variant


def sweep_of_folds(path: Path, config: Config, folds: int) -> Sweep:
    """Returns the sweep that trains `config`, from the file `path`, on all but one of `folds` folds, each in turn.

    A network is judged on the fold that it is validated on, so nothing is chosen there: it is trained to its end, and
    its last state is the one that counts.
    """
    validation = dataclasses.replace(config.validation, checkpoint="last", patience=0)

    def variant(fold: int) -> Variant:
        data = dataclasses.replace(config.data, validation="fold", folds=folds, fold=fold)
        return Variant(
            f"fold{fold}", {"data.fold": fold}, dataclasses.replace(config, data=data, validation=validation)
        )

    return Sweep(path, path, (config.training.seed,), tuple(map(variant, range(folds))), ())
