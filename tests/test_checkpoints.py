from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as orbax
import pytest

from cxr_jax import checkpoints
from cxr_jax.checkpoints import CheckpointWriter, content_hash, read_newest, saved_steps
from cxr_jax.errors import UserError


def arrays_at(step: int) -> dict[str, jax.Array]:
    random = np.random.default_rng(step)
    return {
        "params.conv.kernel": jnp.asarray(random.normal(size=(3, 3, 4)), jnp.float32),
        # large enough to lie in a file of its own, of whose damage tensorstore knows nothing
        "params.dense.kernel": jnp.asarray(random.normal(size=(300, 300)), jnp.float32),
        "optimizer_state.count": jnp.asarray(step, jnp.int32),
        "step": jnp.asarray(step, jnp.int32),
    }


@pytest.fixture
def folder(tmp_path):
    """A folder with the checkpoints of steps 1 to 3, of which two are kept."""
    with CheckpointWriter(tmp_path / "last", keep=2) as writer:
        for step in (1, 2, 3):
            writer.save(step, arrays_at(step), {"step": step, "best": 0.1 * step, "none": None})
    return tmp_path / "last"


def test_what_was_saved_comes_back_to_the_bit(folder):
    assert saved_steps(folder) == [2, 3]
    checkpoint = read_newest(folder)
    assert checkpoint.step == 3
    assert checkpoint.details == {"step": 3, "best": 0.1 * 3, "none": None}
    assert checkpoint.arrays.keys() == arrays_at(3).keys()
    assert checkpoint.sha256 == content_hash({name: np.asarray(value) for name, value in arrays_at(3).items()})
    for name, value in arrays_at(3).items():
        np.testing.assert_array_equal(checkpoint.arrays[name], value)
        assert checkpoint.arrays[name].dtype == value.dtype


def test_a_step_saved_again_is_replaced(folder):
    with CheckpointWriter(folder, keep=2) as writer:
        writer.save(3, arrays_at(30), {"step": 30})
    assert saved_steps(folder) == [2, 3]
    assert read_newest(folder).details == {"step": 30}


def test_arrays_may_be_donated_while_they_are_saved(tmp_path):
    value = jnp.arange(8.0)
    with CheckpointWriter(tmp_path / "last") as writer:
        writer.save(1, {"value": value}, {})
        jax.jit(lambda x: x + 1, donate_argnums=0)(value).block_until_ready()
    np.testing.assert_array_equal(read_newest(tmp_path / "last").arrays["value"], np.arange(8.0))


@pytest.mark.parametrize(
    "name",
    [
        "proj [copy]",
        "back\\slash",
        "x[/y]",
        "gs:",
        "*?",
        "a%20b#c",
        "été 漢",
        os.fsdecode(b"latin-\xe9"),
        "new\nline",
        "-x",
    ],
)
def test_any_path_that_the_file_system_allows_keeps_checkpoints(tmp_path, name):
    folder = tmp_path / name / "last"
    for rewind_to in (None, 1):
        with CheckpointWriter(folder, keep=2, rewind_to=rewind_to) as writer:
            for step in (1, 2, 3):
                writer.save(step, arrays_at(step), {"step": step})
        assert saved_steps(folder) == [2, 3]
        checkpoint = read_newest(folder, pytest.fail)
        assert checkpoint.step == 3
        for array, value in arrays_at(3).items():
            np.testing.assert_array_equal(checkpoint.arrays[array], value)
    assert sorted(entry.name for entry in folder.iterdir()) == ["2", "3"]


def test_a_path_that_no_checkpoint_can_be_kept_in_is_refused_before_the_first_save(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "DESCRIPTORS", tmp_path / "absent")
    with pytest.raises(UserError, match=r"no checkpoints can be kept in .*/a\[b\]/last on this system: choose a place"):
        CheckpointWriter(tmp_path / "a[b]" / "last")
    CheckpointWriter(tmp_path / "plain" / "last").close()


def damaging(save, after):
    """orbax's `save`, followed by damage to what it wrote once it has been called `after` times."""
    calls = []

    def damaged(self, path, **options):
        calls.append(path)
        save(self, path, **options)
        if len(calls) > after:
            self.wait_until_finished()
            truncate(max((Path(path) / "arrays" / "d").iterdir(), key=lambda file: file.stat().st_size))

    return damaged


