"""The addresses of the service, its OpenAPI description, and one line in the log for every request."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from fastapi import FastAPI, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from cxr_jax import __version__
from cxr_jax.serving.http.answers import Answer, Health, Mistake
from cxr_jax.serving.http.limits import RefusalError
from cxr_jax.serving.http.service import Service
from cxr_jax.vocabulary import DISCLAIMER

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LEFT = 499
"""Status in log and metrics of a request that was broken off; nobody receives it."""

_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Mistake, "description": "The upload is damaged, or holds no file"},
    401: {"model": Mistake, "description": "The token is missing or wrong"},
    408: {"model": Mistake, "description": "The upload did not arrive in time"},
    413: {"model": Answer | Mistake, "description": "Too many bytes or files"},
    415: {"model": Answer | Mistake, "description": "No upload of files; or no file is a JPEG, PNG or DICOM file"},
    422: {
        "model": Answer | Mistake,
        "description": "No file could be predicted: damaged, without or with too many pixels",
    },
    500: {"model": Answer | Mistake, "description": "The service failed"},
    503: {"model": Mistake, "description": "Too much is waiting: try again after the seconds of Retry-After"},
}

_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": {
                            "type": "array",
                            "items": {"type": "string", "format": "binary"},
                            "description": "radiographs: JPEG, PNG or DICOM (CR or DX); fields of any name are taken",
                        }
                    },
                }
            }
        },
    }
}

_NOTHING = "there is nothing at this address: POST files to /predict, or look at / for what there is"


_OTHERWISE = "this address is not asked in this way: look at / for what there is"


def app_of(service: Service, log: Callable[[str], None], *, on_start: Callable[[], None]) -> ASGIApp:
    """Returns the service as an ASGI application.

    `log` is told a line for every request, without names of files. `on_start` is called once before the first.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        on_start()
        yield
        await run_in_threadpool(service.close)

    app = FastAPI(
        title="cxr-jax serve",
        version=__version__,
        description=" ".join(filter(None, (DISCLAIMER, service.network.loaded.films))),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    _add_routes(app, service)
    _tell_mistakes(app)
    return Watched(app, service, log)


def _add_routes(app: FastAPI, service: Service) -> None:
    @app.post(
        "/predict",
        response_model=Answer,
        responses=_REFUSALS,
        openapi_extra=_UPLOAD,
        summary="Predict one or several files",
        description="Answers 200 as soon as one file was predicted; the others have their own status and error.",
    )
    async def predict(request: Request, map: Literal["png"] | None = None) -> Response:
        status, answer = await service.predict(request, map)
        return JSONResponse(asdict(answer), status)

    @app.get(
        "/health",
        response_model=Health,
        responses={503: {"model": Health, "description": "The network did not answer"}},
        summary="Whether the service predicts",
    )
    async def health() -> Response:
        status, told = service.health()
        return JSONResponse(asdict(told), status)

    @app.get("/metrics", response_class=Response, summary="Counts and drift, for Prometheus")
    async def metrics(request: Request) -> Response:
        service.require_token(request)
        return Response(await run_in_threadpool(service.metrics.exposition), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", response_class=HTMLResponse, summary="This description, as a page")
    async def page() -> Response:
        from jinja2 import Environment, PackageLoader, StrictUndefined

        environment = Environment(
            loader=PackageLoader("cxr_jax.serving.http"), undefined=StrictUndefined, autoescape=True, trim_blocks=True
        )
        template = environment.get_template("service.html.jinja")
        return HTMLResponse(template.render(api=app.openapi(), network=service.network, token=service.asks_for_token))


def _tell_mistakes(app: FastAPI) -> None:
    """Has every mistake answered by one sentence in JSON."""

    def told(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
        return JSONResponse(asdict(Mistake(sentence)), status, headers)

    @app.exception_handler(RefusalError)
    async def refused(_: Request, error: RefusalError) -> Response:
        return told(error.status, error.sentence, error.headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        place, message = error.errors()[0]["loc"][-1], error.errors()[0]["msg"]
        return told(422, f"the option {place} is wrong: {message[0].lower()}{message[1:]}")

    @app.exception_handler(HTTPException)
    async def unknown(_: Request, error: HTTPException) -> Response:
        sentence = _NOTHING if error.status_code == 404 else _OTHERWISE
        return told(error.status_code, sentence, dict(error.headers or {}))

    @app.exception_handler(ClientDisconnect)
    async def left(_: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=LEFT)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, error: Exception) -> Response:
        return told(500, "the service failed on this request: try again, and look at its log if it fails again")


class Watched:
    """The application, with a line in the log and a count for every request.

    A path that is not one of the service's own is neither logged nor counted: somebody could write a name into it.
    """

    def __init__(self, app: FastAPI, service: Service, log: Callable[[str], None]) -> None:
        self._app, self._metrics, self._log = app, service.metrics, log
        self._paths = {route.path for route in app.routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status, failure = time.monotonic(), LEFT, ""
        state = scope.setdefault("state", {})

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            # it was answered; what it says may hold the name of a file
            failure = f", {type(error).__name__}"
        finally:
            seconds = time.monotonic() - begun
            path = scope["path"] if scope["path"] in self._paths else "elsewhere"
            self._metrics.request(path, status, seconds)
            images = state.get("images", 0)
            counted = f", {images} {'image' if images == 1 else 'images'}" if images else ""
            now = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
            self._log(f"{now} {path} {status} {1000 * seconds:.0f} ms{counted}{failure}")
