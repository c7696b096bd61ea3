"""Several processes that train one network together: how they find each other, and how all of them end."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from cxr_jax import __version__
from cxr_jax.checkpoints import Checkpoint
from cxr_jax.config.schema import ParallelConfig
from cxr_jax.data.batches import WHOLE, Share
from cxr_jax.errors import EXIT_INTERRUPTED, EXIT_LOST, EXIT_TERMINATED, UserError
from cxr_jax.process import delay_aborts, leave_terminal_to_python, leave_without_cleanup
from cxr_jax.training.roll_call import Limits, Place, RollCall, join
from cxr_jax.training.sharding import local_count, replicated, share_out

_TPU_PORT = 8476
_SLURM_PORTS = range(61440, 65536)


class ProcessGroup:
    """The processes of one training, as each of them sees it; without a roll call, one process alone."""

    def __init__(self, roll_call: RollCall | None = None) -> None:
        self._roll_call = roll_call
        place = None if roll_call is None else roll_call.place
        self.process, self.processes = (0, 1) if place is None else (place.process, place.processes)

    @property
    def writes(self) -> bool:
        """True for the one process that writes the run folder and the terminal."""
        return self.process == 0

    @property
    def share(self) -> Share:
        """The part of every batch that this process reads."""
        return WHOLE if self.processes == 1 else Share(self.process, self.processes)

    def require_same(self, what: str, values: Mapping[str, Any]) -> None:
        """Raise UserError, in every process, if they do not all give the same JSON `values` of `what`."""
        if self._roll_call is None:
            return
        first, *others = self._roll_call.exchange(dict(values))
        for number, other in enumerate(others, start=1):
            for name in first.keys() | other.keys():
                if first.get(name) != other.get(name):
                    raise UserError(
                        f"the processes differ in {what}: {name} is {first.get(name)!r} for process 0 and "
                        f"{other.get(name)!r} for process {number}; start all of them with the same"
                    )

    def agree_to_stop(self, reason: str | None) -> str | None:
        """Why all processes stop at this call, or None; `reason` is why this one would like to. See `RollCall`."""
        return reason if self._roll_call is None else self._roll_call.agree_to_stop(reason)

    def stop_together(self, reason: str | None) -> str | None:
        """As `agree_to_stop`, but at once, because all processes wait for each other here."""
        if self._roll_call is None:
            return reason
        return next((wish for wish in self._roll_call.exchange(reason) if wish is not None), None)

    def agree(self, here: bool) -> bool:
        """True if `here` is true in all processes, which wait for each other to tell."""
        return here if self._roll_call is None else all(self._roll_call.exchange(here))

    def together(self) -> None:
        """Wait until all processes are here."""
        self.stop_together(None)

    def connect(self, devices: Sequence[jax.Device]) -> None:
        """Have the devices of all processes connect to each other.

        The first operation of all of them does so, and gives up if one of them is half a minute late; here they come
        together, as they may not after a compilation.
        """
        if self._roll_call is not None:
            self.together()
            everywhere = jax.jit(jnp.sum, out_shardings=replicated(devices))
            jax.block_until_ready(everywhere(share_out(np.zeros(local_count(devices), np.int32), devices)))

    def handed_out(self, read: Callable[[], Checkpoint | None]) -> Checkpoint | None:
        """What `read` gives process 0, in every process; the others need not see its files."""
        checkpoint = read() if self.writes else None
        if self._roll_call is None:
            return checkpoint
        arrays = {} if checkpoint is None else {name: np.asarray(value) for name, value in checkpoint.arrays.items()}
        described = checkpoint and {
            "step": checkpoint.step,
            "details": checkpoint.details,
            "arrays": [(name, str(value.dtype), value.shape) for name, value in arrays.items()],
        }
        described = self._roll_call.exchange(described)[0]
        if described is None:
            return None
        return Checkpoint(described["step"], _hand_out(arrays, described["arrays"]), described["details"])

    def __enter__(self) -> ProcessGroup:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave together with the others, or tell them why this process leaves alone."""
        if self._roll_call is None:
            return
        stopped = isinstance(error, UserError) and error.code in (EXIT_INTERRUPTED, EXIT_TERMINATED)
        if error is None or stopped:
            self._roll_call.finish()
            # waits for all of them, so that none is aborted for want of its coordinator
            jax.distributed.shutdown()
            self._roll_call.close()
            return
        # jax would wait at exit for processes that never come
        leave_without_cleanup()
        if not isinstance(error, UserError | KeyboardInterrupt):
            # an operation of all processes fails when one of them is gone, which the roll call then tells
            self._roll_call.await_cause()
        self._roll_call.fail("it was interrupted" if isinstance(error, KeyboardInterrupt) else _in_one_line(error))


ALONE = ProcessGroup()


class NoWriter:
    """Stands for a log or a folder of checkpoints in a process that leaves writing them to another."""

    def write(self, kind: str, **values: Any) -> None:
        """Write nothing."""

    def save(self, step: int, arrays: Mapping[str, Any], details: Mapping[str, Any]) -> None:
        """Save nothing."""

    def wait(self) -> None:
        """Wait for nothing."""


