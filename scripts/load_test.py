#!/usr/bin/env python
"""Asks `cxr-jax serve` for more than it can do, kills it meanwhile, and holds every answer to its image.

A real service on loopback is sent drawn radiographs whose probabilities differ, and are known from the network itself:

1. one sender, and then as many as fill its batches, each of whom waits for an answer: latency and capacity;
2. uploads at a multiple of that capacity, however long the answers take: what is refused comes again until it is
   answered, so that nothing may be lost;
3. SIGKILL at random moments under the senders of 1, and a new start each time;
4. SIGTERM under the same: it ends with 0, and every answer that its log counts has arrived.

    .venv/bin/python scripts/load_test.py --json results/bench/serve.json
    .venv/bin/python scripts/load_test.py BUNDLE --seconds 3 --kills 1
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from cxr_jax.bundle.record import read_bundle
from cxr_jax.bundle.starter import STARTER
from cxr_jax.config.command_line import Option, Positional, parse
from cxr_jax.data.phantoms.folder import write_phantoms
from cxr_jax.errors import UserError, run_script
from cxr_jax.runs.environment import describe_environment
from cxr_jax.runs.files import write_json
from cxr_jax.serving.loaded import load
from cxr_jax.serving.predict import Threshold, predict_files
from cxr_jax.terminal import Terminal

TOLERANCE = 1e-5
"""By how much a probability may differ from that of the same image in another batch."""

LONGEST = 300.0
"""Seconds after which an upload that is not answered counts as lost."""

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Options:
    """Options of the script."""

    bundle: Annotated[str, Positional("BUNDLE")] = str(STARTER)  # an exported network; by default the starter
    seconds: float = 10.0  # of each phase
    images: int = 48  # different radiographs that are sent
    smallest: int = 1000  # shorter side of the smallest, in pixels
    largest: int = 1400  # longer side of the largest, in pixels
    senders: int = 32  # who wait for an answer each, where the capacity is measured
    times: float = 4.0  # the capacity is asked for so many times over
    kills: int = 3
    queue: int = 64  # of the service
    seed: int = 0  # of images and moments
    json: Annotated[str, Option("FILE")] = ""  # write the figures there, too


@dataclass(frozen=True)
class Film:
    """A radiograph as it is sent, and what the network says of it."""

    name: str
    upload: bytes
    probability: float


@dataclass
class Outcome:
    """What became of the uploads of one phase."""

    answered: int = 0
    refused: int = 0  # by 503; each came again
    broken_off: int = 0  # connections that the service did not answer; each came again
    wrong: int = 0  # answers that are not those of their image
    lost: int = 0  # uploads that were never answered
    latencies: list[float] = field(default_factory=list)  # of answers, from the try that was accepted, in seconds
    seconds: float = 0.0

    def figures(self) -> dict[str, Any]:
        """Returns the counts, the rate, and the latencies in milliseconds."""
        told = {name: value for name, value in asdict(self).items() if name != "latencies"}
        at = {"p50": 50, "p90": 90, "p99": 99}
        milliseconds = [1000 * latency for latency in self.latencies] or [float("nan")]
        return {
            **told,
            "answers_per_second": self.answered / self.seconds if self.seconds else None,
            "milliseconds": {name: float(np.percentile(milliseconds, share)) for name, share in at.items()},
        }


class Service:
    """A process of `cxr-jax serve` that is started again on the same port."""

    def __init__(self, bundle: str, queue: int) -> None:
        self._bundle, self._queue = bundle, queue
        self.port = 0
        self.lines: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> float:
        """Returns after how many seconds the network answers."""
        begun = time.monotonic()
        arguments = ("serve", self._bundle, "--port", str(self.port), "--queue", str(self._queue))
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "cxr_jax", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        listening = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read(listening))
        self.port = await listening
        while await self._health() != 200:
            await asyncio.sleep(0.02)
        return time.monotonic() - begun

    async def _read(self, listening: asyncio.Future[int]) -> None:
        self.lines = []
        async for raw in self._process.stdout:
            line = raw.decode().rstrip("\n")
            self.lines.append(line)
            if (found := re.match(r"Listening on http://127\.0\.0\.1:(\d+);", line)) and not listening.done():
                listening.set_result(int(found[1]))
        if not listening.done():
            listening.set_exception(UserError("the service does not start: " + " ".join(self.lines)))

    async def _health(self) -> int:
        return (await ask(self.port, b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))[0]

    async def end(self, number: int) -> int:
        """Sends a signal, waits for the end, and returns the exit code."""
        self._process.send_signal(number)
        code = await self._process.wait()
        await self._reader
        return code

    def answers_in_log(self) -> int:
        """Returns how many uploads it says that it answered."""
        return sum(" /predict 200 " in line for line in self.lines)


async def ask(port: int, request: bytes) -> tuple[int, bytes]:
    """Returns status and content of the answer to one request on a connection of its own; OSError if it breaks off."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        await writer.drain()
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(re.search(rb"content-length: (\d+)", head)[1])
        return int(head.split()[1]), await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError("the connection was broken off") from error
    finally:
        writer.close()


