"""Compares what `fastq quantize` makes with llama.cpp's `llama_model_quantize`.

    python tests/peers/quantize.py types --python PATH [--write] [--model NAME ...]
    python tests/peers/quantize.py bytes --python PATH MODEL.gguf [--imatrix FILE] [--preset NAME ...]
    python tests/peers/quantize.py perplexity --python PATH MODEL.gguf --text FILE [--imatrix FILE] [--preset NAME ...]

`types`: the type of every tensor of every model of `recipes.py` and every preset, with and without an importance
matrix; `--write` stores llama.cpp's answers in `tests/reference/quantize.json` (as digests, which CI compares with).
`bytes`: the data of a real model. Where a build of llama.cpp fuses multiplications and additions, blocks differ from
those of ggml's own C code; so what differs is compared with `libgguf`, which does not.
`perplexity`: llama.cpp loads what fastq makes of a real model, and finds the same perplexity within 0.5 %.
PATH is a Python that has llama-cpp-python (made with 0.3.36).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

import fastq
import recipes
from reference.reader import File

TYPES = """
import ctypes, json, re, sys
import llama_cpp as L
text = []
@L.llama_log_callback
def log(level, line, data):
    text.append(line.decode("utf-8", "replace"))
L.llama_log_set(log, ctypes.c_void_p())
path, presets = sys.argv[1], json.loads(sys.argv[2])
value = (ctypes.c_float * 32)(*[1.0] * 32)
data = (L.llama_model_imatrix_data * 2)()
data[0] = L.llama_model_imatrix_data(b"none", value, 32)
found = {}
for name, number in presets.items():
    found[name] = []
    for imatrix in (False, True):
        params = L.llama_model_quantize_default_params()
        params.ftype, params.dry_run, params.nthread = number, True, 1
        if imatrix:
            params.imatrix = data
        text.clear()
        code = L.llama_model_quantize(path.encode(), b"/dev/null", params)
        said = "".join(text)
        if code:
            found[name].append(said[-300:])
            continue
        lines = re.findall(r"\\[ *\\d+/ *\\d+\\] (\\S+) +- \\[[^]]*\\], type = *(\\w+), size = ([^\\n]*)\\n", said)
        types = {}
        for tensor, before, rest in lines:
            after = re.search(r"\\((\\w+)\\)", rest)
            types[tensor] = after.group(1) if after else before
        found[name].append(types)
print(json.dumps(found))
"""

BYTES = """
import ctypes, json, sys, time
import llama_cpp as L
source, output, number, threads, imatrix = sys.argv[1:6]
params = L.llama_model_quantize_default_params()
params.ftype, params.nthread = int(number), int(threads)
keep = []
if imatrix:
    import numpy as np
    from gguf import GGUFReader
    tensors = {t.name: np.array(t.data, dtype=np.float32) for t in GGUFReader(imatrix).tensors}
    names = [name.removesuffix(".in_sum2") for name in tensors if name.endswith(".in_sum2")]
    data = (L.llama_model_imatrix_data * (len(names) + 1))()
    for i, name in enumerate(names):
        counts = tensors[name + ".counts"].reshape(-1, 1)
        sums = tensors[name + ".in_sum2"].reshape(counts.shape[0], -1)
        values = np.ascontiguousarray(np.where(counts > 0, sums / np.maximum(counts, 1), 1).astype(np.float32)).ravel()
        keep.append(values)
        pointer = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        data[i] = L.llama_model_imatrix_data(name.encode(), pointer, values.size)
    params.imatrix = data
begin, cpu = time.monotonic(), time.process_time()
code = L.llama_model_quantize(source.encode(), output.encode(), params)
print(json.dumps({"code": code, "seconds": time.monotonic() - begin, "cpu": time.process_time() - cpu}))
"""


PERPLEXITY = """
import json, sys
import numpy as np
from llama_cpp import Llama
model = Llama(sys.argv[1], n_ctx=512, n_batch=512, logits_all=True, verbose=False, n_threads=int(sys.argv[3]))
total = count = 0
for tokens in json.load(open(sys.argv[2])):
    model.reset()
    model.eval(tokens)
    logits = np.array(model.scores[256:511], np.float64)
    logits -= logits.max(1, keepdims=True)
    logits -= np.log(np.exp(logits).sum(1, keepdims=True))
    total -= logits[np.arange(255), tokens[257:512]].sum()
    count += 255
