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
    ModelFileError,
    SessionError,
    TemplateError,
    TokenizerError,
    UnsupportedModelError,
)
from fastq.evaluate import calibrate, kl_divergence, perplexity
from fastq.files import cpu_info, default_model, doctor, inspect, plan
from fastq.formats import dequantize_array, formats, quantize_array
from fastq.model import Model, Stream
from fastq.quantize import quantize

# `import fastq` takes milliseconds, because nothing here imports `typing`, `dataclasses` or `logging`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from fastq.results import (
        Calibration,
        ChatCompletion,
        Completion,
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
        TensorInfo,
        Timings,
        Usage,
    )

__all__ = [
    "Calibration",
    "Cancelled",
    "ChatCompletion",
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
    "MemoryPlan",
    "Model",
    "ModelFileError",
    "ModelInfo",
    "Perplexity",
    "QuantizeResult",
    "QuantizedTensor",
    "SessionError",
    "Stream",
    "TemplateError",
    "TensorInfo",
    "Timings",
    "TokenizerError",
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
]


if not TYPE_CHECKING:  # which knows the names above, and that there are no others

    def __getattr__(name: str) -> object:
        # The records are dataclasses, which take longer to import than the rest: they come with the first result.
        if name in __all__ or name == "results":
            import fastq.results as results

            return results if name == "results" else getattr(results, name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
