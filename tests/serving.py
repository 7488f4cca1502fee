"""A server in a process of its own, and plain HTTP to it; for tests and for the soak test."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Server:
    """`fastq serve` on a free port."""

    def __init__(self, model: Path, *arguments: str) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "FASTQ_API_KEY"}
        # FASTQ: another program than the one of the Python package.
        program = [os.environ["FASTQ"]] if os.environ.get("FASTQ") else [sys.executable, "-m", "fastq"]
        command = [*program, "serve", str(model), "--port", "0", *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.process.stdout.close()
        if not line:
            raise RuntimeError(f"fastq serve ended with code {self.process.wait()}")
        assert line.startswith("listening on http://"), line
        self.url = line.split()[-1]
        self.host, self.port = self.url.removeprefix("http://").rsplit(":", 1)

    def request(self, method: str, path: str, body: Any = None, timeout: float = 120) -> tuple[int, bytes]:
        """Status and body."""
        connection = http.client.HTTPConnection(self.host, int(self.port), timeout=timeout)
        try:
            data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
            connection.request(method, path, data)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def metrics(self) -> dict[str, float]:
        """The values of `/metrics`."""
        lines = self.request("GET", "/metrics")[1].decode().splitlines()
        pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in pairs}

    def stop(self) -> int:
        """Ends it; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(30)
        finally:
            self.process.kill()


@contextmanager
def serving(model: Path, *arguments: str) -> Iterator[Server]:
    """A server for as long as it is needed. It must end well."""
    server = Server(model, *arguments)
    try:
        yield server
    finally:
        code = server.stop()
    assert code == 0, code
