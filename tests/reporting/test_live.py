"""What stands in the terminal before the first step."""

import io

from rich.console import Console

from cxr_jax.config.schema import Config
from cxr_jax.reporting.live import TerminalObserver
from cxr_jax.training.plan import Plan
from cxr_jax.training.progress import Progress


def told(precision="float32", native_kernels=False, notes=()):
    console = Console(file=io.StringIO(), width=60)
    observer = TerminalObserver(console)
    plan = Plan(
        config=Config(),
        devices=[],
        phases=(),
        batches_per_epoch=1,
        class_weights=(1.0, 1.0),
        precision=precision,
        native_kernels=native_kernels,
        notes=notes,
    )
    observer.on_start(plan, Progress())
    observer.close()
    return console.file.getvalue()


def test_how_activations_are_computed_is_told_unless_it_is_float32():
    assert "Activations in bf16, all else in float32" in told(precision="bf16")
    assert "Activations in bf16 by native kernels, all else" in told(precision="bf16", native_kernels=True)
    assert "Activations" not in told()


def test_notes_are_told_as_they_are():
    note = "Activations in float32 without native kernels, at about half the speed: a path [with] brackets"
    assert note in told(notes=(note,))
