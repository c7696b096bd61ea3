from __future__ import annotations

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cxr_jax.checkpoints import CheckpointWriter, content_hash, read_newest, saved_steps
from cxr_jax.errors import UserError


def arrays_at(step: int) -> dict[str, jax.Array]:
    random = np.random.default_rng(step)
    return {
        "params.conv.kernel": jnp.asarray(random.normal(size=(3, 3, 4)), jnp.float32),
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


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        flip,
        lambda path: path.write_bytes(path.read_bytes()[:-7]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
    ],
    ids=["bit flipped", "truncated", "emptied", "deleted"],
)
def test_a_damaged_checkpoint_is_passed_over_with_a_word(folder, damage):
    largest = max((path for path in (folder / "3" / "arrays" / "d").iterdir()), key=lambda path: path.stat().st_size)
    damage(largest)
    told = []
    checkpoint = read_newest(folder, told.append)
    assert checkpoint.step == 2
    np.testing.assert_array_equal(checkpoint.arrays["params.conv.kernel"], arrays_at(2)["params.conv.kernel"])
    assert len(told) == 1
    assert "step 3" in told[0]


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

    monkeypatch.setattr(writer._checkpointer, "save_checkpointables_async", full)
    with pytest.raises(UserError, match="the disk is full"):
        writer.save(4, arrays_at(4), {})
    writer.close()
    assert read_newest(folder).step == 3


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
