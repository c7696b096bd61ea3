"""`cxr-jax evaluate RUN`: predict validation and test, judge them, and draw the figures and the report."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import FlagCreatePairsOff, Positional, arg

from cxr_jax.config.command_line import parse

if TYPE_CHECKING:
    from rich.console import Console

    from cxr_jax.config.schema import Config
    from cxr_jax.data.prepared import PreparedData
    from cxr_jax.data.progress import Track
    from cxr_jax.evaluation.operating_point import OperatingPoint
    from cxr_jax.inference.restore import TrainedModel
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.runs.predictions import Predictions

SUMMARY = "predict a run's validation and test images, judge them, draw the figures and the report"


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    run: Annotated[Positional[str], arg(metavar="RUN")]  # folder of a trained run
    stored: FlagCreatePairsOff[bool] = False  # judge the stored predictions again: no network runs, no look is added


def main(arguments: list[str]) -> None:
    """Evaluate the run that `arguments` name; UserError if it or its data cannot be read.

    The threshold is fixed on validation and stored before the first prediction on test is made; every look at test is
    added to the run's ledger. With `--stored` the tables of an earlier evaluation are judged again.
    """
    options = parse(Options, arguments, prog="cxr-jax evaluate", description=SUMMARY)
    from rich.console import Console

    from cxr_jax.config.loading import load_config
    from cxr_jax.data.prepared import open_data_of_run
    from cxr_jax.reporting.live import track_in_terminal
    from cxr_jax.runs.files import write_json
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.runs.locks import evaluating

    console = Console()
    run = RunFolder.open(options.run)
    config = load_config(run.config)
    prepared = open_data_of_run(run)
    track = track_in_terminal(console)
    with evaluating(run):
        judged = (_judge_stored if options.stored else _predict_and_judge)(run, config, prepared, track)
        write_json(run.evaluation, judged.judgement)
        quality = _judge_quality(prepared, config, judged, run, track)
        write_json(run.quality, quality)
        _draw(run, prepared, config, judged, quality)
    _print(console, run, judged.judgement, quality)


@dataclass(frozen=True)
class _Judged:
    """Predictions and their judgement."""

    validation: Predictions
    test: Predictions
    judgement: dict[str, Any]


def _predict_and_judge(run: RunFolder, config: Config, prepared: PreparedData, track: Track) -> _Judged:
    """Predict validation, fix the operating point, predict test, judge it, and add the look to the ledger."""
    from cxr_jax.data.split_loading import load_split
    from cxr_jax.evaluation.judge import judge
    from cxr_jax.inference.predictions import predict_split
    from cxr_jax.inference.restore import restore_run
    from cxr_jax.runs.predictions import write_predictions

    trained = restore_run(run)

    def predict(split: str) -> Predictions:
        """Return the network's predictions on one split."""
        images = load_split(prepared, config.data, split, track=track)
        return predict_split(trained, images, split, batch_size=config.training.evaluation_batch_size)

    validation = predict("val")
    write_predictions(run.predictions_of("val"), validation)
    point = _operating_point(run, config, trained, validation)
    test = predict("test")
    judgement = judge(validation, test, point.threshold, operating_point=point)
    # before anything of test can be seen, so that no look goes uncounted
    _append_to_ledger(run, config, trained, point, judgement)
    write_predictions(run.predictions_of("test"), test)
    return _Judged(validation, test, judgement)


def _judge_stored(run: RunFolder, config: Config, prepared: PreparedData, track: Track) -> _Judged:
    """Judge the predictions and the operating point that an earlier evaluation stored.

    Raises:
        UserError: there was none, or its predictions are not of the images of the prepared data.
    """
    from cxr_jax.data.split_loading import rows_of_split
    from cxr_jax.errors import UserError
    from cxr_jax.evaluation.judge import judge
    from cxr_jax.evaluation.operating_point import read_operating_point
    from cxr_jax.runs.predictions import read_predictions

    del track
    if not run.evaluation.is_file():
        raise UserError(f"{run.path} has no stored predictions: evaluate it without --stored first")
    point = read_operating_point(run.operating_point)
    validation, test = (read_predictions(run.predictions_of(split)) for split in ("val", "test"))
    for split, table in (("val", validation), ("test", test)):
        files = tuple(prepared.examples[row].file for row in rows_of_split(prepared, config.data, split))
        if table.file != files:
            raise UserError(f"{run.predictions_of(split)} is not of the images of {split}: evaluate without --stored")
    return _Judged(validation, test, judge(validation, test, point.threshold, operating_point=point))


