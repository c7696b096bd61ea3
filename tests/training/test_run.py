from __future__ import annotations

import dataclasses
import math
import signal

import jax
import numpy as np
import pytest
from training_runs import PHASES, TrainingRun, Watcher, arrays_of, assert_equal_runs, lines_of

from cxr_jax.checkpoints import CheckpointWriter, saved_steps
from cxr_jax.config.schema import (
    AugmentationConfig,
    LossConfig,
    OptimizerConfig,
    PhaseConfig,
    ScheduleConfig,
    ValidationConfig,
)
from cxr_jax.errors import EXIT_INTERRUPTED, EXIT_TERMINATED, UserError
from cxr_jax.training import run as training_run
from cxr_jax.training.compile import CompiledStep
from cxr_jax.training.network import build_network
from cxr_jax.training.progress import Progress, after_validation, is_better
from cxr_jax.training.saving import BEST, LAST
from cxr_jax.training.validation import validation_figures


def test_a_run_counts_its_steps_validates_and_keeps_best_and_last(trainer):
    watcher = Watcher()
    run = trainer("run", watcher)
    assert run.train() == "finished"
    # 44 images in batches of 8: 5 steps an epoch, the last 4 images are left out
    assert [line["step"] for line in lines_of(run, "train")] == list(range(1, 11))
    assert [line["step"] for line in lines_of(run, "validation")] == [2, 4, 6, 8, 10]
    assert [phase.iterations for phase in watcher.plan.phases] == [10]
    assert lines_of(run, "train")[4]["epoch"] == 1.0
    assert lines_of(run, "end") == [{"kind": "end", "reason": "finished", "step": 10}]
    losses = {line["step"]: line["loss"] for line in lines_of(run, "validation")}
    assert saved_steps(run.run.checkpoints / BEST)[-1] == min(losses, key=losses.get)
    assert saved_steps(run.run.checkpoints / LAST)[-1] == 10


def test_the_network_learns(trainer, config):
    longer = dataclasses.replace(config.training, epochs=6)
    augmentation = AugmentationConfig(horizontal_flip=0.5)
    run = trainer("run", training=longer, augmentation=augmentation, optimizer=OptimizerConfig(0.05))
    run.train()
    losses = [line["loss"] for line in lines_of(run, "train")]
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])


def test_the_same_config_gives_the_same_bits_twice(trainer, undisturbed):
    again = trainer("again")
    again.train()
    assert_equal_runs(undisturbed, again)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [3, 4])
def test_a_signal_saves_and_the_resumed_run_is_the_undisturbed_one(trainer, undisturbed, number, step):
    stopped = trainer("stopped", Watcher(signal_at=step, number=number))
    with pytest.raises(UserError, match=f"after step {step}; go on with cxr-jax train .* --resume") as caught:
        stopped.train()
    assert caught.value.code == (EXIT_INTERRUPTED if number == signal.SIGINT else EXIT_TERMINATED)
    assert lines_of(stopped, "end")[0]["step"] == step
    watcher = Watcher()
    resumed = trainer("stopped", watcher)
    assert resumed.train(resume=True) == "finished"
    assert watcher.started_at == step
    assert_equal_runs(undisturbed, resumed)


def test_a_run_resumes_across_the_border_of_two_phases(trainer, undisturbed_phases):
    for step in (5, 6):
        stopped = trainer(f"stopped{step}", Watcher(signal_at=step), phases=PHASES)
        with pytest.raises(UserError):
            stopped.train()
        resumed = trainer(f"stopped{step}", phases=PHASES)
        resumed.train(resume=True)
        assert_equal_runs(undisturbed_phases, resumed)
    assert {line["phase"] for line in lines_of(undisturbed_phases, "train")[:5]} == {"head"}
    assert {line["phase"] for line in lines_of(undisturbed_phases, "train")[5:]} == {"all"}


def test_a_frozen_backbone_tells_how_many_images_have_features(trainer):
    frozen = PhaseConfig("head", 1, trainable=("classifier",), batch_norm="frozen")
    watcher = Watcher()
    run = trainer("told", watcher, phases=(frozen, PhaseConfig("all", 1)))
    run.train()
    # those of training and of validation, once
    assert (watcher.features[0], watcher.features[-1]) == ((0, 54), (54, 54))
    done = [done for done, total in watcher.features]
    assert done == sorted(set(done)) and len(done) > 3


