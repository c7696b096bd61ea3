from __future__ import annotations

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from training_runs import Steps, batch_of, doubled, take_steps

from cxr_jax.config.schema import OptimizerConfig, ParallelConfig, PhaseConfig, ScheduleConfig, TrainingConfig
from cxr_jax.devices import choose_devices, replicate, require_divisible
from cxr_jax.errors import UserError
from cxr_jax.models.layers import BatchNorm
from cxr_jax.training.state import all_params, state_arrays


@pytest.fixture
def batch(train_images):
    return batch_of(train_images)


def on(devices, backend="jit"):
    return {"parallel": ParallelConfig(backend, devices)}


def run_steps(network, batch, devices, count):
    steps = Steps(network, **on(devices))
    step, state, losses = steps.compiled(), steps.replicated(), []
    for index in range(count):
        state, metrics = step(state, step.place(batch), steps.moment(index))
        losses.append(float(metrics.loss))
    return losses, {name: np.asarray(value) for name, value in state_arrays(state).items()}


MORE_DEVICES = ((2, "jit"), (1, "pmap"), (8, "pmap"))


@pytest.fixture(scope="module")
def one_device(network):
    """Losses and final arrays of 20 steps on one device, in float64."""
    with jax.enable_x64(True):
        return take_steps(doubled(network), 1, "jit")


