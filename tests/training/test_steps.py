from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from process_worker import doubled, take_steps
from training_runs import rules_of

from cxr_jax.config.schema import OptimizerConfig
from cxr_jax.data.batches import Batch
from cxr_jax.errors import UserError
from cxr_jax.models.layers import BatchNorm
from cxr_jax.models.state import merge_model
from cxr_jax.training.optimizer import make_optimizer
from cxr_jax.training.parallel import compile_evaluation_step, compile_train_step
from cxr_jax.training.sharding import choose_devices, replicate, require_divisible
from cxr_jax.training.state import all_params, new_state, state_arrays
from cxr_jax.training.steps import DeviceBatch, train_step


@pytest.fixture
def rules(network):
    return rules_of(network)


@pytest.fixture
def batch(train_images):
    return Batch(train_images.images[:16], train_images.labels[:16], train_images.ids[:16])


def start(network, rules):
    return new_state(network.params, {}, network.batch_stats, rules.optimizer, 0)


def run_steps(network, rules, batch, devices, backend, steps):
    state = replicate(start(network, rules), devices)
    step = compile_train_step(rules, state, 32, 16, devices, backend)
    losses = []
    for index in range(steps):
        state, metrics = step(state, batch, index)
        losses.append(float(metrics.loss))
    return losses, {name: np.asarray(value) for name, value in state_arrays(state).items()}


@pytest.fixture(scope="module")
def one_device(network):
    """Losses and final arrays of 20 steps on one device, in float64."""
    with jax.enable_x64(True):
        return take_steps(doubled(network), choose_devices(1), "jit")


@pytest.mark.parametrize(("devices", "backend"), [(2, "jit"), (8, "jit"), (1, "pmap"), (2, "pmap"), (8, "pmap")])
def test_every_backend_and_device_count_gives_the_same_numbers(network, one_device, devices, backend):
    with jax.enable_x64(True):
        losses, arrays = take_steps(doubled(network), choose_devices(devices), backend)
    assert len(losses) == 20
    np.testing.assert_allclose(losses, one_device[0], rtol=1e-9)
    for name, value in arrays.items():
        np.testing.assert_allclose(value, one_device[1][name], rtol=1e-9, atol=1e-9, err_msg=name)


def test_batchnorm_by_each_device_would_give_other_numbers(network, one_device, monkeypatch):
    # what the test above must notice: statistics of a device's own share
    own = BatchNorm.__call__
    monkeypatch.setattr(
        BatchNorm, "__call__", lambda self, x, mode, *rest: own(self, x, mode._replace(axis_name=None), *rest)
    )
    with jax.enable_x64(True):
        losses, _ = take_steps(doubled(network), choose_devices(2), "pmap")
    assert np.abs(np.subtract(losses, one_device[0])).max() > 1e-3


@pytest.mark.parametrize(("devices", "backend"), [(8, "jit"), (2, "pmap")])
def test_in_float32_the_losses_stay_within_a_hundredth(network, devices, backend):
    # Sums in another order differ by 1e-7. A flipped kink of ReLU6 enlarges that, and so does BatchNorm, which divides
    # by the spread of 16 values where the image has shrunk to one pixel: single weights then differ in the third digit.
    expected_losses, expected = take_steps(network, choose_devices(1), "jit", learning_rate=0.002)
    losses, arrays = take_steps(network, choose_devices(devices), backend, learning_rate=0.002)
    np.testing.assert_allclose(losses[:3], expected_losses[:3], atol=1e-5)
    np.testing.assert_allclose(losses, expected_losses, atol=1e-2)
    for name in network.params:
        name = f"params.{name}"
        np.testing.assert_allclose(arrays[name], expected[name], atol=1e-2, err_msg=name)


@pytest.fixture(scope="module")
def whole_batches(network):
    """Losses and final arrays of 20 steps on one device with frozen statistics, in float64."""
    with jax.enable_x64(True):
        return take_steps(doubled(network), choose_devices(1), "jit", batch_statistics=False)


@pytest.mark.parametrize(("parts", "devices", "backend"), [(8, 2, "jit"), (4, 2, "pmap")])
def test_a_batch_in_parts_with_frozen_statistics_gives_the_numbers_of_the_whole(
    network, whole_batches, parts, devices, backend
):
    # with class weights, whose sum differs between the parts, and with dropout and augmentation of each example
    changes = {"batch_statistics": False, "accumulation_steps": parts}
    with jax.enable_x64(True):
        losses, arrays = take_steps(doubled(network), choose_devices(devices), backend, **changes)
    np.testing.assert_allclose(losses, whole_batches[0], rtol=1e-9)
    for name, value in arrays.items():
        np.testing.assert_allclose(value, whole_batches[1][name], rtol=1e-9, atol=1e-9, err_msg=name)


def test_a_batch_in_parts_moves_the_statistics_once_for_each_part_on_any_devices(network, one_device):
    with jax.enable_x64(True):
        one, shared = (
            take_steps(doubled(network), choose_devices(devices), backend, accumulation_steps=2)
            for devices, backend in ((1, "jit"), (2, "pmap"))
        )
    np.testing.assert_allclose(shared[0], one[0], rtol=1e-9)
    for name, value in one[1].items():
        np.testing.assert_allclose(shared[1][name], value, rtol=1e-9, atol=1e-9, err_msg=name)
    assert not np.allclose(one[1]["batch_stats.bn1.mean"], one_device[1]["batch_stats.bn1.mean"], rtol=1e-3)


