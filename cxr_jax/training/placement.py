"""Where training images wait for their batch: all of them on every device, or on the host."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import jax
import numpy as np
from jax import Array, lax

from cxr_jax.data.batches import WHOLE, Batch, Share, training_batches, training_rows
from cxr_jax.data.image_set import ImageSet
from cxr_jax.errors import UserError
from cxr_jax.training.processes import ProcessGroup
from cxr_jax.training.sharding import replicated, share_out
from cxr_jax.training.state import TrainState
from cxr_jax.training.steps import DeviceBatch, StepMetrics, StepRules, train_step

if TYPE_CHECKING:
    from cxr_jax.training.parallel import TrainStep

Asked = Literal["auto", "device", "host"]

FREE_SHARE = 0.25
"""Of a device's free memory, the most that images may take by themselves: the step needs the rest."""


class Placement:
    """Puts image sets on the devices of a run, or leaves them with the host."""

    def __init__(self, asked: Asked, devices: Sequence[jax.Device], group: ProcessGroup, *, kept: ImageSet) -> None:
        """`kept` is put there once only, for all phases."""
        self._asked, self._devices, self._group, self._kept = asked, devices, group, kept
        self._table: DeviceBatch | None = None

    def table(self, image_set: ImageSet) -> DeviceBatch | None:
        """All of `image_set` on the devices, or None if its batches come from the host.

        All processes of the group call it together, and get the same. Raises UserError if they are to be there, but a
        device has too little memory.
        """
        if image_set is self._kept and self._table is not None:
            return self._table
        if not self._group.agree(fits_on_devices(self._asked, image_set, self._devices)):
            return None
        try:
            table = jax.block_until_ready(put_on_devices(image_set, self._devices, self._group.share))
        except jax.errors.JaxRuntimeError as error:
            if not str(error).startswith("RESOURCE_EXHAUSTED"):
                raise
            raise UserError(
                f"a device has too little memory for all {len(image_set)} training images; "
                "set data.placement to host, or data.image_size to less"
            ) from None
        if image_set is self._kept:
            self._table = table
        return table


def fits_on_devices(asked: Asked, image_set: ImageSet, devices: Sequence[jax.Device]) -> bool:
    """Whether `image_set` is to lie on the devices, as far as this process can tell.

    By itself not on CPUs, whose memory the host's is: a batch is copied there while the step before runs, at no cost,
    and a copy of all images for each device would only take memory.
    """
    if asked != "auto":
        return asked == "device"
    needed = int(np.prod(image_set.images.shape, dtype=np.int64)) * image_set.images.dtype.itemsize
    own = [device for device in devices if device.process_index == jax.process_index()]
    return all(needed <= FREE_SHARE * _free_memory(device) for device in own)


def _free_memory(device: jax.Device) -> int:
    """Bytes that `device` can still give; 0 for a CPU, and where a device does not tell."""
    stats = None if device.platform == "cpu" else device.memory_stats()
    return stats["bytes_limit"] - stats["bytes_in_use"] if stats and "bytes_limit" in stats else 0


def put_on_devices(image_set: ImageSet, devices: Sequence[jax.Device], share: Share = WHOLE) -> DeviceBatch:
    """All of `image_set`, [N, ...], on every device.

    Of several processes each reads its `share` of the images, and the devices hand the rest on to each other; the last
    image is then repeated, until all shares are of one length.
    """
    everywhere = replicated(devices)
    if everywhere.is_fully_addressable:
        columns = DeviceBatch(np.asarray(image_set.images), image_set.labels, image_set.ids)
        return jax.device_put(columns, everywhere)
    count = len(image_set)
    rows = share.of(np.minimum(np.arange(-(-count // len(devices)) * len(devices)), count - 1))
    columns = DeviceBatch(np.asarray(image_set.images[rows]), image_set.labels[rows], image_set.ids[rows])
    return jax.jit(lambda tree: tree, out_shardings=everywhere)(share_out(columns, devices))


def row_picking_step(
    state: TrainState,
    rows: Array,
    epoch: Array,
    table: DeviceBatch,
    *,
    rules: StepRules,
    axis_name: str | None = None,
) -> tuple[TrainState, StepMetrics]:
    """`train_step` on the `rows` [B] int32 of `table` [N, ...]."""
    batch = jax.tree.map(lambda column: column.at[rows].get(mode="promise_in_bounds"), table)
    # what follows is then compiled as for a batch from the host, and gives the same bits
    return train_step(state, lax.optimization_barrier(batch), epoch, rules=rules, axis_name=axis_name)


def placed_batches(
    step: TrainStep, image_set: ImageSet, *, batch_size: int, seed: int, epochs: range, start: int, share: Share
) -> Iterator[tuple[int, Any]]:
    """Yield epoch and batch, on the devices, for every step of `epochs`, of the first from batch `start` on.

    A batch is read and put on the devices when it is asked for: asked for while the step before runs, it costs no time.
    """
    for epoch in epochs:
        order = {"batch_size": batch_size, "seed": seed, "epoch": epoch, "start": start, "share": share}
        for batch in epoch_batches(step, image_set, **order):
            yield epoch, step.place(batch)
        start = 0


def epoch_batches(step: TrainStep, image_set: ImageSet, **order: Any) -> Iterator[Batch] | Iterator[np.ndarray]:
    """The batches of an epoch on the host, as `step` takes them: images, or rows [B] of those on the devices.

    `order` are the options of `training_rows`.
    """
    return training_rows(len(image_set), **order) if step.picks_rows else training_batches(image_set, **order)
