"""Who may ask the review's server: the page that it gave out, and nobody else on this machine.

The address holds a token that only who started the review knows. The headers ``Host`` (against
names that somebody has resolve to this machine) and ``Origin`` (against pages of other sites) must
be the server's own. See OWASP's cheat sheets on DNS rebinding and cross-site request forgery.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MOST_BYTES = 64 * 1024
"""Of a request; a verdict is far shorter."""

METHODS = frozenset({"GET", "HEAD", "POST"})

_HEADERS: Mapping[str, str] = {
    "cache-control": "no-store",
    "content-security-policy": "frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class Guard:
    """Refuses requests before the application sees them, and forbids what answers are not for.

    Args:
        app: the application; its paths begin with the token.
        token: that must be in the path.
        port: of the server.
    """

    def __init__(self, app: ASGIApp, token: str, port: int) -> None:
        self._app = app
        self._token = token.encode()
        self._hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = self._why_not(scope)
        if refused is None:
            await self._app(scope, receive, send_safely)
        else:
            status, reason = refused
            await JSONResponse({"error": reason}, status)(scope, receive, send_safely)

    def _why_not(self, scope: Scope) -> tuple[int, str] | None:
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if host not in self._hosts:
            return 403, "this server answers to its own address only"
        if origin is None and scope["method"] == "POST":
            return 403, "a request without an origin"
        if origin is not None and origin != f"http://{host}":
            return 403, "a request from another page"
        token = scope["path"].split("/")[1].encode("utf-8", "surrogatepass")
        if not secrets.compare_digest(token, self._token):
            return 404, "the address lacks its token: use the one that captioner printed"
        if scope["method"] not in METHODS:
            return 405, "a method that is not used here"
        if scope["method"] == "POST":
            return _why_no_body(headers)
        return None


def _why_no_body(headers: Headers) -> tuple[int, str] | None:
    length = headers.get("content-length", "")
    if not length.isdecimal() or int(length) > MOST_BYTES:
        return 413, f"a request may have {MOST_BYTES} bytes"
    if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        return 415, "a request has to be JSON"
    return None
