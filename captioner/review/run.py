"""Serve a review on this machine until it is interrupted."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from captioner.errors import CaptionerError
from captioner.files.escaping import shown
from captioner.files.resume import locked
from captioner.files.verdicts import FILE_NAME, VerdictStore
from captioner.review.opening import open_captions
from captioner.review.options import ReviewOptions
from captioner.review.proposals import Proposer
from captioner.review.server import make_app
from captioner.review.session import Session

if TYPE_CHECKING:
    from captioner.model.caption_model import CaptionModel

HOST = "127.0.0.1"
"""The loopback: no other machine reaches it."""

STANDARD = ReviewOptions()


@contextmanager
def open_session(path: Path, options: ReviewOptions = STANDARD) -> Iterator[Session]:
    """The captions and their verdicts, which no other captioner changes meanwhile.

    Args:
        path: a file of captions or a folder; see `captioner.review.opening.open_captions`.
        options: how they are found.

    Raises:
        CaptionerError: there are none, or another captioner works on them.
    """
    images = None if options.images is None else Path(options.images)
    captions = open_captions(path, images, options.sidecar_suffix)
    try:
        in_use = (
            f"{shown(captions.folder)} is being reviewed by another `captioner review`: use that "
            "one, or end it"
        )
        with locked(captions.folder / f"{FILE_NAME}.lock", in_use):
            session = Session(captions, VerdictStore(captions.folder, captions.key))
            try:
                yield session
            finally:
                session.close()
    finally:
        captions.close()


def serve(
    path: Path,
    options: ReviewOptions,
    load: Callable[[str | None], CaptionModel],
    on_ready: Callable[[str], object],
) -> Mapping[str, int]:
    """Serve the page until the process is interrupted.

    Args:
        path: what is to be reviewed; see `open_session`.
        options: how it is found and served.
        load: gives the model that captions again, when it is first wanted, for the language of
            the captions (None where it is not known).
        on_ready: called with the page's address.

    Returns:
        How many captions have each verdict.

    Raises:
        CaptionerError: the captions cannot be reviewed, or the port is taken.
    """
    with open_session(path, options) as session, _listening(options.port) as listener:
        port = listener.getsockname()[1]
        token = secrets.token_urlsafe(24)
        captions = session.captions
        proposer = Proposer(lambda: load(captions.language), captions.affixes)
        app = make_app(session, proposer, token, port)
        config = uvicorn.Config(
            app,
            log_level="error",
            access_log=False,
            server_header=False,
            ws="none",
            lifespan="off",
            timeout_graceful_shutdown=5,
        )
        on_ready(f"http://{HOST}:{port}/{token}/")
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
        return session.counts()


@contextmanager
def _listening(port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise CaptionerError(
                f"--port {port} cannot be used: {reason}; leave --port out to take a free one"
            ) from None
        listener.listen(128)
        yield listener
