"""Who may ask: this machine's browser, with the token that was printed, from a page that came from here.

The server listens on the loopback address alone. That keeps other machines out, and not the pages of others
in a browser here: so the Host header is checked (a name that a foreign page has pointed at this address), the
token is asked for (other users of the machine), and what changes something has to come from a page of this
server (Origin).
"""

import secrets
from collections.abc import Iterable
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""What a page of this server may load: its own script and style, and nothing from elsewhere."""
ALWAYS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with `no-referrer` a form would come from the origin `null`
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
READS = ("GET", "HEAD")
CLOSED = "Open the address that `graftlab serve` has printed: it has the token.\n"
FOREIGN = "This comes from another page, and is refused.\n"
UNKNOWN_NAME = "This server answers to its own address alone.\n"


class Guard:
    """Lets requests of this machine's own pages through, and refuses all others."""

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self.app, self.token, self.cookie = app, token, f"graftlab-{port}"
        self.hosts = (f"127.0.0.1:{port}", f"localhost:{port}")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in ALWAYS.items():
                    headers.setdefault(name, value)
            await send(message)

        answer = self._answer(scope)
        await (answer or self.app)(scope, receive, with_headers)

    def _answer(self, scope: Scope) -> Response | None:
        """Return what a request is answered with before any page sees it; None where one may."""
        if scope["type"] != "http":
            return PlainTextResponse(FOREIGN, 403)
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if host not in self.hosts:
            return PlainTextResponse(UNKNOWN_NAME, 421)
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = [value for key, value in query if key == "token"]
        if scope["method"] in READS and given and self._is_token(given[-1]):
            return self._admit(scope["path"], [pair for pair in query if pair[0] != "token"])
        if not self._is_token(self._of_cookie(headers)):
            return PlainTextResponse(CLOSED, 403)
        if scope["method"] not in READS and not self._is_own(headers, host):
            return PlainTextResponse(FOREIGN, 403)
        return None

    def _admit(self, path: str, query: Iterable[tuple[str, str]]) -> Response:
        """Return the way to the page without the token in its address; a cookie has it from now on."""
        rest = urlencode(list(query))
        where = (
            "/" + path.lstrip("/") + (f"?{rest}" if rest else "")
        )  # `//name` would be another host
        answer = RedirectResponse(where, 303)
        answer.set_cookie(self.cookie, self.token, httponly=True, samesite="strict")
        return answer

    def _of_cookie(self, headers: Headers) -> str:
        """Return our own cookie; those of other programs on this address may be no cookies by the standard,
        for which `http.cookies` would give up on all of them."""
        pairs = (pair.strip().partition("=") for pair in headers.get("cookie", "").split(";"))
        return next((value for name, _, value in pairs if name == self.cookie), "")

    def _is_token(self, given: str) -> bool:
        return secrets.compare_digest(given.encode(), self.token.encode())

    def _is_own(self, headers: Headers, host: str) -> bool:
        """Say whether what would change something comes from a page of this server."""
        site = headers.get("sec-fetch-site", "same-origin")
        return headers.get("origin") == f"http://{host}" and site == "same-origin"
