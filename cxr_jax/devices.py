"""Where arrays lie: the devices that a run uses, replicated states and shared-out batches, over all processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cxr_jax.errors import UserError

BATCH_AXIS = "batch"
"""The only axis of the mesh: examples are shared out along it, everything else is on every device."""

Tree = TypeVar("Tree")


def choose_devices(count: int) -> list[jax.Device]:
    """Returns the devices of a run, those of one process next to each other: `count` of them, or all for 0.

    Of several processes each gives the same number. Raises UserError if there are fewer, or they cannot.
    """
    devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if count > len(devices):
        raise UserError(
            f"parallel.devices is {count}, but there {'is' if len(devices) == 1 else 'are'} only {len(devices)} "
            f"({devices[0].platform}); ask for at most {len(devices)}"
        )
    processes = jax.process_count()
    if count % processes:
        raise UserError(
            f"parallel.devices is {count}, which cannot be shared evenly among {processes} processes; "
            f"take a multiple of {processes}"
        )
    parts = [[device for device in devices if device.process_index == process] for process in range(processes)]
    counts = [len(part) for part in parts]
    each = count // processes or max(counts)
    if min(counts) < each:
        raise UserError(
            f"the processes have {', '.join(map(str, counts))} devices; set parallel.devices so that each gives as many"
        )
    return [device for part in parts for device in part[:each]]


def require_divisible(
    name: str, batch_size: int, devices: Sequence[jax.Device], parts: int = 1, *, pairs: bool = False
) -> None:
    """Raises UserError unless a batch of `batch_size`, cut into `parts`, can be shared out evenly, in pairs if
    asked.
    """
    unit = len(devices) * parts * (2 if pairs else 1)
    if batch_size % unit:
        nearest = max(unit, batch_size // unit * unit)
        cut = "" if parts == 1 else f"in {parts} parts (training.accumulation_steps) "
        cut += "in pairs (augmentation.mixup) " if pairs else ""
        raise UserError(
            f"{name} is {batch_size}, which cannot be shared {cut}evenly among {len(devices)} devices; take {nearest}, "
            "or set parallel.devices"
        )


def replicated(devices: Sequence[jax.Device]) -> NamedSharding:
    """Returns a copy on every device."""
    return NamedSharding(_mesh(devices), PartitionSpec())


def sharded(devices: Sequence[jax.Device]) -> NamedSharding:
    """Returns the first axis cut into as many equal parts as there are devices."""
    return NamedSharding(_mesh(devices), PartitionSpec(BATCH_AXIS))


def replicate(tree: Tree, devices: Sequence[jax.Device]) -> Tree:
    """Returns `tree` with a copy of its own on every device: a step may then consume it.

    Every process must give the same values.
    """
    sharding = replicated(devices)
    if not sharding.is_fully_addressable:
        return jax.tree.map(
            lambda leaf: jax.make_array_from_process_local_data(sharding, np.asarray(leaf), np.shape(leaf)), tree
        )
    # device_put may alias arrays of a device, which cannot be donated then; copies by numpy need no program
    return jax.device_put(jax.tree.map(np.array, tree), sharding)


def share_out(tree: Tree, devices: Sequence[jax.Device]) -> Tree:
    """Returns the arrays of `tree`, each this process's share of the rows, as arrays of all rows over all devices."""
    sharding = sharded(devices)
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, np.asarray(rows)), tree)


def local_count(devices: Sequence[jax.Device]) -> int:
    """Returns how many of `devices` belong to this process."""
    return sum(device.process_index == jax.process_index() for device in devices)


def shapes_of(tree: Any) -> Any:
    """Returns the shapes and dtypes of `tree`, to compile for."""
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype), tree)


def names_of(devices: Sequence[jax.Device]) -> list[str]:
    """Returns what each device is, such as `cpu cpu`."""
    return [f"{device.platform} {device.device_kind}" for device in devices]


def _mesh(devices: Sequence[jax.Device]) -> Mesh:
    # not jax.make_mesh, which may reorder devices on TPUs: a process's share of a batch must stay in one piece
    return Mesh(np.array(devices), (BATCH_AXIS,), axis_types=(jax.sharding.AxisType.Auto,))
