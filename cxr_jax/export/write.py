"""A run as a bundle: the network in two formats, what is known of it, a model card, and a program that predicts."""

from __future__ import annotations

import dataclasses
import datetime
import shutil
import tempfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from cxr_jax.bundle.record import (
    BUNDLE_FILE,
    CARD_FILE,
    INT8_FILE,
    ONNX_FILE,
    PROGRAM_FILE,
    STABLEHLO_FILE,
    Bundle,
    Call,
    Figure,
    Reached,
    SetsReached,
    UsualRange,
    content_of,
    write_bundle,
)
from cxr_jax.bundle.runtime import load_bundle
from cxr_jax.bundle.scores import Scores
from cxr_jax.data.progress import Track, Waiting, silently, unseen
from cxr_jax.data.quality.reference import LIKENESS, read_reference, told_measure
from cxr_jax.errors import UserError
from cxr_jax.evaluation.class_judgement import read_class_judgement
from cxr_jax.evaluation.class_points import read_class_points
from cxr_jax.evaluation.conformal import ERROR_RATE
from cxr_jax.evaluation.judged_sets import read_uncertainty
from cxr_jax.evaluation.judgement import Judgement, judges_other_classes, read_judgement
from cxr_jax.evaluation.measures import Measured
from cxr_jax.evaluation.numbers import measured_text, number_text
from cxr_jax.evaluation.operating_point import OperatingPoint, read_operating_point
from cxr_jax.evaluation.robustness import robustness_of, told_kinds
from cxr_jax.export.answers import answers_of, images_of, stablehlo_of
from cxr_jax.export.check import Told, check_runtimes, logits_of_run, loss_by_rounding, loss_in_8_bits
from cxr_jax.export.from_jaxpr import to_onnx
from cxr_jax.export.half import in_half_precision
from cxr_jax.export.quantise import quantise
from cxr_jax.images.image_set import ImageSet
from cxr_jax.inference.ensemble import Ensemble, restore
from cxr_jax.inference.restore import TrainedModel, Which, chosen_checkpoint, restore_run
from cxr_jax.runs.description import NetworkDescription, require_whole_images
from cxr_jax.runs.files import require_free, write_bytes, write_text, writing
from cxr_jax.runs.finding_predictions import sigmoid_of
from cxr_jax.runs.folder import RunFolder, read_json
from cxr_jax.runs.ledger import has_fixed, is_evaluated
from cxr_jax.runs.predictions import read_predictions, softmax_of
from cxr_jax.runs.trained_on import told_films
from cxr_jax.vocabulary import CLASS_NAMES, FINDINGS, PNEUMONIA

FILES = (ONNX_FILE, INT8_FILE, STABLEHLO_FILE, CARD_FILE, PROGRAM_FILE)
"""What a bundle can hold beside its description."""

FIGURES = {"accuracy": ".1%", "sensitivity": ".1%", "specificity": ".1%", "roc_auc": ".3f"}
"""Metrics on test that a bundle tells, and how they are written."""

FIGURES_OF_CLASSES = {"accuracy": ".1%", "balanced_accuracy": ".1%", "macro_roc_auc": ".3f"}
"""The same of classes other than NORMAL and PNEUMONIA."""

FIGURES_OF_FINDINGS = {"macro_roc_auc": ".3f", "macro_average_precision": ".3f", "macro_f1": ".3f"}
"""The same of findings."""

TOLERANCE = 1e-5
"""By how much a probability of the bundle may differ from that of the run before the export is refused."""

HALF_TOLERANCE = 0.01
"""The same for weights of half precision, which are rounded by one part in 2,000."""

TRIED_IMAGES = 5


@dataclass(frozen=True)
class RealImages:
    """Images of the data that a run was trained on; none of them is of test."""

    validation: ImageSet
    calibration: np.ndarray | None = None  # of training, uint8 [N, S, S] in 0..255; None: no network in 8 bits


