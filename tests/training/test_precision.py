"""The precision of a run and the kernels that compute it."""

import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from smallest_network import smallest_network
from training_runs import Steps, batch_of

from cxr_jax.config.schema import ModelConfig, ParallelConfig, PhaseConfig, TrainingConfig
from cxr_jax.errors import UserError
from cxr_jax.models.kernels.native.building import INSTRUCTIONS
from cxr_jax.models.state import merge_model
from cxr_jax.process import KERNELS_SWITCH
from cxr_jax.training import precision
from cxr_jax.training.precision import choose_precision, missing_kernels, takes_native_kernels
from cxr_jax.training.precision_table import Row, add_rows, faster_way, shipped_rows

CPU, GPU, TPU = (SimpleNamespace(platform=name) for name in ("cpu", "gpu", "tpu"))


@pytest.mark.parametrize("asked", ["auto", "float32", "bf16"])
@pytest.mark.parametrize("device", [CPU, GPU, TPU], ids=lambda device: device.platform)
def test_without_kernels_the_precision_follows_the_platform_unless_it_is_asked_for(asked, device):
    by_itself = "float32" if device is CPU else "bf16"
    expected = by_itself if asked == "auto" else asked
    assert choose_precision(asked, [device], "jit", "mobilenetv2_100").precision == expected
    assert not takes_native_kernels("bf16", [device], "jit")


def measured(network, times_as_fast, instructions="avx2"):
    return Row(instructions, network, times_as_fast, 224, 32, 1, "wall", "a processor", "", "2026-11-26")


@pytest.fixture
def on_avx2(native_kernels, monkeypatch):
    """Kernels that were measured to be the faster way for one network on AVX2, and the slower one for another."""
    rows = [measured("mobilenetv2_100", 1.4), measured("tf_efficientnetv2_s", 0.8)]
    monkeypatch.setattr(precision, "kernel_instructions", lambda: "avx2")
    monkeypatch.setattr(precision, "shipped_rows", lambda: rows)


@pytest.mark.usefixtures("on_avx2")
def test_one_cpu_device_takes_the_kernels_and_with_them_bfloat16_where_they_are_faster():
    def chosen(asked, devices, backend, network="mobilenetv2_100"):
        return choose_precision(asked, devices, backend, network).precision

    assert chosen("auto", [CPU], "jit") == "bf16"
    assert chosen("auto", [CPU], "jit", "tf_efficientnetv2_s") == "float32"
    assert chosen("bf16", [CPU], "jit", "tf_efficientnetv2_s") == "bf16"
    assert chosen("float32", [CPU], "jit") == "float32"
    assert chosen("auto", [CPU, CPU], "jit") == "float32"
    assert chosen("auto", [CPU, CPU], "pmap") == "bf16"


@pytest.mark.usefixtures("native_kernels")
def test_the_kernels_are_for_one_cpu_device_in_bfloat16():
    assert takes_native_kernels("bf16", [CPU], "jit")
    assert not takes_native_kernels("float32", [CPU], "jit")
    assert not takes_native_kernels("bf16", [CPU, CPU], "jit")
    assert not takes_native_kernels("bf16", [GPU], "jit")
    assert missing_kernels("auto", [CPU], "jit") == missing_kernels("bf16", [CPU], "jit") == ""


def test_the_faster_way_is_that_of_the_nearest_measurement():
    rows = [measured("mobilenetv2_100", 1.4), measured("tf_efficientnetv2_s", 0.8)]

    def told(instructions, network, rows=rows):
        verdict = faster_way(rows, instructions, network)
        return verdict.natively, verdict.why

    natively, why = told("avx2", "mobilenetv2_100")
    assert natively
    assert why == "on AVX2 bf16 by native kernels trains mobilenetv2_100 1.40 times as fast as float32 through XLA"
    assert told("avx2", "tf_efficientnetv2_s")[0] is False
    # another network of the same class, and fewer instructions of the same kind
    natively, why = told("avx2", "tf_efficientnetv2_b0")
    assert not natively and "tf_efficientnetv2_s, the nearest to tf_efficientnetv2_b0 that was measured, 0.80" in why
    natively, why = told("avx512_bf16", "mobilenetv2_100")
    assert natively and "AVX2, the nearest to AVX-512 BF16 that was measured," in why
    # a row of the processor itself is nearer than one of the network
    assert told("avx512", "mobilenetv2_100", [*rows, measured("tf_efficientnetv2_s", 0.9, "avx512")])[0] is False
    # of a network unlike all that were measured
    assert told("avx2", "resnet18") == (False, "on AVX2 resnet18 was not measured, and other networks differ")
    assert told("avx2", "resnet18", rows[:1])[0] is True
    assert told("avx2", "a_network_of_my_own", rows[:1])[0] is True
    # of processors that were not measured
    assert told("neon", "mobilenetv2_100") == (False, "the native kernels have not been timed with NEON")
    assert told("other", "mobilenetv2_100")[0] is False
    assert told("avx2", "mobilenetv2_100", []) == (False, "the native kernels have not been timed with AVX2")
    # more instructions say nothing of fewer
    assert told("avx2", "mobilenetv2_100", [measured("mobilenetv2_100", 2.0, "avx512_bf16")])[0] is False


