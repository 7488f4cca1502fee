"""The interface of llama-cpp-python, computed by fastq.

A program changes one line, ``from llama_cpp import Llama`` to ``from fastq.compat.llama_cpp import Llama``; one that
says ``llama_cpp.Llama`` imports ``fastq.compat.llama_cpp as llama_cpp``. The modules have the names that they have
there.

What is asked for a GPU is accepted and told once to ``logging.getLogger("fastq")``. What would change answers and
cannot be done raises ``NotImplementedError`` and says so. The low-level functions of llama.cpp (``llama_decode`` and
its kin) are not here.

Example:
    >>> from fastq import default_model
    >>> from fastq.compat.llama_cpp import Llama
    >>> llm = Llama(default_model(), verbose=False)
    >>> llm("The capital of France is", max_tokens=2, temperature=0)["choices"][0]["text"]
    ' Paris.'
"""

from __future__ import annotations

from fastq.compat.llama_cpp._constants import *  # noqa: F403 - as the original does
from fastq.compat.llama_cpp._constants import (
    llama_backend_free,
    llama_backend_init,
    llama_log_set,
    llama_supports_gpu_offload,
    llama_supports_mlock,
    llama_supports_mmap,
)
from fastq.compat.llama_cpp._processors import (
    LogitsProcessor,
    LogitsProcessorList,
    MinTokensLogitsProcessor,
    StoppingCriteria,
    StoppingCriteriaList,
)
from fastq.compat.llama_cpp.llama import Llama, LlamaState
from fastq.compat.llama_cpp.llama_cache import BaseLlamaCache, LlamaCache, LlamaDiskCache, LlamaRAMCache
from fastq.compat.llama_cpp.llama_grammar import LlamaGrammar
from fastq.compat.llama_cpp.llama_tokenizer import BaseLlamaTokenizer, LlamaHFTokenizer, LlamaTokenizer
from fastq.compat.llama_cpp.llama_types import *  # noqa: F403 - as the original does

__version__ = "0.3.36"
"""The version of llama-cpp-python whose interface this is; that of fastq is ``fastq.__version__``."""

__all__ = [
    "BaseLlamaCache",
    "BaseLlamaTokenizer",
    "Llama",
    "LlamaCache",
    "LlamaDiskCache",
    "LlamaGrammar",
    "LlamaHFTokenizer",
    "LlamaRAMCache",
    "LlamaState",
    "LlamaTokenizer",
    "LogitsProcessor",
    "LogitsProcessorList",
    "MinTokensLogitsProcessor",
    "StoppingCriteria",
    "StoppingCriteriaList",
    "llama_backend_free",
    "llama_backend_init",
    "llama_log_set",
    "llama_supports_gpu_offload",
    "llama_supports_mlock",
    "llama_supports_mmap",
]