def test_a_run_killed_between_two_phases_goes_on_with_a_fresh_optimizer(trainer, train_undisturbed, monkeypatch):
    # both by the optimizer of the config
    phases = (PhaseConfig("head", 1, trainable=("classifier",), batch_norm="frozen"), PhaseConfig("all", 1))
    undisturbed = train_undisturbed(phases)
    killed, compiled, compile_train_step = trainer("killed", phases=phases), [], training_run.compile_train_step

    def die_in_the_second(plan, network, phase, *given, **named):
        compiled.append(phase.config.name)
        if phase.config.name == "all":
            raise KeyboardInterrupt
        return compile_train_step(plan, network, phase, *given, **named)

    with monkeypatch.context() as patch:
        patch.setattr(training_run, "compile_train_step", die_in_the_second)
        with pytest.raises(KeyboardInterrupt):
            killed.train()
    assert compiled == ["head", "all"]
    resumed = trainer("killed", phases=phases)
    resumed.train(resume=True)
    assert_equal_runs(undisturbed, resumed)


def test_every_step_is_taken_at_the_seed_and_epoch_of_the_run_and_the_rate_that_its_log_names(trainer, monkeypatch):
    moments, step = [], CompiledStep.__call__

    def note(program, state, placed, moment):
        moments.append(moment)
        return step(program, state, placed, moment)

    monkeypatch.setattr(CompiledStep, "__call__", note)
    phases = (PhaseConfig("head", 1, trainable=("classifier",)), PhaseConfig("all", 1))
    run = trainer("run", phases=phases, schedule=ScheduleConfig("cosine", warmup_iterations=2))
    # optax's schedules mix types
    with jax.numpy_dtype_promotion("standard"):
        run.train()
    lines = lines_of(run, "train")
    assert [float(moment.learning_rate) for moment in moments] == pytest.approx(
        [line["learning_rate"] for line in lines], rel=1e-6
    )
    assert len({line["learning_rate"] for line in lines}) > 2
    assert [int(moment.epoch) for moment in moments] == [math.ceil(line["epoch"]) - 1 for line in lines]
    assert {int(moment.seed) for moment in moments} == {run.config.training.seed}


