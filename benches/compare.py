"""fastq beside its peers, in one run on one machine: interleaved rounds, medians, ratios.

    python benches/compare.py --models FOLDER --out table.md --json table.json

Needs ``pip install llama-cpp-python==0.3.36`` built from its source distribution, so that it has this machine's
instructions. On processors with AMX that build can end with a segmentation fault in ``ggml_backend_amx_mul_mat``; built
with ``CFLAGS="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"`` (and ``CXXFLAGS``) it runs.

Every measurement is a process of its own (load time and memory are then honest); the engines take turns within a round,
so that a busy neighbour meets all of them. Random-weight files of real shapes are written by ``tests/tiny.py``: speed
does not depend on the values.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PREFILL, DECODE = 512, 128
METRICS = {
    "load_ms": ("load, ms", False),
    "first_ms": ("first token, ms", False),
    "prefill": ("prefill 512, tokens/s", True),
    "decode": ("decode 128, tokens/s", True),
    "rss_mib": ("peak RSS, MiB", False),
}
SHAPES = {"1B Q4_0": "Q4_0", "1B Q4_K_M": "Q4_K_M", "1B Q8_0": "Q8_0"}


def peak_rss_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("/proc/self/status has no VmHWM line")


# Each engine is a function that loads and gives (prompt, n) -> n token ids.
Generate = Callable[[list[int], int], Iterator[int]]


def fastq_engine(path: str, threads: int) -> Generate:
    from fastq import Model

    model = Model(path, context=PREFILL + DECODE + 64, threads=threads)

    def generate(prompt: list[int], n: int) -> Iterator[int]:
        yield from model.generate(prompt, max_tokens=n, temperature=0, ignore_eos=True).tokens

    return generate


def llama_cpp_engine(path: str, threads: int) -> Generate:
    from llama_cpp import Llama

    model = Llama(
        path, n_ctx=PREFILL + DECODE + 64, n_batch=PREFILL, n_ubatch=PREFILL, n_threads=threads,
        n_threads_batch=threads, verbose=False,
    )  # fmt: skip

    def generate(prompt: list[int], n: int) -> Iterator[int]:
        model.reset()
        for i, token in enumerate(model.generate(prompt, temp=0.0, reset=False), 1):
            yield token
            if i == n:
                return

    return generate


ENGINES = {"fastq": fastq_engine, "llama-cpp-python": llama_cpp_engine}


def worker(engine: str, path: str, threads: int) -> dict[str, float]:
    """One measurement in this process. Imports are part of the first token, not of the load."""
    start = time.perf_counter()
    if engine == "fastq":
        import fastq  # noqa: F401
    else:
        import llama_cpp  # noqa: F401
    imported = time.perf_counter()
    generate = ENGINES[engine](path, threads)
    loaded = time.perf_counter()
    list(generate([1, 2], 1))
    first = time.perf_counter()
    prompt = [(i * 7919 + 13) % 1000 + 10 for i in range(PREFILL)]
    # A prompt and one token against the same prompt and 1 + DECODE tokens: the difference is the decoding.
    begin = time.perf_counter()
    list(generate(prompt, 1))
    prefilled = time.perf_counter()
    prompt = [*prompt[1:], 5]  # no engine may reuse the cache of the previous call
    tokens = list(generate(prompt, 1 + DECODE))
    end = time.perf_counter()
    if len(tokens) != 1 + DECODE:
        raise RuntimeError(f"{engine} gave {len(tokens)} of {1 + DECODE} tokens")
    prefill_seconds = prefilled - begin
    return {
        "load_ms": 1000 * (loaded - imported),
        "first_ms": 1000 * (first - start),
        "prefill": PREFILL / prefill_seconds,
        "decode": DECODE / max(end - prefilled - prefill_seconds, 1e-9),
        "rss_mib": peak_rss_mib(),
    }


def measure(engine: str, path: Path, threads: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--worker", engine, str(path), str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{engine} failed on {path.name}: {done.stderr.strip()[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def model_files(folder: Path, wanted: list[str]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for name, file in {"SmolLM2-135M Q4_1": "smollm2.gguf", "Gemma-3-270M Q4_K_M": "gemma3.gguf"}.items():
        if (folder / file).exists():
            files[name] = folder / file
        else:
            print(f"left out: {name} ({folder / file} is missing; python tests/models.py fetches it)", file=sys.stderr)
    for name, kind in SHAPES.items():
        path = folder / f"random-1b-{kind.lower()}.gguf"
        if not path.exists():
            print(f"writing {path.name} ...", file=sys.stderr)
            command = [
                sys.executable,
                str(ROOT / "tests" / "tiny.py"),
                str(path),
                "--shape",
                "llama-1b",
                "--type",
                kind,
            ]
            subprocess.run(command, check=True)
        files[name] = path
    return {name: path for name, path in files.items() if not wanted or any(w in name for w in wanted)}


def table(results: dict[str, Any], engines: list[str]) -> str:
    lines = [f"| model | threads | | {' | '.join(engines)} | ratio |", "|---|---|---|" + "---|" * (len(engines) + 1)]
    for key, rounds in results.items():
        model, threads = key.rsplit("|", 1)
        for metric, (label, higher_is_better) in METRICS.items():
            medians = [statistics.median(r[engine][metric] for r in rounds) for engine in engines]
            row = " | ".join(f"{m:.1f}" for m in medians)
            ratio = "–"
            if len(engines) > 1:
                # The median of the ratios within a round: noise that hits a whole round cancels.
                pairs = [r[engines[0]][metric] / r[engines[1]][metric] for r in rounds]
                ratio = f"{statistics.median(pairs):.2f}{' ×' if higher_is_better else ''}"
            lines.append(f"| {model} | {threads} | {label} | {row} | {ratio} |")
    return "\n".join(lines)


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path(os.environ.get("FASTQ_MODELS", ".cache/models")))
    parser.add_argument("--only", nargs="*", default=[], help="parts of model names")
    parser.add_argument("--engines", nargs="*", default=list(ENGINES), choices=list(ENGINES))
    parser.add_argument("--threads", type=int, nargs="*", default=None, help="default: 1 and all")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the Markdown table here as well")
    parser.add_argument("--json", type=Path, help="write every measurement here")
    parser.add_argument("--worker", nargs=3, metavar=("ENGINE", "PATH", "THREADS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        engine, path, threads = arguments.worker
        print(json.dumps(worker(engine, path, int(threads))))
        return 0

    import fastq

    info = fastq.cpu_info()
    all_threads = sorted({1, info.threads} if arguments.threads is None else set(arguments.threads))
    files = model_files(arguments.models, arguments.only)
    results: dict[str, list[dict[str, dict[str, float]]]] = {}
    for name, path in files.items():
        path.read_bytes()  # into the page cache: every engine starts warm
        for threads in all_threads:
            rounds = results.setdefault(f"{name}|{threads}", [])
            for i in range(arguments.rounds):
                order = arguments.engines if i % 2 == 0 else arguments.engines[::-1]
                rounds.append({engine: measure(engine, path, threads) for engine in order})
                print(f"{name}, {threads} threads: round {i + 1} of {arguments.rounds}", file=sys.stderr)
    text = (
        f"{cpu_name()}, fastq level {info.level}; medians of {arguments.rounds} interleaved rounds; "
        f"ratio: {' / '.join(arguments.engines[:2])}\n\n{table(results, arguments.engines)}\n"
    )
    print(text)
    if arguments.out:
        arguments.out.write_text(text)
    if arguments.json:
        arguments.json.write_text(json.dumps({"cpu": cpu_name(), "level": info.level, "results": results}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
