"""The compiled part of fastq. Private: use the names in :mod:`fastq`."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, final

import numpy as np
from numpy.typing import NDArray

__version__: str

_Completion = tuple[
    str, list[int], Literal["stop", "length", "cancelled"], int, int, tuple[float, int, float, int, float, int]
]

@final
class Options:
    """Validated types of the generation options; ranges are checked by the engine."""

    def __new__(
        cls,
        max_tokens: int | None,
        temperature: float,
        top_k: int,
        top_p: float,
        min_p: float,
        typical_p: float,
        repeat_penalty: float,
        repeat_last_n: int,
        presence_penalty: float,
        frequency_penalty: float,
        logit_bias: Mapping[int, float] | None,
        seed: int | None,
        stop: str | Sequence[str] | None,
        ignore_eos: bool,
    ) -> Options: ...

@final
class Stream:
    """One generation that advances while it is asked for pieces."""

    def next_piece(self) -> str | None: ...
    def cancel(self) -> None: ...
    def completion(self) -> _Completion: ...

@final
class Engine:
    """A loaded model."""

    def __new__(
        cls,
        path: str,
        *,
        context: int | None = None,
        threads: int | None = None,
        mmap: bool = True,
        seed: int | None = None,
        level: str | None = None,
        prefill_chunk: int,
        kv: str,
        architecture: str | None = None,
    ) -> Engine: ...
    def generate(self, prompts: Sequence[str] | Sequence[Sequence[int]], options: Options) -> list[_Completion]: ...
    def stream(self, prompt: str | Sequence[int], options: Options) -> Stream: ...
    def chat_tokens(self, messages: list[Any]) -> list[int]: ...
    def apply_template(
        self, messages: list[Any], tools: list[Any] | None, add_generation_prompt: bool, variables: dict[str, Any]
    ) -> str: ...
    def tokenize(self, text: str, bos: bool, special: bool) -> list[int]: ...
    def detokenize(self, ids: list[int], special: bool) -> str: ...
    def embed(self, texts: list[str], pooling: str | None, normalize: bool, truncate: bool) -> NDArray[np.float32]: ...
    def logits(self, ids: list[int], all: bool) -> NDArray[np.float32]: ...
    def info(self) -> dict[str, Any]: ...
    def warning(self) -> str | None: ...
    def close(self) -> None: ...

def calibrate(
    engine: Engine,
    texts: list[str],
    datasets: list[str],
    output: str,
    chunks: int | None,
    chunk_size: int,
    chat: bool,
    process_output: bool,
    gram: bool,
    progress: Callable[[str, int, int], None] | None,
) -> tuple[int, int]: ...
def perplexity(
    engine: Engine,
    text: str,
    context: int,
    chunks: int | None,
    progress: Callable[[str, int, int], None] | None,
) -> str: ...
def kl_divergence(
    base: Engine,
    quant: Engine,
    text: str,
    context: int,
    chunks: int | None,
    progress: Callable[[str, int, int], None] | None,
) -> str: ...
def cpu_info() -> dict[str, Any]: ...
def doctor() -> str: ...
def inspect(path: str) -> dict[str, Any]: ...
def plan(
    path: str, context: int | None, mmap: bool, prefill_chunk: int, kv: str, architecture: str | None
) -> dict[str, Any]: ...
def default_model() -> str: ...
def formats() -> list[tuple[str, int, int, int, bool, bool]]: ...
def quantize_array(
    values: NDArray[np.float32], format: str, importance: NDArray[np.float32] | None
) -> NDArray[np.uint8]: ...
def convert(
    directory: str,
    out: str,
    dtype: str,
    pre: str | None,
    name: str | None,
    progress: Callable[[str, int, int], object] | None,
) -> dict[str, Any]: ...
def dequantize_array(data: NDArray[np.uint8], format: str) -> NDArray[np.float32]: ...
def affine(
    values: NDArray[np.float32], size: int, bits: int, signed: bool, symmetric: bool, half_scales: bool
) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int16]]: ...
def quantize_file(
    source: str,
    output: str,
    target: str,
    imatrix: str | None,
    calibration: tuple[str, str | None] | None,
    size: tuple[str, str] | None,
    method: str,
    overrides: list[tuple[str, str]],
    output_type: str | None,
    embedding_type: str | None,
    pure: bool,
    allow_requantize: bool,
    threads: int | None,
    dry_run: bool,
    progress: Callable[[str, int, int], None] | None,
) -> str: ...
def presets() -> list[tuple[str, int, str]]: ...
def report_html(report: str, points: list[tuple[str, int, float]], path: str | None) -> str: ...
def main(arguments: list[str]) -> int: ...
