"""Where training images wait for their batch: on the host, or all of them on every device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cxr_jax.devices import replicated, share_out
from cxr_jax.errors import UserError
from cxr_jax.images.batches import WHOLE, Sampling, Share, id_stride, training_batches, training_rows
from cxr_jax.images.image_set import ImageSet
from cxr_jax.training.processes import ProcessGroup
from cxr_jax.training.step import DeviceBatch

FREE_SHARE = 0.25
"""Of a device's free memory, the most that images may take by themselves: the step needs the rest."""

Placement = Literal["auto", "device", "host"]

HostBatch = DeviceBatch | np.ndarray
"""A batch on the host as a feed hands it over: the arrays themselves, or the numbers of their rows."""


class Feed(Protocol):
    """The training images of a phase, batch by batch, wherever they lie."""

    resident: tuple[DeviceBatch, ...]
    """What lies on the devices from the first step to the last, and is given to every step."""

    def shapes(self, batch_size: int) -> Any:
        """Returns the shapes of what `batches` yields, for a whole batch over all processes."""

    def batches(
        self, *, batch_size: int, seed: int, epoch: int, start: int = 0, share: Share = WHOLE
    ) -> Iterator[HostBatch]:
        """Yields `share` of every batch of `epoch`, from the one numbered `start` on."""

    def examples(self, batch: Any, *resident: DeviceBatch) -> DeviceBatch:
        """Returns the examples of `batch`, which lies on the devices; called inside the compiled step."""


class HostFeed:
    """Images on the host, each batch read when it is asked for: while the step before runs, it costs no time."""

    def __init__(self, image_set: ImageSet, sampling: Sampling = "shuffled") -> None:
        self._image_set, self._sampling = image_set, sampling
        self.resident: tuple[DeviceBatch, ...] = ()

    def shapes(self, batch_size: int) -> DeviceBatch:
        """Returns the shapes of a batch of images, or of pooled features."""
        columns = DeviceBatch(self._image_set.images, self._image_set.labels, self._image_set.ids)
        return DeviceBatch(*(jax.ShapeDtypeStruct((batch_size, *each.shape[1:]), each.dtype) for each in columns))

    def batches(
        self, *, batch_size: int, seed: int, epoch: int, start: int = 0, share: Share = WHOLE
    ) -> Iterator[DeviceBatch]:
        """Yields the images of batches as `Feed` says."""
        order = {"batch_size": batch_size, "seed": seed, "epoch": epoch, "start": start, "share": share}
        for batch in training_batches(self._image_set, **order, sampling=self._sampling):
            yield DeviceBatch(*batch)

    def examples(self, batch: DeviceBatch, *resident: DeviceBatch) -> DeviceBatch:
        """Returns `batch` itself."""
        return batch


class DeviceFeed:
    """Images on every device, of which a batch is given by the numbers of its rows."""

    def __init__(self, image_set: ImageSet, table: DeviceBatch, sampling: Sampling = "shuffled") -> None:
        """Feeds from `table`, the examples of `image_set` as `put_on_devices` laid them out."""
        self._labels, self._id_stride, self._sampling = image_set.labels, id_stride(image_set.ids), sampling
        self._replay = image_set.replay
        self.resident = (table,)

    def shapes(self, batch_size: int) -> jax.ShapeDtypeStruct:
        """Returns the shape of the rows of a batch."""
        return jax.ShapeDtypeStruct((batch_size,), jnp.int32)

    def batches(
        self, *, batch_size: int, seed: int, epoch: int, start: int = 0, share: Share = WHOLE
    ) -> Iterator[np.ndarray]:
        """Yields the rows of batches as `Feed` says."""
        order = {"batch_size": batch_size, "seed": seed, "epoch": epoch, "start": start, "share": share}
        return training_rows(self._labels, **order, sampling=self._sampling, replay=self._replay)

    def examples(self, batch: jax.Array, *resident: DeviceBatch) -> DeviceBatch:
        """Returns the rows `batch` [B] int32 of the resident table [N, ...], with the ids of their visits."""
        (table,) = resident
        if self._sampling == "shuffled":
            picked = jax.tree.map(lambda column: column.at[batch].get(mode="promise_in_bounds"), table)
        else:
            visit, rows = jnp.divmod(batch, len(self._labels))
            picked = jax.tree.map(lambda column: column.at[rows].get(mode="promise_in_bounds"), table)
            picked = picked._replace(ids=picked.ids + visit * self._id_stride)
        # what follows is then compiled as for a batch from the host, and gives the same bits
        return lax.optimization_barrier(picked)


def make_feed(
    placement: Literal["auto", "device", "host"],
    image_set: ImageSet,
    devices: Sequence[jax.Device],
    group: ProcessGroup,
    sampling: Sampling = "shuffled",
) -> Feed:
    """Returns the feed of `image_set` that `placement` asks for; all processes of the group call it together.

    `sampling` says what an epoch visits.

    Raises UserError if the images are to lie on the devices, but a device has too little memory.
    """
    if not group.agree(fits_on_devices(placement, image_set, devices)):
        return HostFeed(image_set, sampling)
    try:
        table = jax.block_until_ready(put_on_devices(image_set, devices, group.share))
    except jax.errors.JaxRuntimeError as error:
        if not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        raise UserError(
            f"a device has too little memory for all {len(image_set)} training images; "
            "set data.placement to host, or data.image_size to less"
        ) from None
    return DeviceFeed(image_set, table, sampling)


def fits_on_devices(placement: Placement, image_set: ImageSet, devices: Sequence[jax.Device]) -> bool:
    """Returns whether `image_set` is to lie on the devices, as far as this process can tell.

    With `auto` it does where a device's own memory has room. A CPU device uses the memory of the host. A batch is
    copied while the previous step runs, which costs no time, and a copy of all images would only take memory.
    """
    if placement != "auto":
        return placement == "device"
    needed = int(np.prod(image_set.images.shape, dtype=np.int64)) * image_set.images.dtype.itemsize
    own = [device for device in devices if device.process_index == jax.process_index()]
    return all(needed <= FREE_SHARE * _free_memory(device) for device in own)


def put_on_devices(image_set: ImageSet, devices: Sequence[jax.Device], share: Share = WHOLE) -> DeviceBatch:
    """Returns all of `image_set`, [N, ...], on every device.

    If there are several processes, each reads its `share` of the images, and the devices exchange the rest. The last
    image is repeated until all shares have one length.
    """
    everywhere = replicated(devices)
    if everywhere.is_fully_addressable:
        columns = DeviceBatch(np.asarray(image_set.images), image_set.labels, image_set.ids)
        return jax.device_put(columns, everywhere)
    count = len(image_set)
    rows = share.of(np.minimum(np.arange(-(-count // len(devices)) * len(devices)), count - 1))
    columns = DeviceBatch(np.asarray(image_set.images[rows]), image_set.labels[rows], image_set.ids[rows])
    return jax.jit(lambda tree: tree, out_shardings=everywhere)(share_out(columns, devices))


def _free_memory(device: jax.Device) -> int:
    """Returns the bytes that `device` can still give; 0 for a CPU, and where a device does not tell."""
    stats = None if device.platform == "cpu" else device.memory_stats()
    return stats["bytes_limit"] - stats["bytes_in_use"] if stats and "bytes_limit" in stats else 0