def films_of(options: Options) -> list[Film]:
    """Returns drawn radiographs whose probabilities differ by more than answers may."""
    loaded = load(options.bundle)
    with tempfile.TemporaryDirectory() as folder:
        sizes = (options.smallest, options.largest)
        write_phantoms(Path(folder), train=options.images, val=0, test=0, seed=options.seed, image_size_range=sizes)
        files = sorted(str(path) for path in (Path(folder) / "train").rglob("*.jpeg"))
        predictions = list(predict_files(loaded.model, files, Threshold.of(loaded.model)))
        found: list[Film] = []
        for prediction in sorted(predictions, key=lambda entry: entry.probability):
            if not found or prediction.probability > found[-1].probability + 4 * TOLERANCE:
                name = Path(prediction.file).name
                found.append(Film(name, _upload(name, Path(prediction.file).read_bytes()), prediction.probability))
    if len(found) < 3:
        raise UserError("the network says the same of nearly all drawn radiographs: name another bundle")
    return found


def _upload(name: str, content: bytes) -> bytes:
    body = (
        f'--film\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n--film--\r\n"
    )
    head = (
        "POST /predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary=film\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def send(port: int, film: Film, outcome: Outcome) -> None:
    """Sends a film until it is answered, and counts what happens to it."""
    given_up = time.monotonic() + LONGEST
    while time.monotonic() < given_up:
        begun = time.monotonic()
        try:
            status, content = await ask(port, film.upload)
        except OSError:
            outcome.broken_off += 1
            await asyncio.sleep(0.1)
            continue
        if status == 503:
            outcome.refused += 1
            # as Retry-After says, and not all at the same moment
            await asyncio.sleep(random.uniform(1, 2))
            continue
        outcome.latencies.append(time.monotonic() - begun)
        outcome.answered += 1
        outcome.wrong += status != 200 or not is_of(film, json.loads(content))
        return
    outcome.lost += 1


def is_of(film: Film, answer: dict[str, Any]) -> bool:
    """Returns whether an answer has the name and the probability of a film."""
    (entry,) = answer["files"]
    return entry["file"] == film.name and abs(entry["probability"] - film.probability) <= TOLERANCE


async def wait_for_answers(
    port: int,
    films: Sequence[Film],
    senders: int,
    seconds: float,
    meanwhile: Callable[[], Awaitable[None]] | None = None,
) -> Outcome:
    """Returns what became of the uploads of senders who wait for each answer, for some seconds.

    With `meanwhile` they send until that is done.
    """
    outcome, begun, stopped = Outcome(), time.monotonic(), asyncio.Event()

    async def keep_sending(number: int) -> None:
        while not stopped.is_set():
            await send(port, films[number % len(films)], outcome)
            number += senders

    working = [asyncio.create_task(keep_sending(number)) for number in range(senders)]
    await (meanwhile() if meanwhile else asyncio.sleep(seconds))
    stopped.set()
    await asyncio.gather(*working)
    outcome.seconds = time.monotonic() - begun
    return outcome


async def send_at(port: int, films: Sequence[Film], rate: float, seconds: float) -> Outcome:
    """Returns what became of uploads that begin at an even rate, however long the answers take."""
    outcome, begun = Outcome(), time.monotonic()
    working = []
    for number in range(max(1, round(rate * seconds))):
        await asyncio.sleep(max(0.0, begun + number / rate - time.monotonic()))
        working.append(asyncio.create_task(send(port, films[number % len(films)], outcome)))
    await asyncio.gather(*working)
    outcome.seconds = time.monotonic() - begun
    return outcome


async def measure(options: Options, films: Sequence[Film], tell: Callable[[str], None]) -> dict[str, Any]:
    """Returns the figures of all phases."""
    service, figures = Service(options.bundle, options.queue), {}

    def note(name: str, outcome: Outcome, **further: Any) -> None:
        figures[name] = {**outcome.figures(), **further}
        told = figures[name]
        at = told["milliseconds"]
        tell(
            f"{name}: {outcome.answered:,} answered, {told['answers_per_second']:.1f}/s, p50 {at['p50']:.0f} ms, p99 "
            f"{at['p99']:.0f} ms; {outcome.refused:,} refused and {outcome.broken_off:,} broken off, which came again; "
            f"{outcome.wrong} wrong, {outcome.lost} lost"
        )

    tell(f"Starting the service of {options.bundle}")
    start = await service.start()
    await wait_for_answers(service.port, films, 2, min(2.0, options.seconds))  # it warms up
    note("one sender", await wait_for_answers(service.port, films, 1, options.seconds), start_seconds=start)
    note("at capacity", await wait_for_answers(service.port, films, options.senders, options.seconds))
    rate = options.times * figures["at capacity"]["answers_per_second"]
    note("beyond capacity", await send_at(service.port, films, rate, options.seconds), uploads_per_second=rate)

    starts: list[float] = []

    async def kill() -> None:
        for _ in range(options.kills):
            await asyncio.sleep(random.uniform(0.3, 1.0) * options.seconds / 2)
            await service.end(signal.SIGKILL)
            starts.append(await service.start())
        await asyncio.sleep(options.seconds / 4)

    outcome = await wait_for_answers(service.port, films, options.senders, options.seconds, kill)
    note("killed", outcome, kills=options.kills, start_seconds=starts)

    await _terminate(service, films, options, note)
    return figures


async def _terminate(service: Service, films: Sequence[Film], options: Options, note: Callable[..., None]) -> None:
    """Ends the service in order under load, starts it again, and ends it when nobody asks any more.

    What a service accepted is answered: so what the logs of both count, the senders have.
    """
    # a process of its own, since what the last one answered may not yet have been read from its log
    await service.end(signal.SIGTERM)
    await service.start()
    ended: dict[str, int] = {}

    async def terminate() -> None:
        await asyncio.sleep(options.seconds / 2)
        ended["exit_code"] = await service.end(signal.SIGTERM)
        ended["answers_logged"] = service.answers_in_log()
        await service.start()

    outcome = await wait_for_answers(service.port, films, options.senders, options.seconds, terminate)
    await service.end(signal.SIGTERM)
    ended["answers_logged"] += service.answers_in_log()
    note("terminated", outcome, **ended, answers_received=outcome.answered)


def faults(figures: dict[str, Any]) -> list[str]:
    """Returns what should not have happened; empty if all is well."""
    found = [f"{phase}: {told['wrong']} wrong answers" for phase, told in figures.items() if told["wrong"]]
    found += [f"{phase}: {told['lost']} uploads lost" for phase, told in figures.items() if told["lost"]]
    if figures["terminated"]["exit_code"] != 0:
        found.append(f"terminated: exit code {figures['terminated']['exit_code']}")
    if figures["terminated"]["answers_logged"] != figures["terminated"]["answers_received"]:
        found.append("terminated: answers that were logged did not arrive")
    if figures["killed"]["kills"] and not figures["killed"]["broken_off"]:
        found.append("killed: no kill met an upload; give the phases more --seconds")
    return found


def main(arguments: Sequence[str]) -> int:
    """Runs all phases, prints and writes their figures, and returns 1 if an answer was wrong or lost."""
    options = parse(Options, arguments, prog="load_test.py", description=__doc__.partition("\n")[0])
    random.seed(options.seed)
    terminal = Terminal()
    with terminal.waiting("Drawing radiographs and asking the network for their probabilities"):
        films = films_of(options)
    terminal.say(f"{len(films)} radiographs, {sum(len(film.upload) for film in films) / len(films) / 1e3:.0f} kB each")
    # of everything else on this machine, which takes its share of what is measured
    load_average = os.getloadavg()[0]
    figures = asyncio.run(measure(options, films, terminal.say))
    found = faults(figures)
    for sentence in found:
        terminal.complain(sentence)
    if options.json:
        asked = asdict(options) | {"bundle": read_bundle(options.bundle).name, "json": Path(options.json).name}
        write_json(
            options.json,
            {
                "schema_version": SCHEMA_VERSION,
                "environment": describe_environment(devices=[], data_fingerprint=""),
                "load_average_before": load_average,
                "asked": asked,
                "different_radiographs": len(films),
                "upload_bytes": sum(len(film.upload) for film in films) / len(films),
                "phases": figures,
            },
        )
        terminal.say(f"Figures: {options.json}")
    return 1 if found else 0


if __name__ == "__main__":
    run_script(main)
