"""The program from Python: load a network, predict, explain, judge a table, train a config.

All of it is had from the package itself, and only what is called is imported:

    import cxr_jax

    model = cxr_jax.load("runs/quickstart-1")
    for prediction in model.predict(["film.png", "other.dcm"]):
        print(prediction.file, prediction.label, prediction.probability)
    model.heat_map("film.png").save("map.png")

A mistake that a person can mend is a `UserError`, whose text is one sentence: what is wrong, where, and what to do.

Research software. Not a medical device; not for diagnosis or treatment.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from cxr_jax.errors import UserError
from cxr_jax.serving.model import Model, Prediction, Unreadable

if TYPE_CHECKING:
    from cxr_jax.config.schema import Config
    from cxr_jax.evaluation.class_judgement import ClassJudgement
    from cxr_jax.evaluation.judgement import Judgement
    from cxr_jax.training.progress import EndReason

__all__ = ["Model", "Prediction", "Rule", "TrainedRun", "Unreadable", "Validation", "judge", "load", "train"]

Rule = Literal["fixed", "youden", "sensitivity", "cost_ratio"]
"""How a threshold is chosen, as `evaluation.operating_point.RULES` has them."""


@dataclass(frozen=True)
class Validation:
    """What a run reached on its validation images; None where a figure is undefined."""

    step: int  # of training
    loss: float | None
    accuracy: float | None  # at a probability of 0.5
    roc_auc: float | None


@dataclass(frozen=True)
class TrainedRun:
    """A run that came to its end."""

    folder: Path
    ended: EndReason  # finished: all epochs are done; patience: it ran out
    best: Validation | None  # by the figure that the config monitors

    def load(self) -> Model:
        """Returns the network, in the state that the config names; UserError as `cxr_jax.load`."""
        return load(self.folder)


def load(
    run_or_bundle: str | Path | None = None, *, threshold: float | None = None, error_rate: float | None = None
) -> Model:
    """Returns a trained network: of a run folder, of an ensemble, or of a bundle that `cxr-jax export` made.

    No jax is imported for a bundle.

        model = cxr_jax.load("runs/quickstart-1")
        print(model)

    Args:
        run_or_bundle: the folder; by default that of the starter network, which comes with the package.
        threshold: the probability from which PNEUMONIA, or every finding, is called; by default those that the
            evaluation of the run fixed on validation, and 0.5 before a run was evaluated. Exclusive classes of other
            names have none: the likeliest is called.
        error_rate: of the images of each class, the share whose `possible` classes may lack it: 0.01, 0.02, 0.05 (the
            default), 0.1 or 0.2. For NORMAL and PNEUMONIA alone.

    Raises:
        UserError: the folder is neither, is damaged or of a newer version; the threshold is not from 0 to 1; or there
            are no bounds for the error rate.
    """
    from cxr_jax.bundle.starter import STARTER
    from cxr_jax.serving.loaded import load as load_network
    from cxr_jax.serving.predict import Threshold

    loaded = load_network(STARTER if run_or_bundle is None else run_or_bundle)
    return Model(loaded, Threshold.of(loaded.model, threshold, error_rate))


def judge(
    table: str | Path | Mapping[str, Sequence[Any]],
    *,
    validation: str | Path | Mapping[str, Sequence[Any]] | None = None,
    rule: Rule = "fixed",
    threshold: float = 0.5,
    target_sensitivity: float = 0.975,
    cost_ratio: float = 5.0,
    merge: Sequence[str] = (),
    resamples: int = 2000,
    out: str | Path | None = None,
) -> Judgement | ClassJudgement:
    """Returns everything that is said of predictions which any program made: metrics with intervals, calibration.

        judgement = cxr_jax.judge({"label": [0, 1, 1], "probability": [0.2, 0.9, 0.6]})
        auc = judgement.test.metrics["roc_auc"]
        print(auc.value, auc.interval.low, auc.interval.high)

    Args:
        table: a CSV file, or columns by name (a pandas DataFrame will do): `label` (NORMAL, PNEUMONIA or 0, 1) and
            `probability` (of PNEUMONIA) or `logit_NORMAL` and `logit_PNEUMONIA`; `file`, `group`, `subtype` and
            `split` if known. Where there is a split, rows of `test` are judged. Other classes have a column
            `probability_NAME` or `logit_NAME` each, and findings `label_NAME` (1, 0 or empty) too; the result is then
            a `ClassJudgement`, with `test.classes` by name.
        validation: the same of validation images, on which calibration is fitted and a rule chooses the threshold.
        rule: how the threshold is chosen: `fixed` takes `threshold`.
        threshold: the probability from which PNEUMONIA, or each class or finding, is called, for the rule `fixed`.
        target_sensitivity: for the rule `sensitivity`: the highest threshold that reaches it.
        cost_ratio: for the rule `cost_ratio`: how many false alarms a missed pneumonia is worth.
        merge: fewer classes that a table of several is asked for, as `NORMAL=normal` and `PNEUMONIA=bacteria+virus`;
            images of classes that are not named are left out.
        resamples: of the group bootstrap, from 100 to 100000.
        out: a new or empty folder for evaluation.json, figures and report.html; None writes nothing.

    Raises:
        UserError: a mistake in the table, with its row and column, or in an argument.
    """
    from cxr_jax.commands.judge import Options, as_file, judge_any_table
    from cxr_jax.terminal import Terminal

    if rule not in get_args(Rule):
        raise UserError(f"rule is {rule!r}, but must be one of {', '.join(get_args(Rule))}")
    with as_file(table, "the table") as path, as_file(validation, "the validation table") as validation_path:
        options = Options(
            path,
            validation=validation_path,
            threshold=threshold,
            rule=rule,
            target_sensitivity=target_sensitivity,
            cost_ratio=cost_ratio,
            merge=tuple(merge),
            resamples=resamples,
            out="" if out is None else str(out),
        )
        try:
            return judge_any_table(options, Terminal(quiet=True))
        except UserError as error:
            raise UserError(_with_arguments(str(error)), error.code) from error


def train(
    config: str | Path | Config,
    *,
    out: str | Path | None = None,
    changes: Mapping[str, Any] | None = None,
    resume: bool = False,
    quiet: bool = False,
    origin: str | Path | None = None,
    average_with: Sequence[str | Path] = (),
) -> TrainedRun:
    """Trains a network as a config says, and returns its run.

        run = cxr_jax.train("quickstart", changes={"training.epochs": 2})
        model = run.load()
        onward = cxr_jax.train("quickstart", origin=run.folder, out="runs/onward", changes={"data.dataset": "others"})

    The data must have been prepared (`cxr-jax prepare`). All devices that jax finds are used, unless the config says
    otherwise. Ctrl-C saves the state; `resume` goes on from there to the same bits.

    Args:
        config: a TOML file, the name of a config that comes with the program, or a `Config`.
        out: folder of the run; by default `runs/` and the name of the config.
        changes: fields of the config by dotted key, such as `optimizer.learning_rate` or `phases.head.epochs`; nested
            mappings will do.
        resume: go on with the run in that folder, from its last checkpoint.
        quiet: show nothing.
        origin: folder of a trained run whose network learns on, as `train --from` has it: of the same architecture
            and classes, on images of the same size. By default the network begins anew.
        average_with: folders of runs that learned on from `origin`, or began with the same weights; training begins
            with the mean of all.

    Raises:
        UserError: a mistake in the config, in the changes or in what they need; a run is there already; the network
            of `origin` cannot learn on by this config; or training was interrupted, and saved.
    """
    from cxr_jax.commands.train import default_folder, train_config
    from cxr_jax.config.loading import changed_config, format_config, read_tables
    from cxr_jax.config.schema import Config
    from cxr_jax.config.shipped import find_config
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.runs.metrics_log import best_validation

    if isinstance(config, Config):
        if out is None:
            raise UserError("name the folder of the run by out=, as a Config has no name to call it by")
        place, tables, folder = "the config", tomllib.loads(format_config(config)), Path(out)
    else:
        path = find_config(config)
        place, tables, folder = str(path), read_tables(path), Path(out or default_folder(path))
    read = changed_config(tables, changes or {}, place)
    begun = "" if origin is None else str(origin)
    averaged = [str(run) for run in average_with]
    reason = train_config(
        read.config,
        folder,
        resume=resume,
        changes=read.changes,
        quiet=quiet,
        origin=begun,
        average_with=averaged,
    )
    best = best_validation(RunFolder(folder).metrics)
    figures = None if best is None else Validation(best["step"], best["loss"], best["accuracy"], best["roc_auc"])
    return TrainedRun(folder, reason, figures)


def _with_arguments(sentence: str) -> str:
    """Returns a sentence of the command line with its options called as the arguments are."""
    return re.sub(r"--([a-z]+(?:-[a-z]+)*)", lambda option: option[1].replace("-", "_"), sentence)
