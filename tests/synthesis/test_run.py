import dataclasses
import os
import signal

import cv2
import jax.numpy as jnp
import numpy as np
import pytest

from cxr_jax.checkpoints import CheckpointWriter, saved_steps
from cxr_jax.config.schema import ParallelConfig
from cxr_jax.data.decode import decode
from cxr_jax.errors import EXIT_TERMINATED, UserError
from cxr_jax.runs.metrics_log import is_finished, read_metrics
from cxr_jax.synthesis import run as synthesis_run
from cxr_jax.synthesis.run import draw_samples, plan_synthesis
from cxr_jax.synthesis.step import build_networks


def told(folder):
    """The lines of the metrics without the times."""
    return [
        {name: value for name, value in line.items() if name not in ("seconds", "images_per_second")}
        for line in read_metrics(folder.metrics)
    ]


def test_a_finished_training_leaves_its_losses_and_a_picture_of_every_epoch(undisturbed, pictures_in):
    folder, (networks, state) = undisturbed
    *lines, end = told(folder)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [line["epoch"] for line in lines] == [0.5, 1.0, 1.5, 2.0]
    assert all(line["discriminator_loss"] > 0 and line["generator_loss"] > 0 for line in lines)
    assert end["reason"] == "finished"
    assert pictures_in(folder.path) == ["epoch_0001.png", "epoch_0002.png"]
    picture = cv2.imread(str(folder.path / "grids/epoch_0002.png"), cv2.IMREAD_GRAYSCALE)
    assert picture.shape == (16 + 8 * 64, 8 * 64)
    with pytest.raises(UserError, match="synthetic"):
        decode((folder.path / "grids/epoch_0002.png").read_bytes(), name="a grid")
    assert int(state.step) == 4
    assert networks.image_size == 16


def test_killed_and_resumed_equals_never_killed(undisturbed, trainer, watcher, arrays_of, tmp_path):
    folder, (_, expected) = undisturbed
    with pytest.raises(RuntimeError):
        # within the second epoch, when the first is saved
        trainer("killed", watcher(leave_after=3))
    resumed = watcher()
    _, state = trainer("killed", resumed, resume=True)
    assert resumed.started == [2]
    for one, other in zip(arrays_of(state), arrays_of(expected), strict=True):
        np.testing.assert_array_equal(one, other)
    again = dataclasses.replace(folder, path=tmp_path / "killed")
    assert told(again) == told(folder)
    names = [path.relative_to(folder.path) for path in sorted((folder.path / "grids").iterdir())]
    assert all((again.path / name).read_bytes() == (folder.path / name).read_bytes() for name in names)


