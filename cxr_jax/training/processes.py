"""Several processes that train one network together: who they are, what they agree on, and how all of them end."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from cxr_jax import __version__
from cxr_jax.checkpoints import Checkpoint
from cxr_jax.config.schema import ParallelConfig
from cxr_jax.devices import local_count, replicated, share_out
from cxr_jax.errors import EXIT_INTERRUPTED, EXIT_LOST, EXIT_TERMINATED, UserError
from cxr_jax.images.batches import WHOLE, Share
from cxr_jax.process import delay_aborts, leave_terminal_to_python, leave_without_cleanup
from cxr_jax.training.connections import Connections, Place


class ProcessGroup:
    """The processes of one training, as each of them sees it; without connections, one process alone."""

    def __init__(self, connections: Connections | None = None) -> None:
        self._connections = connections
        self.rank, self.world_size = (0, 1) if connections is None else connections.place[2:]

    @property
    def writes(self) -> bool:
        """True for the one process that writes the run folder and the terminal."""
        return self.rank == 0

    @property
    def share(self) -> Share:
        """The part of every batch that this process reads."""
        return WHOLE if self.world_size == 1 else Share(self.rank, self.world_size)

    def require_same(self, what: str, values: Mapping[str, Any]) -> None:
        """Raises UserError, in every process, if they do not all give the same JSON `values` of `what`."""
        first, *others = self.exchange(dict(values))
        for number, other in enumerate(others, start=1):
            for name in first.keys() | other.keys():
                if first.get(name) != other.get(name):
                    raise UserError(
                        f"the processes differ in {what}: {name} is {first.get(name)!r} for process 0 and "
                        f"{other.get(name)!r} for process {number}; start all of them with the same",
                        EXIT_LOST,
                    )

    def agree_to_stop(self, reason: str | None) -> str | None:
        """Returns why all processes stop at this call, or None; `reason` is why this one would like to.

        All of them stop at the same call, soon after one of them has asked to stop. A process alone stops at once.
        """
        return reason if self._connections is None else self._connections.agree_to_stop(reason)

    def agree(self, here: bool) -> bool:
        """Returns True if `here` is true in all processes, which wait for each other to tell."""
        return all(self.exchange(here))

    def together(self) -> None:
        """Waits until all processes are here."""
        self.exchange(None)

    def connect(self, devices: Sequence[jax.Device]) -> None:
        """Has the devices of all processes connect to each other.

        The first operation of all processes makes the connections, and fails if one process is half a minute late. Here
        the processes arrive at the same time. After a compilation they might not.
        """
        if self._connections is not None:
            self.together()
            everywhere = jax.jit(jnp.sum, out_shardings=replicated(devices))
            jax.block_until_ready(everywhere(share_out(np.zeros(local_count(devices), np.int32), devices)))

    def handed_out(self, read: Callable[[], Checkpoint | None]) -> Checkpoint | None:
        """Returns what `read` gives process 0, in every process; the others need not see its files."""
        checkpoint = read() if self.writes else None
        if self._connections is None:
            return checkpoint
        arrays = {} if checkpoint is None else {name: np.asarray(value) for name, value in checkpoint.arrays.items()}
        shapes = [(name, str(value.dtype), value.shape) for name, value in arrays.items()]
        told = checkpoint and {"step": checkpoint.step, "details": checkpoint.details, "sha256": checkpoint.sha256}
        told, shapes = self.exchange([told, shapes])[0]
        if told is None:
            return None
        arrays = arrays or {name: np.zeros(shape, dtype) for name, dtype, shape in shapes}
        parts = [np.frombuffer(value.tobytes(), np.uint8) for value in arrays.values()]
        packed = np.asarray(multihost_utils.broadcast_one_to_all(np.concatenate(parts)))
        parts = np.split(packed, np.cumsum([len(part) for part in parts])[:-1])
        sent = {name: part.view(dtype).reshape(shape) for (name, dtype, shape), part in zip(shapes, parts, strict=True)}
        return Checkpoint(arrays=sent, **told)

    def exchange(self, value: Any) -> list[Any]:
        """Returns the JSON `value` that each process gives here, by its number; waits for all of them."""
        return [value] if self._connections is None else self._connections.exchange(value)


ALONE = ProcessGroup()


class NoWriter:
    """Stands for a log or a folder of checkpoints in a process that leaves writing them to another."""

    def write(self, kind: str, **values: Any) -> None:
        """Writes nothing."""

    def save(self, step: int, arrays: Mapping[str, Any], details: Mapping[str, Any]) -> None:
        """Saves nothing."""

    def wait(self) -> None:
        """Waits for nothing."""


@contextlib.contextmanager
def joined(parallel: ParallelConfig, environment: Mapping[str, str] = os.environ) -> Iterator[ProcessGroup]:
    """Yields the group of processes that `parallel` describes or `environment` shows, joined before jax is used.

    Inside the block a fault of any process ends this one within `parallel`'s time-outs, with one sentence on standard
    error and EXIT_LOST. Raises UserError if the processes do not come together.
    """
    place = find_place(parallel, environment)
    if place is None:
        yield ALONE
        return
    leave_terminal_to_python(environment)
    delay_aborts()
    with connected(place, parallel) as group:
        group.require_same("versions", {"cxr_jax": __version__, "jax": importlib.metadata.version("jax")})
        _initialize_jax(place, parallel, group)
        yield group


@contextlib.contextmanager
def connected(place: Place, limits: ParallelConfig) -> Iterator[ProcessGroup]:
    """Yields the group of processes that meet at `place`, which watch each other while the block runs.

    They leave it together; one that leaves it alone, by an error, tells the others why.
    """
    connections = Connections(place, limits)
    with contextlib.ExitStack() as leaving:
        # waits for all of them, so that none is aborted for want of its coordinator
        leaving.callback(jax.distributed.shutdown)
        leaving.callback(connections.say, "done")
        try:
            yield ProcessGroup(connections)
        except BaseException as error:
            if not isinstance(error, UserError) or error.code not in (EXIT_INTERRUPTED, EXIT_TERMINATED):
                # jax would wait at exit for processes that never come
                leaving.pop_all()
                leave_without_cleanup()
                connections.fail(error)
            raise


def find_place(parallel: ParallelConfig, environment: Mapping[str, str]) -> Place | None:
    """Returns which of how many processes this is, and where process 0 is met; None for a process alone.

    What `parallel` leaves open is taken from a SLURM step or a TPU pod. Raises UserError if it cannot be told.
    """
    found = _slurm(environment) or _tpu(environment)
    world_size = parallel.world_size or (found.world_size if found else 1)
    if world_size == 1:
        return None
    rank = parallel.rank if parallel.rank >= 0 else (found.rank if found else -1)
    if not 0 <= rank < world_size:
        raise UserError(
            f"parallel.rank is {rank}, but must be from 0 to {world_size - 1}: each of the {world_size} processes "
            "needs a number of its own"
        )
    if not parallel.coordinator:
        if found is None:
            raise UserError(
                f"parallel.coordinator is empty, but {world_size} processes need a place to meet: HOST:PORT of "
                "process 0"
            )
        return Place(found.host, found.port, rank, world_size)
    match = re.fullmatch(r"\[?([^\[\]]+?)\]?:(\d{1,5})", parallel.coordinator)
    if match is None or not 0 < int(match[2]) < 65536:
        raise UserError(f"parallel.coordinator is {parallel.coordinator!r}, but must be HOST:PORT of process 0")
    return Place(match[1], int(match[2]), rank, world_size)


def _slurm(environment: Mapping[str, str]) -> Place | None:
    """Returns the place of this task in a step of several that `srun` started."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID")
    if not all(name in environment for name in names):
        return None
    job, nodes, tasks, task = (environment[name] for name in names)
    # the first of a list such as node[003-017,020],other5
    match = re.match(r"([^,\[]+)(?:\[(\w+))?", nodes)
    if match is None or int(tasks) == 1:
        return None
    return Place(match[1] + (match[2] or ""), 61440 + int(job) % 4096, int(task), int(tasks))


def _tpu(environment: Mapping[str, str]) -> Place | None:
    """Returns the place of this host in a TPU pod whose hosts the environment names."""
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    if len(hosts) == 1 or "TPU_WORKER_ID" not in environment:
        return None
    return Place(hosts[0].strip(), 8476, int(environment["TPU_WORKER_ID"]), len(hosts))


def _initialize_jax(place: Place, limits: ParallelConfig, group: ProcessGroup) -> None:
    """Starts jax among all processes, at a port that process 0 finds free."""
    host, _, rank, world_size = place
    with socket.create_server(("", 0)) as listener:
        port = group.exchange(listener.getsockname()[1])[0]
    # its service would keep SIGTERM from this program
    jax.config.update("jax_enable_preemption_service", False)
    # faults are found here first, and can be told: jax ends the process by an abort
    jax.distributed.initialize(
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        world_size,
        rank,
        initialization_timeout=limits.step_timeout,
        heartbeat_timeout_seconds=4 * limits.heartbeat_timeout + limits.step_timeout,
        shutdown_timeout_seconds=limits.step_timeout,
        coordinator_bind_address=f"{host}:{port}" if rank == 0 and host in ("127.0.0.1", "localhost") else None,
    )
