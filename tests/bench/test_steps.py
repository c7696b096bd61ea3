import jax
import numpy as np
import pytest

from cxr_jax.bench import steps
from cxr_jax.bench.cases import Case
from cxr_jax.errors import UserError
from cxr_jax.models.state import merge_model


class Awaited:
    """A result that notes that somebody waited for it."""

    def __init__(self, log):
        self.log = log

    def block_until_ready(self):
        self.log.append("awaited")
        return self


class Program:
    def cost_analysis(self):
        return {"flops": 10.0, "bytes accessed": 20.0}

    def as_text(self):
        return ""

    def memory_analysis(self):
        sizes = {"argument_size_in_bytes": 7, "output_size_in_bytes": 5, "temp_size_in_bytes": 11}
        return type("Sizes", (), {**sizes, "alias_size_in_bytes": 4})


@pytest.fixture
def compiled(monkeypatch):
    """Compile nothing; returns a log of what was compiled and of every step's input."""
    log = []

    def compile_train_step(*arguments):
        log.append(("train", *arguments))

        def run(state, batch, epoch):
            log.append(batch)
            return Awaited(log), Awaited(log)

        run.compiled = Program()
        return run

    def compile_evaluation_step(*arguments):
        log.append(("inference", *arguments))

        def run(params, batch_stats, images):
            assert all(isinstance(value, jax.Array) for value in params.values())
            log.append(images)
            return Awaited(log)

        run.compiled = Program()
        return run

    monkeypatch.setattr(steps, "compile_train_step", compile_train_step)
    monkeypatch.setattr(steps, "compile_evaluation_step", compile_evaluation_step)
    return log


def test_training_runs_the_step_of_training_on_ever_other_batches(compiled):
    case = Case("mobilenetv2_tiny", 32, 4, "train", threads=1, backend="pmap", devices=2)
    workload = steps.prepare(case)
    (kind, rules, state, image_size, batch_size, devices, backend) = compiled.pop()
    assert (kind, image_size, batch_size, len(devices), backend) == ("train", 32, 4, 2, "pmap")
    assert rules.batch_statistics
    assert state.frozen == {}
    workload.step()
    workload.step()
    first, *awaited, second, _, _ = compiled
    assert awaited == ["awaited"] * 2
    assert first.images.shape == (4, 32, 32)
    assert not np.array_equal(first.images, second.images)


def test_every_parameter_decays_as_in_pytorch(compiled):
    steps.prepare(Case("mobilenetv2_tiny", 32, 2, "train", threads=1, devices=1))
    (_, rules, state, *_) = compiled.pop()
    gradients = {name: np.zeros(value.shape, value.dtype) for name, value in state.params.items()}
    updates, _ = jax.jit(rules.optimizer.update)(gradients, state.optimizer_state, state.params)
    rate, decay = steps.OPTIMIZER.learning_rate, steps.OPTIMIZER.weight_decay
    for name, value in state.params.items():
        np.testing.assert_allclose(updates[name], -rate * decay * value, rtol=1e-6)


def test_inference_runs_the_evaluation_step(compiled):
    workload = steps.prepare(Case("mobilenetv2_tiny", 32, 2, "inference", threads=1, devices=1))
    (kind, _, _, _, image_size, batch_size, _, precision) = compiled.pop()
    assert (kind, image_size, batch_size, precision) == ("inference", 32, 2, "float32")
    workload.step()
    workload.step()
    first, awaited, second, _ = compiled
    assert awaited == "awaited"
    assert not np.array_equal(first, second)


def test_costs_are_those_of_all_devices(compiled):
    facts = steps.prepare(Case("mobilenetv2_tiny", 32, 4, "train", threads=1, devices=2)).facts
    assert (facts["flops"], facts["bytes_accessed"]) == (20.0, 40.0)
    # what the output takes over from the arguments is there once
    assert facts["planned_memory_bytes"] == 7 + 5 + 11 - 4
    assert facts["donated_bytes"] == 4
    assert facts["devices"] == 2
    assert facts["platform"] == "cpu"
    assert facts["versions"]["jax"] == jax.__version__


@pytest.mark.parametrize(("implementation", "lowering"), [("cxr_jax", "fast"), ("plain", "plain")])
def test_plain_means_stock_convolutions(compiled, implementation, lowering):
    steps.prepare(Case("mobilenetv2_tiny", 32, 2, "train", threads=1, devices=1, implementation=implementation))
    (_, rules, state, *_) = compiled.pop()
    model = merge_model(rules.graphdef, state.params, state.batch_stats)
    assert model.conv_head.lowering == lowering


def test_mistakes_are_sentences():
    with pytest.raises(UserError, match="did you mean mobilenetv2_tiny"):
        steps.prepare(Case("mobilenetv2_tini", 32, 2, "train", threads=1, devices=1))
    with pytest.raises(UserError, match="cannot be shared evenly among 2 devices"):
        steps.prepare(Case("mobilenetv2_tiny", 32, 3, "train", threads=1, devices=2))


def test_the_real_program_trains():
    case = Case("mobilenetv2_tiny", 32, 2, "train", threads=1, devices=1)
    workload = steps.prepare(case)
    workload.step()
    workload.step()
    # of the order of twice the multiply-adds of forward and both gradients: between 1 and 100 million an image
    assert 1e6 < workload.facts["flops"] / case.batch_size < 1e8
    assert workload.facts["bytes_accessed"] > 1e5
    assert workload.facts["compile_seconds"] > 0.01
    assert workload.device_peak_bytes() is None


@pytest.mark.parametrize("work", ["train", "inference"])
def test_bfloat16_is_what_the_step_computes_in(compiled, work):
    steps.prepare(Case("mobilenetv2_tiny", 32, 2, work, threads=1, devices=1, precision="bfloat16"))
    (_, rules, *rest) = compiled.pop()
    assert rules.precision == "bf16"
    assert work == "train" or rest[-1] == "bf16"


@pytest.mark.parametrize("backend", ["jit", "pmap"])
def test_both_backends_give_the_state_away(backend):
    """What is donated is the whole state: parameters, momentum and statistics are there once."""
    case = Case("mobilenetv2_tiny", 32, 4, "train", threads=1, backend=backend, devices=2)
    _, state = steps._begin(case, jax.devices()[:2])
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert size <= steps.prepare(case).facts["donated_bytes"] < 1.1 * size
