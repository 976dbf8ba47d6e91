"""The review as a web application: one page, what it asks for, and views of the images.

Nothing is served but the page and re-encoded views of the images under review, which are asked for
by their names in the captions, never by a path. Captions change in the one thread of the server, so
one after the other; images are read, and captioned again, in others.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Coroutine
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.images.reading import ImageError
from captioner.pages.languages import page_languages
from captioner.pages.render import render_page
from captioner.review.guard import Guard
from captioner.review.images import LARGE, SMALL, Views
from captioner.review.proposals import Proposer
from captioner.review.session import Conflict, Reviewed, Session

VIEW_S = 3600
"""Seconds for which a browser may keep a view."""

Answer = dict[str, Any]


def make_app(session: Session, proposer: Proposer, token: str, port: int) -> ASGIApp:
    """The application.

    Args:
        session: what the page shows and changes.
        proposer: gives new captions.
        token: the first part of every path.
        port: that the server listens on.
    """
    server = _Server(session, proposer)
    routes = [
        Route("/{token}/", server.page),
        Route("/{token}/items", server.items),
        Route("/{token}/view", server.view),
        Route("/{token}/accept", server.accept, methods=["POST"]),
        Route("/{token}/correct", server.correct, methods=["POST"]),
        Route("/{token}/reject", server.reject, methods=["POST"]),
        Route("/{token}/undo", server.undo, methods=["POST"]),
        Route("/{token}/propose", server.propose, methods=["POST"]),
    ]
    return Guard(Starlette(routes=routes), token, port)


class AsciiJson(JSONResponse):
    """JSON in ASCII, which holds every name, also those that are not valid Unicode."""

    def render(self, content: object) -> bytes:
        """The bytes."""
        return json.dumps(content, allow_nan=False).encode("ascii")


class _Server:
    """The answers."""

    def __init__(self, session: Session, proposer: Proposer) -> None:
        self._session = session
        self._proposer = proposer
        self._views = Views()

    async def page(self, request: Request) -> Response:
        title = self._session.captions.title
        text = render_page(
            "review.html",
            package="captioner.review",
            asks_server=True,
            title=f"Review: {title}",
            folder=shown(shlex.quote(str(self._session.captions.folder))),
            data={
                "title": title,
                "languages": page_languages(
                    {"language": item.language} for item in self._session.captions.items.values()
                ),
            },
        )
        return HTMLResponse(text)

    async def items(self, request: Request) -> Response:
        since = request.query_params.get("since", "-1")
        after = int(since) if since.removeprefix("-").isdecimal() and len(since) < 16 else -1
        shown = [_as_json(each) for each in self._session.reviewed(after)]
        return AsciiJson({"version": self._session.version, "items": shown})

    async def view(self, request: Request) -> Response:
        item = self._session.item(request.query_params.get("name", ""))
        if item is None or item.path is None:
            return AsciiJson({"error": "there is no such image"}, 404)
        side = LARGE if "large" in request.query_params else SMALL
        try:
            data = await run_in_threadpool(self._views.view, item.path, side)
        except ImageError as error:
            return AsciiJson({"error": error.reason}, 404)
        headers = {"cache-control": f"private, max-age={VIEW_S}"}
        return Response(data, media_type="image/jpeg", headers=headers)

    async def accept(self, request: Request) -> Response:
        async def work(given: Answer) -> Answer:
            return self._shown(self._session.accept(_text(given, "name"), _seen(given)))

        return await _answered(request, work)

    async def correct(self, request: Request) -> Response:
        async def work(given: Answer) -> Answer:
            name, text = _text(given, "name"), _text(given, "text")
            return self._shown(self._session.correct(name, _seen(given), text))

        return await _answered(request, work)

    async def reject(self, request: Request) -> Response:
        async def work(given: Answer) -> Answer:
            return self._shown(self._session.reject(_text(given, "name"), _seen(given)))

        return await _answered(request, work)

    async def undo(self, request: Request) -> Response:
        async def work(given: Answer) -> Answer:
            undone = self._session.undo()
            return self._shown(undone) if undone is not None else {"item": None}

        return await _answered(request, work)

    async def propose(self, request: Request) -> Response:
        async def work(given: Answer) -> Answer:
            item = self._session.item(_text(given, "name"))
            if item is None or item.path is None:
                raise CaptionerError("there is no such image")
            prompt = _text(given, "prompt")
            return {"texts": await run_in_threadpool(self._proposer.propose, item.path, prompt)}

        return await _answered(request, work)

    def _shown(self, reviewed: Reviewed) -> Answer:
        return {"item": _as_json(reviewed)}


async def _answered(
    request: Request, work: Callable[[Answer], Coroutine[None, None, Answer]]
) -> Response:
    """Do what a request asks for; what is wrong with it is its answer."""
    try:
        given = json.loads(await request.body())
        if not isinstance(given, dict):
            raise ValueError
    except (ValueError, RecursionError):
        return AsciiJson({"error": "a request has to be a JSON object"}, 400)
    try:
        return AsciiJson(await work(given))
    except Conflict:
        return AsciiJson({"error": "the caption was changed elsewhere meanwhile"}, 409)
    except CaptionerError as error:
        return AsciiJson({"error": str(error)}, 400)


def _text(given: Answer, key: str) -> str:
    value = given.get(key)
    if not isinstance(value, str):
        raise CaptionerError(f"{key} is missing")
    return value


def _seen(given: Answer) -> str | None:
    return None if given.get("seen") is None else _text(given, "seen")


def _as_json(reviewed: Reviewed) -> Answer:
    """An image as the page's script reads it."""
    item, verdict = reviewed.item, reviewed.verdict
    return {
        "name": item.name,
        "text": item.text,
        "language": item.language,
        "sure": item.confidence,
        "tags": item.tags,
        "problem": item.problem,
        "hasView": item.path is not None,
        "verdict": None if verdict is None else verdict.verdict,
        "before": None if verdict is None else verdict.before,
        "version": reviewed.version,
    }
