"""Numbers that programs name in arguments, and the few functions that high-level programs call.

The values are those of llama.h and ggml.h.
"""

from __future__ import annotations

from typing import Any

LLAMA_DEFAULT_SEED = 0xFFFFFFFF

LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED = -1
LLAMA_ROPE_SCALING_TYPE_NONE = 0
LLAMA_ROPE_SCALING_TYPE_LINEAR = 1
LLAMA_ROPE_SCALING_TYPE_YARN = 2
LLAMA_ROPE_SCALING_TYPE_LONGROPE = 3

LLAMA_POOLING_TYPE_UNSPECIFIED = -1
LLAMA_POOLING_TYPE_NONE = 0
LLAMA_POOLING_TYPE_MEAN = 1
LLAMA_POOLING_TYPE_CLS = 2
LLAMA_POOLING_TYPE_LAST = 3
LLAMA_POOLING_TYPE_RANK = 4

LLAMA_ATTENTION_TYPE_UNSPECIFIED = -1
LLAMA_ATTENTION_TYPE_CAUSAL = 0
LLAMA_ATTENTION_TYPE_NON_CAUSAL = 1

LLAMA_SPLIT_MODE_NONE = 0
LLAMA_SPLIT_MODE_LAYER = 1
LLAMA_SPLIT_MODE_ROW = 2

GGML_NUMA_STRATEGY_DISABLED = 0
GGML_NUMA_STRATEGY_DISTRIBUTE = 1
GGML_NUMA_STRATEGY_ISOLATE = 2
GGML_NUMA_STRATEGY_NUMACTL = 3
GGML_NUMA_STRATEGY_MIRROR = 4

GGML_TYPE_F32 = 0
GGML_TYPE_F16 = 1
GGML_TYPE_Q4_0 = 2
GGML_TYPE_Q4_1 = 3
GGML_TYPE_Q5_0 = 6
GGML_TYPE_Q5_1 = 7
GGML_TYPE_Q8_0 = 8


def llama_backend_init(*_: Any) -> None:
    """Nothing is to be prepared."""


def llama_backend_free() -> None:
    """Nothing is to be freed."""


def llama_log_set(callback: Any, user_data: Any = None) -> None:
    """Nothing is printed that would have to be silenced; messages go to ``logging.getLogger("fastq")``."""


def llama_supports_gpu_offload() -> bool:
    """False: fastq computes on the processor."""
    return False


def llama_supports_mmap() -> bool:
    """True."""
    return True


def llama_supports_mlock() -> bool:
    """False: ``use_mlock`` is accepted and has no effect."""
    return False
