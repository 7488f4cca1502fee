"""fastq beside its peers, in one run on one machine: interleaved rounds, medians, ratios.

    python benches/compare.py --models FOLDER --out table.md --json table.json --plot table.svg
    python benches/compare.py --scenario depth batch busy --only "1B Q4_K_M"

The peers are ``llama-cpp-python==0.3.36`` built from its source distribution, so that it has this machine's
instructions, ``ik-llama-cpp-python`` and ``openvino-genai``; ``--python ENGINE=INTERPRETER`` names another environment
for one of them. On processors with AMX the native build of llama-cpp-python can end with a segmentation fault in
``ggml_backend_amx_mul_mat``; built with ``CFLAGS="-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"`` (and ``CXXFLAGS``) it
runs. What an engine cannot load is a gap in the table, with the reason on stderr.

Every measurement is a process of its own (load time and memory are then honest); the engines take turns within a round,
so that a busy neighbour meets all of them. Random-weight files of real shapes are written by ``tests/tiny.py``: speed
does not depend on the values.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from engines import ENGINES, Job

ROOT = Path(__file__).resolve().parent.parent
REAL = {"SmolLM2-135M Q4_1": "smollm2.gguf", "Gemma-3-270M Q4_K_M": "gemma3.gguf"}
# Label and whether more is better.
METRICS = {
    "load_ms": ("load, ms", False),
    "first_ms": ("import, load, first token, ms", False),
    "process_ms": ('whole process, "Hello", 1 token, ms', False),
    "prefill": ("prefill, tokens/s", True),
    "decode": ("decode, tokens/s", True),
    "rss_mib": ("peak RSS, MiB", False),
}
# Prompts of the scenarios that do not take them from the command line.
DEEP, SHALLOW, EACH = 4096, 16, 32
PROMPTS = {"depth": f"{DEEP} and {SHALLOW}", "batch": f"of {EACH} each"}
Result = dict[str, float]
# One round: what was measured, by engine or variant; a missing one could not be.
Round = dict[str, Result]


def run(job: Job, python: str) -> Result:
    """One measurement in its own process."""
    command = [python, str(ROOT / "benches" / "engines.py"), json.dumps(dataclasses.asdict(job))]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    whole = time.perf_counter() - start
    if done.returncode != 0:
        raise RuntimeError(f"{job.engine} failed on {Path(job.path).name}: {done.stderr.strip()[-600:]}")
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return {"process_ms": 1000 * whole} if job.hello else result


def rounds(variants: dict[str, tuple[Job, str]], count: int, hello: bool, label: str) -> list[Round]:
    """Interleaved rounds of the variants, in alternating order. One that fails is left out of all further rounds."""
    variants, result = dict(variants), []
    for i in range(count):
        order = list(variants) if i % 2 == 0 else list(variants)[::-1]
        measured: Round = {}
        for name in order:
            job, python = variants[name]
            try:
                measured[name] = run(job, python)
                if hello:
                    measured[name] |= run(dataclasses.replace(job, hello=True), python)
            except RuntimeError as error:
                if name == "fastq":
                    raise
                print(f"left out: {error}", file=sys.stderr)
                del variants[name]
        result.append(measured)
        print(f"{label}: round {i + 1} of {count}", file=sys.stderr, flush=True)
    return result


def median(some: list[Round], name: str, metric: str) -> float | None:
    values = [r[name][metric] for r in some if name in r and metric in r[name]]
    return statistics.median(values) if len(values) == len(some) else None


def ratio(some: list[Round], name: str, base: str, metric: str) -> float | None:
    """The median of the ratios within a round: noise that hits a whole round cancels."""
    if not all(metric in r.get(name, {}) and metric in r.get(base, {}) for r in some):
        return None
    return statistics.median(r[name][metric] / r[base][metric] for r in some)


def shown(value: float | None, unit: str = "") -> str:
    return "–" if value is None else f"{value:.2f}{unit}" if unit or value < 10 else f"{value:.1f}"


def table(results: dict[str, list[Round]], names: list[str]) -> str:
    """Medians per engine, and the ratio of the first to each of the others."""
    head = [*names, *(f"{names[0]} / {name}" for name in names[1:])]
    lines = [f"| model | threads | | {' | '.join(head)} |", "|---|---|---|" + "---|" * len(head)]
    for key, some in results.items():
        model, threads = key.rsplit("|", 1)
        for metric, (label, _) in METRICS.items():
            if median(some, names[0], metric) is None:
                continue
            cells = [shown(median(some, name, metric)) for name in names]
            cells += [shown(ratio(some, names[0], name, metric), " ×") for name in names[1:]]
            lines.append(f"| {model} | {threads} | {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def plot(results: dict[str, list[Round]], names: list[str], path: Path) -> None:
    """Bars of prefill and decode, one group per model and thread count."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    keys = list(results)
    figure, axes = pyplot.subplots(2, 1, figsize=(max(8.0, 0.55 * len(keys)), 9), constrained_layout=True)
    for axis, metric in zip(axes, ("prefill", "decode"), strict=True):
        width = 0.8 / len(names)
        for i, name in enumerate(names):
            heights = [median(results[key], name, metric) or 0.0 for key in keys]
            axis.bar([at + i * width for at in range(len(keys))], heights, width, label=name)
        axis.set_ylabel(METRICS[metric][0])
        ticks = [f"{model}, {threads} T" for model, threads in (key.rsplit("|", 1) for key in keys)]
        axis.set_xticks([at + 0.4 - width / 2 for at in range(len(keys))], ticks, rotation=60, ha="right")
    axes[0].legend()
    figure.savefig(path)


