import base64
import shutil
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from cxr_jax.data.quality.measures import MEASURES
from cxr_jax.evaluation.baselines import judge_baselines
from cxr_jax.evaluation.confidence import Confidence
from cxr_jax.evaluation.conformal import ConformalSets, write_conformal
from cxr_jax.evaluation.judge import judge
from cxr_jax.evaluation.judged_sets import judge_uncertainty, write_uncertainty
from cxr_jax.evaluation.operating_point import choose_operating_point
from cxr_jax.evaluation.quality import ImageQuality, MeasureDefinition, SplitQuality, write_quality
from cxr_jax.evaluation.quality_audit import audit_errors
from cxr_jax.explain.record import CascadeRecord, CurvesRecord, MapChecks, write_checks
from cxr_jax.explain.verdict import Check, Line, Mean, Verdict
from cxr_jax.reporting.explanations import draw_checks
from cxr_jax.reporting.figures import draw_evaluation
from cxr_jax.reporting.quality_figures import draw_quality
from cxr_jax.reporting.recipe_records import read_recipe
from cxr_jax.runs.environment import write_environment
from cxr_jax.runs.files import write_json, write_text
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.gallery import Gallery, Group, Tile, encode_picture, write_gallery
from cxr_jax.runs.ledger import append_look
from cxr_jax.runs.metrics_log import MetricsLog
from cxr_jax.runs.predictions import Predictions
from cxr_jax.runs.recipes import find_recipes
from cxr_jax.vocabulary import SPLIT_NAMES
from tests.made_once import made_once
from tests.reporting.compared_runs import make_run


def made_up(normals, pneumonia, *, split, seed):
    """Predictions whose scores tell the classes apart fairly well."""
    random = np.random.default_rng(seed)
    label = np.r_[np.zeros(normals, int), np.ones(pneumonia, int)]
    margin = 2 * random.normal(size=len(label)) + 2 * (2 * label - 1)
    subtype = ["normal"] * normals + ["bacteria" if i % 3 else "virus" for i in range(pneumonia)]
    return Predictions.from_logits(
        np.stack([-margin / 2, margin / 2], axis=1),
        file=[f"{split}/{kind}/{i}.jpeg" for i, kind in enumerate(subtype)],
        split=[split] * len(label),
        group=[f"{split}-{kind}-{i // 2}" for i, kind in enumerate(subtype)],
        subtype=subtype,
        label=label,
    )


def training_lines():
    """Lines of a training in two phases, validated every five iterations."""
    lines = []
    for step in range(1, 41):
        place = {"step": step, "epoch": step / 20, "phase": "head" if step <= 20 else "all", "seconds": float(step)}
        loss = 0.2 + 0.5 * 0.95**step
        lines.append({"kind": "train", **place, "loss": loss, "accuracy": 1 - loss / 2, "learning_rate": 0.01})
        if step % 5 == 0:
            values = {"loss": loss + 0.05, "accuracy": 0.9 - loss / 2, "roc_auc": 0.95, "best": step == 30}
            lines.append({"kind": "validation", **place, **values})
    return [*lines, {"kind": "end", "reason": "patience", "step": 40, "seconds": 41.0}]


@pytest.fixture(scope="session")
def example():
    """Validation and test predictions, their judgement and the lines of the training before them."""
    validation = made_up(50, 90, split="val", seed=1)
    test = made_up(60, 80, split="test", seed=2)
    point = choose_operating_point(validation, rule="sensitivity", target_sensitivity=0.95)
    judged = judge(validation, test, point.threshold, operating_point=point, confidence=Confidence(resamples=50))
    return SimpleNamespace(
        validation=validation,
        test=test,
        point=point,
        judged=judged,
        judgement=judged.as_json(),
        lines=training_lines(),
    )


@pytest.fixture(scope="session")
def drawn(example, tmp_path_factory):
    """The folder of every figure of the example, drawn once because drawing is slow; it is not to be changed."""

    def draw(folder):
        draw_evaluation(folder, example.judged, example.test, example.validation, example.lines)

    return made_once(tmp_path_factory, "figures", draw)


@pytest.fixture(scope="session")
def studies(tmp_path_factory):
    """A folder of two recipes with three and two seeds."""
    folder = tmp_path_factory.mktemp("studies")
    for seed in range(3):
        make_run(folder / "good" / f"seed{seed}", seed, skill=1.6, minutes=8 + seed, looks=1 + (seed == 1))
    for seed in range(3, 5):
        make_run(folder / "plain" / f"seed{seed}", seed, rate=0.1)
    return folder


@pytest.fixture(scope="session")
def records(studies):
    """What a comparison reads of these recipes."""
    return [read_recipe(files) for files in find_recipes([str(studies)])]


PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")


@pytest.fixture
def pixel():
    """The smallest PNG there is."""
    return PIXEL


@pytest.fixture
def data_card():
    """A function that returns a data card, of radiographs or of phantoms."""
    return _data_card


def _data_card(phantom):
    counts = {split: {"NORMAL": 1_341, "PNEUMONIA": 3_875} for split in ("train", "test")}
    subtypes = {split: {"normal": 9, "bacteria": 2_530, "virus": 1_345, "unknown": 0} for split in counts}
    return {
        "name": "chest_xray",
        "phantom": phantom,
        "fingerprint": "f1e2d3",
        "images": 5_856,
        "counts": counts,
        "subtypes": subtypes,
        "groups": {"total": 4_097, "train": 3_654, "test": 428, "largest": 30},
        "identical_files": {"sets": 30, "surplus": 32},
        "left_out": [],
        "proof": {"holds": True, "groups_in_two_splits": [], "identical_files_in_two_splits": []},
        "notes": ["Groups come from <file> names."],
    }