print(json.dumps(float(np.exp(total / count))))
"""


def ask(python: str, code: str, *arguments: str) -> Any:
    """The last line that a program of the other Python prints."""
    done = subprocess.run([python, "-c", code, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"llama.cpp ended with {done.returncode}: {done.stderr[-500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def types(options: argparse.Namespace) -> int:
    """Compares types; the number of combinations that differ."""
    reference: dict[str, dict[str, list[str]]] = {}
    wrong = compared = 0
    with tempfile.TemporaryDirectory() as folder:
        imatrix = recipes.write_imatrix(Path(folder) / "imatrix.gguf")
        for name in options.model or recipes.NAMES:
            path = recipes.write(Path(folder) / "model.gguf", name)
            answers = ask(options.python, TYPES, str(path), json.dumps(recipes.PRESETS))
            reference[name] = {}
            for preset, both in answers.items():
                for answer, matrix in zip(both, (None, imatrix), strict=True):
                    if isinstance(answer, str):
                        print(f"{name}, {preset}: llama.cpp refuses: {answer}")
                        reference[name].setdefault(preset, []).append("")
                        continue
                    reference[name].setdefault(preset, []).append(recipes.digest(answer))
                    compared += 1
                    result = fastq.quantize(path, None, preset, imatrix=matrix, dry_run=True, allow_requantize=True)
                    ours = {tensor.name: tensor.type for tensor in result.tensors}
                    different = {t: (ours.get(t), ty) for t, ty in answer.items() if ours.get(t) != ty.upper()}
                    if different or ours.keys() != answer.keys():
                        wrong += 1
                        some = dict(list(different.items())[:4])
                        print(f"{name}, {preset}{', imatrix' if matrix else ''}: {len(different)} differ: {some}")
            print(f"{name}: compared", flush=True)
    print(f"{compared - wrong} of {compared} equal")
    if options.write:
        recipes.REFERENCE.write_text(json.dumps(reference, indent=0) + "\n")
    return wrong


def importance(path: Path | None) -> dict[str, np.ndarray[Any, Any]]:
    """Mean squares of the inputs `(experts, k)` by tensor, as an importance matrix in GGUF has them."""
    if path is None:
        return {}
    tensors = {name: tensor.rows() for name, tensor in File(path).tensors.items()}
    found = {}
    for name in tensors:
        if name.endswith(".in_sum2"):
            counts = tensors[name.removesuffix(".in_sum2") + ".counts"].reshape(-1, 1)
            sums = tensors[name].reshape(counts.shape[0], -1)
            found[name.removesuffix(".in_sum2")] = np.where(counts > 0, sums / np.maximum(counts, 1), 1).astype(
                np.float32
            )
    return found


def rows_that_differ(ours: Path, theirs: Path, source: Path, imatrix: Path | None) -> tuple[int, int, int]:
    """Tensors whose bytes differ, rows that differ, and of these rows those in which `libgguf` does not agree with
    us."""
    import libgguf

    our_file, their_file, source_file = File(ours), File(theirs), File(source)
    weights = importance(imatrix)
    tensors = rows = against = 0
    for name, tensor in our_file.tensors.items():
        other = their_file.tensors[name]
        if tensor.codec != other.codec:
            raise RuntimeError(f"{name}: {tensor.codec.name}, llama.cpp has {other.codec.name}")
        if np.array_equal(tensor.data, other.data):
            continue
        tensors += 1
        values = source_file.tensors[name].rows()
        a, b = tensor.data.reshape(len(values), -1), other.data.reshape(len(values), -1)
        which = np.flatnonzero((a != b).any(axis=1))
        rows += len(which)
        if name in weights and len(weights[name]) != 1:
            raise RuntimeError(f"{name}: experts with an importance matrix are not compared here")
        kind = libgguf.GGMLQuantizationType[tensor.codec.name]
        exact = np.asarray(libgguf.quantize_rows(values[which], kind, weights[name][0] if name in weights else None))
        against += int((exact.reshape(len(which), -1) != a[which]).any(axis=1).sum())
    return tensors, rows, against


def compare_bytes(options: argparse.Namespace) -> int:
    """Compares data; the number of rows that are not those of ggml."""
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = Path(folder) / "ours.gguf", Path(folder) / "theirs.gguf"
        for preset in options.preset:
            for imatrix in [None, options.imatrix] if options.imatrix else [None]:
                number, matrix = str(recipes.PRESETS[preset]), str(imatrix or "")
                answer = ask(
                    options.python, BYTES, str(options.source), str(theirs), number, str(options.threads), matrix
                )
                if answer["code"]:
                    print(f"{preset}: llama.cpp refuses")
                    continue
                begin = time.monotonic()
                result = fastq.quantize(
                    options.source, ours, preset, method="rtn", imatrix=imatrix, threads=options.threads
                )
                seconds = time.monotonic() - begin
                tensors, rows, against = rows_that_differ(ours, theirs, options.source, imatrix)
                wrong += against
                print(
                    f"{preset}{', imatrix' if imatrix else ''}: {tensors} of {len(result.tensors)} tensors differ in"
                    f" {rows} rows, {against} of them from libgguf, too; {seconds:.1f} s,"
                    f" llama.cpp {answer['seconds']:.1f} s",
                    flush=True,
                )
    return wrong


def perplexity(options: argparse.Namespace) -> int:
    """Compares perplexities; the number of files that llama.cpp does not load, or of which it finds another one."""
    wrong = 0
    text = options.text.read_text()
    with tempfile.TemporaryDirectory() as folder:
        out, chunks = Path(folder) / "ours.gguf", Path(folder) / "chunks.json"
        with fastq.Model(options.source, context=512) as model:
            tokens, begin = model.tokenize(text), model.tokenize("")
        cut = [[*begin, *tokens[at + len(begin) : at + 512]] for at in range(0, 512 * options.chunks, 512)]
        chunks.write_text(json.dumps(cut))
        for preset in options.preset or [name for name, *_ in fastq._fastq.presets()]:
            try:
                fastq.quantize(options.source, out, preset, method=options.method, imatrix=options.imatrix)
            except ValueError as error:
                print(f"{preset}: not made: {error}", flush=True)
                continue
            ours = fastq.perplexity(out, text, chunks=options.chunks).ppl
            try:
                theirs = ask(options.python, PERPLEXITY, str(out), str(chunks), str(options.threads))
            except RuntimeError as error:
                print(f"{preset}: {error}", flush=True)
                wrong += 1
                continue
            apart = ours / theirs - 1
            wrong += abs(apart) > 0.005
            print(f"{preset}: fastq {ours:.4f}, llama.cpp {theirs:.4f}, {100 * apart:+.3f} %", flush=True)
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    for name, function in (("types", types), ("bytes", compare_bytes), ("perplexity", perplexity)):
        command = commands.add_parser(name)
        command.set_defaults(function=function)
        command.add_argument("--python", required=True, help="a Python that has llama-cpp-python")
        if name == "types":
            command.add_argument("--write", action="store_true", help="store the answers")
            command.add_argument("--model", nargs="*", help="only these")
        else:
            command.add_argument("source", type=Path)
            command.add_argument("--imatrix", type=Path)
            if name == "bytes":
                command.add_argument("--preset", nargs="*", default=["Q4_K_M", "IQ4_XS", "Q4_0", "Q6_K"])
            else:
                command.add_argument("--preset", nargs="*", help="only these")
                command.add_argument("--text", type=Path, required=True)
                command.add_argument("--chunks", type=int, default=2)
                command.add_argument("--method", default="search")
            command.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    return 1 if options.function(options) else 0


if __name__ == "__main__":
    raise SystemExit(main())
