"""How data are put in their place: once, whole, and with every mistake told in one sentence."""

import contextlib
import errno
import os
import signal
import subprocess
import sys

import pytest

from cxr_jax.data import preparation
from cxr_jax.data.preparation import prepare
from cxr_jax.data.prepared import PreparedData
from cxr_jax.errors import UserError
from cxr_jax.runs import locks

from .folders import class_folders, names_in, snapshot

pytestmark = pytest.mark.usefixtures("prepared_root")


def test_a_second_call_does_nothing(official_tree, monkeypatch):
    first = prepare(official_tree)
    before = snapshot(first.prepared.path)
    monkeypatch.setattr(preparation, "inspect", lambda *arguments: pytest.fail("the images were read again"))
    second = prepare(official_tree.parent)
    assert not second.fresh
    assert second.prepared.path == first.prepared.path
    assert snapshot(first.prepared.path) == before


def test_other_data_under_the_same_name_is_refused_unless_asked(official_tree, prepared_root, jpeg):
    before = prepare(official_tree).prepared
    (official_tree / "train" / "NORMAL" / "IM-0300-0001.jpeg").write_bytes(jpeg(300))
    with pytest.raises(UserError, match=r"'chest_xray' was prepared from .* --name.* --replace"):
        prepare(official_tree)
    assert PreparedData.open("chest_xray").fingerprint == before.fingerprint
    other = prepare(official_tree, name="other").prepared
    assert other.fingerprint != before.fingerprint
    replaced = prepare(official_tree, replace_old=True).prepared
    assert replaced.fingerprint == other.fingerprint
    assert len(replaced.examples) == 37
    assert names_in(prepared_root) == ["chest_xray", "other"]


def test_something_else_in_the_way_is_never_touched(official_tree, prepared_root):
    (prepared_root / "chest_xray").mkdir(parents=True)
    (prepared_root / "chest_xray" / "thesis.txt").write_text("precious")
    for replace_old in (False, True):
        with pytest.raises(UserError, match="is in the way and is not prepared data"):
            prepare(official_tree, replace_old=replace_old)
    assert (prepared_root / "chest_xray" / "thesis.txt").read_text() == "precious"
    assert names_in(prepared_root) == ["chest_xray"]


def test_a_source_with_nothing_readable_is_refused(tmp_path, prepared_root):
    for name in ("NORMAL", "PNEUMONIA"):
        (tmp_path / "bad" / name).mkdir(parents=True)
        (tmp_path / "bad" / name / "a.jpeg").write_text("text")
    with pytest.raises(UserError, match=r"holds no readable image; the first one: NORMAL/a\.jpeg is no JPEG"):
        prepare(tmp_path / "bad")
    assert names_in(prepared_root) == []


def test_a_class_of_which_nothing_can_be_read_is_missing(tmp_path, jpeg, prepared_root):
    for name, data in (("NORMAL", jpeg(1)), ("PNEUMONIA", b"text")):
        (tmp_path / "bad" / name).mkdir(parents=True)
        (tmp_path / "bad" / name / "a.jpeg").write_bytes(data)
    with pytest.raises(UserError, match="no training images of class PNEUMONIA"):
        prepare(tmp_path / "bad")
    assert names_in(prepared_root) == []


def test_default_names(official_tree, tmp_path, jpeg):
    (official_tree / "PHANTOM.txt").write_text("drawn")
    prepared = prepare(official_tree).prepared
    assert prepared.path.name == "phantoms"
    assert prepared.card["phantom"] is True
    with pytest.raises(UserError, match="give one with --name"):
        prepare(class_folders(tmp_path / "???", 3, jpeg))
    with pytest.raises(UserError, match="cannot name prepared data"):
        prepare(official_tree, name="../evil")


def test_the_slower_of_two_preparations_does_not_overwrite_the_faster(official_tree, prepared_root, monkeypatch):
    real = preparation.build_card

    def build_card(*arguments, **options):
        (prepared_root / "chest_xray").mkdir()
        (prepared_root / "chest_xray" / "data_card.json").write_text("theirs")
        return real(*arguments, **options)

    monkeypatch.setattr(preparation, "build_card", build_card)
    with pytest.raises(UserError, match="could not be written"):
        prepare(official_tree)
    assert (prepared_root / "chest_xray" / "data_card.json").read_text() == "theirs"
    assert names_in(prepared_root) == ["chest_xray"]


def test_damaged_data_can_be_replaced(official_tree):
    prepared = prepare(official_tree).prepared
    (prepared.path / "data_card.json").write_text("{")
    with pytest.raises(UserError, match="--replace"):
        prepare(official_tree)
    assert len(prepare(official_tree, replace_old=True).prepared.examples) == 36


