"""The process that listens: its socket, its connections, and how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from cxr_jax.errors import UserError
from cxr_jax.serving.http.limits import Limits

if TYPE_CHECKING:
    from starlette.types import ASGIApp

HEAD_SECONDS = 10.0
"""For the head of a request to arrive; where uploads have less time, so has the head."""

SEND_SECONDS = 30.0
"""For an answer to be taken."""

_IDLE_SECONDS = 30  # of a connection between two requests


def listen(host: str, port: int) -> socket.socket:
    """Returns a socket that is bound; with port 0 the system chooses one.

    Raises:
        UserError: the address is not known or not to be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UserError(f"the address {host} is not known here: give --host an address of this machine") from error
    try:
        # a service that is started anew need not wait for the connections of the one before
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        # it listens from now on: a connection waits until it is answered
        bound.listen(socket.SOMAXCONN)
    except OSError as error:
        bound.close()
        raise UserError(
            f"cannot listen on {host}, port {port} ({error.strerror or error}): choose another --port or --host"
        ) from error
    return bound


def is_loopback(bound: socket.socket) -> bool:
    """Returns whether only this machine can reach a socket."""
    return ipaddress.ip_address(bound.getsockname()[0].partition("%")[0]).is_loopback


def address_of(bound: socket.socket) -> str:
    """Returns the address of a socket as a browser takes it."""
    host, port = bound.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def run(app: ASGIApp, bound: socket.socket, limits: Limits) -> None:
    """Answers requests until SIGTERM or SIGINT, and then those that were accepted; a second SIGINT ends it at once."""
    longest = limits.upload_seconds + limits.answer_seconds + SEND_SECONDS

    class Connection(_Connection):
        head_seconds = min(HEAD_SECONDS, limits.upload_seconds)
        request_seconds = longest

    config = uvicorn.Config(
        app,
        loop="asyncio",
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="critical",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=int(longest) + 1,
    )
    # what a library warns of may quote an upload; without any handler Python prints it
    logging.getLogger().addHandler(logging.NullHandler())
    with _signals_are_expected():
        uvicorn.Server(config).run(sockets=[bound])


@contextlib.contextmanager
def _signals_are_expected() -> Iterator[None]:
    """Has uvicorn, which raises again at the end what made it stop, meet a handler that does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Connection(H11Protocol):
    """A connection that is closed if the head of a request, or the whole of it, takes too long."""

    head_seconds: float
    request_seconds: float

    _head_due: asyncio.TimerHandle | None = None
    _request_due: asyncio.TimerHandle | None = None
    _watched: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begins to wait for the head of a request."""
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Takes what arrived."""
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the waiting."""
        super().connection_lost(exc)
        self._await_head(False)
        if self._request_due is not None:
            self._request_due.cancel()

    def _watch(self) -> None:
        # idle until the head of a request is whole
        self._await_head(self.conn.their_state is h11.IDLE and not self.transport.is_closing())
        if self.cycle is not None and self.cycle is not self._watched:
            if self._request_due is not None:
                self._request_due.cancel()
            self._watched = self.cycle
            self._request_due = self.loop.call_later(self.request_seconds, self._end)

    def _await_head(self, waiting: bool) -> None:
        if waiting and self._head_due is None:
            # what arrives bit by bit does not begin the time anew
            self._head_due = self.loop.call_later(self.head_seconds, self.transport.abort)
        elif not waiting and self._head_due is not None:
            self._head_due.cancel()
            self._head_due = None

    def _end(self) -> None:
        """Ends a connection on which a request is still under way: not received, not answered or not taken."""
        under_way = not self.cycle.response_complete or self.conn.their_state is h11.SEND_BODY
        if under_way or self.transport.get_write_buffer_size():
            self.transport.abort()
