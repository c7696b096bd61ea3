import numpy as np
import pytest

from cxr_jax.errors import UserError
from cxr_jax.runs.metrics_log import MetricsLog, is_finished, read_metrics


def train_line(log, step):
    log.write("train", step=step, epoch=step / 10, phase="train", loss=np.float32(0.5), accuracy=0.75, seconds=1.0)


def test_lines_come_back_in_order_with_plain_numbers(tmp_path):
    path = tmp_path / "run" / "metrics.jsonl"
    with MetricsLog(path) as log:
        train_line(log, 1)
        log.write("validation", step=np.int64(1), loss=float("nan"), roc_auc=float("inf"), best=np.True_)
        log.write("end", step=1, reason="finished", seconds=2.5)
    first, second, third = read_metrics(path)
    assert first == {
        "kind": "train",
        "step": 1,
        "epoch": 0.1,
        "phase": "train",
        "loss": 0.5,
        "accuracy": 0.75,
        "seconds": 1.0,
    }
    assert second == {"kind": "validation", "step": 1, "loss": None, "roc_auc": None, "best": True}
    assert third["reason"] == "finished"


def test_a_line_can_be_read_before_the_log_is_closed(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    train_line(log, 1)
    assert len(read_metrics(log.path)) == 1
    log.close()
    log.close()


def test_appending_keeps_what_was_there_and_drops_a_torn_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        train_line(log, 1)
    with path.open("a") as file:
        file.write('{"kind": "train", "st')
    assert [line["step"] for line in read_metrics(path)] == [1]
    with MetricsLog(path) as log:
        train_line(log, 2)
    assert [line["step"] for line in read_metrics(path)] == [1, 2]


def test_rewinding_drops_later_steps_and_the_end(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        for step in (1, 2, 3):
            train_line(log, step)
        log.write("end", step=2, reason="interrupted", seconds=1.0)
    with MetricsLog(path, rewind_to=2) as log:
        train_line(log, 3)
    assert [(line["kind"], line["step"]) for line in read_metrics(path)] == [("train", 1), ("train", 2), ("train", 3)]


def test_a_killed_and_resumed_log_equals_one_never_killed(tmp_path):
    whole, resumed = tmp_path / "whole.jsonl", tmp_path / "resumed.jsonl"
    with MetricsLog(whole) as log:
        for step in (1, 2, 3, 4):
            train_line(log, step)
    with MetricsLog(resumed) as log:
        for step in (1, 2, 3):
            train_line(log, step)
    with MetricsLog(resumed, rewind_to=2) as log:
        for step in (3, 4):
            train_line(log, step)
    assert resumed.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize(("kind", "values"), [("valid", {"step": 1}), ("train", {"loss": 1.0})])
def test_a_line_without_kind_or_step_is_a_bug(tmp_path, kind, values):
    with MetricsLog(tmp_path / "metrics.jsonl") as log, pytest.raises(ValueError, match="needs a kind"):
        log.write(kind, **values)


@pytest.mark.parametrize("text", ["nonsense\n", "[]\n", '{"kind": "train"}\n', '{"kind": "other", "step": 1}\n'])
def test_a_foreign_line_is_one_sentence(tmp_path, text):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"kind": "train", "step": 1}\n' + text)
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2"):
        read_metrics(path)


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_lines_of_training_can_be_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.write("train", step=1, loss=0.5)
        log.write("validation", step=1, loss=0.4)
        log.write("end", step=1, reason="finished")
    assert [line["kind"] for line in read_metrics(path, ("validation", "end"))] == ["validation", "end"]
    assert [line["kind"] for line in read_metrics(path, ("train", "end"))] == ["train", "end"]
    # they are not even parsed
    path.write_text('{"kind": "train", torn\n' + path.read_text())
    assert len(read_metrics(path, ("validation",))) == 1
    path.write_text('{"kind": "validation", torn\n')
    with pytest.raises(UserError, match="line 1"):
        read_metrics(path, ("end",))


@pytest.mark.parametrize(
    ("reason", "finished"), [("finished", True), ("patience", True), ("interrupted", False), ("terminated", False)]
)
def test_a_run_is_finished_if_its_last_line_says_so(tmp_path, reason, finished):
    path = tmp_path / "metrics.jsonl"
    assert not is_finished(path)
    with MetricsLog(path) as log:
        assert not is_finished(path)
        # longer than what is read of the file
        for step in range(1, 100):
            log.write("train", step=step, loss=0.123456789012345)
        assert not is_finished(path)
        log.write("end", step=99, reason=reason)
    assert is_finished(path) is finished
    with MetricsLog(path) as log:
        log.write("train", step=100, loss=0.5)
    assert not is_finished(path)


END = '{"kind": "end", "reason": "finished"}'


@pytest.mark.parametrize("text", ["", "\n", "3\n", "{\n", END, f'{END}\n{{"kind": "tr', "[]\n", "\xff\n"])
def test_a_file_that_ends_otherwise_is_not_finished(tmp_path, text):
    path = tmp_path / "metrics.jsonl"
    path.write_text(text, encoding="latin-1")
    assert not is_finished(path)
