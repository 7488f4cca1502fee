"""What the arguments of :class:`Llama` mean to fastq: settings of a model, nothing, or an error.

An argument that only says how or where to compute is accepted; one that would change answers is done or refused.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import fastq
from fastq.compat.llama_cpp import _constants as c
from fastq.compat.llama_cpp._log import once

if TYPE_CHECKING:
    from fastq.compat.llama_cpp._vocabulary import Vocabulary

MIN_PREFILL_CHUNK = 64
"""Old programs say ``n_batch=8``. Answers do not depend on it, and as few tokens at once are slow."""

GPU = ("n_gpu_layers", "split_mode", "main_gpu", "tensor_split", "offload_kqv", "op_offload")
ACCEPTED = (*GPU, "numa", "use_mlock", "flash_attn", "n_ubatch", "n_threads_batch", "swa_full", "no_perf")
"""They change speed or place only."""

OLD_ROPE_BASE, OLD_ROPE_SCALE = 10000.0, 1.0
"""Defaults of early versions, which wrappers still pass along whatever the file says."""

KV = {c.GGML_TYPE_F32: "f32", c.GGML_TYPE_F16: "f16", c.GGML_TYPE_Q8_0: "q8_0"}
POOLING = {c.LLAMA_POOLING_TYPE_MEAN: "mean", c.LLAMA_POOLING_TYPE_CLS: "cls", c.LLAMA_POOLING_TYPE_LAST: "last"}

DEFAULTS: dict[str, Any] = {
    "n_gpu_layers": 0,
    "split_mode": c.LLAMA_SPLIT_MODE_LAYER,
    "main_gpu": 0,
    "tensor_split": None,
    "vocab_only": False,
    "use_mmap": True,
    "use_mlock": False,
    "kv_overrides": None,
    "seed": c.LLAMA_DEFAULT_SEED,
    "n_ctx": 512,
    "n_batch": 512,
    "n_ubatch": 512,
    "n_threads": None,
    "n_threads_batch": None,
    "rope_scaling_type": c.LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED,
    "pooling_type": c.LLAMA_POOLING_TYPE_UNSPECIFIED,
    "attention_type": c.LLAMA_ATTENTION_TYPE_UNSPECIFIED,
    "rope_freq_base": 0.0,
    "rope_freq_scale": 0.0,
    "yarn_ext_factor": -1.0,
    "yarn_attn_factor": 1.0,
    "yarn_beta_fast": 32.0,
    "yarn_beta_slow": 1.0,
    "yarn_orig_ctx": 0,
    "logits_all": False,
    "embedding": False,
    "offload_kqv": True,
    "flash_attn": False,
    "op_offload": None,
    "swa_full": None,
    "no_perf": False,
    "last_n_tokens_size": 64,
    "lora_base": None,
    "lora_scale": 1.0,
    "lora_path": None,
    "numa": False,
    "chat_format": None,
    "chat_handler": None,
    "draft_model": None,
    "tokenizer": None,
    "type_k": None,
    "type_v": None,
    "spm_infill": False,
    "verbose": True,
}
"""Every argument but the path, with the defaults of the original."""


def completed(given: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments: those that were given, the defaults of the others. Unknown names are told and left out."""
    for name in sorted(given.keys() - DEFAULTS.keys()):
        once(name, f"the argument {name} is not known and has no effect", logging.WARNING)
    arguments = {name: given.get(name, default) for name, default in DEFAULTS.items()}
    changed = [name for name in ACCEPTED if arguments[name] != DEFAULTS[name]]
    if gpu := [name for name in changed if name in GPU]:
        once("gpu", f"{', '.join(gpu)}: there is no GPU support; fastq computes on the processor")
    for name in changed:
        if name not in GPU:
            once(name, f"{name} is accepted and has no effect")
    return arguments


