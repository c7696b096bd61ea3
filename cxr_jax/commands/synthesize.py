"""`cxr-jax synthesize CONFIG`: train a generator of images like those of one class, and judge its samples."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cxr_jax.commands.train import config_given, default_folder, terminal_for
from cxr_jax.config.command_line import Option
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.terminal import Terminal, as_typed
from cxr_jax.vocabulary import FINDINGS

if TYPE_CHECKING:
    import numpy as np

    from cxr_jax.config.schema import Config
    from cxr_jax.data.prepared import PreparedData
    from cxr_jax.data.synthetic.record import TrainedOn
    from cxr_jax.images.image_set import ImageSet
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.synthesis.judge import FeatureProgram, Neighbours

SUMMARY = "train a generator of images like those of one class, and judge its samples"


@dataclass(frozen=True)
class Options:
    """Where it goes; every field of the config is an option too, such as --synthesis.channels 32."""

    out: Annotated[str, Option("FOLDER")] = ""  # of generator and samples; by default runs/ and the name of the config
    resume: bool = False  # go on with the training in that folder, from its last checkpoint


def main(arguments: list[str]) -> None:
    """Trains the generator of the config that `arguments` name, and leaves its samples and what they are worth;
    UserError for every mistake in it.
    """
    terminal = terminal_for(arguments)
    with terminal.waiting(f"Synthesizing {' '.join(arguments[:1])}: reading the config, loading jax"):
        path, given = config_given(
            arguments, Options, terminal.say, command="synthesize", summary=SUMMARY, example="dcgan_normals"
        )
        if not given.config.synthesis.is_asked_for:
            raise UserError(
                f"{path} trains no generator: {as_typed('cxr-jax', 'synthesize', 'dcgan_normals')} takes a config that "
                "does, and --synthesis.generator dcgan asks for one",
                EXIT_USAGE,
            )
        if given.config.parallel.world_size > 1:
            raise UserError("parallel.world_size is above 1, and a generator is trained by one process: leave it out")
        from cxr_jax.training.kernels_ahead import begin_kernels

        begin_kernels(given.config)
        from cxr_jax.synthesis import run  # noqa: F401
    out = Path(given.options.out) if given.options.out else default_folder(path)
    _synthesize(given.config, out, terminal, resume=given.options.resume)


def _synthesize(config: Config, out: Path, terminal: Terminal, *, resume: bool) -> None:
    from cxr_jax.config.effect import notes
    from cxr_jax.data.prepared import PreparedData
    from cxr_jax.data.run_folders import require_same, write_origin
    from cxr_jax.devices import names_of
    from cxr_jax.reporting.synthesis import SynthesisObserver
    from cxr_jax.runs.environment import record_activations, recorded_precision
    from cxr_jax.runs.files import atomic_path
    from cxr_jax.runs.folder import RunFolder
    from cxr_jax.runs.locks import held_for_training
    from cxr_jax.runs.metrics_log import is_finished
    from cxr_jax.synthesis.judge import FeatureProgram
    from cxr_jax.synthesis.run import draw_samples, plan_synthesis, train_generator

    run = RunFolder.open(out) if resume else RunFolder.unused(out)
    prepared = PreparedData.open(config.data.dataset)
    if resume:
        require_same(run, config, prepared, "synthesize")
    training, held_out, wanted = _images(config, prepared, terminal)
    with terminal.waiting(f"Planning, and compiling {config.model.name}, whose features compare images"):
        plan = plan_synthesis(config, training, recorded_precision(run) if resume else None)
        program = FeatureProgram(config, plan.devices)
    if not resume:
        with atomic_path(out) as unfinished:
            write_origin(unfinished, config, None, prepared, names_of(plan.devices))
    terminal.say(
        f"{config.synthesis.generator} of {config.data.image_size} pixels on {len(training)} {config.synthesis.label} "
        f"images of train; run {as_typed(run.path)}"
    )
    for note in notes(config):
        terminal.say(f"Note on the config: {note}")
    with held_for_training(run):
        if not (resume and is_finished(run.metrics)):
            record_activations(run, plan.activations.precision, plan.activations.kernels, plan.activations.why)
        with SynthesisObserver(terminal) as observer:
            networks, state = train_generator(plan, training, run, observer, resume=resume)
        with terminal.track("Drawing samples", wanted) as advance:
            samples = draw_samples(networks, state, config.training.seed, _numbers(wanted), advance)
        _keep(run, config, samples, _trained_on(config, prepared, training), terminal)
        _judge(run, config, samples, (training, held_out), program, terminal)


def _images(config: Config, prepared: PreparedData, terminal: Terminal) -> tuple[ImageSet, ImageSet, int]:
    """Returns the images of the class that train and validation have, and how many samples are to be made.

    Raises:
        UserError: the data have no such class, or a split has no image of it.
    """
    import numpy as np

    from cxr_jax.data.split_loading import load_split

    label = config.synthesis.label
    if prepared.kind == FINDINGS:
        raise UserError(
            f"{prepared.path} tells findings that occur together, and a generator learns images of one class"
        )
    if label not in prepared.classes:
        raise UserError(f"synthesis.label is {label!r}, and the classes here are {', '.join(prepared.classes)}")
    number, found = prepared.classes.index(label), []
    for split in ("train", "val"):
        images = load_split(prepared, config.data, split, track=terminal.track, mapped=True)
        rows = np.flatnonzero(images.labels == number)
        if not len(rows):
            raise UserError(f"{split} has no images of {label}: take another data.validation, or another class")
        if split == "train":
            lacking = int(np.bincount(images.labels).max()) - len(rows)
        found.append(images.select(rows))
    wanted = config.synthesis.samples or lacking
    if wanted < 4:
        raise UserError(f"{label} lacks {lacking} images to be as frequent as other classes: set synthesis.samples")
    return (*found, wanted)


def _numbers(count: int) -> np.ndarray:
    import numpy as np

    return np.arange(count)


def _trained_on(config: Config, prepared: PreparedData, training: ImageSet) -> TrainedOn:
    from cxr_jax.data.synthetic.record import TrainedOn

    images = tuple(prepared.examples[row].sha256 for row in training.ids)
    return TrainedOn(prepared.card["name"], prepared.fingerprint, images)


def _keep(run: RunFolder, config: Config, samples: np.ndarray, trained_on: TrainedOn, terminal: Terminal) -> None:
    """Writes the samples: as marked pictures for eyes, and as an array without marks for training."""
    from cxr_jax.data.synthetic.record import PICTURES, write_samples
    from cxr_jax.images.stamp import marked_png, with_stamp
    from cxr_jax.runs.files import atomic_path, remove

    config_sha256 = hashlib.sha256(run.config.read_bytes()).hexdigest()
    facts, pictures = {"Class": config.synthesis.label, "Config-SHA256": config_sha256}, {}
    # of a training that was resumed after it had ended: they are made anew
    remove(run.path / PICTURES)
    with atomic_path(run.path / PICTURES) as folder, terminal.track("Writing samples", len(samples)) as advance:
        folder.mkdir()
        for number, image in enumerate(samples):
            data, name = marked_png(with_stamp(image), facts), f"synthetic_{number:05d}.png"
            (folder / name).write_bytes(data)
            pictures[f"{PICTURES}/{name}"] = hashlib.sha256(data).hexdigest()
            advance(1)
    write_samples(
        run.path,
        samples,
        label=config.synthesis.label,
        resize=config.data.resize,
        config_sha256=config_sha256,
        trained_on=trained_on,
        pictures=pictures,
    )


def _judge(
    run: RunFolder,
    config: Config,
    samples: np.ndarray,
    real: tuple[ImageSet, ImageSet],
    program: FeatureProgram,
    terminal: Terminal,
) -> None:
    """Judges the samples, writes and draws what was found, and says it."""
    from cxr_jax.evaluation.samples import SCHEMA_VERSION
    from cxr_jax.reporting.synthesis import draw_losses
    from cxr_jax.runs.files import write_json
    from cxr_jax.runs.records import fields_to_json
    from cxr_jax.synthesis.judge import judge_samples

    training, held_out = real
    total = len(samples) + len(training) + len(held_out)
    with terminal.track("Comparing samples with real images", total) as advance:
        judged, neighbours = judge_samples(config, samples, training, held_out, program, advance)
    write_json(run.evaluation, {"schema_version": SCHEMA_VERSION, **fields_to_json(judged)})
    _write_neighbours(run, samples, training, neighbours)
    draw_losses(run)
    for sentence in judged.verdict:
        terminal.say(sentence)
    command = ("train", "mobilenetv2_moderate_crops", "--data.balancing", "dcgan", "--data.synthetic", run.path)
    terminal.say(f"Next: {as_typed('cxr-jax', *command)} adds the samples to train")


def _write_neighbours(run: RunFolder, samples: np.ndarray, training: ImageSet, neighbours: Neighbours) -> None:
    """Writes the nearest training image of every sample as a table, and the nearest pairs of all as a picture."""
    import numpy as np

    from cxr_jax.images.stamp import grid_of, marked_png
    from cxr_jax.runs.files import csv_text, write_bytes, write_text

    rows = [["sample", "nearest_by_pixels", "pixel_distance", "nearest_by_features", "feature_distance"]]
    columns = (neighbours.by_pixels, neighbours.pixel_distances, neighbours.by_features, neighbours.feature_distances)
    for number, (pixel, distance, feature, far) in enumerate(zip(*columns, strict=True)):
        rows.append([str(number), training.files[pixel], f"{distance:.4f}", training.files[feature], f"{far:.6f}"])
    write_text(run.path / "neighbours.csv", csv_text(rows))
    closest = np.argsort(neighbours.pixel_distances, kind="stable")[:8]
    pairs = np.concatenate([samples[closest], np.asarray(training.images)[neighbours.by_pixels[closest]]])
    picture = grid_of(pairs, len(closest), "SYNTHETIC above, nearest image of train below")
    write_bytes(run.figures / "nearest.png", marked_png(picture, {}))
