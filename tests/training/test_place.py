"""The place of a process among several: from the config, SLURM and TPU pods."""

from __future__ import annotations

import pytest

from cxr_jax.config.schema import ParallelConfig
from cxr_jax.errors import UserError
from cxr_jax.training.connections import Place
from cxr_jax.training.processes import find_place

SLURM = {
    "SLURM_JOB_ID": "70001",
    "SLURM_STEP_NODELIST": "gpu[003-005,007],other9",
    "SLURM_NTASKS": "4",
    "SLURM_PROCID": "2",
}
TPU = {"TPU_WORKER_HOSTNAMES": "10.0.0.4,10.0.0.5", "TPU_WORKER_ID": "1"}


@pytest.mark.parametrize(
    ("parallel", "environment", "place"),
    [
        (ParallelConfig(), {}, None),
        (ParallelConfig(), SLURM, Place("gpu003", 61440 + 70001 % 4096, 2, 4)),
        (ParallelConfig(), SLURM | {"SLURM_STEP_NODELIST": "node7,node8"}, Place("node7", 61440 + 70001 % 4096, 2, 4)),
        (ParallelConfig(), SLURM | {"SLURM_NTASKS": "1"}, None),
        (ParallelConfig(world_size=1), SLURM, None),
        (ParallelConfig(coordinator="head:9"), SLURM, Place("head", 9, 2, 4)),
        (ParallelConfig(), TPU, Place("10.0.0.4", 8476, 1, 2)),
        (ParallelConfig(), {"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, None),
        (ParallelConfig(coordinator="[::1]:80", world_size=3, rank=0), {}, Place("::1", 80, 0, 3)),
    ],
)
def test_a_process_finds_its_place(parallel, environment, place):
    assert find_place(parallel, environment) == place


@pytest.mark.parametrize(
    ("parallel", "sentence"),
    [
        (ParallelConfig(world_size=2, coordinator="a:1"), r"rank is -1, but must be from 0 to 1"),
        (ParallelConfig(world_size=2, rank=2), r"rank is 2, but must be from 0 to 1"),
        (ParallelConfig(world_size=2, rank=0), r"parallel\.coordinator is empty, but 2 processes"),
        (ParallelConfig("jit", 0, "host", 2, 0), r"parallel\.coordinator is 'host', but must be HOST:PORT"),
        (ParallelConfig("jit", 0, "host:99999", 2, 0), r"parallel\.coordinator is 'host:99999', but must be"),
    ],
)
def test_a_place_that_cannot_be_told_is_a_mistake(parallel, sentence):
    with pytest.raises(UserError, match=sentence):
        find_place(parallel, {})
