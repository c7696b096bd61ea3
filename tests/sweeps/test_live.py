"""The bars of trainings side by side, as a terminal shows them."""

import io
import time

from rich.console import Console

from cxr_jax.config.schema import Config
from cxr_jax.runs.folder import RunFolder
from cxr_jax.runs.metrics_log import MetricsLog
from cxr_jax.sweeps.live import bars
from cxr_jax.sweeps.runs import SweepRun
from cxr_jax.terminal import Terminal


def test_each_run_has_a_bar_that_follows_its_metrics(tmp_path):
    """A run that begins while the bars are shown gets one too, and a bar moves without anybody's call."""
    runs = [SweepRun("base", seed, Config(), RunFolder(tmp_path / f"seed{seed}")) for seed in (0, 1)]
    file = io.StringIO()
    under_way = runs[:1]

    def wait_for(text):
        end = time.monotonic() + 60
        while text not in file.getvalue():
            assert time.monotonic() < end, f"{text!r} never stood in {file.getvalue()!r}"
            time.sleep(0.01)

    with bars(Terminal(console=Console(file=file, width=160, force_terminal=True)), lambda: under_way):
        wait_for("base seed0")
        wait_for("has no step yet")
        with MetricsLog(runs[0].run.metrics) as log:
            log.write("train", step=3, epoch=0.25, loss=0.5)
        wait_for("epoch 0.25 of ")
        wait_for("loss 0.500")
        under_way = runs
        wait_for("base seed1")
