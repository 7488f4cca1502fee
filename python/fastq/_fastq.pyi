"""The compiled part of fastq. Private: use the names in :mod:`fastq`."""

from collections.abc import Callable, Sequence
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__version__: str

@final
class Options:
    """Validated types of the generation options; ranges are checked by the engine."""

    def __new__(cls, options: dict[str, Any], max_tokens: int | None) -> Options: ...
    @staticmethod
    def names() -> list[str]: ...

@final
class Cancel:
    """Ends calls that were given it, from any thread."""

    def __new__(cls) -> Cancel: ...
    def set(self) -> None: ...

@final
class Stream:
    """One answer that advances while it is asked for pieces."""

    def next_piece(self) -> str | None: ...
    def next_deltas(self) -> list[tuple[Any, str, int, str, str]] | None: ...
    def logprobs(self, first: int) -> list[tuple[int, str, float, list[tuple[int, str, float]]]]: ...
    def take_kept(self) -> Kept | None: ...
    def cancel(self) -> None: ...
    def completion(self) -> dict[str, Any]: ...

@final
class Kept:
    """Computed tokens that outlive an answer."""

    def fork(self) -> Kept: ...
    def __len__(self) -> int: ...

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
        prompt_cache: tuple[str, int] | None = None,
    ) -> Engine: ...
    def generate(
        self,
        prompts: Sequence[str] | Sequence[Sequence[int]],
        options: Options,
        samples: int,
        cancel: Cancel | None,
    ) -> list[dict[str, Any]]: ...
    def stream(self, prompt: str | Sequence[int], options: Options, cancel: Cancel | None) -> Stream: ...
    def chat(
        self,
        messages: list[Any],
        tools: list[Any],
        choice: str,
        variables: dict[str, Any],
        options: Options,
        samples: int,
        cancel: Cancel | None,
    ) -> list[dict[str, Any]]: ...
    def stream_chat(
        self,
        messages: list[Any],
        tools: list[Any],
        choice: str,
        variables: dict[str, Any],
        options: Options,
        cancel: Cancel | None,
        kept: Kept | None,
        keep: bool,
    ) -> Stream: ...
    def save_kept(self, kept: Kept | None, path: str, extra: dict[str, Any]) -> None: ...
    def load_kept(self, path: str) -> tuple[Kept, dict[str, Any]]: ...
    def rerank(self, query: str, documents: list[str]) -> NDArray[np.float32]: ...
    def score(self, ids: list[int]) -> NDArray[np.float32]: ...
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

def serve(
    engine: Engine,
    host: str,
    port: int,
    api_key: str | None,
    origins: list[str],
    alias: str | None,
    parallel: int,
    queue: int,
    grace: float,
    verbose: bool,
    ready: Callable[[str], object] | None,
) -> None: ...
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
    own_text: int | None,
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