@pytest.mark.parametrize("whole", [0, 2])
def test_the_first_save_and_the_last_are_read_back(tmp_path, monkeypatch, whole):
    monkeypatch.setattr(orbax.AsyncCheckpointer, "save", damaging(orbax.AsyncCheckpointer.save, whole))
    writer = CheckpointWriter(tmp_path / "last", keep=2)
    for step in range(1, whole + 1):
        writer.save(step, arrays_at(step), {})
        writer.wait()
    writer.save(whole + 1, arrays_at(3), {})
    with pytest.raises(UserError, match=rf"step {whole + 1} was written to .*/last and does not come back as it was"):
        writer.close()


def flip(path):
    data = bytearray(path.read_bytes())
    if data:
        data[len(data) // 2] ^= 1
    path.write_bytes(data)


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


def empty(path):
    path.write_bytes(b"")


def files_of(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("damage", [flip, truncate, empty, Path.unlink])
def test_a_checkpoint_with_damaged_arrays_is_passed_over_with_a_word(folder, damage):
    damage(max((folder / "3" / "arrays" / "d").iterdir(), key=lambda path: path.stat().st_size))
    told = []
    checkpoint = read_newest(folder, told.append)
    assert checkpoint.step == 2
    np.testing.assert_array_equal(checkpoint.arrays["params.conv.kernel"], arrays_at(2)["params.conv.kernel"])
    assert len(told) == 1
    assert "step 3" in told[0]


@pytest.mark.parametrize("damage", [flip, truncate, empty, Path.unlink])
def test_whichever_file_is_damaged_nothing_is_restored_but_what_was_saved(folder, tmp_path, damage):
    harmless = []
    for name in files_of(folder / "3"):
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        damage(copy / "3" / name)
        checkpoint = read_newest(copy)
        assert checkpoint.details["step"] == checkpoint.step
        for array, value in arrays_at(checkpoint.step).items():
            np.testing.assert_array_equal(checkpoint.arrays[array], value, err_msg=str(name))
        harmless += [name] * (checkpoint.step == 3)
        shutil.rmtree(copy)
    # what orbax keeps for itself may be damaged without harm; arrays and what stands beside them may not
    assert len(harmless) < len(files_of(folder / "3"))
    assert not {"_CHECKPOINT_METADATA"} & {name.name for name in harmless}


@pytest.mark.parametrize(("stored", "other"), [('"best": 0.3', '"best": 0.2'), ('"step": 3', '"step": 2')])
def test_what_stands_beside_the_arrays_is_verified_too(folder, stored, other):
    path = folder / "3" / "_CHECKPOINT_METADATA"
    text = path.read_text()
    assert stored in text
    path.write_text(text.replace(stored, other))
    told = []
    assert read_newest(folder, told.append).step == 2
    assert len(told) == 1


def change_metadata(path, **changes):
    """Store `changes` as a version that knows them would, sealed; None takes an entry out."""
    stored = json.loads(path.read_text())
    metadata = stored["custom_metadata"] | changes
    metadata = {name: value for name, value in metadata.items() if value is not None and name != "seal"}
    if "format_version" in metadata:
        metadata["seal"] = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(stored | {"custom_metadata": metadata}))


def test_a_checkpoint_of_a_newer_format_is_one_sentence(folder):
    change_metadata(folder / "3" / "_CHECKPOINT_METADATA", format_version=2)
    with pytest.raises(UserError, match=r"step 3 .* newer cxr_jax \(format 2, this one reads up to 1\): update"):
        read_newest(folder)


def test_a_checkpoint_from_before_format_versions_is_read(folder):
    change_metadata(folder / "3" / "_CHECKPOINT_METADATA", format_version=None)
    assert read_newest(folder).step == 3


def test_what_a_later_version_stores_besides_is_passed_over(folder):
    change_metadata(folder / "3" / "_CHECKPOINT_METADATA", colour="grey")
    assert read_newest(folder).step == 3


@pytest.mark.parametrize(("saved_on", "restored_on"), [(1, 8), (8, 1)])
def test_another_number_of_devices_restores_the_same_bits(tmp_path, saved_on, restored_on):
    def sharding(count):
        mesh = jax.make_mesh((count,), ("batch",), devices=jax.devices()[:count])
        return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())

    with CheckpointWriter(tmp_path / "last") as writer:
        writer.save(1, jax.device_put(arrays_at(1), sharding(saved_on)), {})
    restored = jax.device_put(read_newest(tmp_path / "last").arrays, sharding(restored_on))
    for name, value in arrays_at(1).items():
        assert len(restored[name].devices()) == restored_on
        for shard in restored[name].addressable_shards:
            np.testing.assert_array_equal(shard.data, value, err_msg=name)


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


