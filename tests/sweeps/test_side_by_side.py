"""Jobs side by side; the jobs are small programs that write down what they see."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cxr_jax.errors import UserError
from cxr_jax.sweeps import side_by_side
from cxr_jax.sweeps.side_by_side import Job, Place, gpus, places, run_side_by_side

STOPS = """
import signal, sys, time
def stop(number, frame):
    print(f"cxr-jax: stopped by {number}", file=sys.stderr)
    sys.exit(number)
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, stop)
print("ready", flush=True)
time.sleep(60)
sys.exit(99)
"""


@pytest.fixture
def job(tmp_path):
    """Makes a job of a Python program; without site packages it starts in a few milliseconds."""

    def make(program: str, name: str = "job") -> Job:
        return Job(name, (sys.executable, "-S", "-c", program), tmp_path / "logs" / f"{name}.log")

    return make


def wait_for_text(path: Path, text: str) -> None:
    deadline = time.monotonic() + 120
    while not (path.is_file() and text in path.read_text()):
        assert time.monotonic() < deadline, f"{text!r} never came into {path}"
        time.sleep(0.01)


def when_ready(jobs: list[Job], *numbers: int) -> threading.Thread:
    """Send signals to this process as soon as all of `jobs` have said that they are ready."""

    def send() -> None:
        for one in jobs:
            wait_for_text(one.log, "ready\n")
        for number in numbers:
            os.kill(os.getpid(), number)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_all_run_one_after_another_and_none_is_asked_for_too_early(job):
    events = []

    def jobs():
        for number in range(3):
            events.append(f"taken {number}")
            yield job("", str(number))

    ended, stopped = run_side_by_side(
        jobs(),
        [Place()],
        on_start=lambda one: events.append(f"start {one.name}"),
        on_end=lambda end: events.append(f"end {end.job.name}"),
    )
    assert events == [f"{what} {number}" for number in range(3) for what in ("taken", "start", "end")]
    assert ([end.code for end in ended], stopped) == ([0, 0, 0], None)


def test_as_many_as_there_are_places_run_at_a_time(job, tmp_path):
    # each waits until another is there, so that one alone would never end
    meet = (
        "import os, time\n"
        f"open({str(tmp_path / 'met')!r} + str(os.getpid()), 'w').close()\n"
        f"while sum(name.startswith('met') for name in os.listdir({str(tmp_path)!r})) < 2: time.sleep(0.01)\n"
    )
    ended, _ = run_side_by_side([job(meet, "a"), job(meet, "b")], [Place(), Place()])
    assert [end.code for end in ended] == [0, 0]


def test_what_is_compiled_by_one_is_waited_for_by_the_others(job, tmp_path):
    started, compiled = [], tmp_path / "compiled"
    slow = "import pathlib, sys, time; time.sleep(0.4); pathlib.Path(sys.argv[1]).touch(); time.sleep(0.4)"
    first = job(slow, "first")
    first = dataclasses.replace(
        first, command=(*first.command, str(compiled)), program="one", has_compiled=compiled.exists
    )
    second = dataclasses.replace(job("pass", "second"), program="one")
    third = dataclasses.replace(job("pass", "third"), program="another")

    def note(one):
        started.append((one.name, compiled.exists()))

    run_side_by_side([third, first, second], [Place()] * 3, on_start=note)
    assert started == [("third", False), ("first", False), ("second", True)]


def test_who_compiles_and_fails_is_not_waited_for(job):
    first = dataclasses.replace(job("raise SystemExit(1)", "first"), program="one", has_compiled=lambda: False)
    second = dataclasses.replace(job("pass", "second"), program="one")
    ended, _ = run_side_by_side([first, second], [Place()] * 2)
    assert [(one.job.name, one.code) for one in ended] == [("first", 1), ("second", 0)]


def test_one_that_fails_is_told_by_its_last_sentence_and_the_others_go_on(job):
    programs = {
        "sentence": "import sys; print('cxr-jax: the disk is full', file=sys.stderr); print('Aborting'); sys.exit(3)",
        "other": "print('one'); print('the last'); print(' '); raise SystemExit(1)",
        "silent": "raise SystemExit(1)",
        "killed": "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "signalled": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
        "good": "print('done')",
    }
    ended, _ = run_side_by_side([job(program, name) for name, program in programs.items()], [Place(), Place()])
    assert {end.job.name: (end.code, end.sentence) for end in ended} == {
        "sentence": (3, "the disk is full"),
        "other": (1, "the last"),
        "silent": (1, "it printed nothing"),
        "killed": (-9, "it was killed, most likely because memory ran out"),
        "signalled": (-15, "it was ended by SIGTERM"),
        "good": (0, "done"),
    }


def test_a_log_is_added_to_and_an_earlier_sentence_is_not_told_again(job):
    first = job("import sys; sys.exit('cxr-jax: no data')")
    (ended,), _ = run_side_by_side([first], [Place()])
    assert ended.sentence == "no data"
    (ended,), _ = run_side_by_side([job("")], [Place()])
    assert ended.sentence == "it printed nothing"
    text = first.log.read_text()
    assert text.count("$ ") == 2
    assert text.index("no data") < text.rindex("$ ")


@pytest.fixture
def hang_up_counts():
    """A hang-up ends this process, as one that a terminal started; under nohup it would be passed over, rightly."""
    before = signal.getsignal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hang_up_counts")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_every_job_and_no_further_one_is_started(job, sent):
    expected = signal.SIGTERM if sent == signal.SIGHUP else sent
    jobs = [job(STOPS, "a"), job(STOPS, "b"), job("", "never")]
    handler = signal.getsignal(sent)
    thread = when_ready(jobs[:2], sent)
    ended, stopped = run_side_by_side(jobs, [Place(), Place()])
    thread.join()
    assert stopped == expected
    assert {end.job.name: end.code for end in ended} == {"a": expected, "b": expected}
    assert not jobs[2].log.exists()
    assert signal.getsignal(sent) is handler


def test_every_signal_is_handed_on_once(job):
    counts = """
