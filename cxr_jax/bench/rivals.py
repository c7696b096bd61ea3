"""The same work in PyTorch with timm's networks: the only room that imports torch to measure it."""

from __future__ import annotations

import importlib
import importlib.metadata
import itertools
import time
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import numpy as np

from cxr_jax.bench.cases import Case
from cxr_jax.bench.workload import DISTINCT_BATCHES, Workload, noise_images
from cxr_jax.config.schema import OptimizerConfig
from cxr_jax.errors import UserError
from cxr_jax.images.image_set import ImageSet
from cxr_jax.models.registry import find_architecture
from cxr_jax.porting.originals import original_network
from cxr_jax.porting.requirements import import_timm, import_torch
from cxr_jax.vocabulary import CLASS_NAMES


def prepare(case: Case) -> Workload:
    """Returns the step of `case` in PyTorch, on the GPU if there is one.

    The network is timm's of that name, or what ours is a port of. As in our step, uint8 grey images on the host are
    the input, and they are normalised on the device. A GPU is given the next batch while a step runs, from pinned
    memory and in a stream of its own, as timm's loader does it. Training is SGD with momentum and weight decay on the
    cross-entropy. bfloat16 means autocast. What torch.compile makes of inference has its weights frozen: BatchNorm is
    folded then. Raises UserError if torch or timm is missing or there is no such network.
    """
    torch, timm = import_torch("--against timm"), import_timm("--against timm")
    torch.manual_seed(0)
    torch.set_num_threads(case.threads)
    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model, statistics = _network(timm, case.model)
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in statistics)
    layout = torch.channels_last if case.layout == "channels_last" else torch.contiguous_format
    model = model.to(device, memory_format=layout).train(case.work == "train")
    network = _compiled(torch, model, case) if case.backend == "compile" else model
    noise = noise_images(DISTINCT_BATCHES * case.batch_size, case.image_size)
    placed = _placed_ahead(torch, device, noise)

    def inputs(images: Any) -> Any:
        grey = images[:, None].float().div_(255)
        return ((grey - mean) / std).contiguous(memory_format=layout)

    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=case.precision == "bfloat16")
    step = (
        _train_step(torch, model, network, autocast) if case.work == "train" else _inference(torch, network, autocast)
    )

    ready = next(placed)

    def run() -> None:
        nonlocal ready
        images, labels = ready
        step(inputs(images), labels)
        ready = next(placed)
        if device.type == "cuda":
            torch.cuda.synchronize()

    compile_seconds = None
    if case.backend == "compile":
        began = time.perf_counter()
        run()
        compile_seconds = time.perf_counter() - began
    facts = {
        "platform": "gpu" if device.type == "cuda" else "cpu",
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "devices": 1,
        "products": f"autocast {case.precision}"
        if case.precision != "float32"
        else torch.get_float32_matmul_precision(),
        "versions": {
            "torch": torch.__version__,
            "timm": timm.__version__,
            **({"zentorch": importlib.metadata.version("zentorch")} if case.implementation == "zentorch" else {}),
        },
        "compile_seconds": compile_seconds,
    }
    return Workload(run, facts, lambda: torch.cuda.max_memory_allocated() if device.type == "cuda" else None)


def _placed_ahead(torch: ModuleType, device: Any, noise: ImageSet) -> Iterator[tuple[Any, Any]]:
    """Yields images and labels of one batch after another on `device`; a GPU copies them beside what it computes."""
    parts = (np.split(column, DISTINCT_BATCHES) for column in (noise.images, noise.labels.astype(np.int64)))
    batches = [tuple(map(torch.from_numpy, batch)) for batch in zip(*parts, strict=True)]
    if device.type != "cuda":
        yield from itertools.cycle(batches)
    batches = [tuple(part.pin_memory() for part in batch) for batch in batches]
    stream = torch.cuda.Stream()
    for batch in itertools.cycle(batches):
        with torch.cuda.stream(stream):
            placed = tuple(part.to(device, non_blocking=True) for part in batch)
        yield placed


def _compiled(torch: ModuleType, model: Any, case: Case) -> Any:
    """Returns `model` as torch.compile makes it; for AMD's processors by zentorch, where `case` asks for that."""
    if case.implementation == "zentorch":
        importlib.import_module("zentorch")  # names the compiler to torch
        return torch.compile(model, backend="zentorch")
    importlib.import_module("torch._inductor.config").freezing = case.work == "inference"
    return torch.compile(model)


def _network(timm: ModuleType, name: str) -> tuple[Any, tuple[Sequence[float], Sequence[float]]]:
    """Returns the network with two classes, and the mean and deviation by which its images are normalised.

    Raises UserError if there is none of that name.
    """
    if timm.is_model(name):
        model = timm.create_model(name, num_classes=len(CLASS_NAMES))
        return model, (model.default_cfg["mean"], model.default_cfg["std"])
    model = original_network(name, len(CLASS_NAMES))
    if model is not None:
        known = find_architecture(name)
        return model, (known.mean, known.std)
    raise UserError(f"timm has no model called {name!r}; leave --against out for it.")


def _train_step(torch: ModuleType, model: Any, network: Any, autocast: Any) -> Any:
    config = OptimizerConfig()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=config.learning_rate, momentum=config.momentum, weight_decay=config.weight_decay
    )

    def step(images: Any, labels: Any) -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast:
            loss = torch.nn.functional.cross_entropy(network(images).float(), labels)
        loss.backward()
        optimizer.step()

    return step


def _inference(torch: ModuleType, network: Any, autocast: Any) -> Any:
    def step(images: Any, labels: Any) -> None:
        del labels
        with torch.inference_mode(), autocast:
            network(images)

    return step
