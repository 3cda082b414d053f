"""The server of a folder of runs: its addresses, and the pages that stand there."""

import hashlib
import secrets
import socket
from pathlib import Path
from urllib.parse import parse_qs, urlencode

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from graftlab import report
from graftlab.browser import control, pages
from graftlab.browser.folder import Folder
from graftlab.browser.guard import Guard
from graftlab.browser.pages import Asked
from graftlab.errors import Argument, ConfigError, GraftlabError, Place
from graftlab.rundir.run import Run

ADDRESS = "127.0.0.1"
LONGEST_FORM = 10_000  # bytes
TYPES = {"style.css": "text/css", "script.js": "text/javascript"}


class Pages:
    """What stands at each address."""

    def __init__(self, root: Path) -> None:
        self.runs, self.resumed = Folder(root), control.Resumed()

    def folder(self, request: Request) -> Response:
        given = request.query_params
        at, words, state, where, sort = (given.get(key, "") for key in Asked._fields[:-1])
        page = given.get("page", "")
        asked = Asked(at, words, state, where, sort, int(page) if page.isdecimal() else 1)
        return _page(request, pages.folder(self.runs, asked))

    def run(self, request: Request) -> Response:
        return _page(request, pages.run(self.runs, _at(request), self.resumed))

    def pair(self, request: Request) -> Response:
        chosen = request.query_params.getlist("run")
        if len(chosen) != 2:
            raise ConfigError(f"{len(chosen)} runs are ticked: tick two, and compare them.")
        return _page(request, pages.pair(self.runs, chosen))

    def report(self, request: Request) -> Response:
        text = report.html(self.runs.find(_at(request)), {})
        return HTMLResponse(
            text, headers={"content-security-policy": f"{report.policy()}; frame-ancestors 'none'"}
        )

    def asset(self, request: Request) -> Response:
        name = request.url.path.lstrip("/")
        return Response(pages.asset(name), media_type=TYPES[name])

    async def stop(self, request: Request) -> Response:
        at = await _form(request)
        await run_in_threadpool(lambda: control.stop(Run(self.runs.find(at))))
        return _back(at)

    async def resume(self, request: Request) -> Response:
        at = await _form(request)
        await run_in_threadpool(lambda: self.resumed.resume(Run(self.runs.find(at))))
        return _back(at)


def app(root: Path, token: str, port: int) -> ASGIApp:
    """Return the application that serves the runs of a folder to who has the token."""
    own = Pages(root)
    routes = [
        Route("/", own.folder),
        Route("/run", own.run),
        Route("/pair", own.pair),
        Route("/report", own.report),
        *(Route(f"/{name}", own.asset) for name in TYPES),
        Route("/stop", own.stop, methods=["POST"]),
        Route("/resume", own.resume, methods=["POST"]),
    ]
    inner = Starlette(routes=routes, exception_handlers={GraftlabError: _problem})
    return Guard(inner, token, port)


def listen(port: int) -> socket.socket:
    """Return a socket on the loopback address, at any free port where it is 0.

    Raises:
        ConfigError: the port is taken.
    """
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((ADDRESS, port))
        found.listen()  # who reads the address may ask at once
    except OSError as error:
        found.close()
        said = f"port {port} cannot be listened on: {error.strerror or error}. Choose another, or 0 for any."
        place = Place(argument=Argument("port", port))
        raise ConfigError(said, place=place, kind="taken", given=port) from error
    return found


def serve(root: Path, listening: socket.socket, token: str) -> None:
    """Serve until a signal comes."""
    import uvicorn

    port = listening.getsockname()[1]
    config = uvicorn.Config(
        app(root, token, port), log_level="warning", access_log=False, lifespan="off",
        server_header=False, ws="none", proxy_headers=False, timeout_graceful_shutdown=2,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listening])


def new_token() -> str:
    """Return a token that nobody guesses."""
    return secrets.token_urlsafe(24)


def _at(request: Request) -> str:
    return request.query_params.get("at", "")


def _page(request: Request, text: str) -> Response:
    """Return a page, or that it has not changed since the browser asked last."""
    tag = f'"{hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:32]}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"etag": tag})
    return HTMLResponse(text.encode("utf-8", "replace"), headers={"etag": tag})


async def _form(request: Request) -> str:
    """Return which run a form is about. `Raises:` ConfigError: it does not say so."""
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > LONGEST_FORM:
            raise ConfigError("the form is too long.", kind="not_allowed")
    found = parse_qs(content.decode("utf-8", "replace")).get("run", [])
    if len(found) != 1:
        raise ConfigError("the form names no run.", kind="missing")
    return found[0]


def _back(at: str) -> Response:
    return RedirectResponse("/run?" + urlencode({"at": at}), 303)


async def _problem(request: Request, error: Exception) -> Response:
    missing = isinstance(error, GraftlabError) and error.problems[0].kind in ("missing", "no_run")
    return HTMLResponse(pages.problem(str(error)), 404 if missing else 400)
