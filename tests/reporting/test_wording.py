import pytest

from cxr_jax.reporting.wording import counted, date_text, devices_text, duration_text, times


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1 second"),
        (24.4, "24 seconds"),
        (89, "89 seconds"),
        (247, "4 minutes"),
        (91 * 60, "1 hour 31 minutes"),
        (2 * 3600, "2 hours"),
    ],
)
def test_lengths_of_time_are_written_as_people_write(seconds, text):
    assert duration_text(seconds) == text


def test_counts_have_their_noun():
    assert [counted(number, "files") for number in (0, 1, 2, 1_500)] == ["0 files", "1 file", "2 files", "1,500 files"]
    assert [times(number) for number in (1, 2, 3)] == ["once", "twice", "3 times"]


def test_dates():
    assert date_text("2026-11-02T07:41:34+00:00") == "2 November 2026, 07:41 UTC"
    assert date_text("2026-11-02T07:41:34") == "2 November 2026, 07:41"
    assert date_text("some day") == "some day"


@pytest.mark.parametrize(
    ("devices", "text"),
    [
        (["cpu cpu"], "CPU"),
        (["cpu"] * 2, "2 × CPU"),
        (["gpu NVIDIA H100 80GB HBM3"] * 8, "8 × NVIDIA H100 80GB HBM3 (GPU)"),
        (["tpu TPU v4", "cpu cpu"], "TPU v4 (TPU), CPU"),
        ([], ""),
    ],
)
def test_devices_are_named_once(devices, text):
    assert devices_text(devices) == text
