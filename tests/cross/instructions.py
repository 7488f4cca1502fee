"""Counts the dot-product instructions of aarch64, in a module or in what the emulator ran.

    python instructions.py MODULE.so            # in the code of an ELF file
    python instructions.py --ran QEMU_LOG       # in a log of `qemu-aarch64 -d in_asm`, which holds what was executed

Prints `sdot=N udot=N ...`. Standard library only; instructions are words of four bytes, told apart
by their bits (Arm Architecture Reference Manual, C4.1 "A64 instruction set encoding").
"""

from __future__ import annotations

import re
import struct
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

# Name, mask, value: vectors first, then by element. Registers and the length of the vectors are masked out.
ENCODINGS = (
    ("sdot", 0xBFE0FC00, 0x0E809400),
    ("sdot", 0xBFC0F400, 0x0F80E000),
    ("udot", 0xBFE0FC00, 0x2E809400),
    ("udot", 0xBFC0F400, 0x2F80E000),
    ("usdot", 0xBFE0FC00, 0x0E809C00),
    ("usdot", 0xBFC0F400, 0x0F80F000),
    ("sudot", 0xBFC0F400, 0x0F00F000),
    ("smmla", 0xFFE0FC00, 0x4E80A400),
    ("ummla", 0xFFE0FC00, 0x6E80A400),
    ("usmmla", 0xFFE0FC00, 0x4E80AC00),
)
NAMES = tuple(dict.fromkeys(name for name, *_ in ENCODINGS))
EXECUTABLE = 4  # SHF_EXECINSTR


def code_of(path: Path) -> Iterator[int]:
    """The instructions in the executable sections of an ELF file for aarch64."""
    data = path.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", data, 18)[0] != 183:
        raise ValueError(f"{path} is no ELF file for aarch64")
    (table,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    for number in range(count):
        _, kind, flags, _, offset, length = struct.unpack_from("<IIQQQQ", data, table + number * size)
        if flags & EXECUTABLE and kind == 1:
            yield from (word for (word,) in struct.iter_unpack("<I", data[offset : offset + length // 4 * 4]))


def code_that_ran(path: Path) -> Iterator[int]:
    """The instructions in a log of the emulator: lines of address, colon, eight hexadecimal digits."""
    line = re.compile(r"^0x[0-9a-f]+:\s+([0-9a-f]{8})\b")
    with path.open(errors="replace") as log:
        for text in log:
            if match := line.match(text):
                yield int(match[1], 16)


def count(words: Iterable[int]) -> Counter[str]:
    """How often each of the instructions occurs; fails if there is no code at all."""
    found: Counter[str] = Counter()
    total = 0
    for word in words:
        total += 1
        for name, mask, value in ENCODINGS:
            if word & mask == value:
                found[name] += 1
    if total < 1000:
        raise ValueError(f"only {total} instructions: that is no program")
    return found


def main() -> None:
    ran, path = sys.argv[1] == "--ran", Path(sys.argv[-1])
    found = count(code_that_ran(path) if ran else code_of(path))
    print(" ".join(f"{name}={found[name]}" for name in NAMES))


if __name__ == "__main__":
    main()
