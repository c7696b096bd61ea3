import dataclasses
import importlib
import importlib.util

import pytest

from cxr_jax.bench import rivals
from cxr_jax.bench.cases import Case
from cxr_jax.errors import UserError
from cxr_jax.models.size import measure
from cxr_jax.porting.requirements import import_timm, import_torch

needs_timm = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch", "timm")), reason="needs torch and timm"
)


def case(**options):
    settings = {"work": "train", "backend": "eager", "precision": "float32", "threads": 1} | options
    return Case("mobilenetv2_035", 32, 2, implementation="timm", **settings)


@pytest.fixture
def torch():
    import_timm("the test")
    torch = import_torch("the test")
    threads = torch.get_num_threads()
    yield torch
    torch.set_num_threads(threads)


@pytest.fixture
def seen(torch):
    """What networks were given and answered, the gradients of the loss by the answers, and the optimiser and its
    parameters before each of its steps.

    Seen by torch's own hooks: nothing of it is replaced.
    """
    log = {"inputs": [], "logits": [], "gradients": [], "steps": []}

    def note_answer(module, arguments, output):
        if type(module).__name__ == "EfficientNet":
            log["inputs"].append(arguments[0])
            log["logits"].append(output)
            if output.requires_grad:
                output.register_hook(log["gradients"].append)

    def note_step(optimizer, _arguments, _options):
        parameters = [value for group in optimizer.param_groups for value in group["params"]]
        log["steps"].append((optimizer, [value.detach().clone() for value in parameters]))

    hooks = [
        torch.nn.modules.module.register_module_forward_hook(note_answer),
        importlib.import_module("torch.optim.optimizer").register_optimizer_step_pre_hook(note_step),
    ]
    yield log
    for hook in hooks:
        hook.remove()


@needs_timm
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_training_step_in_pytorch(torch, seen, precision):
    workload = rivals.prepare(case(precision=precision))
    for _ in range(2):
        workload.step()
    first, second = seen["inputs"]
    assert first.shape == (2, 3, 32, 32)
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert not torch.equal(first, second)
    # grey noise normalised by ImageNet's statistics
    assert -2.2 < first.min() < -1.7
    assert 2.2 < first.max() < 2.7
    assert [logits.dtype for logits in seen["logits"]] == [getattr(torch, precision)] * 2
    assert [logits.shape for logits in seen["logits"]] == [(2, 2)] * 2
    assert len(seen["steps"]) == len(seen["gradients"]) == 2
    for logits, gradient in zip(seen["logits"], seen["gradients"], strict=True):
        # that of the mean cross-entropy: softmax minus the label as a row of one 1, over the images
        labels = torch.softmax(logits.detach().float(), 1) - len(logits) * gradient.float()
        nearest = torch.nn.functional.one_hot(labels.argmax(1), 2).float()
        torch.testing.assert_close(labels, nearest, rtol=0, atol=1e-5 if precision == "float32" else 0.02)
    assert workload.facts["versions"]["torch"] == torch.__version__
    assert workload.facts["compile_seconds"] is None
    assert workload.facts["platform"] == ("gpu" if torch.cuda.is_available() else "cpu")


@needs_timm
def test_every_parameter_moves_by_sgd(torch, seen):
    workload = rivals.prepare(case())
    workload.step()
    workload.step()
    (optimizer, before), (again, _) = seen["steps"]
    assert optimizer is again and isinstance(optimizer, torch.optim.SGD)
    (group,) = optimizer.param_groups
    assert {name: group[name] for name in ("lr", "momentum", "weight_decay", "nesterov")} == {
        "lr": 0.01,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "nesterov": False,
    }
    moved = [not torch.equal(old, new) for old, new in zip(before, group["params"], strict=True)]
    assert all("momentum_buffer" in optimizer.state[value] for value in group["params"])
    # in so small an image some channels are dead
    assert sum(moved) > 0.9 * len(moved) > 50


@needs_timm
def test_inference_in_pytorch(torch, seen):
    rivals.prepare(case(work="inference", precision="bfloat16")).step()
    (logits,) = seen["logits"]
    assert logits.is_inference()
    assert logits.dtype == torch.bfloat16
    assert seen["steps"] == seen["gradients"] == []


@needs_timm
def test_a_model_that_timm_does_not_have(torch):
    with pytest.raises(UserError, match="timm has no model called 'mobilenetv2_tiny'"):
        rivals.prepare(Case("mobilenetv2_tiny", 32, 2, "train", threads=1, implementation="timm", backend="eager"))


@needs_timm
def test_compilation_is_timed(torch, seen):
    # torch.compile is called, and told to leave the compiler out, which would take half a minute
    with torch.compiler.set_stance("force_eager"):
        workload = rivals.prepare(case(backend="compile", work="inference"))
    assert workload.facts["compile_seconds"] > 0
    assert len(seen["inputs"]) == 1


@needs_timm
@pytest.mark.parametrize("model", ["squeezenet1_1", "tf_mobilenetv1_100"])
def test_a_network_that_timm_has_under_no_such_name_is_what_ours_is_a_port_of(seen, model):
    pytest.importorskip("torchvision")
    rivals.prepare(dataclasses.replace(case(), model=model, image_size=64)).step()
    ((_, parameters),) = seen["steps"]
    assert sum(value.numel() for value in parameters) == measure(model, classes=2).parameters
