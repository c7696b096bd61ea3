import json

import pytest

from cxr_jax.runs.counted_looks import CountedLooks, count_look, identify, images_digest, unidentified
from cxr_jax.runs.folder import RunFolder

IMAGES = frozenset("abc")


def test_looks_at_the_same_images_are_counted_over_all_runs(tmp_path):
    root = tmp_path / "prepared"
    counted = [count_look(root, IMAGES, RunFolder(tmp_path / name)) for name in ("a", "b", "a")]
    assert counted == [CountedLooks(number, 0) for number in (1, 2, 3)]
    assert count_look(root, {"other"}, RunFolder(tmp_path / "a")) == CountedLooks(1, 0)
    lines = (root / ".looks" / f"{images_digest(IMAGES)}.jsonl").read_text().splitlines()
    assert [json.loads(line)["run"] for line in lines] == [str(tmp_path / name) for name in ("a", "b", "a")]


def test_some_of_the_images_count_as_the_images(tmp_path):
    """Those that are left out, as by --subtypes, do not make the others unseen."""
    run = RunFolder(tmp_path / "run")
    assert count_look(tmp_path, IMAGES, run) == CountedLooks(1, 0)
    assert count_look(tmp_path, {"a", "b"}, run) == CountedLooks(2, 0)
    assert count_look(tmp_path, {"c", "d"}, run) == CountedLooks(2, 0)
    assert count_look(tmp_path, IMAGES, run) == CountedLooks(4, 0)


def test_the_digest_is_of_a_set():
    assert images_digest(["b", "a", "b"]) == images_digest("ab")
    assert images_digest(["ab"]) != images_digest(["a", "b"]) != images_digest(["a", "b", "c"])


def test_looks_of_an_earlier_version_are_unknown_until_their_data_are_identified(tmp_path):
    (tmp_path / ".looks").mkdir()
    for fingerprint, looks in {"f1": 5, "f2": 2}.items():
        (tmp_path / ".looks" / f"{fingerprint}.jsonl").write_text('{"run": "/earlier"}\n' * looks)
    run = RunFolder(tmp_path / "run")
    assert count_look(tmp_path, IMAGES, run) == CountedLooks(1, 7)
    assert unidentified(tmp_path) == ("f1", "f2")
    identify(tmp_path, "f1", IMAGES)
    assert unidentified(tmp_path) == ("f2",)
    assert count_look(tmp_path, IMAGES, run) == CountedLooks(7, 2)
    identify(tmp_path, "f2", {"other"})
    assert count_look(tmp_path, IMAGES, run) == CountedLooks(8, 0)


@pytest.mark.parametrize("in_the_way", ["the folder", "the list"])
def test_a_count_that_cannot_be_kept_is_unknown_and_no_error(tmp_path, in_the_way):
    if in_the_way == "the folder":
        (tmp_path / ".looks").write_text("in the way")
    else:
        (tmp_path / ".looks" / f"{images_digest(IMAGES)}.jsonl").mkdir(parents=True)
    assert count_look(tmp_path, IMAGES, RunFolder(tmp_path)) is None