def check(arguments: Mapping[str, Any]) -> None:
    """Refuse what cannot be done, before anything is loaded.

    Raises:
        NotImplementedError: An argument asks for something that would change answers and that fastq does not do.
        ValueError: A value is none of those that the argument has.
    """
    if arguments["lora_path"] or arguments["lora_base"]:
        raise NotImplementedError("lora_path, lora_base: adapters are not supported; merge the adapter into the model")
    if arguments["kv_overrides"]:
        keys = ", ".join(arguments["kv_overrides"])
        raise NotImplementedError(f"kv_overrides: metadata cannot be overridden ({keys}); change it in the file")
    if arguments["spm_infill"]:
        raise NotImplementedError("spm_infill: infilling takes prefix, suffix and middle in this order only")
    if arguments["attention_type"] != c.LLAMA_ATTENTION_TYPE_UNSPECIFIED:
        raise NotImplementedError("attention_type: whether attention is causal follows from the file")
    for name in ("yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow", "yarn_orig_ctx"):
        if arguments[name] not in (DEFAULTS[name], 0):
            raise NotImplementedError(f"{name}: how positions are scaled follows from the file")
    if arguments["rope_scaling_type"] not in (None, c.LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED):
        raise NotImplementedError("rope_scaling_type: how positions are scaled follows from the file")
    pooling = arguments["pooling_type"]
    if pooling == c.LLAMA_POOLING_TYPE_RANK:
        raise NotImplementedError("pooling_type: use Model.rerank of fastq for models that rank")
    if pooling not in (*POOLING, c.LLAMA_POOLING_TYPE_NONE, c.LLAMA_POOLING_TYPE_UNSPECIFIED):
        raise ValueError(f"pooling_type must be one of LLAMA_POOLING_TYPE_*, found {pooling!r}")


def check_positions(arguments: Mapping[str, Any], vocabulary: Vocabulary) -> None:
    """Refuse a scale of positions that differs from that of the file.

    Raises:
        NotImplementedError: It differs, and is not the default of an early version.
    """
    of_file = {
        "rope_freq_base": float(vocabulary.of_architecture("rope.freq_base", OLD_ROPE_BASE)),
        "rope_freq_scale": 1.0 / float(vocabulary.of_architecture("rope.scaling.factor", 1.0) or 1.0),
    }
    old = {"rope_freq_base": OLD_ROPE_BASE, "rope_freq_scale": OLD_ROPE_SCALE}
    for name, value in of_file.items():
        given = float(arguments[name] or 0.0)
        if given in (0.0, value):
            continue
        if given != old[name]:
            raise NotImplementedError(f"{name}={given:g}: the model's own {value:g} cannot be changed")
        message = f"{name}={given:g} is the default of early versions; the model's own {value:g} is used"
        once(name, message, logging.WARNING)


def kv_format(type_k: int | None, type_v: int | None) -> str:
    """The format of the cache of keys and values.

    Raises:
        NotImplementedError: Keys and values are to differ, or the cache has no such format.
    """
    names = {c.GGML_TYPE_F16 if given is None else given for given in (type_k, type_v)}
    if len(names) > 1:
        raise NotImplementedError(f"type_k and type_v must be the same, found {type_k} and {type_v}")
    (number,) = names
    if number not in KV:
        known = ", ".join(f"{number} ({name})" for number, name in KV.items())
        raise NotImplementedError(f"type_k, type_v: the cache stores {known}, found {number}")
    return KV[number]


def load(path: str, arguments: Mapping[str, Any]) -> fastq.Model:
    """The model.

    Raises:
        ValueError: There is no such file, or it cannot be loaded: the original knows no other exception.
        MemoryError: It does not fit.
    """
    if not os.path.exists(path):
        raise ValueError(f"Model path does not exist: {path}")
    context = arguments["n_ctx"] or None
    chunk = max(MIN_PREFILL_CHUNK, arguments["n_batch"] or 0)
    kv: Any = kv_format(arguments["type_k"], arguments["type_v"])

    def model(context: int | None) -> fastq.Model:
        return fastq.Model(
            path,
            context=context,
            threads=arguments["n_threads"] or None,
            mmap=bool(arguments["use_mmap"]),
            prefill_chunk=min(chunk, context) if context else chunk,
            kv=kv,
        )

    try:
        try:
            return model(context)
        except ValueError:
            # Positions that were learned cannot be extended. llama.cpp accepts a longer context nevertheless.
            trained = _trained(path)
            if context is None or context <= trained:
                raise
            once("n_ctx", f"n_ctx={context}: the model has {trained} positions, which is used", logging.WARNING)
            return model(trained)
    except (fastq.FastqError, OSError) as error:
        raise ValueError(f"Failed to load model from file: {path}: {error}") from error


def _trained(path: str) -> int:
    metadata = fastq.inspect(path).metadata
    return int(metadata.get(f"{metadata.get('general.architecture')}.context_length", 0))
