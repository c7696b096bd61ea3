import errno
import os
import threading

import numpy as np
import pytest

from cxr_jax.config.schema import DataConfig
from cxr_jax.data import cache
from cxr_jax.data.cache import decoded_images, encoded_images_at
from cxr_jax.data.decode import DECODING, decode_grey, to_square
from cxr_jax.data.preparation import prepare
from cxr_jax.data.split_loading import load_split
from cxr_jax.errors import UserError
from cxr_jax.images.clarity import clarified

pytestmark = pytest.mark.usefixtures("prepared_root")

CONFIG = DataConfig(image_size=16)


def test_official_splits(prepared, official_tree):
    config = DataConfig(image_size=16, validation="official")
    sizes = {split: len(load_split(prepared, config, split)) for split in ("train", "val", "test")}
    assert sizes == {"train": 24, "val": 4, "test": 8}
    test = load_split(prepared, config, "test")
    assert test.files[0] == "test/NORMAL/IM-0201-0001.jpeg"
    assert test.labels.tolist() == [0] * 4 + [1] * 4
    assert test.labels.dtype == test.ids.dtype == np.int32
    assert test.ids.tolist() == list(range(28, 36))
    assert test.groups[-1] == "virus-person447"
    assert test.subtypes[4:] == ("bacteria", "bacteria", "virus", "virus")
    for image, file in zip(test.images, test.files, strict=True):
        data = (official_tree / file).read_bytes()
        np.testing.assert_array_equal(image, to_square(decode_grey(data, name=file), 16))


def test_grouped_validation_is_cut_from_train(prepared):
    config = DataConfig(image_size=16, validation_fraction=0.2)
    train, val = load_split(prepared, config, "train"), load_split(prepared, config, "val")
    assert len(train) + len(val) == 24
    assert not set(train.groups) & set(val.groups)
    assert sorted([*train.ids, *val.ids]) == list(range(24))
    assert all(file.startswith("train/") for file in (*train.files, *val.files))
    assert {"normal", "bacteria", "virus"} <= set(val.subtypes)
    np.testing.assert_array_equal(val.images, decoded_images(prepared, config)[val.ids])
    np.testing.assert_array_equal(train.images, decoded_images(prepared, config)[train.ids])


def test_the_cut_follows_seed_and_fraction(prepared):
    def cut(**changes):
        return load_split(prepared, DataConfig(image_size=16, **changes), "val").ids.tolist()

    assert cut(split_seed=3) == cut(split_seed=3)
    assert len({tuple(cut(split_seed=seed)) for seed in range(6)}) > 1
    assert len(cut(validation_fraction=0.4)) > len(cut(validation_fraction=0.1))


def test_balancing_is_for_train_only(prepared):
    config = DataConfig(image_size=16, validation="official", balancing="barnett")
    train = load_split(prepared, config, "train")
    assert np.bincount(train.labels).tolist() == [24, 16]
    assert train.ids[-1] > len(prepared.examples)
    assert len(np.unique(train.ids)) == len(train)
    for split in ("val", "test"):
        assert all("#" not in file for file in load_split(prepared, config, split).files)


def test_balancing_happens_after_the_cut(prepared):
    config = DataConfig(image_size=16, balancing="barnett")
    train, val = load_split(prepared, config, "train"), load_split(prepared, config, "val")
    normals = 8 - val.labels.tolist().count(0)
    assert np.bincount(train.labels)[0] == 3 * normals
    assert not set(train.groups) & set(val.groups)


def test_every_image_is_decoded_once_per_size_and_resize(prepared, monkeypatch):
    calls = []
    real = cache.decode_square

    def counted(*arguments, name):
        calls.append(name)
        return real(*arguments, name=name)

    monkeypatch.setattr(cache, "decode_square", counted)
    for _ in range(2):
        for split in ("train", "val", "test"):
            load_split(prepared, CONFIG, split)
    assert len(calls) == 36
    load_split(prepared, DataConfig(image_size=16, resize="pad"), "test")
    load_split(prepared, DataConfig(image_size=16, interpolation="linear"), "test")
    load_split(prepared, DataConfig(image_size=24), "test")
    assert len(calls) == 4 * 36
    names = sorted(path.name for path in prepared.decoded.iterdir())
    start = prepared.fingerprint[:16]
    assert names == [
        f"{start}-{rest}-{DECODING}.npy"
        for rest in ("16-pad-area", "16-squash-area", "16-squash-linear", "24-squash-area")
    ]


def test_images_are_mapped_and_cannot_be_changed(prepared):
    images = decoded_images(prepared, CONFIG)
    assert isinstance(images, np.memmap)
    assert images.shape == (36, 16, 16)
    with pytest.raises(ValueError, match="read-only"):
        images[0] = 0
    assert isinstance(load_split(prepared, CONFIG, "test").images, np.memmap)


@pytest.mark.parametrize("damage", ["cut", "garbage", "other shape", "pickle"])
def test_a_damaged_cache_is_made_again(prepared, damage):
    expected = np.array(decoded_images(prepared, CONFIG))
    (path,) = prepared.decoded.iterdir()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "garbage":
        path.write_bytes(b"garbage")
    elif damage == "other shape":
        np.save(path, expected[:-1])
    else:
        np.save(path, np.array([{}], object))
    np.testing.assert_array_equal(decoded_images(prepared, CONFIG), expected)
    assert [entry.name for entry in prepared.decoded.iterdir()] == [path.name]


