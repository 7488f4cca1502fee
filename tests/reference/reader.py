"""A minimal GGUF reader for files that are known to be well formed (the engine's own reader is the careful one)."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reference.formats import BY_ID, Codec

STRING, ARRAY = 8, 9
SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: tuple[int, ...]
    """As NumPy has it: the contiguous dimension last, so matrices are `(rows, k)`."""
    codec: Codec
    data: npt.NDArray[np.uint8]

    def rows(self, which: npt.NDArray[np.int64] | slice | None = None) -> npt.NDArray[np.float32]:
        """Dequantized rows `(n, k)`; a tensor of one dimension is one row."""
        k = self.shape[-1]
        row_bytes = k // self.codec.block * self.codec.size
        blocks = self.data.reshape(-1, row_bytes)[slice(None) if which is None else which].reshape(-1, self.codec.size)
        return self.codec.decode(blocks).reshape(-1, k)


class File:
    """Metadata and tensors of one file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._bytes = np.memmap(self.path, dtype=np.uint8, mode="r")
        self._at = 0
        magic, version, tensors, pairs = self._take("<4sIQQ")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"{path}: not a GGUF file of version 2 or 3")
        self.metadata: dict[str, Any] = {}
        for _ in range(pairs):
            key = self._string().decode()
            self.metadata[key] = self._value(self._take("<I")[0])
        entries = [self._entry() for _ in range(tensors)]
        alignment = int(self.metadata.get("general.alignment", 32))
        start = -(-self._at // alignment) * alignment
        self.tensors: dict[str, Tensor] = {}
        for name, dims, kind, offset in entries:
            codec = BY_ID[kind]
            size = int(np.prod(dims)) // codec.block * codec.size
            at = start + offset
            self.tensors[name] = Tensor(name, tuple(reversed(dims)), codec, self._bytes[at : at + size])

    def _take(self, layout: str) -> tuple[Any, ...]:
        size = struct.calcsize(layout)
        raw = self._bytes[self._at : self._at + size].tobytes()
        self._at += size
        return struct.unpack(layout, raw)

    def _string(self) -> bytes:
        (length,) = self._take("<Q")
        raw = self._bytes[self._at : self._at + length].tobytes()
        self._at += length
        return raw

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string().decode("utf-8", "replace")
        if kind != ARRAY:
            return self._take(SCALARS[kind])[0]
        item, count = self._take("<IQ")
        if item == STRING:
            return [self._value(STRING) for _ in range(count)]
        layout = SCALARS[item]
        return list(self._take(f"<{count}{layout[1]}"))

    def _entry(self) -> tuple[str, list[int], int, int]:
        name = self._string().decode()
        (dimensions,) = self._take("<I")
        dims = list(self._take(f"<{dimensions}Q"))
        kind, offset = self._take("<IQ")
        return name, dims, kind, offset
