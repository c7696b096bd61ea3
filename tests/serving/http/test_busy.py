"""The two refusals that want a service at its limits: no memory for another upload, and no answer in time.

The application is asked in this process, so that uploads and network stand still for as long as a test wants.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
import time

import httpx
import pytest

from cxr_jax.serving.http.app import app_of
from cxr_jax.serving.http.limits import UPLOADS_HELD, Limits
from cxr_jax.serving.http.service import Network, Service
from tests.serving.http.bundles import film, probability

LIMITS = Limits(request_bytes=4096, files=8, upload_seconds=60, answer_seconds=60)


class Held:
    """A network that answers nothing until it is let go."""

    def __init__(self, model):
        self.model, self.free = model, threading.Event()

    def __getattr__(self, name):
        return getattr(self.model, name)

    def logits(self, images):
        assert self.free.wait(60)
        return self.model.logits(images)


@contextlib.asynccontextmanager
async def asked(network, limits):
    """Yields a client of a service with those limits."""
    service = Service(network, limits)
    transport = httpx.ASGITransport(app_of(service, lambda _: None, on_start=lambda: None))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            yield client
    finally:
        await asyncio.to_thread(service.close)


async def predicted(client):
    return await client.post("/predict", files={"file": ("a.png", film(150))})


def is_predicted(response):
    found = response.status_code == 200 and response.json()["files"][0]["probability"]
    return found == pytest.approx(probability(150))


def test_an_upload_for_which_there_is_no_memory_is_refused_until_others_are_done(bundle):
    async def refused_and_taken():
        async with asked(Network.of(bundle), LIMITS) as client:
            release = asyncio.Event()
            arrived = [asyncio.Event() for _ in range(UPLOADS_HELD)]
            whole = client.build_request("POST", "/predict", files={"file": ("a.png", bytes(2 * LIMITS.request_bytes))})

            async def halves(told):
                yield whole.read()[: LIMITS.request_bytes - 10]
                told.set()
                await release.wait()

            kind = {"Content-Type": whole.headers["Content-Type"]}
            held = [
                asyncio.create_task(client.post("/predict", content=halves(told), headers=kind)) for told in arrived
            ]
            for told in arrived:
                await told.wait()
            refused = await predicted(client)
            release.set()
            return refused, await asyncio.gather(*held), await predicted(client)

    refused, held, taken = asyncio.run(refused_and_taken())
    assert refused.status_code == 503 and refused.headers["Retry-After"] == "1"
    assert refused.json() == {"error": "too much is being uploaded at this moment: try again in a second"}
    assert {response.status_code for response in held} == {400}
    assert is_predicted(taken)


def test_an_answer_that_does_not_come_in_time_is_given_up_and_holds_nobody_up(bundle):
    network = Network.of(bundle)
    model = Held(network.loaded.model)
    network = dataclasses.replace(network, loaded=dataclasses.replace(network.loaded, model=model))

    async def late_and_again():
        async with asked(network, dataclasses.replace(LIMITS, answer_seconds=0.2)) as client:
            late = await predicted(client)
            waiting = (await client.get("/health")).json()
            model.free.set()
            end = time.monotonic() + 120
            # a busy machine may be late again
            while (again := await predicted(client)).status_code == 503 and time.monotonic() < end:
                await asyncio.sleep(0.05)
            while (idle := (await client.get("/health")).json())["pending"] and time.monotonic() < end:
                await asyncio.sleep(0.05)
            return late, waiting, again, idle

    late, waiting, again, idle = asyncio.run(late_and_again())
    assert late.status_code == 503 and late.headers["Retry-After"] == "1"
    assert late.json() == {"error": "the network did not answer within 0.2 seconds: try again later"}
    assert (waiting["status"], waiting["pending"]) == ("not ready", 1)
    assert is_predicted(again)
    assert (idle["status"], idle["pending"]) == ("ready", 0)