def random_file(folder: Path, kind: str) -> Path:
    """The 1B shape (Llama-3.2-1B) with random weights."""
    path = folder / f"random-1b-{kind.lower()}.gguf"
    if not path.exists():
        print(f"writing {path.name} ...", file=sys.stderr)
        command = [
            sys.executable,
            str(ROOT / "tests" / "tiny.py"),
            str(path),
            "--shape",
            "llama-3.2-1b",
            "--type",
            kind,
        ]
        subprocess.run(command, check=True)
    return path


def models(types: list[str], only: list[str]) -> list[tuple[str, str]]:
    """Names, and the file or the type of a random one."""
    every = [*REAL.items(), *((f"1B {kind}", kind) for kind in types)]
    return [(name, what) for name, what in every if not only or any(part in name for part in only)]


def cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


class Busy:
    """An endless loop beside."""

    def __enter__(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", "while True: pass"])

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


class Comparison:
    """What the command line asked for."""

    def __init__(self, arguments: argparse.Namespace, threads: list[int]) -> None:
        self.arguments, self.threads = arguments, threads
        self.python = dict(entry.split("=", 1) for entry in arguments.python)

    def interpreter(self, engine: str) -> str:
        return str(self.python.get(engine, sys.executable))

    def file(self, what: str) -> Path | None:
        folder: Path = self.arguments.models
        if what not in REAL.values():
            return random_file(folder, what)
        if (folder / what).exists():
            return folder / what
        print(f"left out: {what} is not in {folder}; python tests/models.py fetches it", file=sys.stderr)
        return None

    def each(self, scenario: Any, threads: list[int] | None = None) -> dict[str, list[Round]]:
        results: dict[str, list[Round]] = {}
        for name, what in models(self.arguments.types, self.arguments.only):
            path = self.file(what)
            if path is None:
                continue
            path.read_bytes()  # into the page cache: every engine starts warm
            for count in threads or self.threads:
                results[f"{name}|{count}"] = scenario(name, str(path), count)
            if not self.arguments.keep and what not in REAL.values():
                path.unlink()
        return results

    def table(self) -> tuple[dict[str, list[Round]], list[str]]:
        """Every engine, prompt and decoding."""
        names = list(self.arguments.engines)

        def scenario(name: str, path: str, threads: int) -> list[Round]:
            job = Job("", path, threads, self.arguments.prefill, self.arguments.decode)
            variants = {e: (dataclasses.replace(job, engine=e), self.interpreter(e)) for e in names}
            return rounds(variants, self.arguments.rounds, self.arguments.process, f"{name}, {threads} threads")

        return self.each(scenario), names

    def depth(self) -> tuple[dict[str, list[Round]], list[str]]:
        """A prompt of 4096 tokens and decoding after it, beside a short one, with both caches."""
        peer = [e for e in self.arguments.engines if e != "fastq"][:1]
        shapes = {"": DEEP, " at 0": SHALLOW}
        jobs = {
            f"fastq {kv}{note}": ("fastq", kv, tokens) for kv in ("f16", "q8_0") for note, tokens in shapes.items()
        } | {f"{e}{note}": (e, "f16", tokens) for e in peer for note, tokens in shapes.items()}

        def scenario(name: str, path: str, threads: int) -> list[Round]:
            variants = {
                label: (Job(e, path, threads, tokens, self.arguments.decode, kv), self.interpreter(e))
                for label, (e, kv, tokens) in jobs.items()
            }
            return rounds(variants, self.arguments.rounds, False, f"{name}, {threads} threads, depth")

        return self.each(scenario), list(jobs)

    def batch(self) -> tuple[dict[str, list[Round]], list[str]]:
        """Eight sequences together beside one; tokens of all of them."""
        jobs = {"fastq, 8 sequences": 8, "fastq, 1 sequence": 1}

        def scenario(name: str, path: str, threads: int) -> list[Round]:
            variants = {
                label: (
                    Job("fastq", path, threads, EACH, self.arguments.decode, sequences=n),
                    self.interpreter("fastq"),
                )
                for label, n in jobs.items()
            }
            return rounds(variants, self.arguments.rounds, False, f"{name}, {threads} threads, batch")

        return self.each(scenario), list(jobs)

    def busy(self) -> tuple[dict[str, list[Round]], list[str]]:
        """The most threads beside an endless loop, and fewer beside the same loop."""
        jobs = {f"fastq, {n} threads": n for n in sorted(self.threads, reverse=True)}

        def scenario(name: str, path: str, _: int) -> list[Round]:
            variants = {
                label: (Job("fastq", path, n, self.arguments.prefill, self.arguments.decode), self.interpreter("fastq"))
                for label, n in jobs.items()
            }
            with Busy():
                return rounds(variants, self.arguments.rounds, False, f"{name}, busy neighbour")

        return self.each(scenario, [max(self.threads)]), list(jobs)


SCENARIOS = ("table", "depth", "batch", "busy")


def main() -> int:
    import fastq

    info = fastq.cpu_info()
    types = [f.name for f in fastq.formats() if f.name not in ("F32", "F16", "BF16")]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path(os.environ.get("FASTQ_MODELS", ".cache/models")))
    parser.add_argument("--scenario", nargs="+", default=["table"], choices=SCENARIOS)
    parser.add_argument(
        "--types", nargs="*", default=["Q4_0", "Q4_K_M", "Q8_0"], help="of the 1B shape; 'all' for every one"
    )
    parser.add_argument("--only", nargs="*", default=[], help="parts of model names")
    parser.add_argument("--engines", nargs="*", default=["fastq", "llama-cpp-python"], choices=list(ENGINES))
    parser.add_argument("--python", nargs="*", default=[], metavar="ENGINE=INTERPRETER", help="another environment")
    parser.add_argument("--threads", type=int, nargs="*", default=sorted({1, info.threads}), help="default: 1 and all")
    parser.add_argument("--prefill", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("--decode", type=int, default=128, help="tokens after it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--process", action=argparse.BooleanOptionalAction, default=True, help="time whole processes too"
    )
    parser.add_argument("--keep", action=argparse.BooleanOptionalAction, default=True, help="keep random files")
    parser.add_argument("--out", type=Path, help="write the Markdown tables here as well")
    parser.add_argument("--json", type=Path, help="write every measurement here")
    parser.add_argument("--plot", type=Path, help="write bars of the table as SVG (needs matplotlib)")
    arguments = parser.parse_args()
    if arguments.types == ["all"]:
        arguments.types = ["Q4_K_M", *types]
    comparison = Comparison(arguments, list(arguments.threads))

    texts, everything = [], {}
    for scenario in arguments.scenario:
        results, names = getattr(comparison, scenario)()
        everything[scenario] = results
        texts.append(
            f"{cpu_name()}, fastq level {info.level}; {scenario}: medians of {arguments.rounds} interleaved rounds, "
            f"prompt {PROMPTS.get(scenario, arguments.prefill)}, decode {arguments.decode}\n\n{table(results, names)}\n"
        )
        if arguments.plot and scenario == "table":
            plot(results, names, arguments.plot)
        # After every scenario: a long run that ends early keeps what it has.
        text = "\n".join(texts)
        if arguments.out:
            arguments.out.write_text(text)
        if arguments.json:
            arguments.json.write_text(json.dumps({"cpu": cpu_name(), "level": info.level, **everything}, indent=1))
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