@pytest.mark.parametrize(
    ("devices", "backend"),
    [(8, "jit"), (2, "pmap"), *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE_DEVICES)],
)
def test_every_backend_and_device_count_gives_the_same_numbers(network, one_device, devices, backend):
    with jax.enable_x64(True):
        losses, arrays = take_steps(doubled(network), devices, backend)
    assert len(losses) == 20
    np.testing.assert_allclose(losses, one_device[0], rtol=1e-9)
    for name, value in arrays.items():
        np.testing.assert_allclose(value, one_device[1][name], rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.usefixtures("compiled_anew")
def test_batchnorm_by_each_device_would_give_other_numbers(network, one_device, monkeypatch):
    # what the test above must notice: statistics of a device's own share
    own = BatchNorm.__call__
    monkeypatch.setattr(
        BatchNorm, "__call__", lambda self, x, mode, *rest: own(self, x, mode._replace(axis_name=None), *rest)
    )
    with jax.enable_x64(True):
        losses, _ = take_steps(doubled(network), 2, "pmap")
    assert np.abs(np.subtract(losses, one_device[0])).max() > 1e-3


@pytest.mark.parametrize(("devices", "backend"), [(8, "jit"), pytest.param(2, "pmap", marks=pytest.mark.slow)])
def test_in_float32_the_losses_stay_within_a_hundredth(network, devices, backend):
    # Sums in another order differ by 1e-7. A flipped kink of ReLU6 enlarges that, and so does BatchNorm, which divides
    # by the spread of 16 values where the image has shrunk to one pixel: single weights then differ in the third digit.
    expected_losses, expected = take_steps(network, 1, "jit", learning_rate=0.002)
    losses, arrays = take_steps(network, devices, backend, learning_rate=0.002)
    np.testing.assert_allclose(losses[:3], expected_losses[:3], atol=1e-5)
    np.testing.assert_allclose(losses, expected_losses, atol=1e-2)
    for name in network.params:
        name = f"params.{name}"
        np.testing.assert_allclose(arrays[name], expected[name], atol=1e-2, err_msg=name)


@pytest.fixture(scope="module")
def whole_batches(network):
    """Losses and final arrays of 20 steps on one device with frozen statistics, in float64."""
    with jax.enable_x64(True):
        return take_steps(doubled(network), 1, "jit", batch_norm="frozen")


@pytest.mark.parametrize(
    ("parts", "devices", "backend"), [(8, 2, "jit"), pytest.param(4, 2, "pmap", marks=pytest.mark.slow)]
)
def test_a_batch_in_parts_with_frozen_statistics_gives_the_numbers_of_the_whole(
    network, whole_batches, parts, devices, backend
):
    # with class weights, whose sum differs between the parts, and with dropout and augmentation of each example
    changes = {"batch_norm": "frozen", "accumulation_steps": parts}
    with jax.enable_x64(True):
        losses, arrays = take_steps(doubled(network), devices, backend, **changes)
    np.testing.assert_allclose(losses, whole_batches[0], rtol=1e-9)
    for name, value in arrays.items():
        np.testing.assert_allclose(value, whole_batches[1][name], rtol=1e-9, atol=1e-9, err_msg=name)


def test_a_batch_in_parts_moves_the_statistics_once_for_each_part_on_any_devices(network, one_device):
    with jax.enable_x64(True):
        one, shared = (
            take_steps(doubled(network), devices, backend, accumulation_steps=2)
            for devices, backend in ((1, "jit"), (2, "pmap"))
        )
    np.testing.assert_allclose(shared[0], one[0], rtol=1e-9)
    for name, value in one[1].items():
        np.testing.assert_allclose(shared[1][name], value, rtol=1e-9, atol=1e-9, err_msg=name)
    assert not np.allclose(one[1]["batch_stats.bn1.mean"], one_device[1]["batch_stats.bn1.mean"], rtol=1e-3)


def test_a_step_is_the_same_bits_twice(network, batch):
    first, second = (run_steps(network, batch, 2, 3) for _ in range(2))
    assert first[0] == second[0]
    for name, value in first[1].items():
        np.testing.assert_array_equal(value, second[1][name], err_msg=name)


def test_an_example_is_changed_by_its_id_and_not_by_its_place(network, train_images, batch):
    order = np.random.default_rng(0).permutation(16)
    first = run_steps(network, batch, 1, 1)
    second = run_steps(network, batch_of(train_images, order), 1, 1)
    np.testing.assert_allclose(first[0], second[0], rtol=1e-5)
    moved = batch._replace(ids=batch.ids + 100)
    assert run_steps(network, moved, 1, 1)[0] != pytest.approx(first[0], rel=1e-5)


def test_the_epoch_changes_the_augmentation(network, batch):
    steps = Steps(network)
    step, losses = steps.compiled(), []
    for epoch in (0, 1):
        _, metrics = step(steps.replicated(), step.place(batch), steps.moment(epoch))
        losses.append(float(metrics.loss))
    assert losses[0] != pytest.approx(losses[1], rel=1e-5)


def test_one_program_serves_all_seeds_rates_and_schedules(network):
    given = {"batch_size": 16, "evaluation_batch_size": 16, "precision": "float32"}
    programs = {
        Steps(
            network,
            training=TrainingConfig(**given, seed=seed, epochs=epochs),
            optimizer=OptimizerConfig(rate),
            schedule=ScheduleConfig(kind, warmup_iterations=warmup),
        )
        .compiled()
        .compiled.as_text()
        for seed, epochs, rate, kind, warmup in ((3, 1, 0.05, "constant", 0), (4, 9, 0.01, "cosine", 3))
    }
    assert len(programs) == 1


def test_a_step_is_as_long_as_the_rate_that_it_is_given(network, batch):
    steps = Steps(network, optimizer=OptimizerConfig(momentum=0.0, weight_decay=0.0))
    step, moved = steps.compiled(), []
    for rate in (0.25, 0.5):
        after, _ = step(steps.replicated(), step.place(batch), steps.moment()._replace(learning_rate=np.float32(rate)))
        moved.append(np.asarray(after.params["classifier.kernel"]) - network.params["classifier.kernel"])
    assert np.abs(moved[0]).max() > 1e-4
    np.testing.assert_allclose(2 * moved[0], moved[1], rtol=1e-3, atol=1e-6)


def test_frozen_parameters_and_statistics_keep_their_bits_and_have_no_momentum(network, batch):
    # on images that change at random, so that the backbone runs in every step
    head = PhaseConfig(trainable=("classifier",), batch_norm="frozen")
    steps = Steps(network, phases=(head,), **on(2))
    step, state = steps.compiled(), steps.replicated()
    trained = {name for name in network.params if name.startswith("classifier")}
    assert set(state.params) == trained
    before = {name: np.array(value) for name, value in (state.frozen | network.batch_stats).items()}
    for _ in range(3):
        state, _metrics = step(state, step.place(batch), steps.moment())
    for name, value in (state.frozen | state.batch_stats).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    for name, value in state.params.items():
        assert not np.array_equal(value, network.params[name]), name
    # one momentum for each trained array, and the step count
    shapes = [leaf.shape for leaf in jax.tree.leaves(state.optimizer_state) if leaf.ndim]
    assert sorted(shapes) == sorted(network.params[name].shape for name in trained)


def test_a_batch_of_another_shape_is_refused_and_not_compiled_again(network, train_images):
    steps = Steps(network, **on(2))
    step = steps.compiled()
    with pytest.raises(TypeError):
        step(steps.replicated(), step.place(batch_of(train_images, slice(8))), steps.moment())


def test_batches_that_cannot_be_shared_and_devices_that_are_not_there_are_refused():
    devices = choose_devices(0)
    assert len(devices) == 8
    with pytest.raises(UserError, match="batch_size is 12, which cannot be shared evenly among 8 devices; take 8"):
        require_divisible("training.batch_size", 12, devices)
    with pytest.raises(
        UserError, match=r"batch_size is 16, which .* in 4 parts \(training\.accumulation_steps\).* take 32"
    ):
        require_divisible("training.batch_size", 16, devices, 4)
    with pytest.raises(UserError, match=r"parallel\.devices is 9, but there are only 8"):
        choose_devices(9)


@pytest.mark.parametrize(
    ("counts", "asked", "chosen"),
    [
        ((2, 2), 0, [(0, 0), (0, 1), (1, 0), (1, 1)]),
        ((3, 2), 4, [(0, 0), (0, 1), (1, 0), (1, 1)]),
        ((3, 1), 0, "the processes have 3, 1 devices; set parallel.devices"),
        # all of them were asked for
        ((3, 2), 0, "the processes have 3, 2 devices; set parallel.devices"),
        ((5, 1), 4, "the processes have 5, 1 devices; set parallel.devices"),
        ((2, 2), 3, "parallel.devices is 3, which cannot be shared evenly among 2 processes"),
    ],
)
def test_each_process_gives_as_many_devices(monkeypatch, counts, asked, chosen):
    devices = [
        SimpleNamespace(process_index=process, id=number, platform="gpu")
        for process, count in enumerate(counts)
        for number in range(count)
    ]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(jax, "process_count", lambda: len(counts))
    if isinstance(chosen, str):
        with pytest.raises(UserError, match=chosen):
            choose_devices(asked)
    else:
        assert [(device.process_index, device.id) for device in choose_devices(asked)] == chosen


def test_the_state_given_to_a_step_is_consumed_but_not_its_source(network, batch):
    steps = Steps(network)
    source, step = steps.state(), steps.compiled()
    after, _metrics = step(replicate(source, steps.plan.devices), step.place(batch), steps.moment())
    assert np.isfinite(np.asarray(source.params["conv_stem.kernel"])).all()
    assert int(after.step) == 1
    assert set(all_params(after)) == set(network.params)


def test_bfloat16_activations_leave_the_state_in_float32_and_the_loss_near(network, batch):
    losses, states = {}, {}
    for precision in ("float32", "bf16"):
        training = TrainingConfig(batch_size=16, evaluation_batch_size=16, seed=3, precision=precision)
        steps = Steps(network, training=training)
        step = steps.compiled()
        states[precision], metrics = step(steps.replicated(), step.place(batch), steps.moment())
        losses[precision] = float(metrics.loss)
        assert metrics.loss.dtype == jnp.float32
    assert losses["bf16"] != losses["float32"]
    assert losses["bf16"] == pytest.approx(losses["float32"], abs=0.02)
    dtypes = jax.tree.map(lambda leaf: leaf.dtype, states["float32"])
    assert jax.tree.map(lambda leaf: leaf.dtype, states["bf16"]) == dtypes