def _judge_quality(
    prepared: PreparedData, config: Config, judged: _Judged, run: RunFolder, track: Track
) -> dict[str, Any]:
    """Return what quality.json holds, and store beside it what `predict` compares new images with."""
    import numpy as np

    from cxr_jax.data.quality.measures import MEASURES
    from cxr_jax.data.quality.reference import QualityReference, write_reference
    from cxr_jax.data.quality.table import quality_table
    from cxr_jax.data.split_loading import rows_of_split
    from cxr_jax.evaluation.baselines import judge_baselines
    from cxr_jax.evaluation.quality_audit import audit_errors, summarise
    from cxr_jax.reporting.quality import SCHEMA_VERSION
    from cxr_jax.vocabulary import SPLIT_NAMES

    measured = quality_table(prepared, track=track)
    rows = {split: rows_of_split(prepared, config.data, split) for split in SPLIT_NAMES}
    tables = {split: measured.rows(rows[split]) for split in SPLIT_NAMES}
    reference = QualityReference.of(tables["train"])
    write_reference(run.quality_reference, reference)
    labels = np.array([prepared.examples[row].label_index for row in rows["train"]])
    columns = {split: table.columns for split, table in tables.items()}
    return {
        "schema_version": SCHEMA_VERSION,
        "measures": {
            name: {"title": told.title, "unit": told.unit, "definition": told.definition}
            for name, told in MEASURES.items()
        },
        "splits": {
            split: {
                "images": len(rows[split]),
                "outside": int(np.any(list(reference.outside(table).values()), axis=0).sum()),
                "measures": summarise(table.columns),
            }
            for split, table in tables.items()
        },
        "ranges": {name: {"low": low, "high": high} for name, (low, high) in reference.ranges.items()},
        "audit": audit_errors(columns["test"], judged.test, judged.judgement["operating_point"]["threshold"]),
        "baselines": judge_baselines(
            columns["train"], labels, (columns["val"], judged.validation), (columns["test"], judged.test)
        ),
    }


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


def _draw(run: RunFolder, prepared: PreparedData, config: Config, judged: _Judged, quality: dict[str, Any]) -> None:
    """Draw every figure, and write the report around them."""
    from cxr_jax.data.split_loading import load_split
    from cxr_jax.reporting.figures import draw_evaluation
    from cxr_jax.reporting.pictures import draw_pictures
    from cxr_jax.reporting.quality import draw_quality
    from cxr_jax.reporting.report import write_report
    from cxr_jax.runs.metrics_log import read_metrics

    draw_evaluation(run.figures, judged.judgement, judged.test, judged.validation, read_metrics(run.metrics))
    draw_quality(run.figures, quality, judged.judgement)
    images = load_split(prepared, config.data, "test").images
    phantoms = bool(prepared.card["phantom"])
    threshold = judged.judgement["operating_point"]["threshold"]
    draw_pictures(run.figures, images, judged.test, threshold, phantoms=phantoms)
    write_report(run)


def _print(console: Console, run: RunFolder, judgement: dict[str, Any], quality: dict[str, Any]) -> None:
    from cxr_jax.reporting.figures import interval_text
    from cxr_jax.reporting.quality import over_exposure_text
    from cxr_jax.reporting.tables import judgement_table
    from cxr_jax.vocabulary import DISCLAIMER

    console.print(judgement_table(judgement))
    if (told := over_exposure_text(quality, "false_positives")) is not None:
        console.print(told, highlight=False)
    if (baseline := quality["baselines"].get("all_measures")) is not None:
        area = interval_text(baseline["test"]["roc_auc"])
        console.print(f"Image quality alone, without a network: ROC-AUC {area} on test.", highlight=False)
    console.print(f"Report:  {run.report}\nFigures: {run.figures}\n{DISCLAIMER}", soft_wrap=True)
