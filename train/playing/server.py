"""The page and its few calls over HTTP: a token, its own origin alone, small messages."""

import contextlib
import errno
import ipaddress
import secrets
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jaxrl import envs
from jaxrl.files import as_type, parse_json, without_nan
from jaxrl.train import edge
from jaxrl.train.playing.session import Gone, Session, Sessions
from jaxrl.train.playing.world import Worlds

try:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse, PlainTextResponse, Response
    from starlette.routing import Route
except ImportError as error:
    raise ImportError(
        f"train.play needs a small server: pip install 'jaxrl[play]' ({error})"
    ) from None

PAGE = Path(__file__).with_name("page")
FILES = {"": ("index.html", "text/html"), "play.css": ("play.css", "text/css")}
FILES |= {"play.js": ("play.js", "text/javascript")}
MOST_BODY = 2**20  # bytes of a message
LOCAL = ("127.0.0.1", "localhost", "::1")
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src data:; connect-src 'self'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",  # the address holds the token
    "X-Content-Type-Options": "nosniff",
}
Call = Callable[[Sessions, dict[str, Any]], dict[str, Any]]


def open_session(sessions: Sessions, asked: dict[str, Any]) -> dict[str, Any]:
    """A new game, described, with its first observation."""
    id = asked.get("env", "")
    if not isinstance(id, str):
        raise ValueError(f"env={id!r:.60} must be an id; try GridWorld-v0.")
    name, session = sessions.open(id)
    return {
        "session": name,
        "world": session.world.described(),
        "view": session.reset(0),
        "ids": envs.ids(),
    }


def of_session(do: Callable[[Session, dict[str, Any]], dict[str, Any]]) -> Call:
    """A call of one game, which has one at a time."""

    def call(sessions: Sessions, asked: dict[str, Any]) -> dict[str, Any]:
        session = sessions.of(asked.get("session"))
        with session.lock:
            return do(session, asked)

    return call


STEP = ("action", "player")
CALLS: dict[str, Call] = {
    "open": open_session,
    "reset": of_session(lambda session, asked: session.reset(asked.get("seed"))),
    "step": of_session(lambda session, asked: session.step(*map(asked.get, STEP))),
    "undo": of_session(lambda session, asked: session.undo()),
    "source": of_session(lambda session, asked: {"text": session.world.source()}),
}


def make_app(worlds: Worlds, token: str, host: str = LOCAL[0]) -> Any:
    """The ASGI application; all of it lies below the token."""
    sessions = Sessions(worlds)

    async def get(request: Request) -> Response:
        file = FILES.get(request.path_params["name"])
        if file is None or not allowed(request):
            return PlainTextResponse(f"{NO_PAGE}\n", 404, HEADERS)
        return Response((PAGE / file[0]).read_bytes(), 200, HEADERS, file[1])

    async def post(request: Request) -> Response:
        call = CALLS.get(request.path_params["name"])
        if call is None or not allowed(request):
            return refusal(404, NO_PAGE)
        try:
            asked = as_type(dict, parse_json((await body(request)).decode(), MESSAGE), MESSAGE)
        except TooLarge as error:
            return refusal(413, str(error))
        except ValueError as error:
            return refusal(400, str(error))
        try:
            found = await run_in_threadpool(call, sessions, asked)
            return JSONResponse(without_nan(found), 200, HEADERS)
        except Gone as error:
            return refusal(410, str(error))
        except (ValueError, ImportError, OSError) as error:  # what a person may do: no failure
            return refusal(200, " ".join(str(error).split()))
        except Exception as error:  # of an environment: the others play on
            line = edge.shown(type(error).__name__) + ": " + " ".join(str(error).split())[:500]
            edge.say(f"error: {line}{edge.place(error)}")
            return refusal(500, line)

    def allowed(request: Request) -> bool:
        given = request.path_params["token"].encode()
        return secrets.compare_digest(given, token.encode())

    routes = [
        Route("/{token}/{name:path}", get, methods=["GET"]),
        Route("/{token}/{name:path}", post, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={404: no_page, 405: no_page})
    return only_ours(app, host)


MESSAGE = "The message"
NO_PAGE = "There is nothing here; open the whole address that python -m train.play has printed."


def no_page(request: Request, error: Exception) -> Response:
    del request
    return PlainTextResponse(f"{NO_PAGE}\n", getattr(error, "status_code", 404), HEADERS)


def refusal(status: int, line: str) -> Response:
    return JSONResponse({"error": line}, status, HEADERS)


class TooLarge(ValueError):
    """A message that nobody would write by hand."""


async def body(request: Request) -> bytes:
    """The message, read no further than it may be long."""
    found = bytearray()
    async for chunk in request.stream():
        found += chunk
        if len(found) > MOST_BODY:
            raise TooLarge(f"A message has at most {MOST_BODY} bytes.")
    return bytes(found)


def only_ours(app: Any, host: str) -> Any:
    """The application for pages of its own address alone: no other name, no other origin.

    A page of the web may be given a name that leads here (DNS rebinding): `Host` then says it.
    """

    async def guard(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
            named, origin = headers.get(b"host", ""), headers.get(b"origin")
            if not is_ours(named, host) or origin not in (None, f"http://{named}"):
                refuse = PlainTextResponse(f"Only this server's own page may ask. {NO_PAGE}\n", 403)
                return await refuse(scope, receive, send)
        return await app(scope, receive, send)

    return guard


def is_ours(named: str, host: str) -> bool:
    """Whether a header `Host` names this server; elsewhere than here by a number or its name."""
    try:
        name = urlsplit(f"http://{named}").hostname or ""
    except ValueError:
        return False
    if name in LOCAL or name == host.lower():
        return True
    if host in LOCAL:
        return False
    try:
        return bool(ipaddress.ip_address(name))
    except ValueError:
        return name == socket.gethostname().lower()


def bind(host: str, port: int) -> socket.socket:
    """The socket; ValueError for a port that is taken, with the next free one."""
    try:
        return _listen(host, port)
    except OSError as error:
        problem = error
    if problem.errno in (errno.EADDRINUSE, errno.EACCES):
        for free in range(port + 1, min(port + 100, 2**16)):
            with contextlib.suppress(OSError):
                _listen(host, free).close()
                taken = f"port={port} cannot be used ({problem.strerror})"
                raise ValueError(f"{taken}; try --port {free}.")
    reason = problem.strerror or problem
    raise ValueError(f"host={host} cannot be used ({reason}); try --host {LOCAL[0]}.")


def _listen(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    found = socket.socket(family, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(64)
    except OSError:
        found.close()
        raise
    return found


class Server:
    """Serves in a thread of its own, for signals are the command's."""

    def __init__(self, worlds: Worlds, host: str = LOCAL[0], port: int = 0, token: str = ""):
        self.socket = bind(host, port)
        token = token or secrets.token_urlsafe(16)
        app = make_app(worlds, token, host)
        quiet: Any = {"log_config": None, "log_level": "critical", "access_log": False}
        config = uvicorn.Config(app, lifespan="off", ws="none", server_header=False, **quiet)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self.socket],), daemon=True)
        shown = LOCAL[0] if host in ("0.0.0.0", "::") else host
        shown = f"[{shown}]" if ":" in shown else shown
        self.address = f"http://{shown}:{self.socket.getsockname()[1]}/{token}/"

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    def wait(self) -> None:
        """Until the process ends."""
        self._thread.join()