import signal, time
seen = []
def count(number, frame):
    seen.append(number)
    print("seen", len(seen), flush=True)
signal.signal(signal.SIGINT, count)
print("ready", flush=True)
deadline = time.monotonic() + 120
while len(seen) < 2 and time.monotonic() < deadline:
    time.sleep(0.01)
time.sleep(0.3)
print(len(seen))
"""
    one = job(counts)

    def send() -> None:
        wait_for_text(one.log, "ready\n")
        for number in (1, 2):
            os.kill(os.getpid(), signal.SIGINT)
            # two signals that are both on their way are one
            wait_for_text(one.log, f"seen {number}\n")

    thread = threading.Thread(target=send)
    thread.start()
    (ended,), stopped = run_side_by_side([one], [Place()])
    thread.join()
    assert (ended.sentence, stopped) == ("2", signal.SIGINT)


def test_a_ctrl_c_of_the_terminal_does_not_reach_jobs_twice(job):
    one = job("import os; print(os.getpgid(0) == os.getpid())")
    (ended,), _ = run_side_by_side([one], [Place()])
    assert ended.sentence == "True"


def test_an_error_ends_the_jobs_that_run(job):
    one = job(STOPS)

    def jobs():
        yield one
        wait_for_text(one.log, "ready\n")
        raise UserError("the disk is full")

    with pytest.raises(UserError, match="the disk is full"):
        run_side_by_side(jobs(), [Place(), Place()])
    assert one.log.read_text().endswith(f"stopped by {signal.SIGTERM:d}\n")


def test_a_log_that_cannot_be_written_is_a_sentence(job, tmp_path):
    (tmp_path / "logs").write_text("in the way")
    with pytest.raises(UserError, match="choose another place"):
        run_side_by_side([job("")], [Place()])


def test_a_place_sets_environment_and_cores(job):
    cores = os.sched_getaffinity(0)
    given = frozenset({min(cores)})
    program = "import os; print(os.environ['WHERE'], sorted(os.sched_getaffinity(0)), os.environ['PYTHONUNBUFFERED'])"
    (ended,), _ = run_side_by_side([job(program)], [Place({"WHERE": "here"}, given)])
    assert ended.sentence == f"here {sorted(given)} 1"
    assert os.sched_getaffinity(0) == cores


def test_a_job_starts_as_if_this_program_had_not_configured_itself(job, monkeypatch):
    monkeypatch.setenv("CXR_JAX_RESTARTED", "1")
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1")
    program = "import os; print([name for name in ('CXR_JAX_RESTARTED', 'GLIBC_TUNABLES') if name in os.environ])"
    (ended,), _ = run_side_by_side([job(program)], [Place()])
    assert ended.sentence == "[]"


@pytest.mark.parametrize(("jobs", "shares"), [(2, [{0, 1}, {2, 3, 7}]), (5, [{0}, {1}, {2}, {3}, {7}])])
def test_cores_are_shared_evenly(monkeypatch, jobs, shares):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {0, 1, 2, 3, 7})
    assert [place.cores for place in places(jobs, {"JAX_PLATFORMS": "cpu"})] == shares


def test_more_jobs_than_cores_share_them_and_one_has_the_machine(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _process: {4, 5})
    assert [place.cores for place in places(3, {"JAX_PLATFORMS": "cpu"})] == [{4}, {5}, {4}]
    assert places(1, {"JAX_PLATFORMS": "cpu"}) == [Place()]
    monkeypatch.delattr(os, "sched_getaffinity")
    assert places(2, {"JAX_PLATFORMS": "cpu"}) == [Place(), Place()]


def test_every_job_has_a_gpu_or_its_share_of_one(monkeypatch):
    monkeypatch.setattr(side_by_side, "has_accelerator", lambda environment: True)
    two = {"CUDA_VISIBLE_DEVICES": "2, GPU-7a"}
    assert [place.environment for place in places(2, two)] == [
        {"CUDA_VISIBLE_DEVICES": "2"},
        {"CUDA_VISIBLE_DEVICES": "GPU-7a"},
    ]
    assert all(place.cores is None for place in places(2, two))
    crowded = places(3, two)
    assert [place.environment.get("XLA_PYTHON_CLIENT_MEM_FRACTION") for place in crowded] == ["0.450", None, "0.450"]
    chosen = places(3, {**two, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"})
    assert all("XLA_PYTHON_CLIENT_MEM_FRACTION" not in place.environment for place in chosen)
    assert places(1, two) == [Place()]


def test_gpus_are_those_that_may_be_seen(monkeypatch, tmp_path):
    monkeypatch.setattr(side_by_side, "has_accelerator", lambda environment: "JAX_PLATFORMS" not in environment)
    assert gpus({"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "0"}) == ()
    assert gpus({"CUDA_VISIBLE_DEVICES": ""}) == gpus({"CUDA_VISIBLE_DEVICES": "-1"}) == ()
    assert gpus({"CUDA_VISIBLE_DEVICES": "2, 0,-1,1"}) == ("2", "0")
    nodes = [tmp_path / "nvidia3", tmp_path / "nvidia5"]
    monkeypatch.setattr(Path, "glob", lambda self, pattern: nodes if str(self) == "/dev" else [])
    assert gpus({}) == ("0", "1")


def test_outside_the_main_thread_signals_are_left_alone(job):
    results = []
    thread = threading.Thread(target=lambda: results.append(run_side_by_side([job("")], [Place()])))
    thread.start()
    thread.join()
    assert results[0][0][0].code == 0


def test_under_nohup_the_end_of_the_terminal_stops_nothing():
    program = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from cxr_jax.sweeps.side_by_side import Job, Place, run_side_by_side\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "command = (sys.executable, '-S', '-c', 'import os, signal; os.kill(os.getppid(), signal.SIGHUP)')\n"
        "print(run_side_by_side([Job('a', command, Path(sys.argv[1]))], [Place()])[1])\n"
    )
    done = subprocess.run([sys.executable, "-c", program, os.devnull], capture_output=True, text=True, timeout=120)
    assert done.stdout == "None\n", done.stderr