CONFIG = """
[data]
image_size = 224
[model]
name = "mobilenetv2_100"
weights = "<script>alert(1)</script>"
"""


def _make_run(path, example, drawn):
    """A run with its data card, training, figures, pictures of one pixel and two looks at test."""
    run = RunFolder(path)
    write_text(run.config, CONFIG)
    write_json(run.evaluation, example.judgement)
    write_json(run.data_card, _data_card(phantom=False))
    write_environment(run, devices=["cpu <0>"], data_fingerprint="f1e2d3")
    with MetricsLog(run.metrics) as log:
        for line in example.lines:
            log.write(**line)
    append_look(run, {"checkpoint": "best", "step": 30, "threshold": 0.25, "result": {"accuracy": 0.78125}})
    append_look(run, {"checkpoint": "last"})
    shutil.copytree(drawn, run.figures)
    (run.figures / "failure_cases.png").write_bytes(PIXEL)
    run.explanations.mkdir()
    (run.explanations / "case.png").write_bytes(PIXEL)
    return run


@pytest.fixture
def whole(example, drawn, tmp_path):
    """A run with everything but quality, baselines and checks of its explanations."""
    return _make_run(tmp_path / "a<b>_seed0", example, drawn)


@pytest.fixture
def bare(example, tmp_path):
    """A folder with a judgement and nothing else."""
    run = RunFolder(tmp_path / "bare")
    write_json(run.evaluation, example.judgement)
    return run


@pytest.fixture(scope="session")
def complete(example, drawn, tmp_path_factory):
    """A run with every section that a report can have, and titles of their real length; not to be changed."""
    run = _make_run(tmp_path_factory.mktemp("complete") / "mobilenetv2_transfer_honest_seed0", example, drawn)
    few = Confidence(resamples=50)
    tables = {"val": _quality_columns(example.validation, 2), "test": _quality_columns(example.test, 3)}
    train = _quality_columns(example.validation, 1)
    quality = ImageQuality(
        measures={name: MeasureDefinition(told.title, told.unit, told.definition) for name, told in MEASURES.items()},
        splits={split: SplitQuality(images=140, outside=7, measures={}) for split in SPLIT_NAMES},
        ranges={},
        audit=audit_errors(tables["test"], example.test, 0.1, few),
        baselines=judge_baselines(
            train, example.validation.label, (tables["val"], example.validation), (tables["test"], example.test), few
        ),
    )
    write_quality(run.quality, quality)
    draw_quality(run.figures, quality, example.judged)
    sets = ConformalSets.of(example.validation)
    write_conformal(run.conformal, sets)
    write_uncertainty(run.uncertainty, judge_uncertainty(sets, example.test, example.point.threshold))
    findings = _findings()
    write_checks(run, findings)
    maps = np.random.default_rng(0).random((3, 4, 7, 7))
    draw_checks(run.figures, findings, maps[:, 0], maps[:, 1:])
    noise = np.random.default_rng(0).integers(0, 255, (400, 1600), dtype=np.uint8)
    (run.explanations / "case.png").unlink()
    for path in (
        run.figures / "failure_cases.png",
        run.figures / "predictions_grid.png",
        run.explanations / "panel-outcomes.png",
    ):
        path.write_bytes(cv2.imencode(".png", noise)[1].tobytes())
    films = tuple(encode_picture(film) for film in np.random.default_rng(1).integers(0, 255, (2, 90, 90), np.uint8))
    long = "test/PNEUMONIA/person1234_bacteria_5678_with_a_long_name.jpeg"
    failure = Tile(long, "PNEUMONIA", "NORMAL", 0.07, films[:1])
    explained = Tile(long, "PNEUMONIA", "NORMAL", 0.07, films, "evidence for NORMAL")
    write_gallery(run.figures / "failure_cases.png", Gallery("failures", (Group("Missed: 9", (failure,) * 9),)))
    groups = (Group("False negatives", (explained,) * 3), Group("False positives", ()))
    write_gallery(run.explanations / "panel-outcomes.png", Gallery("Grad-CAM at conv_head: all outcomes", groups))
    return run


def _quality_columns(predictions, seed):
    """Measures of made-up images, one of which tells a little of the class."""
    random = np.random.default_rng(seed)
    columns = {name: random.random(len(predictions)) for name in MEASURES}
    return {**columns, "mean": 120 + 8 * predictions.label + 10 * random.normal(size=len(predictions))}


def _findings():
    """Checks of maps, two that pass, one that fails and one that was not made."""
    line = Line((0.4, 0.1, 0.0), (0.3, 0.0, -0.1), (0.5, 0.2, 0.1))
    curves = {"map": (0.0, 0.8, 1.0), "random maps": (0.0, 0.5, 1.0), "map of another image": (0.0, 0.6, 1.0)}
    told = "With only the classifier drawn anew the rank correlation is 0.10, with every stage 0.03."
    measure = "rank correlation with the trained network's map, mean over the cascade"
    checks = []
    for name, passes in (("randomisation", True), ("insertion", False), ("deletion", True), ("seeds", None)):
        title = "Changes when the weights are drawn anew"
        made = Check(name, title, "Adebayo et al. 2018", measure, "upper end below 0.5")
        checks.append(Verdict(made, passes, told, {} if passes is None else {"NORMAL": Mean(0.05, -0.05, 0.15)}))
    return MapChecks(
        step=30,
        stage="conv_head",
        explained={"NORMAL": 9, "PNEUMONIA": 0},
        images=9,
        groups=7,
        blank=0,
        checks=tuple(checks),
        cascade=CascadeRecord(("classifier", "conv_head", "conv_stem"), line, line, (0.0, 0.0, 0.0), 0.3),
        curves=CurvesRecord((0.0, 0.5, 1.0), {"NORMAL": {"insertion": curves, "deletion": curves}}),
    )
