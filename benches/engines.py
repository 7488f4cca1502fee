"""One measurement of one engine, in a process of its own.

    python benches/engines.py '{"engine": "fastq", "path": "m.gguf", "threads": 1, "prefill": 512, "decode": 128}'

prints one JSON object. Times are taken outside the engines with ``time.perf_counter`` where they hand out tokens one
by one; fastq's own split of prompt and decoding is checked against the whole time. Prompts are token ids, the same for
all; sampling is greedy and the end of the text is ignored.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

PROMPT_TEXT = "Hello"


@dataclass(frozen=True)
class Job:
    """What to measure: tokens of the prompt, tokens decoded after it, how often; ``hello`` is a whole short process."""

    engine: str
    path: str
    threads: int
    prefill: int = 512
    decode: int = 128
    kv: Literal["f32", "f16", "q8_0"] = "f16"
    sequences: int = 1
    hello: bool = False

    @property
    def context(self) -> int:
        return self.prefill + self.decode + 64


# (prompt ids, tokens to decode) -> (seconds to the first token, seconds of the others)
Run = Callable[[list[int], int], tuple[float, float]]
clock = time.perf_counter


def fastq(job: Job) -> tuple[Run, Callable[[], object]]:
    from fastq import Model

    model = Model(job.path, context=job.context, threads=job.threads, kv=job.kv)

    def run(prompt: list[int], n: int) -> tuple[float, float]:
        prompts = [[*prompt[:-1], 11 + i] for i in range(job.sequences)]
        start = clock()
        answers = model.generate(prompts, max_tokens=1 + n, temperature=0, ignore_eos=True)
        whole = clock() - start
        for answer in answers:
            if len(answer.tokens) != 1 + n:
                raise RuntimeError(f"{len(answer.tokens)} of {1 + n} tokens")
        timings = answers[0].timings
        if abs(timings.prefill_seconds + timings.decode_seconds - whole) > 0.03 * whole + 0.01:
            raise RuntimeError(f"{timings} does not add up to {whole} s")
        return whole - timings.decode_seconds, timings.decode_seconds

    return run, lambda: model.generate(PROMPT_TEXT, max_tokens=1, temperature=0)


def llama_cpp_python(job: Job) -> tuple[Run, Callable[[], object]]:
    from llama_cpp import Llama

    if job.kv != "f16" or job.sequences != 1:
        raise RuntimeError("not measured with other caches or several sequences")
    model = Llama(
        job.path, n_ctx=job.context, n_batch=512, n_ubatch=512, n_threads=job.threads, n_threads_batch=job.threads,
        verbose=False,
    )  # fmt: skip

    def run(prompt: list[int], n: int) -> tuple[float, float]:
        model.reset()
        start = first = clock()
        for i, _ in enumerate(model.generate(prompt, temp=0.0, reset=False)):
            if i == 0:
                first = clock()
            if i == n:
                break
        return first - start, clock() - first

    return run, lambda: model(PROMPT_TEXT, max_tokens=1, temperature=0.0)


def ik_llama_cpp_python(job: Job) -> tuple[Run, Callable[[], object]]:
    from ik_llama_cpp import IkLlama

    if job.kv != "f16" or job.sequences != 1:
        raise RuntimeError("not measured with other caches or several sequences")
    model = IkLlama(job.path, n_ctx=job.context, n_threads=job.threads, verbose=False)

    def run(prompt: list[int], n: int) -> tuple[float, float]:
        # It gives all tokens at once: the time of the prompt with one token is taken off.
        start = clock()
        model.generate(prompt, max_tokens=1, temperature=0.0)
        middle = clock()
        tokens = model.generate([*prompt[:-1], 12], max_tokens=1 + n, temperature=0.0)
        end = clock()
        if len(tokens) != 1 + n:
            raise RuntimeError(f"{len(tokens)} of {1 + n} tokens")
        return middle - start, max(end - middle - (middle - start), 1e-9)

    return run, lambda: model.generate(model.tokenize(PROMPT_TEXT), max_tokens=1)


def openvino_genai(job: Job) -> tuple[Run, Callable[[], object]]:
    import numpy as np
    import openvino as ov
    import openvino_genai as genai

    if job.kv != "f16" or job.sequences != 1:
        raise RuntimeError("not measured with other caches or several sequences")
    pipeline = genai.LLMPipeline(job.path, "CPU", INFERENCE_NUM_THREADS=job.threads)

    class Clock(genai.StreamerBase):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.times: list[float] = []

        def write(self, token: int | list[int]) -> Any:
            self.times += [clock()] * (len(token) if isinstance(token, list) else 1)
            return genai.StreamingStatus.RUNNING

        def end(self) -> None:
            pass

    def run(prompt: list[int], n: int) -> tuple[float, float]:
        config = genai.GenerationConfig(max_new_tokens=1 + n, ignore_eos=True, do_sample=False)
        streamer = Clock()
        start = clock()
        pipeline.generate(ov.Tensor(np.array([prompt], dtype=np.int64)), config, streamer)
        if len(streamer.times) != 1 + n:
            raise RuntimeError(f"{len(streamer.times)} of {1 + n} tokens")
        return streamer.times[0] - start, streamer.times[-1] - streamer.times[0]

    return run, lambda: pipeline.generate(PROMPT_TEXT, genai.GenerationConfig(max_new_tokens=1, do_sample=False))


# Name -> (module, what measures it). The first is the subject, the others are its peers.
ENGINES: dict[str, tuple[str, Callable[[Job], tuple[Run, Callable[[], object]]]]] = {
    "fastq": ("fastq", fastq),
    "llama-cpp-python": ("llama_cpp", llama_cpp_python),
    "ik-llama-cpp-python": ("ik_llama_cpp", ik_llama_cpp_python),
    "openvino-genai": ("openvino_genai", openvino_genai),
}


def peak_rss_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmHWM line")


def measure(job: Job) -> dict[str, float]:
    """Loads and runs. Imports count for the first token, not for the load."""
    module, prepare = ENGINES[job.engine]
    start = clock()
    importlib.import_module(module)
    imported = clock()
    run, hello = prepare(job)
    loaded = clock()
    if job.hello:
        hello()
        return {}
    hello()
    first = clock()
    prompt = [(i * 7919 + 13) % 1000 + 10 for i in range(job.prefill)]
    prefill, decode = run(prompt, job.decode)
    return {
        "load_ms": 1000 * (loaded - imported),
        "first_ms": 1000 * (first - start),
        "prefill": job.sequences * job.prefill / prefill,
        "decode": job.sequences * job.decode / decode,
        "rss_mib": peak_rss_mib(),
    }


if __name__ == "__main__":
    print(json.dumps(measure(Job(**json.loads(sys.argv[1])))))