@pytest.mark.usefixtures("compiled_anew")
def test_features_computed_once_train_the_same_head(trainer, network, monkeypatch):
    phase = PhaseConfig("head", 2, trainable=("classifier",), batch_norm="frozen", optimizer=OptimizerConfig(0.1))
    cached = trainer("cached", phases=(phase,))
    cached.train()
    plain = trainer("plain", phases=(phase,))
    # the same phase, but told that images change from epoch to epoch
    monkeypatch.setattr(AugmentationConfig, "is_random", property(lambda self: True))
    monkeypatch.setattr("cxr_jax.training.step.augment", lambda images, keys, config, parts: images.astype(np.float32))
    plain.train()
    left, right = arrays_of(cached), arrays_of(plain)
    for name, value in left.items():
        np.testing.assert_allclose(value, right[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert not np.allclose(left["params.classifier.kernel"], network.params["classifier.kernel"])
    losses = [[line["loss"] for line in lines_of(run, "train", "validation")] for run in (cached, plain)]
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_a_run_without_a_checkpoint_yet_begins_again(trainer, undisturbed):
    killed = trainer("killed")
    killed.run.metrics.write_text('{"kind": "train", "step": 1, "loss": 9.0}\n')
    killed.train(resume=True)
    assert_equal_runs(undisturbed, killed)


def test_a_signal_in_the_step_that_exhausts_patience_changes_nothing(trainer):
    changes = {
        "optimizer": OptimizerConfig(learning_rate=1e-30, weight_decay=0.0),
        "validation": ValidationConfig(2, patience=1, monitor="accuracy"),
    }
    undisturbed = trainer("undisturbed", **changes)
    assert undisturbed.train() == "patience"
    last = lines_of(undisturbed, "train")[-1]["step"]
    stopped = trainer("stopped", Watcher(signal_at=last), **changes)
    with pytest.raises(UserError, match=f"after step {last}"):
        stopped.train()
    resumed = trainer("stopped", **changes)
    assert resumed.train(resume=True) == "patience"
    assert_equal_runs(undisturbed, resumed)


@pytest.mark.usefixtures("compiled_anew")
def test_nothing_is_compiled_after_the_first_step_of_each_kind(trainer):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, _seconds, **_details: compiled.append(name) if "backend_compile" in name else None
    )
    counts = {}

    class Counter(Watcher):
        def on_train(self, line: dict) -> None:
            super().on_train(line)
            counts[line["step"]] = len(compiled)

    phases = (PhaseConfig("head", 1, trainable=("classifier",), batch_norm="frozen"), PhaseConfig("all", 1))
    trainer("run", Counter(), phases=phases).train()
    assert counts[1] > 0
    # steps 1 to 5 are of the first phase, 6 to 10 of the second; their first validations follow 2 and 7
    assert counts[3] == counts[5]
    assert counts[6] == counts[7]
    assert counts[8] == counts[10]


def test_a_first_step_does_not_wait_for_the_program_of_validation(trainer, monkeypatch):
    watcher, steps_before = Watcher(), []
    compile_on_images = training_run.compile_on_images

    def noted(*given, **options):
        steps_before.append(len(watcher.lines))
        return compile_on_images(*given, **options)

    monkeypatch.setattr(training_run, "compile_on_images", noted)
    trainer("run", watcher).train()
    # once, and at the first validation, which is after two steps
    assert steps_before == [2]


def test_the_area_under_the_curve_needs_both_classes(trainer, validation_images):
    one_class = dataclasses.replace(validation_images, labels=np.ones(10, np.int32))
    good = trainer("run")
    config = dataclasses.replace(good.config, validation=ValidationConfig(monitor="roc_auc"))
    with pytest.raises(UserError, match="validation images are all of one class"):
        TrainingRun(config, good.network, good.train_set, one_class, good.run, Watcher())


def test_a_finished_run_resumed_has_nothing_to_do(trainer):
    run = trainer("run")
    run.train()
    before = lines_of(run, "train", "validation", "end")
    watcher = Watcher()
    assert trainer("run", watcher).train(resume=True) == "finished"
    assert watcher.lines == []
    assert lines_of(run, "train", "validation", "end") == before


def test_patience_counts_validations_without_improvement(trainer, network):
    # a rate this small moves nothing, and a tie is no improvement
    still = OptimizerConfig(learning_rate=1e-30, weight_decay=0.0)
    run = trainer("run", optimizer=still, validation=ValidationConfig(1, patience=3, monitor="accuracy"))
    assert run.train() == "patience"
    assert lines_of(run, "validation")[0]["best"] is True
    assert lines_of(run, "end")[0]["reason"] == "patience"
    assert len(lines_of(run, "validation")) < 10


def test_a_loss_that_is_not_finite_stops_with_its_step(trainer):
    run = trainer("run", optimizer=OptimizerConfig(learning_rate=1e30))
    with pytest.raises(UserError, match=r"loss is (nan|inf) at step \d+.*learning_rate"):
        run.train()
    assert saved_steps(run.run.checkpoints / LAST) in ([], [2])


def test_frozen_stages_keep_their_bits_through_a_phase(trainer, network):
    phase = PhaseConfig("head", 1, trainable=("classifier", "conv_head"), batch_norm="frozen")
    watcher = Watcher()
    run = trainer("run", watcher, phases=(phase,))
    run.train()
    (planned,) = watcher.plan.phases
    assert planned.trained_size + planned.frozen_size == sum(value.size for value in network.params.values())
    arrays = arrays_of(run)
    for name, value in (network.params | network.batch_stats).items():
        stored = arrays.get(f"params.{name}", arrays.get(f"batch_stats.{name}"))
        assert np.array_equal(stored, value) == (not name.startswith(("classifier", "conv_head"))), name


def test_batch_statistics_move_in_the_stages_that_are_trained_alone(trainer, network):
    trained = ("conv_head", "bn2", "classifier")
    run = trainer("run", phases=(PhaseConfig("deeper", 1, trainable=trained, batch_norm="train"),))
    run.train()
    arrays = arrays_of(run)
    for name, value in network.batch_stats.items():
        assert np.array_equal(arrays[f"batch_stats.{name}"], value) == (not name.startswith("bn2")), name


def test_class_weights_are_those_of_the_training_images(trainer):
    run = trainer("run")
    config = dataclasses.replace(run.config, loss=LossConfig(class_weights="balanced"))
    sick = dataclasses.replace(run.train_set, labels=(np.arange(44) % 4 > 0).astype(np.int32))
    changed = TrainingRun(config, run.network, sick, run.validation_set, run.run, Watcher())
    assert changed.plan.class_weights == (2.0, 2 / 3)


def test_a_batch_larger_than_the_data_is_refused(trainer, config):
    with pytest.raises(UserError, match="batch_size is 64, but there are only 44"):
        trainer("run", training=dataclasses.replace(config.training, batch_size=64))


@pytest.mark.parametrize(
    ("phase", "sentence"),
    [
        (PhaseConfig("head", 1, trainable=("head",)), "phase 'head': no parameter is called head"),
        (PhaseConfig("all", 1, schedule=ScheduleConfig(warmup_iterations=5)), "the phase has only 5 iterations"),
    ],
)
def test_a_phase_that_cannot_work_is_refused_before_there_is_a_run(trainer, phase, sentence):
    with pytest.raises(UserError, match=sentence):
        trainer("run", phases=(PhaseConfig("first", 1), phase))


def test_a_checkpoint_of_another_model_is_refused(trainer, config, train_images, validation_images):
    run = trainer("run")
    run.train()
    other = dataclasses.replace(config, model=dataclasses.replace(config.model, name="mobilenetv2_050"))
    network = build_network(other.model, seed=0)
    progress = Progress(iteration=2, step=2)
    with CheckpointWriter(run.run.checkpoints / LAST, keep=9) as writer:
        writer.save(2, {f"params.{name}": value for name, value in network.params.items()}, progress.as_json())
    # only the foreign checkpoint is left
    for step in saved_steps(run.run.checkpoints / LAST):
        if step != 2:
            (run.run.checkpoints / LAST / str(step)).rename(run.run.path / f"moved{step}")
    with pytest.raises(UserError, match="holds another model"):
        trainer("run").train(resume=True)


def test_better_means_lower_for_a_loss_and_higher_for_the_rest():
    assert is_better("loss", 0.1, 0.2)
    assert not is_better("loss", 0.2, 0.2)
    assert is_better("roc_auc", 0.9, 0.8)
    assert is_better("accuracy", 0.1, None)
    assert not is_better("roc_auc", math.nan, None)


def test_the_best_of_a_phase_and_of_the_run_are_counted_apart():
    progress = Progress(step=7, best_value=0.1, best_step=3, phase_best=0.4, stale_validations=1)
    after, best = after_validation(progress, "loss", 0.3)
    assert (after.phase_best, after.stale_validations, after.best_value, after.best_step, best) == (
        0.3,
        0,
        0.1,
        3,
        False,
    )
    after, best = after_validation(after, "loss", 0.05)
    assert (after.best_value, after.best_step, best) == (0.05, 7, True)
    assert after_validation(after, "loss", 0.2)[0].stale_validations == 1


def test_validation_figures_are_those_of_the_definitions():
    logits = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 3.0]])
    figures = validation_figures(logits, np.array([0, 0, 1, 1]))
    expected = np.mean([np.log1p(np.exp(x)) for x in (-2.0, 1.0, 1.0, -3.0)])
    assert figures["loss"] == pytest.approx(expected)
    assert figures["accuracy"] == 0.5
    assert figures["roc_auc"] == 0.75
    assert math.isnan(validation_figures(logits, np.zeros(4, int))["roc_auc"])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_not_finite_are_no_good_and_nothing_is_printed_of_them(value):
    figures = validation_figures(np.full((4, 2), value, np.float32), np.array([0, 0, 1, 1]))
    assert math.isnan(figures["loss"])
    assert not is_better("loss", figures["loss"], None)


def test_training_in_bfloat16_stays_beside_float32_and_says_so(trainer, config):
    losses = {}
    for precision in ("float32", "bf16"):
        watcher = Watcher()
        run = trainer(precision, watcher, training=dataclasses.replace(config.training, precision=precision))
        run.train()
        assert watcher.plan.activations.precision == precision
        losses[precision] = [line["loss"] for line in lines_of(run, "train")]
    assert losses["bf16"] != losses["float32"]
    np.testing.assert_allclose(losses["bf16"], losses["float32"], atol=0.1)
