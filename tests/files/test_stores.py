"""Addresses, and stores that do not answer."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest

from captioner.errors import CaptionerError
from captioner.files import stores
from captioner.files.stores import (
    StoreUnreachable,
    check_store,
    is_address,
    is_unreachable,
    local_path,
    names_in,
    open_file,
    reached,
    retried,
    size_of,
)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("a/b.jpg", "a/b.jpg"),
        ("file:///a/b.jpg", "/a/b.jpg"),
        ("C:/a.jpg", "C:/a.jpg"),
        ("s3://b/a.jpg", None),
        ("https://example.org/a.jpg", None),
    ],
)
def test_paths_are_known_from_addresses(text: str, path: str | None) -> None:
    assert local_path(text) == (None if path is None else Path(path))
    assert is_address(text) == ("://" in text)


class ClientPayloadError(Exception):
    """As aiohttp's."""


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (OSError(errno.EBUSY, "slow down"), True),
        (ClientPayloadError(), True),
        (FileNotFoundError(), False),
        (PermissionError(), False),
        (ValueError(), False),
    ],
)
def test_what_says_that_nobody_answers(error: Exception, expected: bool) -> None:
    assert is_unreachable(error) == expected
    behind = RuntimeError()
    behind.__cause__ = error
    assert is_unreachable(behind) == expected


def test_a_store_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(stores, "_PAUSES_S", (0.0,))
    answers = iter([StoreUnreachable("s3://b", "no route"), StoreUnreachable("s3://b", "x"), 7])

    def ask() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert reached(ask) == 7
    assert capsys.readouterr().err.splitlines() == [
        "captioner: s3://b cannot be reached: no route; waiting for it",
        "captioner: s3://b can be reached again",
    ]


def test_what_a_store_interrupts_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stores, "_PAUSES_S", (0.0,))
    failures = iter([1, 1, 3])

    def items(done: int) -> Iterator[int]:
        stop = next(failures, 5)
        yield from range(done, stop)
        if stop < 5:
            raise StoreUnreachable("s3://b", "no route")

    assert list(retried(items)) == [0, 1, 2, 3, 4]


def test_the_size_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"1234567")
    assert (size_of(str(file)), size_of(f"file://{file}")) == (7, 7)
    with pytest.raises(CaptionerError, match="b does not exist: check the path"):
        size_of(str(tmp_path / "b"))


def test_an_address_that_fsspec_does_not_know_is_refused() -> None:
    with pytest.raises(CaptionerError, match="^nothing://a/b cannot be read: "):
        check_store("nothing://a/b")


def test_without_the_extra_an_address_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fsspec.core", None)
    with pytest.raises(CaptionerError, match=r"pip install \"captioner\[remote\]\""):
        open_file("s3://a/b")


def test_hidden_files_are_not_listed(tmp_path: Path) -> None:
    for name in ("b/c.txt", "a.txt", ".x", ".hidden/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert sorted(names_in(str(tmp_path))) == ["a.txt", "b/c.txt"]
    assert sorted(names_in(f"file://{tmp_path}")) == ["a.txt", "b/c.txt"]


def test_a_store_without_credentials_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(CaptionerError, match=r"s3://b/a cannot be read: unable to locate cred"):
        check_store("s3://b/a")