def test_the_shipped_table_has_one_row_of_a_kind_and_decides_for_the_networks_of_the_studies():
    rows = shipped_rows()
    assert len({(row.instructions, row.network) for row in rows}) == len(rows)
    assert {row.instructions for row in rows} <= {*INSTRUCTIONS}
    chosen = {
        (instructions, network): faster_way(rows, instructions, network).natively
        for instructions in ("avx512_bf16", "avx2", "neon")
        for network in ("mobilenetv2_100", "tf_efficientnetv2_s")
    }
    assert all(natively for (instructions, _), natively in chosen.items() if instructions != "neon")
    assert not (chosen["neon", "mobilenetv2_100"] or chosen["neon", "tf_efficientnetv2_s"])


def test_rows_are_added_to_a_table_and_replace_those_of_the_same_contest(tmp_path):
    path = tmp_path / "table.json"
    add_rows(path, [measured("mobilenetv2_100", 1.4), measured("resnet18", 0.7)])
    add_rows(path, [measured("mobilenetv2_100", 1.5), measured("mobilenetv2_100", 2.0, "avx512_bf16")])
    rows = [Row(**row) for row in json.loads(path.read_text())["rows"]]
    assert [(row.instructions, row.network, row.times_as_fast) for row in rows] == [
        ("avx2", "mobilenetv2_100", 1.5),
        ("avx2", "resnet18", 0.7),
        ("avx512_bf16", "mobilenetv2_100", 2.0),
    ]
    path.write_text('{"something": 1}')
    with pytest.raises(UserError, match="is no table of precisions"):
        add_rows(path, rows)
    assert path.read_text() == '{"something": 1}'


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv(KERNELS_SWITCH, str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)


def test_kernels_that_are_switched_off_on_purpose_are_not_missing():
    assert missing_kernels("auto", [CPU], "jit") == missing_kernels("bf16", [CPU], "jit") == ""


@pytest.mark.usefixtures("no_compiler")
def test_a_missing_compiler_is_told_where_it_matters():
    slow = "without native kernels, at about half the speed: there is no C++ compiler (g++ or clang++)"
    assert missing_kernels("auto", [CPU], "jit") == f"Activations in float32 {slow}"
    assert missing_kernels("bf16", [CPU], "jit") == f"Activations in bf16 {slow}"
    assert missing_kernels("bf16", [GPU], "jit") == ""


def test_one_device_is_recommended_to_several_that_cannot_use_the_kernels(monkeypatch):
    monkeypatch.setenv(KERNELS_SWITCH, "")
    monkeypatch.setattr(precision, "native_kernels_work", lambda: pytest.fail("the kernels were asked for"))
    instead = "without native kernels. One device has all cores and can use them: --parallel.devices 1"
    shared = "CPU devices share each step through XLA in"
    assert missing_kernels("auto", [CPU, CPU], "jit") == f"2 {shared} float32, {instead}"
    assert missing_kernels("bf16", [CPU] * 3, "jit") == f"3 {shared} bf16, {instead}"
    # each device of pmap has a program of its own; float32 needs no kernels, and other platforms have none
    assert missing_kernels("auto", [CPU, CPU], "pmap") == ""
    assert missing_kernels("float32", [CPU, CPU], "jit") == missing_kernels("auto", [GPU, GPU], "jit") == ""
    monkeypatch.setenv(KERNELS_SWITCH, "off")
    assert missing_kernels("auto", [CPU, CPU], "jit") == ""