def test_a_pickle_in_a_checkpoint_is_never_executed(folder, tmp_path):
    mark = tmp_path / "executed"
    data = pickle.dumps(Bomb(mark))
    pickle.loads(data)
    assert mark.exists()
    mark.unlink()
    for name in files_of(folder / "3"):
        copy = tmp_path / "copy"
        shutil.copytree(folder, copy)
        (copy / "3" / name).write_bytes(data)
        for planted in ("arrays.pkl", "arrays/state.pickle", "arrays/0.npy"):
            (copy / "3" / planted).write_bytes(data)
        read_newest(copy)
        shutil.rmtree(copy)
    assert not mark.exists()


def test_checkpoints_of_an_abandoned_future_are_removed(folder):
    (folder / ".unfinished-9").mkdir()
    with CheckpointWriter(folder, keep=1, rewind_to=2) as writer:
        assert saved_steps(folder) == [2]
        assert not list(folder.glob(".unfinished-*"))
        # would not outlive step 3 otherwise
        writer.save(2, arrays_at(20), {"step": 20})
    assert read_newest(folder).details == {"step": 20}


def test_none_at_all_and_none_intact_are_told_apart(folder, tmp_path):
    with pytest.raises(UserError, match="there is no checkpoint in"):
        read_newest(tmp_path / "nowhere")
    for step in saved_steps(folder):
        shutil.rmtree(folder / str(step) / "arrays")
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged \(steps 2, 3\)"):
        read_newest(folder)


def test_what_a_killed_save_leaves_is_no_checkpoint(folder):
    (folder / "4.orbax-checkpoint-tmp-1").mkdir()
    assert saved_steps(folder) == [2, 3]
    CheckpointWriter(folder, keep=2).close()
    assert read_newest(folder).step == 3


def test_a_full_disk_is_one_sentence_and_loses_nothing(folder, monkeypatch):
    writer = CheckpointWriter(folder, keep=2)

    def full(*_arguments, **_options):
        raise ValueError("RESOURCE_EXHAUSTED: Error writing '4/arrays/d/0': No space left on device")

    monkeypatch.setattr(orbax.AsyncCheckpointer, "save", full)
    with pytest.raises(UserError, match=r"the disk is full: .* free at least 1 MB there and resume the run"):
        writer.save(4, arrays_at(4), {})
    writer.close()
    assert read_newest(folder).step == 3


def test_a_disk_that_really_fills_up_loses_nothing_and_has_room_again(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1200k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no small file system can be mounted here")
    try:
        noise = np.random.default_rng(0)
        writer, told = CheckpointWriter(disk / "last", keep=2), []
        with pytest.raises(UserError, match=r"the disk is full: .* free at least 1 MB there"):
            for step in range(1, 6):
                writer.save(step, {"noise": noise.random(120_000, np.float32)}, {})
                writer.wait()
                told.append(step)
        # a save that failed is raised again while the folder is closed
        with contextlib.suppress(UserError):
            writer.close()
        assert told
        assert read_newest(disk / "last").step == told[-1]
        subprocess.run(["mount", "-o", "remount,size=9m", disk], check=True)
        with CheckpointWriter(disk / "last", keep=2) as writer:
            writer.save(6, {"noise": noise.random(120_000, np.float32)}, {})
        assert saved_steps(disk / "last") == [told[-1], 6]
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_place_that_cannot_be_a_folder_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="choose another place"):
        CheckpointWriter(tmp_path / "file" / "last")


def test_the_hash_sees_names_types_shapes_and_values_and_no_order():
    one = {"a": np.zeros(4, np.float32), "b": np.ones((2, 2), np.int32)}
    assert content_hash(one) == content_hash(dict(reversed(one.items())))
    others = [
        {"a": one["a"], "c": one["b"]},
        {"a": one["a"].astype(np.float64), "b": one["b"]},
        {"a": one["a"].reshape(2, 2), "b": one["b"]},
        {"a": one["a"] + np.float32(1e-30), "b": one["b"]},
    ]
    assert len({content_hash(entry) for entry in [one, *others]}) == 5


def test_orbax_is_not_imported_before_a_checkpoint_is_saved_or_read(tmp_path):
    program = f"""
import pathlib, sys
from cxr_jax.training import run
from cxr_jax.checkpoints import CheckpointWriter
with CheckpointWriter(pathlib.Path({str(tmp_path / "checkpoints")!r})):
    sys.exit("orbax" in sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True)
