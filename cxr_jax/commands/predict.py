"""`cxr-jax predict RUN FILES...`: probability and call for radiographs in files."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

from cxr_jax.config.command_line import parse
from cxr_jax.errors import EXIT_USAGE, UserError

SUMMARY = "predict on files, as a table or JSON"


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    run: Annotated[Positional[str], arg(metavar="RUN")]  # folder of a trained run
    # radiographs: JPEG, PNG or DICOM (CR or DX), 8 to 16 bit, of any size
    files: Annotated[Positional[tuple[str, ...]], arg(metavar="FILES...")] = ()
    json: FlagCreatePairsOff[bool] = False  # print a JSON list with one object for each file in place of the table
    # probability from which PNEUMONIA is called; by default the run's own
    threshold: Annotated[float | None, arg(metavar="T")] = None


def main(arguments: list[str]) -> None:
    """Print a prediction for every file that `arguments` name.

    Raises UserError at the end if some file could not be predicted; its own sentence stands on standard error.
    """
    options = parse(Options, arguments, prog="cxr-jax predict", description=SUMMARY)
    if not options.files:
        raise UserError("name at least one file: cxr-jax predict RUN FILES...", EXIT_USAGE)

    import json
    import sys

    from cxr_jax.data.quality.reference import read_reference
    from cxr_jax.inference.restore import restore_run
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.serving.predict import Threshold, predict_files

    run = RunFolder.open(options.run)
    model = restore_run(run)
    threshold = Threshold.of(model, options.threshold)
    # A run that was not evaluated has none; the output says so.
    reference = read_reference(run.quality_reference) if run.quality_reference.is_file() else None
    predictions = []
    for prediction in predict_files(model, options.files, threshold, reference=reference):
        predictions.append(prediction)
        if prediction.error is not None:
            print(f"cxr-jax: {prediction.error}", file=sys.stderr)
    name = f"{model.description.architecture} of {run.name}, step {model.step}"
    if options.json:
        print(json.dumps([entry.as_json(threshold, name) for entry in predictions], indent=2, ensure_ascii=False))
    else:
        _print_table(predictions, threshold, name, reference)
    failures = sum(prediction.error is not None for prediction in predictions)
    if failures:
        raise UserError(f"{failures} of {len(predictions)} files could not be predicted")


def _print_table(predictions: list, threshold: object, model: str, reference: object) -> None:
    """Print predictions as a table, with the threshold, the model, the check of inputs and the disclaimer below."""
    import sys

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from cxr_jax.vocabulary import CLASS_NAMES, DISCLAIMER, PNEUMONIA

    # A pipe has no width: lines are then as long as their content, so that names can be found in them.
    console = Console(width=None if sys.stdout.isatty() else 10_000)
    table = Table("file", "probability of PNEUMONIA", "call", "remarks")
    table.columns[1].justify = "right"
    for prediction in predictions:
        failed = prediction.error is not None
        probability = "-" if failed else f"{prediction.probability:.4f}"
        style = "red" if failed else "bold" if prediction.label == CLASS_NAMES[PNEUMONIA] else ""
        remarks = "not predicted, see the error" if failed else "; ".join(prediction.warnings)
        # Text, so that brackets in a file name are not read as markup.
        table.add_row(*(Text(cell, style) for cell in (prediction.file, probability, prediction.label or "-", remarks)))
    console.print(table)
    check = (
        "Inputs were not compared with the training images: evaluate the run once, and they are."
        if reference is None
        else f"Inputs were compared with the {reference.images:,} training images; remarks tell what is unlike them."
    )
    told = f"PNEUMONIA from {threshold.value:.4f} (rule: {threshold.rule}). Model: {model}."
    console.print(Text(f"{told}\n{check}\n{DISCLAIMER}"))