def test_where_xla_is_the_faster_way_nothing_is_compiled(monkeypatch, on_avx2):
    monkeypatch.setattr(precision, "native_kernels_work", lambda: pytest.fail("the kernels were asked for"))
    choice = choose_precision("auto", [CPU], "jit", "tf_efficientnetv2_s")
    assert choice.precision == "float32" and "0.80 times as fast" in choice.why


def test_for_float32_nothing_is_compiled(monkeypatch):
    monkeypatch.setenv(KERNELS_SWITCH, "")
    monkeypatch.setattr(precision, "native_kernels_work", lambda: pytest.fail("the kernels were asked for"))
    assert choose_precision("float32", [CPU], "jit", "mobilenetv2_100").precision == "float32"
    assert not takes_native_kernels("float32", [CPU], "jit")
    assert missing_kernels("float32", [CPU], "jit") == ""


@pytest.fixture(scope="module", params=["mobilenetv2_tiny", "efficientnetv2_tiny"])
def network(request):
    return smallest_network(ModelConfig(name=request.param))


def run(network, *, steps, native, devices=1, backend="jit", accumulation_steps=1, **sections):
    """Losses of some steps on the same images, and the parameters and statistics after them."""
    training = TrainingConfig(
        batch_size=16, evaluation_batch_size=16, seed=3, precision="bf16", accumulation_steps=accumulation_steps
    )
    parallel = ParallelConfig(backend, devices)
    planned = Steps(network, native_kernels=native, training=training, parallel=parallel, **sections)
    step, state, losses = planned.compiled(), planned.replicated(), []
    for number in range(steps):
        state, metrics = step(state, step.place(batch_of(planned.images)), planned.moment(number))
        losses.append(float(metrics.loss))
    return np.array(losses), {name: np.asarray(value) for name, value in {**state.params, **state.batch_stats}.items()}


@pytest.mark.usefixtures("native_kernels")
def test_the_kernels_train_as_xla_does_in_bfloat16(network):
    losses, _ = run(network, steps=4, native=True)
    expected, _ = run(network, steps=4, native=False)
    assert losses[-1] < 0.9 * losses[0]
    # rounding at different places; from step to step momentum makes more of it
    np.testing.assert_allclose(losses, expected, rtol=0.05)


@pytest.mark.usefixtures("native_kernels")
def test_with_pmap_every_device_has_its_own_call_and_statistics_are_shared(network):
    losses, arrays = run(network, steps=3, native=True, devices=2, backend="pmap")
    expected, expected_arrays = run(network, steps=3, native=True)
    np.testing.assert_allclose(losses, expected, rtol=0.01)
    for name in arrays:
        if name.endswith(".mean"):
            np.testing.assert_allclose(arrays[name], expected_arrays[name], atol=0.03)


@pytest.mark.usefixtures("native_kernels")
def test_frozen_stages_and_accumulation_go_through_the_kernels_too(network):
    later = tuple(layer for stage in [*network.stages][2:] for layer in network.stages[stage])
    assert_trains_as_xla_does(network, phases=(PhaseConfig(trainable=later),), accumulation_steps=2)


@pytest.mark.slow
@pytest.mark.usefixtures("native_kernels")
def test_frozen_statistics_go_through_the_kernels_too(network):
    assert_trains_as_xla_does(network, phases=(PhaseConfig(batch_norm="frozen"),))


def assert_trains_as_xla_does(network, **changes):
    losses, _ = run(network, steps=2, native=True, **changes)
    expected, _ = run(network, steps=2, native=False, **changes)
    np.testing.assert_allclose(losses, expected, rtol=0.03)


@pytest.mark.usefixtures("native_kernels")
def test_the_program_calls_the_kernels_and_only_where_it_should(network):
    images = jax.ShapeDtypeStruct((4, 32, 32, 3), jnp.bfloat16)

    def calls(native, train, dtype=jnp.bfloat16):
        def forward(params, batch_stats, x):
            return merge_model(network.graphdef, params, batch_stats)(x, train=train, native=native)

        shape = jax.ShapeDtypeStruct(images.shape, dtype)
        return jax.jit(forward).lower(network.params, network.batch_stats, shape).as_text().count("@cxr_jax_")

    assert calls(native=False, train=True) == 0
    assert calls(native=True, train=True, dtype=jnp.float32) == 0
    assert 0 < calls(native=True, train=False) < calls(native=True, train=True)