@pytest.mark.parametrize("moment", ["inspect", "Storing", "build_card"])
@pytest.mark.parametrize("replace_old", [False, True])
def test_an_interruption_leaves_nothing_half_written(
    official_tree, prepared_root, monkeypatch, moment, replace_old, jpeg
):
    before = None
    if replace_old:
        before = snapshot(prepare(official_tree).prepared.path)
        (official_tree / "train" / "NORMAL" / "IM-0300-0001.jpeg").write_bytes(jpeg(300))

    @contextlib.contextmanager
    def track(description, total):
        yield lambda steps: None
        if description == moment:
            raise KeyboardInterrupt

    if real := getattr(preparation, moment, None):

        def interrupted(*arguments, **options):
            real(*arguments, **options)
            raise KeyboardInterrupt

        monkeypatch.setattr(preparation, moment, interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(official_tree, replace_old=replace_old, track=track)
    assert names_in(prepared_root) == (["chest_xray"] if replace_old else [])
    if replace_old:
        assert snapshot(prepared_root / "chest_xray") == before


def test_a_file_that_changes_meanwhile_is_noticed(official_tree, prepared_root, monkeypatch, jpeg):
    real = preparation.inspect

    def inspect(*arguments):
        found = real(*arguments)
        (official_tree / "train" / "NORMAL" / "IM-0004-0001.jpeg").write_bytes(jpeg(4444))
        return found

    monkeypatch.setattr(preparation, "inspect", inspect)
    with pytest.raises(UserError, match=r"^train/NORMAL/IM-0004-0001.jpeg changed while it was being prepared"):
        prepare(official_tree)
    assert names_in(prepared_root) == []


def test_a_file_that_vanishes_meanwhile_is_told(official_tree, prepared_root, monkeypatch):
    real = preparation.inspect

    def inspect(*arguments):
        found = real(*arguments)
        (official_tree / "train" / "NORMAL" / "IM-0004-0001.jpeg").unlink()
        return found

    monkeypatch.setattr(preparation, "inspect", inspect)
    with pytest.raises(UserError, match=r"^train/NORMAL/IM-0004-0001.jpeg cannot be read"):
        prepare(official_tree)
    assert names_in(prepared_root) == []


@pytest.mark.parametrize(
    ("number", "words"), [(errno.ENOSPC, "the disk is full"), (errno.EACCES, "no permission to write")]
)
def test_disk_and_permission_errors_are_one_sentence(official_tree, prepared_root, monkeypatch, number, words):
    def refuse(*arguments, **options):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tensorflow_datasets.core.features.Image.encode_example", refuse)
    with pytest.raises(UserError, match=words) as caught:
        prepare(official_tree)
    assert "\n" not in str(caught.value)
    assert names_in(prepared_root) == []


def test_a_full_disk_under_the_record_writer_is_one_sentence(official_tree, prepared_root):
    # A limit on the size of files makes the real writer fail in its own way, as a full disk does.
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
        with pytest.raises(UserError, match=r"the disk is full: .*chest_xray could not be written"):
            prepare(official_tree)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert names_in(prepared_root) == []


def test_other_errors_of_the_record_writer_pass_unchanged(official_tree, prepared_root, monkeypatch):
    def refuse(*arguments, **options):
        raise RuntimeError("something else")

    monkeypatch.setattr("tensorflow_datasets.core.features.Image.encode_example", refuse)
    with pytest.raises(RuntimeError, match="something else"):
        prepare(official_tree)
    assert names_in(prepared_root) == []


def test_no_place_for_prepared_data_is_one_sentence(official_tree, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("CXR_PREPARED_DIR", str(tmp_path / "file"))
    with pytest.raises(UserError, match="could not be written"):
        prepare(official_tree)


def test_progress_is_reported_to_the_end(official_tree):

    done = {}

    @contextlib.contextmanager
    def track(description, total):
        done[description] = [0, total]

        def advance(steps):
            done[description][0] += steps

        yield advance

    prepare(official_tree, track=track)
    assert done == {"Reading": [36, 36], "Storing": [36, 36]}


KILLED = """
import sys, time
from pathlib import Path
from cxr_jax.data import preparation
from cxr_jax.runs import files

def stop(*arguments, **options):
    print("stopped", flush=True)
    time.sleep(1000)

if sys.argv[2] == "writing":
    preparation.build_card = stop
else:
    real = Path.replace
    Path.replace = lambda self, target: stop() if target.name == "chest_xray" else real(self, target)
preparation.prepare(Path(sys.argv[1]), replace_old=sys.argv[2] == "replacing")
"""


def killed_while(moment, source):
    """Prepare `source` in another process, which is killed (SIGKILL) at that moment."""
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(source), moment], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"stopped\n"
    return process


def kill(process):
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_what_a_killed_preparation_left_is_removed_by_the_next(official_tree, prepared_root, monkeypatch):
    process = killed_while("writing", official_tree)
    monkeypatch.setattr(locks, "STALE_AFTER", 0.0)
    other = prepare(official_tree, name="other").prepared
    assert len(names_in(prepared_root)) == 2  # it lives, and nothing of it is touched
    kill(process)
    assert names_in(prepared_root)[0].startswith(".unfinished-")
    prepare(official_tree)
    assert names_in(prepared_root) == ["chest_xray", "other"]
    assert snapshot(other.path) == snapshot(prepare(official_tree, name="other").prepared.path)


def test_data_that_were_set_aside_by_a_killed_replacement_come_back(official_tree, prepared_root, monkeypatch, jpeg):
    before = snapshot(prepare(official_tree).prepared.path)
    monkeypatch.setattr(locks, "STALE_AFTER", 0.0)
    image = official_tree / "train" / "NORMAL" / "IM-0300-0001.jpeg"
    image.write_bytes(jpeg(300))
    kill(killed_while("replacing", official_tree))
    assert ".replaced-chest_xray" in names_in(prepared_root) and "chest_xray" not in names_in(prepared_root)
    with pytest.raises(UserError, match="--replace"):
        prepare(official_tree)
    assert names_in(prepared_root) == ["chest_xray"]
    assert snapshot(prepared_root / "chest_xray") == before
    assert len(prepare(official_tree, replace_old=True).prepared.examples) == 37
