"""`cxr-jax evaluate RUN`: predict validation and test, judge them, and draw the figures and the report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from cxr_jax.config.command_line import parse

if TYPE_CHECKING:
    from rich.console import Console

    from cxr_jax.config.schema import Config
    from cxr_jax.data.prepared import PreparedData
    from cxr_jax.evaluation.operating_point import OperatingPoint
    from cxr_jax.inference.restore import TrainedModel
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.runs.predictions import Predictions

SUMMARY = "predict a run's validation and test images, judge them, draw the figures and the report"


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    run: Annotated[Positional[str], arg(metavar="RUN")]  # folder of a trained run


def main(arguments: list[str]) -> None:
    """Evaluate the run that `arguments` name; UserError if it or its data cannot be read.

    The threshold is fixed on validation and stored before the first prediction on test is made; every look at test is
    added to the run's ledger.
    """
    options = parse(Options, arguments, prog="cxr-jax evaluate", description=SUMMARY)
    from rich.console import Console

    from cxr_jax.config.loading import load_config
    from cxr_jax.data.cache import load_split
    from cxr_jax.data.prepared import open_data_of_run
    from cxr_jax.evaluation.judge import judge
    from cxr_jax.inference.predictions import predict_split
    from cxr_jax.inference.restore import restore_run
    from cxr_jax.reporting.live import track_in_terminal
    from cxr_jax.runs.files import write_json
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.runs.predictions import write_predictions

    console = Console()
    run = RunFolder.open(options.run)
    config = load_config(run.config)
    prepared = open_data_of_run(run)
    trained = restore_run(run)
    track = track_in_terminal(console)
    batch_size = config.training.evaluation_batch_size

    validation = predict_split(
        trained, load_split(prepared, config.data, "val", track=track), "val", batch_size=batch_size
    )
    write_predictions(run.predictions_of("val"), validation)
    point = _operating_point(run, config, trained, validation)

    test_set = load_split(prepared, config.data, "test", track=track)
    test = predict_split(trained, test_set, "test", batch_size=batch_size)
    judgement = judge(validation, test, point.threshold, operating_point=point)
    # before anything of test can be seen, so that no look goes uncounted
    _append_to_ledger(run, config, trained, point, judgement)
    write_predictions(run.predictions_of("test"), test)
    write_json(run.evaluation, judgement)
    _draw(run, prepared, judgement, test, validation, test_set.images)
    _print(console, run, judgement)


def _operating_point(run: RunFolder, config: Config, trained: TrainedModel, validation: Predictions) -> OperatingPoint:
    """The stored operating point, or the one that the config's rule chooses on validation, stored at once.

    A stored one is kept as long as the network is the same, so that no look at test can move it.
    """
    from cxr_jax.evaluation.operating_point import choose_operating_point, read_operating_point, write_operating_point
    from cxr_jax.runs.ledger import read_looks

    looks = read_looks(run)
    if run.operating_point.is_file() and looks and looks[-1].get("step") == trained.step:
        return read_operating_point(run.operating_point)
    point = choose_operating_point(validation, **asdict(config.operating_point))
    write_operating_point(run.operating_point, point)
    return point


def _append_to_ledger(
    run: RunFolder, config: Config, trained: TrainedModel, point: OperatingPoint, judgement: dict
) -> None:
    from cxr_jax.runs.ledger import append_look

    metrics = judgement["test"]["metrics"]
    append_look(
        run,
        {
            "split": "test",
            "checkpoint": config.validation.checkpoint,
            "step": trained.step,
            "threshold": point.threshold,
            "rule": point.rule,
            "result": {name: metrics[name]["value"] for name in ("accuracy", "sensitivity", "specificity", "roc_auc")},
        },
    )


def _draw(
    run: RunFolder,
    prepared: PreparedData,
    judgement: dict,
    test: Predictions,
    validation: Predictions,
    images: object,
) -> None:
    from cxr_jax.reporting.figures import draw_evaluation
    from cxr_jax.reporting.pictures import draw_pictures
    from cxr_jax.reporting.report import write_report
    from cxr_jax.runs.metrics_log import read_metrics

    draw_evaluation(run.figures, judgement, test, validation, read_metrics(run.metrics))
    phantoms = bool(prepared.card["phantom"])
    draw_pictures(run.figures, images, test, judgement["operating_point"]["threshold"], phantoms=phantoms)
    write_report(run)


def _print(console: Console, run: RunFolder, judgement: dict) -> None:
    from cxr_jax.reporting.tables import judgement_table
    from cxr_jax.vocabulary import DISCLAIMER

    console.print(judgement_table(judgement))
    console.print(f"Report:  {run.report}\nFigures: {run.figures}\n{DISCLAIMER}", soft_wrap=True)