def test_two_at_once_do_no_harm(prepared):
    results = []
    barrier = threading.Barrier(2)

    def work():
        barrier.wait()
        results.append(np.array(decoded_images(prepared, CONFIG)))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(results[0], results[1])
    assert len(list(prepared.decoded.iterdir())) == 1


def test_a_full_disk_is_one_sentence_and_leaves_nothing(prepared, monkeypatch):
    def refuse(file):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UserError, match="the disk is full"):
        load_split(prepared, CONFIG, "test")
    assert list(prepared.decoded.iterdir()) == []


def test_an_interruption_leaves_nothing(prepared, monkeypatch):
    def interrupted(*arguments, name):
        raise KeyboardInterrupt

    monkeypatch.setattr(cache, "decode_square", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_split(prepared, CONFIG, "test")
    assert list(prepared.decoded.iterdir()) == []


def test_a_source_without_validation_images_says_so(tmp_path, jpeg):
    for start, place in enumerate(("train/NORMAL", "train/PNEUMONIA", "test/NORMAL", "test/PNEUMONIA")):
        folder = tmp_path / "two" / place
        folder.mkdir(parents=True)
        for number in range(5):
            (folder / f"{number}.jpeg").write_bytes(jpeg(100 * start + number))
    prepared = prepare(tmp_path / "two").prepared
    with pytest.raises(UserError, match=r'no val split of its own: set data\.validation to "grouped"'):
        load_split(prepared, DataConfig(image_size=16, validation="official"), "val")
    assert len(load_split(prepared, CONFIG, "val")) == 2


def test_a_source_without_test_images_says_so(tmp_path, jpeg):
    for name in ("NORMAL", "PNEUMONIA"):
        (tmp_path / "one" / "train" / name).mkdir(parents=True)
        (tmp_path / "one" / "train" / name / "0.jpeg").write_bytes(jpeg(len(name)))
    prepared = prepare(tmp_path / "one").prepared
    with pytest.raises(UserError, match="no test split of its own"):
        load_split(prepared, CONFIG, "test")
    with pytest.raises(UserError, match="too few groups in train"):
        load_split(prepared, CONFIG, "val")


def test_encoded_images_of_chosen_rows(prepared, official_tree):
    rows = [35, 0, 26, 0]
    expected = [(official_tree / prepared.examples[row].file).read_bytes() for row in rows]
    assert encoded_images_at(prepared, rows) == expected
    assert encoded_images_at(prepared, []) == []


def test_unknown_split(prepared):
    with pytest.raises(ValueError, match="validation"):
        load_split(prepared, CONFIG, "validation")


@pytest.mark.parametrize("damage", ["gone", "cut", "flipped", "other table"])
def test_damaged_records_are_one_sentence(prepared, damage):
    record = next(prepared.records.rglob("*test.array_record*"))
    if damage == "gone":
        record.unlink()
    elif damage == "cut":
        record.write_bytes(record.read_bytes()[:1000])
    elif damage == "flipped":
        data = bytearray(record.read_bytes())
        data[data.index(b"JFIF") + 300] ^= 1
        record.write_bytes(bytes(data))
    else:
        table = prepared.path / "examples.csv"
        lines = table.read_text().splitlines()
        lines[1], lines[2] = lines[2], lines[1]
        table.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match="prepare") as caught:
        load_split(prepared, CONFIG, "test")
    assert "\n" not in str(caught.value)


def test_the_real_data(real_prepared):
    prepared = real_prepared
    config = DataConfig(image_size=32)
    train, val, test = (load_split(prepared, config, split) for split in ("train", "val", "test"))
    assert (len(train) + len(val), len(test)) == (5216, 624)
    assert 480 < len(val) < 570
    assert not set(train.groups) & set(val.groups)
    hashes = {example.file: example.sha256 for example in prepared.examples}
    assert not {hashes[file] for file in train.files} & {hashes[file] for file in val.files}
    assert np.bincount(test.labels).tolist() == [234, 390]
    letter = DataConfig(image_size=32, validation="official", balancing="barnett")
    assert np.bincount(load_split(prepared, letter, "train").labels).tolist() == [3282, 3875]
    assert len(load_split(prepared, letter, "val")) == 16


def test_the_cache_is_on_the_disk_before_it_has_its_name(prepared, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda number: synced.append((os.fstat(number).st_size, named())))

    def named() -> list[str]:
        return [path.name for path in prepared.decoded.glob("[!.]*.npy")]

    images = decoded_images(prepared, CONFIG)
    assert (prepared.decoded / named()[0]).stat().st_size == synced[-1][0] > images.size
    assert synced[-1][1] == []


def test_clarified_images_have_a_cache_of_their_own(prepared):
    plain = decoded_images(prepared, DataConfig(image_size=32))
    clear = decoded_images(prepared, DataConfig(image_size=32, clarify="clahe"))
    assert len(list(prepared.decoded.glob("*.npy"))) == 2
    for one, other in zip(plain, clear, strict=True):
        np.testing.assert_array_equal(clarified(np.asarray(one), "clahe"), other)
    assert not np.array_equal(plain, clear)
