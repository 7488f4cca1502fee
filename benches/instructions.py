"""Count the instructions that a product of the ARM levels takes per weight, beside those of ggml.

There is no ARM machine behind these figures: qemu executes the programs one instruction at a time and writes a line
for each, so what is counted is exact, and says nothing about cycles. Products of two sizes of the same loop are
subtracted, so that start and end do not count.

    python benches/instructions.py PRODUCTS [--ggml PROGRAM] [--cpu max] [--root FOLDER]

PRODUCTS is `rust/kernels/examples/products.rs` built for aarch64 in release; PROGRAM is
`benches/instructions_ggml.cpp` linked to the static libraries of ggml, built for aarch64 with
`-march=armv8.2-a+dotprod+i8mm`. Both take FORMAT TOKENS ROWS K TIMES.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys

TYPES = ("Q4_0", "Q4_K", "Q8_0", "Q6_K", "Q5_K", "Q4_1", "Q5_0", "Q3_K", "Q2_K", "IQ4_NL", "IQ4_XS", "MXFP4")
ROWS, K = 64, 2048


def executed(command: list[str], cpu: str, root: str | None, level: str | None) -> int | None:
    """Instructions that a program executes; `None` when it does not know the type."""
    qemu = ["qemu-aarch64-static", "-cpu", cpu, "-singlestep", "-d", "nochain,exec", "-D", "/dev/stdout"]
    if root:
        qemu += ["-L", root]
    environment = os.environ | ({"FASTQ_LEVEL": level} if level else {})
    with subprocess.Popen(qemu + command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = sum(chunk.count(b"Trace ") for chunk in process.stdout)
        error = process.stderr.read().decode()
    if process.returncode == 2:
        return None
    if process.returncode != 0:
        sys.exit(f"{command[0]} ended with {process.returncode}: {error}")
    return lines


def per_weight(program: str, kind: str, tokens: int, cpu: str, root: str | None, level: str | None) -> float | None:
    """Instructions per weight and token."""
    counts = [executed([program, kind, str(tokens), str(ROWS), str(K), times], cpu, root, level) for times in "13"]
    if counts[0] is None or counts[1] is None:
        return None
    return (counts[1] - counts[0]) / (2 * ROWS * K * tokens)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("products")
    parser.add_argument("--ggml")
    parser.add_argument("--cpu", default="max")
    parser.add_argument("--root", help="folder with the libraries of the emulated system")
    parser.add_argument("--levels", nargs="*", default=["neon", "neon_dot", "neon_i8mm"])
    parser.add_argument("--types", nargs="*", default=TYPES)
    parser.add_argument("--tokens", nargs="*", type=int, default=[1, 64])
    arguments = parser.parse_args()
    columns = [*arguments.levels, *(["ggml", "ggml, file layout"] if arguments.ggml else [])]
    print("| type | tokens |" + "".join(f" {name} |" for name in columns))
    print("|---|---|" + "---|" * len(columns))
    for kind in arguments.types:
        for tokens in arguments.tokens:
            cells = []
            for name in columns:
                program, level = (arguments.ggml, None) if name.startswith("ggml") else (arguments.products, name)
                form = f"{kind}-row" if name.endswith("layout") else kind
                count = per_weight(program, form, tokens, arguments.cpu, arguments.root, level)
                cells.append("" if count is None else f"{count:.3f}")
            print(f"| {kind} | {tokens} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
