"""Whom the server answers, and with what."""

from __future__ import annotations

import http.client
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from captioner.cli import entry as cli
from helpers.images import noise
from helpers.reviews import Place, Server, serving, texts_of, verdicts_in


@pytest.fixture
def server(place: Place) -> Iterator[Server]:
    place("jsonl")
    with serving("captions.jsonl") as server:
        yield server


def ask(
    server: Server, method: str, path: str, headers: dict[str, str], body: str | None = None
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Ask with these headers and no others; ``{port}`` in them stands for the server's."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value.format(port=server.port))
    if body is not None and "Content-Length" not in headers:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(None if body is None else body.encode())
    response = connection.getresponse()
    answer = response.status, response.headers, response.read()
    connection.close()
    return answer


HOST = {"Host": "127.0.0.1:{port}"}
ORIGIN = {**HOST, "Origin": "http://127.0.0.1:{port}"}
JSON = {**ORIGIN, "Content-Type": "application/json"}


def test_only_the_page_itself_is_answered(server: Server) -> None:
    body = json.dumps({"name": "a.png", "seen": texts_of("jsonl")["a.png"]})
    cases: list[tuple[str, str, dict[str, str], str | None, int]] = [
        ("GET", "", HOST, None, 200),
        ("GET", "", {"Host": "localhost:{port}"}, None, 200),
        ("GET", "", {"Host": "captioner.example:{port}"}, None, 403),
        ("GET", "", {"Host": "127.0.0.1"}, None, 403),
        ("GET", "", {}, None, 400),
        ("GET", "items", {**HOST, "Origin": "https://example.com"}, None, 403),
        ("GET", "items", {**HOST, "Origin": "http://localhost:{port}"}, None, 403),
        ("GET", "../", HOST, None, 404),
        ("GET", "../items", HOST, None, 404),
        ("GET", "../" + "x" * 32 + "/items", HOST, None, 404),
        ("GET", "nothing", HOST, None, 404),
        ("GET", "accept", HOST, None, 405),
        ("PUT", "accept", JSON, body, 405),
        ("OPTIONS", "accept", {**HOST, "Origin": "https://example.com"}, None, 403),
        ("POST", "accept", {**JSON, "Origin": "https://example.com"}, body, 403),
        ("POST", "accept", {**JSON, "Origin": "null"}, body, 403),
        ("POST", "accept", {**HOST, "Content-Type": "application/json"}, body, 403),
        ("POST", "accept", {**ORIGIN, "Content-Type": "text/plain"}, body, 415),
        ("POST", "accept", {**JSON, "Content-Length": "70000"}, body, 413),
        ("POST", "accept", {**JSON, "Transfer-Encoding": "chunked"}, None, 413),
        ("POST", "accept", JSON, "[1]", 400),
        ("POST", "accept", JSON, '{"name": 1}', 400),
        ("POST", "accept", JSON, '{"name": "nowhere.png", "seen": "a"}', 409),
    ]
    for method, inside, headers, text, status in cases:
        path = server.path + inside
        while "/../" in path:  # as it is, and not as a client would resolve it
            path = "/" + path.split("/../", 1)[1]
        assert ask(server, method, path, headers, text)[0] == status, (method, inside, headers)
    assert not Path(".captioner-review.sqlite").exists()
    assert ask(server, "POST", f"{server.path}accept", JSON, body)[0] == 200
    assert [row[:2] for row in verdicts_in(Path())] == [("a.png", "accepted")]


def test_it_listens_on_the_loopback_only(server: Server) -> None:
    if sys.platform != "linux":
        pytest.skip("reads Linux's list of sockets")
    sockets = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    sockets += [line.split() for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]]
    here = [each[1] for each in sockets if each[1].endswith(f":{server.port:04X}")]
    assert {address.split(":")[0] for address in here if address} == {"0100007F"}


def test_every_answer_forbids_what_it_is_not_for(server: Server) -> None:
    for path in (server.path, f"{server.path}view?name=a.png", "/nothing"):
        headers = ask(server, "GET", path, HOST)[1]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert headers["Content-Security-Policy"] == "frame-ancestors 'none'"
        assert headers["Server"] is None
        assert not [name for name in headers if name.lower().startswith("access-control")]


def test_images_are_served_by_name_and_without_their_own_data(place: Place) -> None:
    place("jsonl")
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    noise(1, 2000, 1000).save("photos/b.jpg", exif=exif)
    noise(2).save("secret.png")
    with open("captions.jsonl", "a") as file:
        for name in (
            "../secret.png",
            "secret.png/../../secret.png",
            str(Path("secret.png").resolve()),
        ):
            file.write(json.dumps({"file_name": name, "text": "a secret"}) + "\n")
    with serving("captions.jsonl", "--images", "photos") as server:

        def view(query: str) -> tuple[int, bytes]:
            status, _, data = ask(server, "GET", f"{server.path}view?{query}", HOST)
            return status, data

        for query, size in (("name=b.jpg", (320, 160)), ("name=b.jpg&large", (1600, 800))):
            status, data = view(query)
            assert status == 200 and b"where I live" not in data
            with Image.open(io.BytesIO(data)) as image:
                assert (image.format, image.size, dict(image.getexif())) == ("JPEG", size, {})
        for query in (
            "name=../secret.png",
            "name=secret.png/../../secret.png",
            f"name={Path('secret.png').resolve()}",
            "name=secret.png",
            "name=/etc/passwd",
            "name=captions.jsonl",
            "name=broken.jpg",
            "",
        ):
            assert view(query)[0] == 404, query
        items: list[dict[str, Any]] = json.loads(
            ask(server, "GET", f"{server.path}items", HOST)[2]
        )["items"]
        problems = {item["name"]: item["problem"] for item in items}
        assert "leads out" in problems["../secret.png"]


def test_ctrl_c_ends_it_and_says_what_was_done(server: Server) -> None:
    body = json.dumps({"name": "a.png", "seen": texts_of("jsonl")["a.png"]})
    assert ask(server, "POST", f"{server.path}reject", JSON, body)[0] == 200
    code, said = server.interrupt()
    assert code == 0
    assert said.splitlines() == [
        "captioner: 1 rejected",
        "captioner: to teach a model with them: captioner fit --config configs/corrections.yaml "
        "--data.root .",
    ]
    assert sorted(path.name for path in Path().glob(".*")) == [
        ".captioner-review.sqlite",
        ".captions.jsonl.captioner",
    ]


def test_without_the_extra_it_is_named(
    place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place("jsonl")
    monkeypatch.delitem(sys.modules, "captioner.review.run", raising=False)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert cli.main(["review", "captions.jsonl"]) == 2
    assert capsys.readouterr().err == (
        "captioner: error: `captioner review` needs uvicorn, which is not installed; "
        'pip install "captioner[review]"\n'
    )
