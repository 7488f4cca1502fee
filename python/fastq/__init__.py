"""Small language models on the processor that is already there.

>>> import fastq
>>> fastq.cpu_info().available_levels[0]
'scalar'
"""

from __future__ import annotations

from fastq._fastq import __version__
from fastq.errors import (
    Cancelled,
    ContextOverflowError,
    FastqError,
    ModelFileError,
    TemplateError,
    TokenizerError,
    UnsupportedModelError,
)
from fastq.files import cpu_info, default_model, inspect, plan
from fastq.formats import dequantize_array, formats, quantize_array
from fastq.model import Model, Stream
from fastq.results import (
    ChatCompletion,
    Completion,
    CpuInfo,
    FileInfo,
    FormatInfo,
    MemoryPlan,
    ModelInfo,
    TensorInfo,
    Timings,
    Usage,
)

__all__ = [
    "Cancelled",
    "ChatCompletion",
    "Completion",
    "ContextOverflowError",
    "CpuInfo",
    "FastqError",
    "FileInfo",
    "FormatInfo",
    "MemoryPlan",
    "Model",
    "ModelFileError",
    "ModelInfo",
    "Stream",
    "TemplateError",
    "TensorInfo",
    "Timings",
    "TokenizerError",
    "UnsupportedModelError",
    "Usage",
    "__version__",
    "cpu_info",
    "default_model",
    "dequantize_array",
    "formats",
    "inspect",
    "plan",
    "quantize_array",
]
