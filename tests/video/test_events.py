"""Messages from one process to another."""

from __future__ import annotations

import io
import json

import pytest

from captioner.video.events import MAX_DATA, receive


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b'{"event": "alive", "bytes": 0}',  # without its end
        b'{"event": "frame", "bytes": 10}\n123',
        b"[1, 2]\n",
        b"null\n",
        b"words\n",
        b"\xff\xfe\n",
        b'{"event": "alive"}\n',
        b'{"event": "alive", "bytes": "3"}\n123',
        b'{"event": "alive", "bytes": -1}\n123',
        json.dumps({"event": "frame", "bytes": MAX_DATA + 1}).encode() + b"\n",
        b" " * 1_000_000 + b"\n",
    ],
)
def test_what_is_no_message_ends_the_reading(sent: bytes) -> None:
    assert receive(io.BytesIO(sent)) is None
    message = {"event": "frame", "values": {"time_s": 1.0}, "bytes": 3}
    stream = io.BytesIO(json.dumps(message).encode() + b"\nabc" + sent)
    assert receive(stream) == (message, b"abc")
    assert receive(stream) is None
