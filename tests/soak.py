"""A server under mixed load for minutes: `python tests/soak.py [MINUTES] [MODEL]` (10, and the tests' SmolLM2).

Of the requests, 5 % are malformed and 5 % of the clients go before they have their answer. Fails when a status is 5xx,
when an answer that is always the same is not, or when resident memory grows by more than 1 MiB per minute once the
cache of prompts is full. At the end it compares one stream with eight at once.
"""

from __future__ import annotations

import http.client
import json
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import models
from serving import Server, serving

THREADS = 6
MALFORMED, LEAVING = 0.05, 0.05
SLOPE = 1.0  # MiB per minute
WARM = 2.0  # minutes until the cache of prompts has what it keeps
BAD = [
    b"{",
    b"[" * 1000,
    b"\xff",
    b'{"messages": 5}',
    b'{"messages": [], "n": -1}',
    b'{"prompt": "a", "max_tokens": NaN}',
    b"",
]
WORDS = ["the", "fox", "and", "a", "dog", "of", "time", "in", "red", "see", "how", "it"]
PATHS = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", "/tokenize"]


def body(path: str, draw: random.Random) -> dict[str, Any]:
    """A request that is right."""
    words = " ".join(draw.choices(WORDS, k=draw.randint(1, 300)))
    options = {"max_tokens": draw.randint(1, 60), "seed": draw.randint(0, 5), "stream": draw.random() < 0.5}
    match path:
        case "/v1/chat/completions":
            form = {"response_format": {"type": "json_object"}} if draw.random() < 0.1 else {}
            return {"messages": [{"role": "user", "content": words}], **options, **form}
        case "/v1/completions":
            return {"prompt": words, "n": draw.choice([1, 1, 2]), **options}
        case "/v1/embeddings":
            return {"input": [words, words[:20]]}
        case "/v1/responses":
            return {"input": words, "max_output_tokens": options["max_tokens"], "stream": options["stream"]}
    return {"content": words}


FIXED = {"prompt": "The fox", "max_tokens": 20, "temperature": 0}


class Load:
    """What threads send, and what came of it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.counts: Counter[str] = Counter()
        self.expected = self.fixed()
        self.end = threading.Event()
        self.faults: list[str] = []

    def fixed(self) -> str:
        return str(json.loads(self.server.request("POST", "/v1/completions", FIXED)[1])["choices"][0]["text"])

    def leave(self, path: str, draw: random.Random) -> None:
        connection = http.client.HTTPConnection(self.server.host, int(self.server.port))
        connection.request("POST", path, json.dumps(body(path, draw)))
        time.sleep(draw.random() * 0.3)
        connection.close()

    def run(self, seed: int) -> None:
        draw = random.Random(seed)
        while not self.end.is_set():
            path, luck = draw.choice(PATHS), draw.random()
            try:
                if luck < LEAVING:
                    self.leave(path, draw)
                    self.counts["left"] += 1
                elif luck < LEAVING + MALFORMED:
                    status = self.server.request("POST", path, draw.choice(BAD))[0]
                    self.counts[f"malformed {status}"] += 1
                    if status != 400:
                        self.faults.append(f"{path}: status {status} for what is malformed")
                elif luck < LEAVING + MALFORMED + 0.05:
                    if self.fixed() != self.expected:
                        self.faults.append("an answer has changed")
                    self.counts["same"] += 1
                else:
                    status, answer = self.server.request("POST", path, body(path, draw))
                    self.counts[str(status)] += 1
                    if status != 200:
                        self.faults.append(f"{path}: {status} {answer[:200]!r}")
            except Exception as error:
                self.faults.append(f"{path}: {error!r}")


def slope(samples: list[tuple[float, float]]) -> float:
    """MiB per minute, by least squares."""
    count = len(samples)
    mean_x, mean_y = (sum(sample[axis] for sample in samples) / count for axis in (0, 1))
    over = sum((x - mean_x) * (y - mean_y) for x, y in samples)
    return over / (sum((x - mean_x) ** 2 for x, _ in samples) or 1.0) * 60


def streams(server: Server, count: int) -> float:
    """Tokens per second of so many streams together."""
    wanted = {"prompt": "Once upon a time", "max_tokens": 100, "ignore_eos": True, "stream": True}
    start = time.monotonic()
    request = ("POST", "/v1/completions", wanted)
    threads = [threading.Thread(target=server.request, args=request) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return count * 100 / (time.monotonic() - start)


def main() -> int:
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 10.0
    model = Path(sys.argv[2]) if len(sys.argv) > 2 else models.path_of("smollm2")
    with serving(model, "--queue", "64") as server:
        load = Load(server)
        threads = [threading.Thread(target=load.run, args=(seed,)) for seed in range(THREADS)]
        for thread in threads:
            thread.start()
        samples: list[tuple[float, float]] = []
        begin = time.monotonic()
        while (elapsed := time.monotonic() - begin) < minutes * 60:
            time.sleep(1)
            samples.append((elapsed, server.metrics()["fastq_resident_memory_bytes"] / 2**20))
        load.end.set()
        for thread in threads:
            thread.join()
        metrics = server.metrics()
        judged = [sample for sample in samples if sample[0] > max(WARM, minutes / 5) * 60]
        growth = slope(judged) if len(judged) > 60 else None
        one, eight = max(streams(server, 1) for _ in range(3)), max(streams(server, 8) for _ in range(3))
    errors = metrics['fastq_requests_total{status="5xx"}']
    print(
        f"{minutes} minutes: {dict(load.counts)}, 5xx {errors:.0f}, "
        f"left early {metrics['fastq_requests_abandoned_total']:.0f}"
    )
    told = "too short to tell whether it grows" if growth is None else f"{growth:+.2f} MiB per minute at the end"
    print(f"memory {samples[0][1]:.1f} to {samples[-1][1]:.1f} MiB, {told}")
    print("minute by minute:", *(f"{size:.0f}" for _, size in samples[::60]))
    print(f"streams: one {one:.1f} tokens/s, eight together {eight:.1f} ({eight / one:.2f} times)")
    for fault in load.faults[:10]:
        print("fault:", fault)
    return int(bool(load.faults) or errors > 0 or (growth is not None and growth > SLOPE))


if __name__ == "__main__":
    sys.exit(main())
