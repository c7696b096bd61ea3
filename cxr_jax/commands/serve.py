"""`cxr-jax serve [BUNDLE]`: an exported network behind HTTP."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cxr_jax.config.command_line import Option, Positional, parse
from cxr_jax.errors import EXIT_USAGE, UserError
from cxr_jax.terminal import Terminal
from cxr_jax.vocabulary import DISCLAIMER

if TYPE_CHECKING:
    from cxr_jax.serving.http.service import Network

SUMMARY = "answer HTTP requests with the predictions of an exported network"

TOKEN_VARIABLE = "CXR_SERVE_TOKEN"


@dataclass(frozen=True)
class Options:
    """Options of the command."""

    # folder that cxr-jax export wrote; without it the network that comes with the package
    bundle: Annotated[str, Positional("[BUNDLE]")] = ""
    # where to listen; 0.0.0.0 for all of this machine's addresses
    host: Annotated[str, Option("ADDRESS")] = "127.0.0.1"
    port: int = 8000  # where to listen; 0 has the system choose one
    # file that holds a token, which requests must then send; without it the environment's CXR_SERVE_TOKEN
    token_file: Annotated[str, Option("FILE")] = ""
    queue: int = 64  # images that may wait, and files that one upload may hold; beyond that the answer is 503
    batch_size: int = 16  # images that are run through the network together, at most
    max_megabytes: int = 128  # of one upload, in MiB; one file may have 64 of them
    upload_seconds: float = 60.0  # for an upload to arrive
    answer_seconds: float = 60.0  # for the network to answer


def main(arguments: list[str]) -> None:
    """Serves the network that `arguments` name until SIGTERM or Ctrl-C.

    Raises:
        UserError: the bundle cannot be used, the address is not to be had, or an option is out of range.
    """
    options = parse(Options, arguments, prog="cxr-jax serve", description=SUMMARY)
    from cxr_jax.bundle.record import require_bundle
    from cxr_jax.bundle.starter import STARTER

    _require_range(options)
    token = _token(options.token_file)
    if options.bundle:
        require_bundle(options.bundle)
    terminal = Terminal()
    with terminal.waiting(f"Loading the {f'network of {options.bundle}' if options.bundle else 'starter network'}"):
        try:
            from cxr_jax.serving.http.app import app_of
            from cxr_jax.serving.http.limits import Limits
            from cxr_jax.serving.http.server import address_of, is_loopback, listen, run
            from cxr_jax.serving.http.service import Network, Service
        except ModuleNotFoundError as error:
            package = str(error.name).partition(".")[0]
            raise UserError(f"serve needs {package}: pip install 'cxr-jax[serve]'") from error
        network = Network.of(options.bundle or STARTER)
    limits = Limits(
        request_bytes=options.max_megabytes * 2**20,
        files=options.queue,
        upload_seconds=options.upload_seconds,
        answer_seconds=options.answer_seconds,
    )
    with listen(options.host, options.port) as bound:
        service = Service(network, limits, batch_size=options.batch_size, token=token)
        terminal.say(_described(network))
        if network.loaded.films:
            terminal.say(network.loaded.films)
        terminal.say(DISCLAIMER)
        if not is_loopback(bound) and not token:
            terminal.complain(
                f"anybody who reaches {options.host} can use this service, and sends images in the clear: give it a "
                f"token by --token-file or {TOKEN_VARIABLE}, and put it behind a proxy with TLS"
            )
        listening = f"Listening on {address_of(bound)}; its page tells what to send. Ctrl-C ends it."
        # told by the application itself: from then on a signal ends it in order
        run(app_of(service, terminal.say, on_start=lambda: terminal.say(listening)), bound, limits)
    terminal.say("Stopped. Everything that was accepted is answered.")


def _require_range(options: Options) -> None:
    """Raises UserError for an option out of range."""
    for name, value, low, high in (
        ("port", options.port, 0, 65535),
        ("queue", options.queue, 1, 10_000),
        ("batch-size", options.batch_size, 1, 1024),
        ("max-megabytes", options.max_megabytes, 1, 16_384),
        ("upload-seconds", options.upload_seconds, 0.1, 86_400),
        ("answer-seconds", options.answer_seconds, 0.1, 86_400),
    ):
        if not low <= value <= high:
            raise UserError(f"--{name} is {value}, but must be from {low} to {high}", EXIT_USAGE)


def _token(file: str) -> str:
    """Returns the token that requests must send; empty where none is asked for.

    Raises:
        UserError: the file cannot be read, or what stands there cannot be sent in a header.
    """
    token, source = os.environ.get(TOKEN_VARIABLE, ""), TOKEN_VARIABLE
    if file:
        source = file
        try:
            token = Path(file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is no text"
            raise UserError(f"--token-file {file} cannot be read: {reason}") from error
        if not token:
            raise UserError(
                f"--token-file {file} is empty: write a token into it, such as that of openssl rand -hex 32"
            )
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise UserError(f"the token of {source} must be letters, digits and signs of ASCII without spaces")
    return token


def _described(network: Network) -> str:
    """Returns the network, how it calls, and what a threshold promised; of several the page of the service tells it."""
    told = f"Model: {network.loaded.name}. Called: {network.threshold.in_words()}"
    if network.threshold.value is None:
        return f"{told}."
    for call in network.bundle.calls:
        promised = [
            f"{name} {100 * share:.1f} %"
            for name, share in (("sensitivity", call.sensitivity), ("specificity", call.specificity))
            if share is not None
        ]
        if promised:
            told += f"; on {call.images:,} validation images {' and '.join(promised)}"
    return f"{told}."
