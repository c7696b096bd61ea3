"""Processes stood for by threads: whoever must leave says so to a list instead of ending."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from cxr_jax.errors import UserError
from cxr_jax.training.roll_call import Limits, Place, RollCall, join
from cxr_jax.training.roll_call.line import Line
from cxr_jax.training.roll_call.member import Member

PATIENT = Limits(startup=10, heartbeat=10, step=10)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


class Processes:
    """`count` ends of one roll call, and what each of them said when it left."""

    def __init__(self, count: int, limits: Limits = PATIENT) -> None:
        self.count, self.limits, self.port = count, limits, free_port()
        self.said: dict[int, str] = {}
        self.gone = threading.Condition()
        self.ends: list[RollCall] = []

    def enter(self, number: int, *, count: int | None = None) -> RollCall:
        def leave(sentence: str) -> None:
            with self.gone:
                self.said.setdefault(number, sentence)
                self.gone.notify_all()

        return join(Place("127.0.0.1", self.port, number, count or self.count), self.limits, leave)

    def __enter__(self) -> Processes:
        with ThreadPoolExecutor(self.count) as pool:
            self.ends = list(pool.map(self.enter, range(self.count)))
        return self

    def __exit__(self, *_: object) -> None:
        for end in self.ends:
            end.close()

    def all(self, call) -> list:
        """What `call` gives for each end, called at the same time."""
        with ThreadPoolExecutor(self.count) as pool:
            return list(pool.map(call, self.ends))

    def await_leave(self, *numbers: int, within: float = 8.0) -> list[str]:
        with self.gone:
            came = self.gone.wait_for(lambda: set(numbers) <= self.said.keys(), within)
        if not came:
            # what still waits for them would wait for ever
            for end in self.ends:
                with end._changed:
                    end._cause = "the test gave up"
                    end._changed.notify_all()
        assert came, self.said
        return [self.said[number] for number in numbers]


def die(end: RollCall) -> None:
    """What the kernel does with the connections of a process that is killed."""
    end._closed = True
    end._thread.join()
    for key in list(end._selector.get_map().values()):
        key.fileobj.close()


def freeze(end: RollCall) -> None:
    """A process that is stopped: its connections stay, and nothing comes over them."""
    end._closed = True
    end._thread.join()


def test_every_process_gets_what_all_of_them_gave():
    with Processes(3) as processes:
        for _ in range(20):
            assert (
                processes.all(lambda end: end.exchange({"number": end.place.process}))
                == [[{"number": 0}, {"number": 1}, {"number": 2}]] * 3
            )
        processes.all(RollCall.finish)
    assert processes.said == {}


@pytest.mark.parametrize("killed", [0, 2])
def test_a_killed_process_is_named_to_all_others_at_once(killed):
    with Processes(3) as processes:
        began = time.monotonic()
        die(processes.ends[killed])
        others = {0, 1, 2} - {killed}
        for sentence in processes.await_leave(*others):
            assert sentence.startswith(f"process {killed} ended without a word")
        assert time.monotonic() - began < 4


@pytest.mark.parametrize("frozen", [0, 1])
def test_a_process_without_a_sign_of_life_is_named_after_the_time_out(frozen):
    with Processes(3, PATIENT._replace(heartbeat=1.0)) as processes:
        time.sleep(1.5)
        assert processes.said == {}
        freeze(processes.ends[frozen])
        for sentence in processes.await_leave(*({0, 1, 2} - {frozen})):
            assert sentence.startswith(f"process {frozen} has not been heard of for 1 s (parallel.heartbeat_timeout)")


@pytest.mark.parametrize("slow", [0, 2])
def test_a_process_that_lives_but_does_not_move_on_is_named_to_all(slow):
    with Processes(3, PATIENT._replace(step=1.0)) as processes:
        waiting = [end for end in processes.ends if end.place.process != slow]
        with ThreadPoolExecutor(2) as pool:
            results = [pool.submit(end.exchange, None) for end in waiting]
            for sentence in processes.await_leave(0, 1, 2):
                assert sentence == (
                    f"process {slow} has not moved on for 1 s (parallel.step_timeout) while the others wait"
                )
            for result in results:
                assert isinstance(result.exception(), UserError)


def test_all_processes_hanging_are_told_so():
    with Processes(2, PATIENT._replace(step=0.5)) as processes:
        assert "no process has moved on for 0.5 s" in processes.await_leave(0)[0]


def test_processes_that_move_on_slowly_are_left_alone():
    with Processes(2, Limits(startup=10, heartbeat=1.0, step=1.0)) as processes:
        for _ in range(6):
            processes.all(lambda end: (time.sleep(0.3), end.exchange(None)))
        processes.all(RollCall.finish)
    assert processes.said == {}


@pytest.mark.parametrize("failing", [0, 2])
def test_a_failure_is_told_with_its_reason(failing):
    with Processes(3) as processes:
        processes.ends[failing].fail("the disk is full")
        others = {0, 1, 2} - {failing}
        assert set(processes.await_leave(*others)) == {f"process {failing} stopped: the disk is full"}
        assert failing not in processes.said


def test_a_process_that_fails_itself_is_not_ended_by_the_failure_of_another():
    with Processes(2) as processes:
        processes.all(lambda end: end.fail("the loss is nan"))
        time.sleep(1.5)
        assert processes.said == {}


def test_who_is_done_may_leave():
    with Processes(3) as processes:
        processes.all(RollCall.finish)
        time.sleep(0.5)
        for end in processes.ends:
            end.close()
    assert processes.said == {}


@pytest.mark.parametrize("wishing", [0, 1, 2])
@pytest.mark.parametrize("at", [1, 5])
def test_all_stop_at_the_same_call_soon_after_the_wish(wishing, at, monkeypatch):
    take_in = Member._take_in

    def take_in_slowly(self: Member, message: dict) -> None:
        # the network is slower than the steps
        time.sleep(0.1 if message["kind"] == "stop" else 0)
        take_in(self, message)

    monkeypatch.setattr(Member, "_take_in", take_in_slowly)
    with Processes(3) as processes:
        together = threading.Barrier(3)

        def work(end: RollCall) -> int:
            for number in range(1, 100):
                wish = "terminated" if end.place.process == wishing and number >= at else None
                if end.agree_to_stop(wish) == "terminated":
                    return number
                # the operation in which every process takes part
                together.wait(10)
            return 0

        stops = set(processes.all(work))
        assert len(stops) == 1
        # the wish of another process may take a few calls to arrive, as there is no work between them here
        assert at + 2 <= stops.pop() < 100
        processes.all(RollCall.finish)


def test_those_that_do_not_come_are_named():
    processes = Processes(3, PATIENT._replace(startup=1.0))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.submit(processes.enter, 0), pool.submit(processes.enter, 1)
        with pytest.raises(UserError, match=r"process 2 did not come within 1 s \(parallel\.startup_timeout\)"):
            first.result()
        processes.await_leave(1)
    assert processes.said[1] == "process 0 stopped: process 2 did not come within 1 s (parallel.startup_timeout)"
    second.result().close()


def test_a_coordinator_that_is_not_there_is_named_with_its_address():
    processes, heard = Processes(2, PATIENT._replace(startup=0.5)), []

    def enter() -> None:
        with pytest.raises(UserError) as caught:
            processes.enter(1)
        heard.append(str(caught.value))

    thread = threading.Thread(target=enter, daemon=True)
    thread.start()
    thread.join(timeout=10)
    assert heard
    assert heard[0].startswith(f"process 1 could not reach process 0 at 127.0.0.1:{processes.port} within 0.5 s")


def test_a_port_that_is_taken_is_told():
    processes = Processes(2)
    with socket.create_server(("127.0.0.1", processes.port)), pytest.raises(UserError, match="cannot listen at"):
        processes.enter(0)


@pytest.mark.parametrize(
    ("number", "count", "sentence"),
    [
        (1, 2, "two processes say that they are process 1"),
        (1, 3, "process 1 was told of 3 processes, and process 0 of 2"),
        (2, 2, "there is no process 2 among 2"),
    ],
)
def test_a_process_that_cannot_be_one_of_them_is_refused_and_the_others_go_on(number, count, sentence):
    with Processes(2) as processes:
        stranger = processes.enter(number, count=count)
        with processes.gone:
            assert processes.gone.wait_for(lambda: processes.said, 5)
        assert processes.said.popitem()[1].startswith(sentence)
        stranger.close()
        assert processes.all(lambda end: end.exchange(None)) == [[None, None]] * 2
        processes.all(RollCall.finish)
    assert processes.said == {}


def test_a_stranger_that_talks_nonsense_is_hung_up_on():
    with Processes(2) as processes:
        for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"[1]\n", b'{"kind": "beat"}\n', b"\xff\n"):
            with socket.create_connection(("127.0.0.1", processes.port), timeout=5) as stranger:
                stranger.sendall(nonsense)
                assert stranger.recv(100) == b""
        assert processes.all(lambda end: end.exchange(1)) == [[1, 1]] * 2
        processes.all(RollCall.finish)
    assert processes.said == {}


def test_a_line_carries_objects_whole_in_whatever_pieces_they_come():
    left, right = socket.socketpair()
    line = Line(left)
    right.sendall(b'{"kind": "a"}\n{"ki')
    assert line.receive() == [{"kind": "a"}]
    right.sendall(b'nd": "b"}\n')
    assert line.receive() == [{"kind": "b"}]
    Line(right).send(kind="c", value=[1, None])
    assert line.receive() == [{"kind": "c", "value": [1, None]}]
    right.close()
    with pytest.raises(EOFError):
        line.receive()
    line.close()
