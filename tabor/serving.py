"""The HTTP server of every service: one listening socket, clean shutdown, health and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass
from typing import Any

import prometheus_client
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.exceptions import HTTPException

from common.asgi import App
from common.errors import RetryableError, StartupError
from tabor import starting, supervisor
from tabor.doors.connections import Connections
from tabor.doors.door import Door
from tabor.doors.tls import HANDSHAKE_S
from tabor.observing import observed
from tabor.profiling import add_route as add_profile
from tabor.progress import say
from tabor.values import Address

# When each counter began is another series for every one of them, and of no use to anybody here.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]

GRACE_S = 4
"""How long requests under way may take after SIGTERM; what follows has to fit into ten seconds too."""
_BACKLOG = 1024

Readiness = Callable[[], "tuple[bool, dict[str, Any]]"]


@dataclass(frozen=True, slots=True)
class Entrance:
    """Where a process is entered. address: with the port that port 0 became."""

    address: Address
    sock: socket.socket
    door: Door

    @property
    def url(self) -> str:
        """For people: where it is reached. Who listens everywhere is reached by the name of the machine."""
        host = socket.gethostname() if self.address.is_everywhere else self.address.host
        return f"{self.door.scheme}://{self.address._replace(host=host)}"


@contextlib.contextmanager
def listen(address: Address, door: Door) -> Iterator[Entrance]:
    """Bind early, so that a port in use is said before anything is opened.

    Raises:
        StartupError: it cannot be listened there, or strangers would get in by the door.
    """
    try:
        family = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)[0][0]
        sock = socket.create_server((address.host, address.port), family=family, backlog=_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            reason = "is in use; stop what listens there or choose another with --listen"
        else:
            reason = f"cannot be listened on: {error.strerror}; choose another with --listen"
        raise StartupError(f"{address} {reason}") from None
    with sock:
        door.check_exposure(sock)
        yield Entrance(Address(address.host, sock.getsockname()[1]), sock, door)


def build_app(readiness: Readiness, *services: str) -> FastAPI:
    """An application with the routes that every service has.

    services: those of `tabor.openapi.document` whose routes it gets, for /openapi.json.
    """
    app = FastAPI(title="Tabor", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(RetryableError)
    async def unavailable(_: Request, error: RetryableError) -> Response:
        body = {"status": "error", "errorType": "unavailable", "error": str(error)}
        return JSONResponse(body, 503, {"Retry-After": str(max(1, round(error.retry_after_s)))})

    @app.exception_handler(HTTPException)
    async def no_such_route(request: Request, error: HTTPException) -> Response:
        what = f"{request.method} {request.url.path}: {error.detail}"
        if not request.url.path.startswith("/api/"):
            return PlainTextResponse(what + "\n", error.status_code, error.headers)
        kind = "not_found" if error.status_code == 404 else "bad_data"
        return JSONResponse(
            {"status": "error", "errorType": kind, "error": what}, error.status_code, error.headers
        )

    @app.exception_handler(RequestValidationError)
    async def wrong_parameter(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        reason = f'invalid parameter "{first["loc"][-1]}": {first["msg"]}'
        return JSONResponse({"status": "error", "errorType": "bad_data", "error": reason}, 400)

    @app.get("/-/healthy")
    async def healthy() -> PlainTextResponse:
        return PlainTextResponse("Tabor is healthy.\n")

    @app.get("/-/ready")
    async def ready() -> Response:
        # In a thread: it may ask the log, which may be away.
        is_ready, details = await asyncio.to_thread(readiness)
        if is_ready:
            return PlainTextResponse("Tabor is ready.\n")
        return JSONResponse({"ready": False, **details}, status_code=503, headers={"Retry-After": "1"})

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        encode, content_type = prometheus_client.exposition.choose_encoder(request.headers.get("accept", ""))
        # In a thread: some of them have to be counted.
        shown = await asyncio.to_thread(encode, prometheus_client.REGISTRY)
        return Response(shown, media_type=content_type)

    add_profile(app)

    @app.get("/openapi.json")
    def described() -> Response:
        # Imported here: nobody waits for it at start-up.
        from tabor.openapi import document

        return JSONResponse(document(services))

    return app


class _Server(uvicorn.Server):
    """uvicorn with TLS as a door has it, and without its own signal handlers.

    The first signal shuts down in order, the second at once.
    """

    def __init__(self, config: uvicorn.Config, door: Door) -> None:
        super().__init__(config)
        self._door = door

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._door.context is None:
            await super().startup(sockets)
            return
        # As uvicorn does it, but it knows neither a context that is ready nor a limit for handshakes.
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
                config=self.config, server_state=self.server_state, app_state={}
            )
            return made

        self.servers = [
            await loop.create_server(
                protocol,
                sock=sock,
                ssl=self._door.context,
                backlog=_BACKLOG,
                ssl_handshake_timeout=HANDSHAKE_S,
            )
            for sock in sockets or ()
        ]
        self.started = True


@contextlib.asynccontextmanager
async def serving(app: App, entrance: Entrance) -> AsyncIterator[asyncio.Event]:
    """Serve while the body runs; gives an event that is set when a signal asks to stop.

    On leaving, the socket is closed, and requests under way have GRACE_S to end. A second signal ends the process
    at once, which loses nothing that was acknowledged.
    """
    door = entrance.door
    connections = Connections(door.limits)
    config = uvicorn.Config(
        observed(door.in_front_of(app)),
        http=connections.accept,  # type: ignore[arg-type]
        loop="none",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        timeout_graceful_shutdown=GRACE_S,
        server_header=False,
        # Nobody asks for the sender's address, so headers that claim one are not looked at.
        proxy_headers=False,
    )
    server = _Server(config, door)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def signalled(number: int) -> None:
        if stop.is_set():
            say("stopped at once")
            os._exit(128 + number)
        supervisor.stopping()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signalled, number)
    task = asyncio.create_task(server.serve(sockets=[entrance.sock]))
    following = asyncio.create_task(door.follow())
    watching = asyncio.create_task(connections.watch())
    try:
        while not server.started and not task.done():
            await asyncio.sleep(0.001)
        starting.end()
        yield stop
    finally:
        following.cancel()
        server.should_exit = True
        await task
        watching.cancel()
        door.close()


async def first_of(stop: asyncio.Event, work: Awaitable[object]) -> bool:
    """Wait for the work or for the stop signal, whichever comes first; True if the work was done.

    The work's own error is raised. Work in a thread goes on after a stop; whoever closes it waits for it.
    """
    task, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if not task.done():
        return False
    task.result()
    return True


def serve(main: Callable[[], Coroutine[object, object, None]]) -> None:
    """Run a service's coroutine on the fast event loop."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
