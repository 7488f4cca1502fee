"""One model serves many Python threads; each gets the answer it would get alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import fastq
from conftest import Make

Job = Callable[[fastq.Model], Any]


def jobs(count: int) -> list[Job]:
    """Calls of every kind with different prompts, lengths and seeds."""

    def job(i: int) -> Job:
        prompt = [300 + i] * (1 + i % 5 * 9)
        options: dict[str, Any] = {"max_tokens": 6 + i % 7, "seed": i, "temperature": 1.0 if i % 2 else 0.0}
        kinds: list[Job] = [
            lambda m: m.generate(prompt, **options).tokens,
            lambda m: "".join(m.stream(prompt, **options)),
            lambda m: m.logits(prompt).tobytes(),
            lambda m: [r.text for r in m.generate([prompt, prompt[:1]], **options)],
            lambda m: m.detokenize(m.tokenize("the word of " + "day " * i)),
        ]
        return kinds[i % len(kinds)]

    return [job(i) for i in range(count)]


@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_eight_threads_share_a_model(architecture: str, make: Make) -> None:
    path = make(architecture=architecture, format="Q4_K", layers=6)
    work = jobs(80)
    with fastq.Model(path, threads=2) as m:
        alone = [job(m) for job in work]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(lambda job: job(m), work)) == alone


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "lfm2"])
def test_sixteen_threads_of_fifty_generations(architecture: str, make: Make) -> None:
    """Prompts of which some begin alike, seeds and lengths all differ; each answer is that of one thread alone."""
    path = make(architecture=architecture, format="Q4_K", layers=4 if architecture == "lfm2" else 2, context=512)

    def ask(m: fastq.Model, i: int) -> list[int]:
        prompt = [300 + i % 7] * (1 + i % 90) + [400 + i % 50, 300 + i % 11]
        return m.generate(prompt, max_tokens=1 + i % 13, seed=i, temperature=1.2, ignore_eos=True).tokens

    with fastq.Model(path, threads=1) as m:
        alone = [ask(m, i) for i in range(800)]
    with fastq.Model(path, threads=2) as m, ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda i: ask(m, i), range(800)))
    assert together == alone


def test_threads_share_a_real_model(smollm2: Path) -> None:
    def ask(m: fastq.Model, i: int) -> tuple[str, list[int]]:
        r = m.generate(f"Number {i}: " + "once upon a time " * (i % 5), max_tokens=3 + i % 9, seed=i)
        return r.text, r.tokens

    with fastq.Model(smollm2, threads=1, context=256) as m:
        alone = [ask(m, i) for i in range(48)]
    with fastq.Model(smollm2, threads=2, context=256) as m, ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda i: ask(m, i), range(48))) == alone


def test_the_lock_of_python_is_released(make: Make) -> None:
    """While one thread computes, another one runs Python."""
    path = make(layers=8, width=512, heads=8, kv_heads=2, ffn=2048, context=16384, format="Q8_0")
    with fastq.Model(path, threads=1) as m:
        long = [300 + i % 90 for i in range(4000)]
        thread = threading.Thread(target=m.logits, args=(long,))
        began = last = time.monotonic()
        thread.start()
        pauses = []
        while thread.is_alive():
            time.sleep(0.001)
            now = time.monotonic()
            pauses.append(now - last)
            last = now
        thread.join()
    if last - began > 0.2:
        assert max(pauses) < (last - began) / 2, "Python stood still while the engine computed"
    assert len(pauses) > 3


def test_close_while_others_compute(small: Path) -> None:
    """Closing makes later calls errors; calls under way end with their answer or an error, never a crash."""
    m = fastq.Model(small, threads=2)
    wanted = m.generate([300], max_tokens=100, temperature=0.0, ignore_eos=True).tokens
    found: list[Any] = []

    def run() -> None:
        try:
            while True:
                found.append(m.generate([300], max_tokens=100, temperature=0.0, ignore_eos=True).tokens)
        except (ValueError, fastq.FastqError) as error:
            found.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    m.close()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert sum(isinstance(item, Exception) for item in found) == 4
    assert all(item == wanted for item in found if isinstance(item, list))