@contextlib.contextmanager
def joined(parallel: ParallelConfig, environment: Mapping[str, str] = os.environ) -> Iterator[ProcessGroup]:
    """The group of processes that `parallel` describes or `environment` shows, joined before jax is used.

    Inside the block a fault of any process ends this one within `parallel`'s time-outs, with one sentence on standard
    error and EXIT_LOST. Raises UserError if the processes do not come together.
    """
    place = find_place(parallel, environment)
    if place is None:
        yield ALONE
        return
    leave_terminal_to_python(environment)
    delay_aborts()
    limits = Limits(parallel.startup_timeout, parallel.heartbeat_timeout, parallel.step_timeout)
    roll_call = join(place, limits, leave_at_once)
    with ProcessGroup(roll_call) as group:
        group.require_same("versions", {"cxr_jax": __version__, "jax": importlib.metadata.version("jax")})
        _initialize_jax(roll_call, limits)
        yield group


def find_place(parallel: ParallelConfig, environment: Mapping[str, str]) -> Place | None:
    """Which of how many processes this is, and where process 0 is met; None for a process alone.

    What `parallel` leaves open is taken from a SLURM step or a TPU pod. Raises UserError if it cannot be told.
    """
    found = _slurm(environment) or _tpu(environment)
    processes = parallel.processes or (found.processes if found else 1)
    if processes == 1:
        return None
    number = parallel.process_id if parallel.process_id >= 0 else (found.process if found else -1)
    if not 0 <= number < processes:
        raise UserError(
            f"parallel.process_id is {number}, but must be from 0 to {processes - 1}: each of the {processes} "
            "processes needs a number of its own"
        )
    if not parallel.coordinator:
        if found is None:
            raise UserError(
                f"parallel.coordinator is empty, but {processes} processes need a place to meet: HOST:PORT of process 0"
            )
        return Place(found.host, found.port, number, processes)
    match = re.fullmatch(r"\[?([^\[\]]+?)\]?:(\d{1,5})", parallel.coordinator)
    if match is None or not 0 < int(match[2]) < 65536:
        raise UserError(f"parallel.coordinator is {parallel.coordinator!r}, but must be HOST:PORT of process 0")
    return Place(match[1], int(match[2]), number, processes)


def leave_at_once(sentence: str) -> None:
    """End this process with `sentence` on standard error, whatever its threads are doing."""
    # the bar of a terminal hides the cursor
    cursor = "\x1b[?25h\n" if sys.stderr.isatty() else ""
    advice = "start all processes again, with --resume once there is a checkpoint"
    # not through a buffer that another thread may hold
    os.write(sys.stderr.fileno(), f"{cursor}cxr-jax: {sentence}; {advice}\n".encode())
    os._exit(EXIT_LOST)


def _slurm(environment: Mapping[str, str]) -> Place | None:
    """The place of this task in a step of several that `srun` started."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID")
    if not all(name in environment for name in names):
        return None
    job, nodes, tasks, task = (environment[name] for name in names)
    # the first of a list such as node[003-017,020],other5
    match = re.match(r"([^,\[]+)(?:\[(\w+))?", nodes)
    if match is None or int(tasks) == 1:
        return None
    port = _SLURM_PORTS[int(job) % len(_SLURM_PORTS)]
    return Place(match[1] + (match[2] or ""), port, int(task), int(tasks))


def _tpu(environment: Mapping[str, str]) -> Place | None:
    """The place of this host in a TPU pod whose hosts the environment names."""
    hosts = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    if len(hosts) == 1 or "TPU_WORKER_ID" not in environment:
        return None
    return Place(hosts[0].strip(), _TPU_PORT, int(environment["TPU_WORKER_ID"]), len(hosts))


def _initialize_jax(roll_call: RollCall, limits: Limits) -> None:
    """Start jax among all processes, at a port that process 0 finds free."""
    place = roll_call.place
    port = roll_call.exchange(_free_port() if place.process == 0 else None)[0]
    loopback = f"{place.host}:{port}" if place.host in ("127.0.0.1", "localhost") else None
    # its service would keep SIGTERM from this program
    jax.config.update("jax_enable_preemption_service", False)
    # the roll call finds faults first, and can tell of them: jax ends the process by an abort
    jax.distributed.initialize(
        f"[{place.host}]:{port}" if ":" in place.host else f"{place.host}:{port}",
        place.processes,
        place.process,
        initialization_timeout=int(limits.step),
        heartbeat_timeout_seconds=int(4 * limits.heartbeat + limits.step),
        shutdown_timeout_seconds=int(limits.step),
        coordinator_bind_address=loopback if place.process == 0 else None,
    )


def _free_port() -> int:
    with socket.create_server(("", 0)) as listener:
        return listener.getsockname()[1]


def _hand_out(arrays: Mapping[str, np.ndarray], described: list) -> dict[str, np.ndarray]:
    """The arrays of process 0, which `described` gives as names, dtypes and shapes, in every process."""
    sizes = [int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize for _, dtype, shape in described]
    packed = np.zeros(sum(sizes), np.uint8)
    if arrays:
        packed = np.frombuffer(b"".join(arrays[name].tobytes() for name, _, _ in described), np.uint8)
    packed = np.asarray(multihost_utils.broadcast_one_to_all(packed))
    ends = np.cumsum(sizes)
    return {
        name: packed[end - size : end].view(dtype).reshape(shape)
        for (name, dtype, shape), size, end in zip(described, sizes, ends, strict=True)
    }


def _in_one_line(error: BaseException) -> str:
    text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:300]
