"""Real processes of `cxr-jax serve`, each on a port of its own."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cxr_jax.bundle.scores import Scores
from tests.serving.http.bundles import write_mean_bundle
from tests.serving.http.servers import Server


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that answers at once."""
    scores = Scores.of(np.linspace(0.05, 0.95, 400))
    return write_mean_bundle(tmp_path_factory.mktemp("bundles") / "mean", scores=scores)


@pytest.fixture(scope="session")
def slow_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that takes some ten milliseconds for a batch."""
    return write_mean_bundle(tmp_path_factory.mktemp("bundles") / "slow", work=1024)


@pytest.fixture(scope="module")
def serve() -> Iterator[Callable[..., Server]]:
    """Starts servers, which are ended after the module."""
    servers: list[Server] = []

    def start(bundle: Path, *options: str, **environment: str) -> Server:
        servers.append(Server(bundle, *options, **environment))
        return servers[-1]

    yield start
    for server in servers:
        server.stop(signal.SIGKILL)


@pytest.fixture(scope="module")
def server(bundle: Path, serve: Callable[..., Server]) -> Server:
    """A server with its default limits."""
    return serve(bundle)
