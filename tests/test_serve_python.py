"""The server in a Python process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import fastq


def test_serve(small: Path) -> None:
    """It answers as the model does, and Ctrl-C ends it."""
    program = (
        "import fastq, sys; fastq.serve(sys.argv[1], port=0, ready=lambda url: print(url, flush=True)); print('end')"
    )
    command = [sys.executable, "-c", program, str(small)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            url = process.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:")
            body = {"model": "any", "prompt": "a b", "max_tokens": 5, "seed": 3}
            request = urllib.request.Request(
                f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=60) as response:
                answer = json.load(response)
            assert answer["usage"]["completion_tokens"] <= 5
            os.kill(process.pid, signal.SIGINT)
            assert process.stdout.read().strip() == "end"
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_wrong_options(model: fastq.Model) -> None:
    with pytest.raises(ValueError, match="API key"):
        fastq.serve(model, host="0.0.0.0", port=0)
    with pytest.raises(ValueError, match="port"):
        fastq.serve(model, port=-1)
    with pytest.raises(ValueError, match="parallel"):
        fastq.serve(model, port=0, parallel=0)
    with pytest.raises(ValueError, match="grace"):
        fastq.serve(model, port=0, grace=-1)

    def fail(_: str) -> None:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        fastq.serve(model, port=0, ready=fail)