def test_a_step_is_the_same_bits_twice(network, rules, batch):
    first, second = (run_steps(network, rules, batch, choose_devices(2), "jit", 3) for _ in range(2))
    assert first[0] == second[0]
    for name, value in first[1].items():
        np.testing.assert_array_equal(value, second[1][name], err_msg=name)


def test_an_example_is_changed_by_its_id_and_not_by_its_place(network, rules, batch):
    order = np.random.default_rng(0).permutation(16)
    shuffled = Batch(*(value[order] for value in batch))
    first = run_steps(network, rules, batch, choose_devices(1), "jit", 1)
    second = run_steps(network, rules, shuffled, choose_devices(1), "jit", 1)
    np.testing.assert_allclose(first[0], second[0], rtol=1e-5)
    moved = Batch(batch.images, batch.labels, batch.ids + 100)
    assert run_steps(network, rules, moved, choose_devices(1), "jit", 1)[0] != pytest.approx(first[0], rel=1e-5)


def test_the_epoch_changes_the_augmentation(network, rules, batch):
    state = start(network, rules)
    step = jax.jit(lambda epoch: train_step(state, DeviceBatch(*batch), epoch, rules=rules)[1].loss)
    assert float(step(jnp.int32(0))) != pytest.approx(float(step(jnp.int32(1))), rel=1e-5)


def test_frozen_parameters_and_statistics_keep_their_bits_and_have_no_momentum(network, rules, batch):
    trainable = {name: value for name, value in network.params.items() if name.startswith("classifier")}
    frozen = {name: value for name, value in network.params.items() if name not in trainable}
    optimizer = make_optimizer(OptimizerConfig(), lambda step: 0.05, trainable)
    rules = dataclasses.replace(rules, optimizer=optimizer, batch_statistics=False)
    before = {name: np.array(value) for name, value in (frozen | network.batch_stats).items()}
    state = replicate(new_state(trainable, frozen, network.batch_stats, optimizer, 0), choose_devices(2))
    step = compile_train_step(rules, state, 32, 16, choose_devices(2), "jit")
    for _ in range(3):
        state, _metrics = step(state, batch, 0)
    for name, value in (state.frozen | state.batch_stats).items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    for name, value in state.params.items():
        assert not np.array_equal(value, network.params[name]), name
    # one momentum for each trained array, and the step count
    shapes = [leaf.shape for leaf in jax.tree.leaves(state.optimizer_state) if leaf.ndim]
    assert sorted(shapes) == sorted(value.shape for value in trainable.values())


def test_a_batch_of_another_shape_is_refused_and_not_compiled_again(network, rules, batch):
    devices = choose_devices(2)
    state = replicate(start(network, rules), devices)
    step = compile_train_step(rules, state, 32, 16, devices, "jit")
    with pytest.raises(TypeError):
        step(state, Batch(*(value[:8] for value in batch)), 0)


def test_evaluation_uses_running_statistics_whatever_else_is_in_the_batch(network, rules, batch):
    devices = choose_devices(2)
    evaluate = compile_evaluation_step(rules, network.params, network.batch_stats, 32, 8, devices)
    logits = np.asarray(evaluate(network.params, network.batch_stats, batch.images[:8]))
    black = np.concatenate([batch.images[:4], np.zeros_like(batch.images[:4])])
    np.testing.assert_array_equal(np.asarray(evaluate(network.params, network.batch_stats, black))[:4], logits[:4])
    model = merge_model(network.graphdef, network.params, network.batch_stats)
    grey = (batch.images[:8].astype(np.float32) / 255)[..., None]
    inputs = (grey - np.asarray(network.mean, np.float32)) / np.asarray(network.std, np.float32)
    np.testing.assert_allclose(logits, model(jnp.asarray(inputs)), rtol=1e-4, atol=1e-5)


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


def test_the_state_given_to_a_step_is_consumed_but_not_its_source(network, rules, batch):
    source = start(network, rules)
    devices = choose_devices(1)
    state = replicate(source, devices)
    after, _metrics = compile_train_step(rules, state, 32, 16, devices, "jit")(state, batch, 0)
    assert np.isfinite(np.asarray(source.params["conv_stem.kernel"])).all()
    assert int(after.step) == 1
    assert set(all_params(after)) == set(network.params)


def test_bfloat16_activations_leave_the_state_in_float32_and_the_loss_near(network, rules, batch):
    losses, states = {}, {}
    for precision in ("float32", "bf16"):
        changed = dataclasses.replace(rules, precision=precision)
        step = jax.jit(
            lambda state, changed=changed: train_step(state, DeviceBatch(*batch), jnp.int32(0), rules=changed)
        )
        states[precision], metrics = step(start(network, changed))
        losses[precision] = float(metrics.loss)
        assert metrics.loss.dtype == jnp.float32
    assert losses["bf16"] != losses["float32"]
    assert losses["bf16"] == pytest.approx(losses["float32"], abs=0.02)
    dtypes = jax.tree.map(lambda leaf: leaf.dtype, states["float32"])
    assert jax.tree.map(lambda leaf: leaf.dtype, states["bf16"]) == dtypes


def test_a_network_is_judged_in_float32_however_it_is_trained(network, rules, batch):
    state = start(network, rules)
    images = batch.images
    logits = {
        precision: compile_evaluation_step(
            dataclasses.replace(rules, precision=precision), state.params, state.batch_stats, 32, 16, choose_devices(1)
        )(state.params, state.batch_stats, images)
        for precision in ("float32", "bf16")
    }
    np.testing.assert_array_equal(logits["float32"], logits["bf16"])