def export_run(
    run: RunFolder,
    out: Path,
    *,
    which: Which | None = None,
    replace: bool = False,
    real: RealImages | None = None,
    half: bool = False,
    waiting: Waiting = unseen,
    track: Track = silently,
) -> tuple[Bundle, float]:
    """Writes the network of `run` to the folder `out`.

    The folder appears when all is written and was tried. With `real` images it is held to the run on all of validation,
    in every runtime that is installed, and written in 8 bits too where images to calibrate by are among them. With
    `half` weights are stored in half precision, and there is no StableHLO, which would keep them whole. `waiting` shows
    what is being done, and `track` how far it is. Returns what bundle.json says, and by how much a probability differs
    from the run's, on random images.

    Raises:
        UserError: `out` exists and is not to be replaced, or holds something else than a bundle; the run cannot be
            restored, or needs lung masks; the network has an operation that cannot be exported; or the bundle does not
            answer as the run.
    """
    require_free(out, "bundle", BUNDLE_FILE, replace=replace)
    with waiting("Restoring the network"):
        model = restore(run) if which is None else restore_run(run, which)
    require_whole_images(model.descriptions, "an exported network")
    with writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        with waiting(f"Writing {ONNX_FILE}"):
            graph = to_onnx(answers_of(model), images_of(model))
            write_bytes(folder / ONNX_FILE, (in_half_precision(graph) if half else graph).SerializeToString())
        if not half:
            with waiting(f"Writing {STABLEHLO_FILE}"):
                write_bytes(folder / STABLEHLO_FILE, stablehlo_of(model))
        bundle = dataclasses.replace(_described(run, model, which), weights="float16" if half else "float32")
        if real is not None:
            bundle = _held_to_the_run(bundle, model, folder, real, waiting, track)
        write_text(folder / CARD_FILE, _card(bundle, run))
        program = resources.files("cxr_jax.export").joinpath("standalone.py").read_text(encoding="utf-8")
        write_text(folder / PROGRAM_FILE, program)
        names = [name for name in FILES if (folder / name).is_file()]
        bundle = dataclasses.replace(bundle, files=tuple(content_of(folder / name) for name in names))
        write_bundle(folder, bundle)
        with waiting("Trying it in onnxruntime"):
            difference = _difference(model, folder)
        _require_equal(difference, "", bundle)
        _put_in_place(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return bundle, difference


def _put_in_place(folder: Path, out: Path) -> None:
    """Moves a finished bundle to its place; of an older one there, only the files of a bundle are removed."""
    with writing(out):
        out.mkdir(exist_ok=True)
        # the description comes last: a folder that has it is whole
        (out / BUNDLE_FILE).unlink(missing_ok=True)
        for name in (*FILES, BUNDLE_FILE):
            if (folder / name).is_file():
                (folder / name).replace(out / name)
            else:
                (out / name).unlink(missing_ok=True)


def _held_to_the_run(
    bundle: Bundle,
    model: TrainedModel | Ensemble,
    folder: Path,
    real: RealImages,
    waiting: Waiting,
    track: Track,
) -> Bundle:
    """Returns the bundle with what was found on validation, and writes the network in 8 bits if it is wanted.

    Raises:
        UserError: a runtime gives other probabilities than the run.
    """
    expected, told = logits_of_run(model, real.validation.images, track=track), Told(bundle.network, bundle.calls)
    checks = check_runtimes(folder, told, expected, real.validation.images, track=track)
    for check in checks:
        _require_equal(check.largest_difference, f" in {check.runtime}, on validation", bundle)
    bundle = dataclasses.replace(bundle, runtimes=checks)
    if bundle.weights == "float16":
        loss = loss_by_rounding(folder / ONNX_FILE, real.validation, told, expected, track=track)
        return dataclasses.replace(bundle, half=loss)
    if real.calibration is None:
        return bundle
    quantise(folder / ONNX_FILE, folder / INT8_FILE, real.calibration, waiting=waiting)
    loss = loss_in_8_bits(folder, real.validation, told, expected, calibrated=len(real.calibration), track=track)
    return dataclasses.replace(bundle, int8=loss)


def _require_equal(difference: float, where: str, bundle: Bundle) -> None:
    """Raises UserError if a probability of the bundle is further from the run's than its weights allow."""
    if not difference <= (TOLERANCE if bundle.weights == "float32" else HALF_TOLERANCE):
        raise UserError(
            f"the exported network gives other probabilities than the run{where} (they differ by {difference:.1e}), so "
            "nothing was written"
        )


def _difference(model: TrainedModel | Ensemble, folder: Path) -> float:
    """Returns the largest difference of a probability between a run and its bundle, on random images."""
    bundled = load_bundle(folder)
    size = bundled.description.image_size
    images = np.random.default_rng(0).integers(0, 256, (TRIED_IMAGES, size, size), dtype=np.uint8)
    logits = model.logits([images] * len(model.members) if isinstance(model, Ensemble) else images)
    probabilities_of = sigmoid_of if bundled.description.kind == FINDINGS else softmax_of
    return float(np.abs(probabilities_of(logits) - probabilities_of(bundled.logits(images))).max())


def _described(run: RunFolder, model: TrainedModel | Ensemble, which: Which | None) -> Bundle:
    """Returns what bundle.json says, but for its files."""
    environment = read_json(run.environment) if run.environment.is_file() else {}
    fixed = _fixed(run, model)
    reference = read_reference(run.quality_reference) if run.quality_reference.is_file() else None
    ranges = reference.ranges if reference else {}
    usual = _classes_of(model) == CLASS_NAMES
    return Bundle(
        name=run.name,
        kind=model.descriptions[0].kind,
        network=_network_of(model),
        calls=fixed.calls,
        temperature=fixed.temperature,
        # likeness is measured by a picture that is made of radiographs, and stays with the run
        quality=tuple(
            UsualRange(name, told_measure(name).title, low, high)
            for name, (low, high) in ranges.items()
            if name != LIKENESS
        ),
        training_images=reference.images if reference else 0,
        step=model.step,
        checkpoint="" if isinstance(model, Ensemble) else which or chosen_checkpoint(run),
        checkpoint_sha256=model.checkpoint_sha256,
        data_fingerprint=environment.get("data_fingerprint") or "",
        software={name: version for name, version in environment.get("versions", {}).items() if version},
        date=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        files=(),
        scores=_scores(run) if usual and fixed.calls else None,
        sets=model.sets,
        feature_limit=model.feature_limit,
        test=_reached(run) if _is_judged(run, model.step, model.checkpoint_sha256) else None,
        films=told_films(run),
    )


def _scores(run: RunFolder) -> Scores | None:
    """Returns how the probabilities of validation were distributed; None where they are not kept."""
    path = run.predictions_of("val")
    return Scores.of(read_predictions(path).probability) if path.is_file() else None


def _is_judged(run: RunFolder, step: int | None, sha256: str) -> bool:
    """Returns whether the run's figures on test are of the network with this checkpoint."""
    return run.evaluation.is_file() and is_evaluated(run, step, sha256)


def _reached(run: RunFolder) -> Reached:
    """Returns what the run reached on test, in the order in which it is told."""
    told, judged = FIGURES, None
    if judges_other_classes(run.evaluation):
        judged = read_class_judgement(run.evaluation)
        told = FIGURES_OF_FINDINGS if judged.of_findings else FIGURES_OF_CLASSES
    judged = judged or read_judgement(run.evaluation)
    measured = ((judged.test.metrics[name], form) for name, form in told.items())
    figures = tuple(_figure(each, form) for each, form in measured if each.value is not None)
    return Reached(judged.test.images, figures, _sets_reached(run))


def _sets_reached(run: RunFolder) -> tuple[SetsReached, ...]:
    """Returns what the sets of possible classes were worth on test; nothing where the run has none."""
    if not run.uncertainty.is_file():
        return ()
    return tuple(
        SetsReached(row.name, row.images, *(_figure(each, ".1%") for each in (row.covered, row.uncertain, row.wrong)))
        for row in read_uncertainty(run.uncertainty).at(ERROR_RATE).rows
        if row.covered.value is not None
    )


def _figure(measured: Measured, form: str) -> Figure:
    """Returns a measure that has a value as a bundle keeps it."""
    interval = measured.interval
    ends = (None, None) if interval is None else (interval.low, interval.high)
    return Figure(measured.title, form, measured.value, *ends)


def _network_of(model: TrainedModel | Ensemble) -> NetworkDescription:
    """Returns the description of a network; an ensemble is described as its first member, but for name and size."""
    first = model.descriptions[0]
    if not isinstance(model, Ensemble):
        return first
    parameters = sum(entry.parameters for entry in model.descriptions)
    plain = {"flip_average": False, "shift_average": 0.0}
    return dataclasses.replace(first, architecture=model.title, parameters=parameters, **plain)


def _classes_of(model: TrainedModel | Ensemble) -> tuple[str, ...]:
    return model.descriptions[0].classes


@dataclass(frozen=True)
class _Fixed:
    """What the evaluation of a run fixed on validation; empty and None before it."""

    calls: tuple[Call, ...] = ()
    temperature: float | None = None


def _fixed(run: RunFolder, model: TrainedModel | Ensemble) -> _Fixed:
    """Returns from which probabilities classes are called, and the temperature."""
    if not has_fixed(run, model.step, model.checkpoint_sha256):
        return _Fixed()
    if _classes_of(model) != CLASS_NAMES:
        points = read_class_points(run.operating_point)
        return _Fixed(tuple(_call(name, point) for name, point in points.classes.items()), points.temperature)
    point = read_operating_point(run.operating_point)
    return _Fixed((_call(CLASS_NAMES[PNEUMONIA], point),), point.temperature)


def _call(name: str, point: OperatingPoint) -> Call:
    """Returns from which probability a class is called."""
    return Call(name, point.threshold, point.rule, point.sensitivity, point.specificity, point.images)


def _card(bundle: Bundle, run: RunFolder) -> str:
    """Returns the model card (Mitchell et al., FAT* 2019) as Markdown."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    usual = bundle.network.classes == CLASS_NAMES
    evaluated = _is_judged(run, bundle.step, bundle.checkpoint_sha256)
    judged: Judgement | None = read_judgement(run.evaluation) if usual and evaluated else None
    others = read_class_judgement(run.evaluation) if evaluated and not usual else None
    environment = Environment(
        loader=PackageLoader("cxr_jax.export", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters.update(measured=measured_text, written=number_text)
    card = read_json(run.data_card) if run.data_card.is_file() else {}
    template = environment.get_template("MODEL_CARD.md.jinja")
    degraded = robustness_of(run)
    if degraded and degraded.checkpoint_sha256 != bundle.checkpoint_sha256:
        degraded = None
    kinds = told_kinds(degraded) if degraded else ()
    told = {"judged": judged, "others": others, "degraded": degraded, "kinds": kinds}
    return template.render(bundle=bundle, **told, data=card, usual=usual)