def test_a_signal_saves_the_state_in_the_middle_of_an_epoch(undisturbed, trainer, arrays_of, watcher):
    class Terminated(watcher):
        def on_train(self, line):
            if line["step"] == 1:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(UserError, match=r"terminated after step 1; go on with cxr-jax synthesize .* --resume") as error:
        trainer("stopped", Terminated())
    assert error.value.code == EXIT_TERMINATED
    _, state = trainer("stopped", resume=True)
    for one, other in zip(arrays_of(state), arrays_of(undisturbed[1][1]), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_signal_during_the_last_step_ends_it_too(undisturbed, trainer, watcher, tmp_path):
    class Terminated(watcher):
        def on_train(self, line):
            if line["step"] == 4:
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(UserError, match="terminated after step 4; go on with") as error:
        trainer("late", Terminated())
    assert error.value.code == EXIT_TERMINATED
    trainer("late", resume=True)
    assert told(dataclasses.replace(undisturbed[0], path=tmp_path / "late"))[-1]["reason"] == "finished"


def test_a_training_whose_last_state_cannot_be_written_is_not_finished(trainer, monkeypatch, tmp_path, undisturbed):
    wait = CheckpointWriter.wait

    def fail_at_the_end(writer):
        wait(writer)
        if saved_steps(writer.folder)[-1:] == [4]:
            raise UserError("the disk is full")

    monkeypatch.setattr(CheckpointWriter, "wait", fail_at_the_end)
    with pytest.raises(UserError, match="the disk is full"):
        trainer("full")
    assert not is_finished(dataclasses.replace(undisturbed[0], path=tmp_path / "full").metrics)


@pytest.mark.parametrize("backend", [pytest.param("jit", marks=pytest.mark.slow), "pmap"])
def test_two_devices_give_the_numbers_of_one(undisturbed, trainer, arrays_of, backend):
    """Statistics of BatchNorm and gradients are those of the whole batch; sums are rounded in another order."""
    _, state = trainer("two", parallel=ParallelConfig(devices=2, backend=backend))
    _, (_, expected) = undisturbed
    for name in ("generator", "discriminator"):
        one, other = getattr(state, name), getattr(expected, name)
        for part in ("params", "batch_stats"):
            for key, value in getattr(one, part).items():
                # Adam divides by the root of squared gradients: where these are nearly 0, so is what rounding leaves
                np.testing.assert_allclose(value, getattr(other, part)[key], rtol=1e-3, atol=2e-4, err_msg=key)


@pytest.mark.slow
def test_images_on_the_device_give_the_same_bits_as_on_the_host(undisturbed, trainer, arrays_of, config):
    _, state = trainer("resident", data=dataclasses.replace(config.data, placement="device"))
    for one, other in zip(arrays_of(state), arrays_of(undisturbed[1][1]), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_bfloat16_trains(trainer, config, arrays_of):
    _, state = trainer("half", training=dataclasses.replace(config.training, precision="bf16"))
    assert all(np.isfinite(value).all() for value in arrays_of(state))


def test_a_sample_is_decided_by_its_number_and_the_seed_alone(undisturbed):
    _, (networks, state) = undisturbed
    all_of_them = draw_samples(networks, state, 0, np.arange(70))
    assert all_of_them.shape == (70, 16, 16)
    assert all_of_them.dtype == np.uint8
    np.testing.assert_array_equal(draw_samples(networks, state, 0, np.array([66, 3])), all_of_them[[66, 3]])
    assert not np.array_equal(draw_samples(networks, state, 1, np.arange(2)), all_of_them[:2])


def test_another_seed_is_another_training(undisturbed, config):
    _, first = build_networks(config)
    _, other = build_networks(dataclasses.replace(config, training=dataclasses.replace(config.training, seed=1)))
    kernels = [state.generator.params["first_kernel"] for state in (first, other)]
    assert not np.array_equal(*kernels)


def test_a_loss_that_is_not_finite_ends_training_with_a_sentence(trainer, monkeypatch):
    def broken(config):
        networks, state = build_networks(config)
        spoilt = {name: value * jnp.nan for name, value in state.generator.params.items()}
        return networks, state._replace(generator=state.generator._replace(params=spoilt))

    monkeypatch.setattr(synthesis_run, "build_networks", broken)
    with pytest.raises(UserError, match=r"discriminator_loss is nan at step 1; lower synthesis.adam_learning_rate"):
        trainer("lost")


def test_too_few_images_for_a_batch_are_told(config, images):
    training = dataclasses.replace(config.training, batch_size=64)
    with pytest.raises(UserError, match="batch_size is 64, but there are only 20 training images of NORMAL"):
        plan_synthesis(dataclasses.replace(config, training=training), images)


def test_a_training_that_goes_on_keeps_its_precision(native_kernels, config, images):
    auto = dataclasses.replace(config, training=dataclasses.replace(config.training, precision="auto"))
    begun, resumed = plan_synthesis(auto, images), plan_synthesis(auto, images, "float32")
    assert resumed.activations.precision == "float32" and not resumed.activations.native_kernels
    assert resumed.activations.why == "as this run was trained until now"
    assert begun.activations.native_kernels == (begun.activations.precision == "bf16")
    # asked for, it is as asked
    assert plan_synthesis(config, images, "bf16").activations.precision == "float32"
