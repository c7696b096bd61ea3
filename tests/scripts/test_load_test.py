"""The service under more load than it can bear, killed and ended meanwhile; and that a fault would be noticed."""

import copy
import json
from pathlib import Path

import pytest

from tests.scripts.script_module import module_of
from tests.serving.http.bundles import write_mean_bundle

SCRIPT = Path(__file__).parents[2] / "scripts" / "load_test.py"


@pytest.fixture(scope="module")
def harness():
    return module_of("load_test")


@pytest.fixture(scope="module")
def figures(harness, tmp_path_factory):
    """Those of a service with little room, whose network takes its time."""
    folder = tmp_path_factory.mktemp("load")
    bundle = write_mean_bundle(folder / "bundle", work=512)
    code = harness.main(
        [
            *(str(bundle), "--seconds", "1", "--kills", "1", "--images", "12", "--smallest", "64", "--largest", "96"),
            *("--senders", "8", "--queue", "4", "--json", str(folder / "serve.json")),
        ]
    )
    record = json.loads((folder / "serve.json").read_text())
    assert code == 0, record
    assert record["environment"]["machine"]["cores"] and record["asked"]["bundle"] == "flat"
    assert str(folder) not in (folder / "serve.json").read_text()
    return record["phases"]


@pytest.mark.slow
def test_nothing_is_lost_or_mixed_up_beyond_capacity(figures):
    assert list(figures) == ["one sender", "at capacity", "beyond capacity", "killed", "terminated"]
    beyond = figures["beyond capacity"]
    assert beyond["refused"] > 0
    assert beyond["answered"] == max(1, round(beyond["uploads_per_second"] * 1))
    for told in figures.values():
        assert told["answered"] > 0 and told["wrong"] == told["lost"] == 0


@pytest.mark.slow
def test_what_a_kill_breaks_off_is_answered_after_a_new_start(figures):
    assert figures["killed"]["kills"] == len(figures["killed"]["start_seconds"]) == 1
    assert figures["killed"]["broken_off"] > 0


@pytest.mark.slow
def test_what_was_accepted_is_answered_before_the_end(figures):
    told = figures["terminated"]
    assert told["exit_code"] == 0
    assert told["answers_logged"] == told["answers_received"] > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("phase", "change", "sentence"),
    [
        ("beyond capacity", {"wrong": 1}, "beyond capacity: 1 wrong answers"),
        ("killed", {"lost": 2}, "killed: 2 uploads lost"),
        ("killed", {"broken_off": 0}, "killed: no kill met an upload"),
        ("terminated", {"exit_code": -15}, "terminated: exit code -15"),
        ("terminated", {"answers_received": 0}, "terminated: answers that were logged did not arrive"),
    ],
)
def test_a_fault_is_told(phase, change, sentence, harness, figures):
    assert harness.faults(figures) == []
    changed = copy.deepcopy(figures)
    changed[phase] |= change
    (told,) = harness.faults(changed)
    assert told.startswith(sentence)


def test_the_answer_of_another_image_is_wrong(harness):
    film = harness.Film("a.jpeg", b"", 0.25)

    def answer(file, probability):
        return {"files": [{"file": file, "probability": probability}]}

    assert harness.is_of(film, answer("a.jpeg", 0.25 + 5e-6))
    assert not harness.is_of(film, answer("b.jpeg", 0.25))
    assert not harness.is_of(film, answer("a.jpeg", 0.25 + 3e-5))


@pytest.mark.slow
def test_the_network_that_comes_with_the_package_bears_it(harness):
    assert harness.main(["--seconds", "10", "--kills", "5"]) == 0
