"""Small language models on the processor that is already there.

>>> import fastq
>>> fastq.cpu_info().available_levels[0]
'scalar'
"""

from __future__ import annotations

from fastq import quant
from fastq._fastq import __version__
from fastq.convert import convert
from fastq.errors import (
    Cancelled,
    ContextOverflowError,
    FastqError,
    GrammarError,
    ModelFileError,
    SessionError,
    TemplateError,
    TokenizerError,
    UnsupportedModelError,
)
from fastq.evaluate import calibrate, kl_divergence, perplexity
from fastq.files import cpu_info, default_model, doctor, inspect, plan
from fastq.formats import dequantize_array, formats, quantize_array
from fastq.model import Model
from fastq.quantize import quantize
from fastq.serve import serve
from fastq.stream import ChatStream, Stream

# `import fastq` takes milliseconds, because nothing here imports `typing`, `dataclasses` or `logging`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from fastq.asynchronous import AsyncChatStream, AsyncStream
    from fastq.completion import ChatCompletion, ChatDelta, Completion, Timings, TokenLogprob, ToolCall, Usage
    from fastq.options import ChatOptions, GenerateOptions
    from fastq.results import (
        Calibration,
        ConvertNote,
        ConvertResult,
        CpuInfo,
        Divergence,
        FileInfo,
        Finding,
        FormatInfo,
        MemoryPlan,
        ModelInfo,
        Perplexity,
        QuantizedTensor,
        QuantizeResult,
        RerankResult,
        TensorInfo,
    )
    from fastq.schema import Lark
    from fastq.session import Session

__all__ = [
    "AsyncChatStream",
    "AsyncStream",
    "Calibration",
    "Cancelled",
    "ChatCompletion",
    "ChatDelta",
    "ChatOptions",
    "ChatStream",
    "Completion",
    "ContextOverflowError",
    "ConvertNote",
    "ConvertResult",
    "CpuInfo",
    "Divergence",
    "FastqError",
    "FileInfo",
    "Finding",
    "FormatInfo",
    "GenerateOptions",
    "GrammarError",
    "Lark",
    "MemoryPlan",
    "Model",
    "ModelFileError",
    "ModelInfo",
    "Perplexity",
    "QuantizeResult",
    "QuantizedTensor",
    "RerankResult",
    "Session",
    "SessionError",
    "Stream",
    "TemplateError",
    "TensorInfo",
    "Timings",
    "TokenLogprob",
    "TokenizerError",
    "ToolCall",
    "UnsupportedModelError",
    "Usage",
    "__version__",
    "calibrate",
    "convert",
    "cpu_info",
    "default_model",
    "dequantize_array",
    "doctor",
    "formats",
    "inspect",
    "kl_divergence",
    "perplexity",
    "plan",
    "quant",
    "quantize",
    "quantize_array",
    "serve",
]


if not TYPE_CHECKING:  # which knows the names above, and that there are no others

    def __getattr__(name: str) -> object:
        # The records are dataclasses, which take longer to import than the rest: they come with the first result. So do
        # the modules for asyncio, structured answers and tools.
        if name in LATE:
            from importlib import import_module

            return import_module(f"fastq.{name}")
        module = WHERE.get(name, "results" if name in __all__ else None)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(__getattr__(module), name)

    LATE = ("asynchronous", "completion", "options", "results", "schema", "session", "tools")
    WHERE = {
        "AsyncChatStream": "asynchronous",
        "AsyncStream": "asynchronous",
        "ChatOptions": "options",
        "GenerateOptions": "options",
        "Lark": "schema",
        "Session": "session",
    }


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
