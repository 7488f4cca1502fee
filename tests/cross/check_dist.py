"""Prints what a release consists of, and fails if a wheel is not one module of less than 10 MB with nothing beside it.

    python check_dist.py dist/*

For each file: its size, the shared libraries it needs and the highest version of glibc among its symbols. Needs the
standard library only, and `readelf` for the files of Linux.
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

LARGEST = 10_000_000
"""Bytes that a wheel may have."""


def of_elf(path: Path) -> tuple[list[str], str]:
    """Needed libraries and the highest `GLIBC_` version."""
    told = subprocess.run(["readelf", "--wide", "-d", "-V", path], check=True, capture_output=True, text=True).stdout
    versions = {tuple(map(int, v.split("."))) for v in re.findall(r"\bGLIBC_([0-9.]+)\b", told)}
    highest = ".".join(map(str, max(versions))) if versions else "-"
    return re.findall(r"\(NEEDED\).*\[(.*)\]", told), highest


def of_mach_o(data: bytes) -> list[str]:
    """Names in the load commands for libraries (LC_LOAD_DYLIB and its weak and re-exporting kinds)."""
    (commands,) = struct.unpack_from("<I", data, 16)
    at, names = 32, []
    for _ in range(commands):
        kind, size = struct.unpack_from("<II", data, at)
        if kind & 0x7FFFFFFF in (0x0C, 0x18, 0x1F):
            (name,) = struct.unpack_from("<I", data, at + 8)
            names.append(data[at + name : at + size].split(b"\0")[0].decode())
        at += size
    return names


def needs(data: bytes) -> tuple[list[str], str]:
    """Needed libraries and glibc of a module or a program."""
    if data[:4] == b"\x7fELF":
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            return of_elf(Path(file.name))
    if data[:4] == b"\xcf\xfa\xed\xfe":
        return of_mach_o(data), "-"
    if data[:2] == b"MZ":
        dlls = {name.decode().lower() for name in re.findall(rb"[A-Za-z0-9_.-]+\.dll", data, re.IGNORECASE)}
        return sorted(dlls), "-"
    raise ValueError("neither ELF nor Mach-O nor PE")


def check_wheel(path: Path) -> tuple[list[str], str]:
    """The one module of a wheel; an error if there are more or something lies beside it."""
    with zipfile.ZipFile(path) as wheel:
        binaries = [n for n in wheel.namelist() if re.search(r"\.(so|pyd|dylib|dll)(\.|$)", n)]
        beside = [n for n in wheel.namelist() if ".libs/" in n or ".dylibs/" in n]
        if len(binaries) != 1 or not binaries[0].startswith("fastq/_fastq.") or beside:
            raise ValueError(f"{path.name}: expected one module fastq/_fastq.*, found {binaries + beside}")
        if path.stat().st_size >= LARGEST:
            raise ValueError(f"{path.name}: {path.stat().st_size} bytes; expected less than {LARGEST}")
        return needs(wheel.read(binaries[0]))


def main() -> int:
    failed = 0
    print(f"{'MB':>6}  {'glibc':6}  file: shared libraries")
    for path in map(Path, sys.argv[1:]):
        try:
            if path.suffix == ".whl":
                libraries, glibc = check_wheel(path)
            elif path.name.endswith(".tar.gz"):
                libraries, glibc = [], "-"
            else:
                libraries, glibc = needs(path.read_bytes())
        except ValueError as error:
            print(error, file=sys.stderr)
            failed = 1
            continue
        print(f"{path.stat().st_size / 1e6:6.2f}  {glibc:6}  {path.name}: {', '.join(libraries) or 'none'}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
